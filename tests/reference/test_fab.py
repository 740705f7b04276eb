"""FAB-T against the authors' code: github.com/fra31/auto-attack on sys.path, as `autoattack`. It is not on PyPI."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from task import Task, authors_code_is_here

from robustcli.attacks import FAB, FABT

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not authors_code_is_here(), reason="the authors' autoattack is not importable"),
]
NORMS = {"linf": ("Linf", 0.1), "l2": ("L2", 1.0), "l1": ("L1", 8.0)}
ITERS = 15


def authors(task: Task, norm: str, targets: int = 9) -> Any:
    from autoattack.fab_pt import FABAttack_PT  # type: ignore[import-not-found]

    name, eps = NORMS[norm]
    return FABAttack_PT(task.model, norm=name, n_iter=ITERS, eps=eps, targeted=True, n_target_classes=targets)


@pytest.mark.parametrize("norm", NORMS)
def test_fab_finds_the_distances_of_the_authors_code(single: Task, norm: str) -> None:
    """Class by class their iterates and ours are the same but for rounding."""
    task, attack = single.right().first(24), FAB(iters=ITERS, targets=3, norm=norm)
    theirs = torch.full((len(task.x),), torch.inf)
    run = authors(task, norm)
    for rank in range(3):
        run.target_class = rank + 2
        theirs = torch.minimum(
            theirs, task.distances(attack.norm, run.attack_single_run(task.x, task.y, is_targeted=True))
        )
    ours = task.distances(attack.norm, task.perturb(attack))
    assert float(ours.median()) <= 1.001 * float(theirs.median())
    assert int(((ours / theirs - 1).abs() > 0.01).sum()) <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_fab_t_leaves_the_samples_standing_that_the_authors_code_leaves(single: Task, norm: str) -> None:
    task = single.right().first(24)
    ours = task.perturb(FABT(NORMS[norm][1], iters=ITERS, targets=3, norm=norm))
    assert task.differing(ours, authors(task, norm, targets=3).perturb(task.x, task.y)) <= 1
