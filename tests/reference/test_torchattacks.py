"""Against torchattacks 3.5, in float64: its tensors are ours, but for what the docstrings say."""

from __future__ import annotations

from importlib.util import find_spec

import peers
import pytest
import torch
from case import Case

from robustcli.attacks import FGSM, MIFGSM, PGD, DeepFool, Square, deepfool
from robustcli.noise import Noise

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(find_spec("torchattacks") is None, reason="torchattacks is not installed: run `make peers`"),
]


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.3])
def test_fgsm_is_its_fgsm(double: Case, eps: float) -> None:
    theirs = peers.torchattacks(double.model, "FGSM", eps=eps)(double.x, double.y)
    ours = double.perturb(FGSM(eps=eps))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    assert double.differing(ours, theirs) == 0


def test_pgd_is_its_pgd(double: Case) -> None:
    ours = double.perturb(PGD(eps=0.1, steps=10, step_size=0.02, random_start=False, early_stop=False))
    theirs = peers.torchattacks(double.model, "PGD", eps=0.1, alpha=0.02, steps=10, random_start=False)
    x_adv = theirs(double.x, double.y)
    torch.testing.assert_close(ours, x_adv, atol=1e-9, rtol=0)
    assert double.differing(ours, x_adv) == 0


@pytest.mark.parametrize("decay", [1.0, 0.4])
def test_mifgsm_is_its_mifgsm(double: Case, decay: float) -> None:
    theirs = peers.torchattacks(double.model, "MIFGSM", eps=0.1, alpha=0.02, steps=10, decay=decay)
    x_adv = theirs(double.x, double.y)
    ours = double.perturb(MIFGSM(eps=0.1, steps=10, step_size=0.02, decay=decay, early_stop=False))
    torch.testing.assert_close(ours, x_adv, atol=1e-9, rtol=0)
    assert double.differing(ours, x_adv) == 0


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 1.5)])
def test_square_breaks_as_many_as_its_square(single: Case, norm: str, eps: float) -> None:
    """Its code is AutoAttack's. Both draw at random: the mean of three seeds, at equal queries."""
    case = Case(single.model, single.x[:60], single.y[:60])
    ours, theirs = [], []
    for seed in range(3):
        run = peers.torchattacks(case.model, "Square", norm=norm, eps=eps, n_queries=200, seed=seed, loss="margin")
        theirs.append(int(case.standing(run(case.x, case.y)).sum()))
        attack = Square(eps=eps, queries=200, norm=norm)
        x_adv = attack.perturb(case.model, case.x, case.y, Noise(seed, torch.arange(len(case.x))))
        ours.append(int(case.standing(x_adv).sum()))
    assert sum(ours) <= sum(theirs) + 3 * 0.02 * len(case.x)


def test_pgd_l2_is_its_pgdl2(double: Case) -> None:
    """Without the 1e-10 that it adds to the length of a gradient, which shortens the steps of a saturated sample."""
    ours = double.perturb(PGD(eps=1.5, steps=10, step_size=0.3, norm="l2", random_start=False, early_stop=False))
    theirs = peers.torchattacks(
        double.model, "PGDL2", eps=1.5, alpha=0.3, steps=10, random_start=False, eps_for_division=0.0
    )
    x_adv = theirs(double.x, double.y)
    torch.testing.assert_close(ours, x_adv, atol=1e-9, rtol=0)
    assert double.differing(ours, x_adv) == 0


def test_one_clipped_step_of_deepfool_is_the_same(double: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchattacks aims at the boundary itself; so do we here."""
    monkeypatch.setattr(deepfool, "BEYOND", 0.0)
    case = double.right()
    ours = case.perturb(DeepFool(iters=1, box="clip"))
    theirs = peers.torchattacks(case.model, "DeepFool", steps=1)(case.x, case.y)
    torch.testing.assert_close(ours, theirs, atol=1.1e-5, rtol=0)
    assert case.differing(ours, theirs) == 0


def test_deepfool_without_a_box_is_the_same(double: Case) -> None:
    """torchattacks clips; on digits squeezed into a narrow band of grey there is nothing to clip, and it is `box=none`.

    A digit that it has broken it leaves alone, as we do; its later steps start where it is, ours add up: the same.
    """
    case = double.textured().grey().right()
    ours = case.perturb(DeepFool(iters=3, box="none"))
    theirs = peers.torchattacks(case.model, "DeepFool", steps=3)(case.x, case.y)
    assert float(theirs.min()) > 0
    assert float(theirs.max()) < 1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert case.differing(ours, theirs) <= 1


def test_clipped_deepfool_of_torchattacks_stalls(double: Case) -> None:
    """Its steps start from the clipped image and aim at the boundary itself; ours, as foolbox's, add up unclipped.

    What the box cut off is lost there, so it creeps up on the boundary and after 20 iterations most digits still
    stand, where ours are all broken. Both have come to about the same distance by then.
    """
    case = double.right()
    case = Case(case.model, case.x[:30], case.y[:30])
    attack = DeepFool(iters=20, box="clip")
    ours = case.perturb(attack)
    theirs = peers.torchattacks(case.model, "DeepFool", steps=20)(case.x, case.y)
    assert int(case.standing(ours).sum()) <= 1
    assert int(case.standing(theirs).sum()) > len(case.x) // 2
    ratio = attack.norm.distance(ours, case.x) / attack.norm.distance(theirs, case.x)
    assert 0.98 < float(ratio.median()) < 1.02
