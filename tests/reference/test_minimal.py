"""FMN and Carlini-Wagner against foolbox 3.3 in float64 and ART 1.20 in float32."""

from __future__ import annotations

from importlib.util import find_spec

import peers
import pytest
import torch
from task import Task

from robustcli.attacks import FMN, CarliniWagner
from robustcli.attacks.norms import L2

with_foolbox = pytest.mark.skipif(find_spec("foolbox") is None, reason="foolbox is not installed: run `make peers`")
with_art = pytest.mark.skipif(find_spec("art") is None, reason="ART is not installed: run `make peers`")
pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

FMN_OF = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack"}


@with_foolbox
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_fmn_is_as_close_as_its_fmn(double: Task, norm: str) -> None:
    """Ours sets out gamma farther and looks at the last iterate too: other iterates, the same distances."""
    task, attack = double.right().first(16), FMN(iters=50, norm=norm)
    ours = task.distances(attack.norm, task.perturb(attack))
    theirs = task.distances(attack.norm, peers.foolbox(task.model, FMN_OF[norm], steps=50)(task.x, task.y))
    assert bool(ours.isfinite().all())
    assert float((ours / theirs).median()) < 1.01
    assert float((ours / theirs).max()) < 1.1


@with_foolbox
def test_fmn_l2_is_closer_than_its_fmn(double: Task) -> None:
    """foolbox's projection onto the L2 ball divides a norm by itself and so projects nothing."""
    task, attack = double.right().first(16), FMN(iters=50, norm="l2")
    ours = task.distances(attack.norm, task.perturb(attack))
    theirs = task.distances(attack.norm, peers.foolbox(task.model, FMN_OF["l2"], steps=50)(task.x, task.y))
    assert bool(ours.isfinite().all())
    assert float((ours / theirs).median()) < 0.95
    assert float((ours / theirs).max()) < 1.01


@with_foolbox
def test_carlini_wagner_is_its_carlini_wagner(double: Task) -> None:
    """Step for step, with consts that float32, to which foolbox rounds them, holds exactly."""
    task = double.right().first(16)
    attack = CarliniWagner(steps=40, binary_search_steps=3, lr=0.1, initial_const=0.125, abort_early=False)
    options = {"steps": 40, "binary_search_steps": 3, "stepsize": 0.1, "initial_const": 0.125, "abort_early": False}
    ours, theirs = (
        task.perturb(attack),
        peers.foolbox(task.model, "L2CarliniWagnerAttack", **options)(task.x, task.y),
    )
    found = ~task.standing(ours)
    assert int(found.sum()) > len(task.x) // 2
    torch.testing.assert_close(ours[found], theirs[found], atol=1e-12, rtol=0)


@with_art
@pytest.mark.filterwarnings("ignore")
def test_carlini_wagner_is_as_close_as_arts(single: Task) -> None:
    """ART optimises by steepest descent with a line search, not with Adam."""
    task = single.right().first(6)
    attack = CarliniWagner(steps=200, binary_search_steps=5, lr=0.05, initial_const=0.1)
    run = peers.art(
        task.model,
        "CarliniL2Method",
        (1, 28, 28),
        binary_search_steps=5,
        max_iter=20,
        learning_rate=0.05,
        initial_const=0.1,
        batch_size=6,
        verbose=False,
    )
    ours, theirs = (task.distances(L2(), found) for found in (task.perturb(attack), run(task.x, task.y)))
    assert bool(ours.isfinite().all())
    assert float((ours / theirs).max()) < 1.05
