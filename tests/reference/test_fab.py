"""FAB-T against the authors' code: github.com/fra31/auto-attack on sys.path, as `autoattack`. It is not on PyPI."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from case import Case, authors_code_is_here
from torch import Tensor

from robustcli.attacks import FAB, FABT

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not authors_code_is_here(), reason="the authors' autoattack is not importable"),
]
NORMS = {"linf": ("Linf", 0.1), "l2": ("L2", 1.0), "l1": ("L1", 8.0)}
ITERS = 15


def authors(case: Case, norm: str, targets: int = 9) -> Any:
    from autoattack.fab_pt import FABAttack_PT  # type: ignore[import-not-found]

    name, eps = NORMS[norm]
    return FABAttack_PT(case.model, norm=name, n_iter=ITERS, eps=eps, targeted=True, n_target_classes=targets)


def few(case: Case) -> Case:
    case = case.right()
    return Case(case.model, case.x[:24], case.y[:24])


@pytest.mark.parametrize("norm", NORMS)
def test_fab_finds_the_distances_of_the_authors_code(single: Case, norm: str) -> None:
    """Class by class their iterates and ours are the same but for rounding."""
    case, attack = few(single), FAB(iters=ITERS, targets=3, norm=norm)
    theirs = torch.full((len(case.x),), torch.inf)
    run = authors(case, norm)
    for rank in range(3):
        run.target_class = rank + 2
        theirs = torch.minimum(theirs, distances(case, attack, run.attack_single_run(case.x, case.y, is_targeted=True)))
    ours = distances(case, attack, case.perturb(attack))
    assert float(ours.median()) <= 1.001 * float(theirs.median())
    assert int(((ours / theirs - 1).abs() > 0.01).sum()) <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_fab_t_leaves_the_samples_standing_that_the_authors_code_leaves(single: Case, norm: str) -> None:
    case = few(single)
    ours = case.perturb(FABT(NORMS[norm][1], iters=ITERS, targets=3, norm=norm))
    assert case.differing(ours, authors(case, norm, targets=3).perturb(case.x, case.y)) <= 1


def distances(case: Case, attack: FAB, x_adv: Tensor) -> Tensor:
    return torch.where(case.standing(x_adv), torch.inf, attack.norm.distance(x_adv, case.x))
