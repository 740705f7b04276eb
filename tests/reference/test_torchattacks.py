"""Against torchattacks 3.5, in float64: its tensors are ours, but for what the docstrings say."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import peers
import pytest
import torch
from task import Task

from robustcli.attacks import DeepFool, Square, deepfool, parse_attack
from robustcli.noise import Noise

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(find_spec("torchattacks") is None, reason="torchattacks is not installed: run `make peers`"),
]


PGD_LINF = {"eps": 0.1, "alpha": 0.02, "steps": 10}
PGD_L2 = {"eps": 1.5, "alpha": 0.3, "steps": 10, "random_start": False, "eps_for_division": 0.0}


@pytest.mark.parametrize(
    ("spec", "attack", "options"),
    [
        *((f"fgsm:eps={eps}", "FGSM", {"eps": eps}) for eps in (0.05, 0.1, 0.3)),
        ("pgd:eps=0.1,steps=10,step_size=0.02,random_start=false", "PGD", PGD_LINF | {"random_start": False}),
        ("pgd:eps=1.5,steps=10,step_size=0.3,norm=l2,random_start=false", "PGDL2", PGD_L2),
        ("mifgsm:eps=0.1,steps=10,step_size=0.02", "MIFGSM", PGD_LINF | {"decay": 1.0}),
        ("mifgsm:eps=0.1,steps=10,step_size=0.02,decay=0.4", "MIFGSM", PGD_LINF | {"decay": 0.4}),
    ],
)
def test_images_are_those_of_its_attack(double: Task, spec: str, attack: str, options: dict[str, Any]) -> None:
    """Without the 1e-10 that its PGDL2 adds to the length of a gradient, and so shortens a saturated sample's steps."""
    ours = double.perturb(parse_attack(spec, {"early_stop": False}))
    theirs = peers.torchattacks(double.model, attack, **options)(double.x, double.y)
    double.assert_same(ours, theirs, 1e-12 if spec.startswith("fgsm") else 1e-9)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 1.5)])
def test_square_breaks_as_many_as_its_square(single: Task, norm: str, eps: float) -> None:
    """Its code is AutoAttack's. Both draw at random: the mean of three seeds, at equal queries."""
    task = single.first(60)
    ours, theirs = [], []
    for seed in range(3):
        run = peers.torchattacks(task.model, "Square", norm=norm, eps=eps, n_queries=200, seed=seed, loss="margin")
        theirs.append(int(task.standing(run(task.x, task.y)).sum()))
        attack = Square(eps=eps, queries=200, norm=norm)
        x_adv = attack.perturb(task.model, task.x, task.y, Noise(seed, torch.arange(len(task.x))))
        ours.append(int(task.standing(x_adv).sum()))
    assert sum(ours) <= sum(theirs) + 3 * 0.02 * len(task.x)


def test_one_clipped_step_of_deepfool_is_the_same(double: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchattacks aims at the boundary itself; so do we here."""
    monkeypatch.setattr(deepfool, "BEYOND", 0.0)
    task = double.right()
    ours = task.perturb(DeepFool(iters=1, box="clip"))
    theirs = peers.torchattacks(task.model, "DeepFool", steps=1)(task.x, task.y)
    task.assert_same(ours, theirs, 1.1e-5)


def test_deepfool_without_a_box_is_the_same(double: Task) -> None:
    """torchattacks clips; on digits squeezed into a narrow band of grey there is nothing to clip, and it is `box=none`.

    A digit that it has broken it leaves alone, as we do; its later steps start where it is, ours add up: the same.
    """
    task = double.textured().grey().right()
    ours = task.perturb(DeepFool(iters=3, box="none"))
    theirs = peers.torchattacks(task.model, "DeepFool", steps=3)(task.x, task.y)
    assert float(theirs.min()) > 0
    assert float(theirs.max()) < 1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert task.differing(ours, theirs) <= 1


def test_clipped_deepfool_of_torchattacks_stalls(double: Task) -> None:
    """Its steps start from the clipped image and aim at the boundary itself; ours, as foolbox's, add up unclipped.

    What the box cut off is lost there, so it creeps up on the boundary and after 20 iterations most digits still
    stand, where ours are all broken. Both have come to about the same distance by then.
    """
    task = double.right().first(30)
    attack = DeepFool(iters=20, box="clip")
    ours = task.perturb(attack)
    theirs = peers.torchattacks(task.model, "DeepFool", steps=20)(task.x, task.y)
    assert int(task.standing(ours).sum()) <= 1
    assert int(task.standing(theirs).sum()) > len(task.x) // 2
    ratio = attack.norm.distance(ours, task.x) / attack.norm.distance(theirs, task.x)
    assert 0.98 < float(ratio.median()) < 1.02
