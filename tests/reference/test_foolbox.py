"""Against foolbox 3.3, in float64: its tensors are ours, but for what the docstrings say."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import peers
import pytest
import torch
from task import Task

from robustcli.attacks import FGSM, DeepFool, HopSkipJump, parse_attack

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(find_spec("foolbox") is None, reason="foolbox is not installed: run `make peers`"),
    pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning"),
]

ATTACK = {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}
PGD_LINF = "pgd:eps=0.1,steps=10,step_size=0.02,random_start=false"


@pytest.mark.parametrize(
    ("spec", "attack", "options"),
    [
        *((f"fgsm:eps={eps}", "LinfFastGradientAttack", {"eps": eps}) for eps in (0.05, 0.1, 0.3)),
        *((f"fgsm:eps={eps},norm=l2", "L2FastGradientAttack", {"eps": eps}) for eps in (0.5, 2.0)),
        (PGD_LINF, "LinfPGD", {"eps": 0.1, "steps": 10, "abs_stepsize": 0.02, "random_start": False}),
        (
            "pgd:eps=1.5,steps=10,step_size=0.3,norm=l2,random_start=false",
            "L2PGD",
            {"eps": 1.5, "steps": 10, "abs_stepsize": 0.3, "random_start": False},
        ),
    ],
)
def test_images_are_those_of_its_attack(double: Task, spec: str, attack: str, options: dict[str, Any]) -> None:
    ours = double.perturb(parse_attack(spec, {"early_stop": False}))
    theirs = peers.foolbox(double.model, attack, **options)(double.x, double.y)
    double.assert_same(ours, theirs, 1e-12 if spec.startswith("fgsm") else 1e-9)


def test_fgsm_l2_goes_farther_on_a_saturated_network(double: Task) -> None:
    """A gradient shorter than 1e-12 foolbox divides by 1e-12: its step is shorter than eps, ours is not."""
    sure = Task(torch.nn.Sequential(double.model, Times(20.0)).eval(), double.x, double.y)
    attack = FGSM(eps=1.0, norm="l2")
    theirs = attack.norm.distance(peers.foolbox(sure.model, "L2FastGradientAttack", 1.0)(sure.x, sure.y), sure.x)
    ours = attack.norm.distance(sure.perturb(attack), sure.x)
    assert ((theirs < 1e-3) & (ours > 0.1)).any()
    assert float((theirs - ours).max()) < 1e-9
    assert ((theirs - ours).abs() < 1e-9).any()


class Times(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * self.factor


def test_stopping_early_costs_no_success(double: Task) -> None:
    """foolbox goes on with broken samples; ours stops there, so it breaks those that foolbox breaks, and maybe more."""
    ours = double.perturb(parse_attack(PGD_LINF))
    theirs = peers.foolbox(double.model, "LinfPGD", 0.1, steps=10, abs_stepsize=0.02, random_start=False)
    assert not (double.standing(ours) & ~double.standing(theirs(double.x, double.y))).any()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_clipped_is_its_deepfool(double: Task, norm: str) -> None:
    """`box=clip` is foolbox's DeepFool, with the same 1e-4 beyond the boundary.

    What is left (1e-8) is the 1e-8 that foolbox adds to the gradient's norm. The digits are textured, because that
    suffices to break ties of max pooling on even backgrounds otherwise, and the gradient jumps there.
    """
    task = double.textured().right()
    theirs = peers.foolbox(task.model, ATTACK[norm], steps=4)(task.x, task.y)
    ours = task.perturb(DeepFool(iters=4, box="clip", norm=norm))
    task.assert_same(ours, theirs, 1e-7)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool_finds_the_same_distances(double: Task, norm: str) -> None:
    """At 25 iterations both have broken all, at the same distances, ties of max pooling included."""
    task = double.right().first(40)
    attack = DeepFool(iters=25, box="clip", norm=norm)
    ours = task.perturb(attack)
    theirs = peers.foolbox(task.model, ATTACK[norm], steps=25)(task.x, task.y)
    assert task.differing(ours, theirs) <= 1
    ratio = attack.norm.distance(ours, task.x) / attack.norm.distance(theirs, task.x)
    assert 0.99 < float(ratio.median()) < 1.001
    assert 0.9 < float(ratio.min()) <= float(ratio.max()) < 1.01


def test_deepfool_inside_the_box_is_sooner_and_farther(double: Task) -> None:
    """`project`, our default, breaks all in the 5 iterations that leave foolbox more than half.

    It pays in distance, about a tenth on this network: a step that crosses the linearised boundary inside the box at
    once goes farther, where the network curves, than many clipped ones that linearise anew. foolbox's images are by
    then close to a boundary, on the wrong side of it.
    """
    task = double.right()
    attack = DeepFool(iters=5)
    ours = task.perturb(attack)
    theirs = peers.foolbox(task.model, "L2DeepFoolAttack", steps=5)(task.x, task.y)
    assert int(task.standing(ours).sum()) == 0
    assert int(task.standing(theirs).sum()) > len(task.x) // 2
    ratio = attack.norm.distance(ours, task.x) / attack.norm.distance(theirs, task.x)
    assert 1 < float(ratio.median()) < 1.2


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_hopskipjump_comes_as_close_at_equal_queries(single: Task, norm: str) -> None:
    task = single.right().first(16)
    torch.manual_seed(0)
    attack = HopSkipJump(iters=8, norm=norm)
    run = peers.foolbox(task.model, "HopSkipJumpAttack", steps=8, constraint=norm)
    x_adv, queries = task.count_queries(lambda: task.perturb(attack))
    theirs, their_queries = task.count_queries(lambda: run(task.x, task.y))
    assert queries <= 1.02 * their_queries
    assert not task.standing(x_adv).any()
    ours, its = (attack.norm.distance(images, task.x).median() for images in (x_adv, theirs))
    assert 0.5 * its < ours < 1.1 * its
