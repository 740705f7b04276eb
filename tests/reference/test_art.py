"""Against ART 1.20, in float64: in float32 a sign of a small gradient turns over with the processor."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import peers
import pytest
import torch
from task import Task
from torch import Tensor

import robustcli.attacks.deepfool as deepfool_module
from robustcli.attacks import FGSM, PGD, DeepFool, HopSkipJump

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(find_spec("art") is None, reason="ART is not installed: run `make peers`"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

SHAPE = (1, 28, 28)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("linf", 0.1), ("linf", 0.3), ("l2", 2.0)])
def test_fgsm_is_its_fast_gradient_method(double: Task, norm: str, eps: float) -> None:
    order = 2 if norm == "l2" else float("inf")
    run = peers.art(double.model, "FastGradientMethod", SHAPE, norm=order, eps=eps, batch_size=100)
    double.assert_same(double.perturb(FGSM(eps=eps, norm=norm)), run(double.x, double.y), 1e-12)


def pgd(task: Task, norm: float, eps: float, step_size: float) -> Tensor:
    """Ten steps of ART's PGD."""
    run = peers.art(
        task.model,
        "ProjectedGradientDescent",
        SHAPE,
        norm=norm,
        eps=eps,
        eps_step=step_size,
        max_iter=10,
        num_random_init=0,
        batch_size=100,
        verbose=False,
    )
    return run(task.x, task.y)


def test_pgd_is_its_projected_gradient_descent(double: Task) -> None:
    ours = double.perturb(PGD(eps=0.1, steps=10, step_size=0.02, random_start=False, early_stop=False))
    double.assert_same(ours, pgd(double, float("inf"), 0.1, 0.02), 1e-12)


def test_pgd_l2_is_its_projected_gradient_descent_away_from_the_box(double: Task) -> None:
    task = double.textured().grey()
    ours = task.perturb(PGD(eps=0.15, steps=10, step_size=0.04, norm="l2", random_start=False, early_stop=False))
    task.assert_same(ours, pgd(task, 2, 0.15, 0.04), 1e-12)


def test_pgd_l2_meets_the_box_in_another_order(double: Task) -> None:
    """ART clips a step to [0, 1] first and to the ball then; we, as foolbox and torchattacks, the other way round.

    Both are in ball and box. Ours gives a part of its length away to the clipping, ART's does not.
    """
    attack = PGD(eps=1.5, steps=10, step_size=0.3, norm="l2", random_start=False, early_stop=False)
    ours, theirs = double.perturb(attack), pgd(double, 2, 1.5, 0.3)
    assert double.differing(ours, theirs) <= 3
    assert float((ours - theirs).abs().max()) > 1e-3
    length = attack.norm.distance(ours, double.x) / attack.norm.distance(theirs, double.x)
    assert 0.9 < float(length.median()) <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("iters", [1, 2])
def test_deepfool_without_a_box_has_the_same_iterates(
    double: Task, iters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ART stretches by 1 + overshoot once, after the last step; without overshoot its steps are ours.

    It aims at the boundary itself, where rounding says who wins: so do we here, and flags are not compared. It adds
    1e-7 to the length of a gradient.
    """
    monkeypatch.setattr(deepfool_module, "BEYOND", 0.0)
    task = double.right()
    ours = task.perturb(DeepFool(iters=iters, box="none", overshoot=0))
    theirs = deepfool(task, iters, overshoot=0.0)
    torch.testing.assert_close(ours, theirs, atol=2e-7, rtol=0)


@pytest.mark.filterwarnings("ignore")
def test_deepfool_without_a_box_finds_the_same_distances(double: Task) -> None:
    """With overshoot ours is up to 2 % closer: as the authors' code, it stretches each step, and stops sooner."""
    task = double.right()
    attack = DeepFool(iters=10, box="none")
    ours, theirs = task.perturb(attack), deepfool(task, 10, overshoot=0.02)
    assert task.differing(ours, theirs) <= 1
    ratio = attack.norm.distance(ours, task.x) / attack.norm.distance(theirs, task.x)
    assert 0.97 < float(ratio.min()) <= float(ratio.median()) < 1.001


def deepfool(task: Task, iters: int, overshoot: float) -> Tensor:
    """ART's DeepFool on pixels without bounds; it takes the predicted class for the true one."""
    run = peers.art(
        task.model, "DeepFool", SHAPE, clip=False, max_iter=iters, epsilon=overshoot, batch_size=100, verbose=False
    )
    return run(task.x, task.y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", float("inf"))])
def test_hopskipjump_comes_as_close_at_equal_queries(single: Task, norm: str, order: float) -> None:
    """ART takes its directions from numpy's global generator, and clips, in Linf, before it steps.

    In float32, for ART's takes minutes in float64.
    """
    task = single.right().first(16)
    np.random.seed(0)  # noqa: NPY002
    attack = HopSkipJump(iters=8, norm=norm)
    run = peers.art(
        task.model, "HopSkipJump", SHAPE, norm=order, max_iter=8, init_eval=100, batch_size=64, verbose=False
    )
    x_adv, queries = task.count_queries(lambda: task.perturb(attack))
    theirs, their_queries = task.count_queries(lambda: run(task.x, task.y))
    assert queries <= 1.1 * their_queries
    assert not task.standing(x_adv).any()
    ours, its = (attack.norm.distance(images, task.x).median() for images in (x_adv, theirs))
    assert 0.5 * its < ours < 1.1 * its
