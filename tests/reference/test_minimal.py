"""FMN and Carlini-Wagner against foolbox 3.3 in float64 and ART 1.20 in float32."""

from __future__ import annotations

from importlib.util import find_spec

import peers
import pytest
import torch
from case import Case
from torch import Tensor

from robustcli.attacks import FMN, CarliniWagner
from robustcli.attacks.norms import L2, Norm

with_foolbox = pytest.mark.skipif(find_spec("foolbox") is None, reason="foolbox is not installed: run `make peers`")
with_art = pytest.mark.skipif(find_spec("art") is None, reason="ART is not installed: run `make peers`")
pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

FMN_OF = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack"}


def few(case: Case, n: int = 16) -> Case:
    """The first digits that the network gets right."""
    case = case.right()
    return Case(case.model, case.x[:n], case.y[:n])


def distances(case: Case, norm: Norm, x_adv: Tensor) -> Tensor:
    """(n,) infinite where a digit still stands."""
    return torch.where(case.standing(x_adv), torch.inf, norm.distance(x_adv, case.x))


@with_foolbox
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_fmn_is_as_close_as_its_fmn(double: Case, norm: str) -> None:
    """Ours sets out gamma farther and looks at the last iterate too: other iterates, the same distances."""
    case, attack = few(double), FMN(iters=50, norm=norm)
    ours = distances(case, attack.norm, case.perturb(attack))
    theirs = distances(case, attack.norm, peers.foolbox(case.model, FMN_OF[norm], steps=50)(case.x, case.y))
    assert bool(ours.isfinite().all())
    assert float((ours / theirs).median()) < 1.01
    assert float((ours / theirs).max()) < 1.1


@with_foolbox
def test_fmn_l2_is_closer_than_its_fmn(double: Case) -> None:
    """foolbox's projection onto the L2 ball divides a norm by itself and so projects nothing."""
    case, attack = few(double), FMN(iters=50, norm="l2")
    ours = distances(case, attack.norm, case.perturb(attack))
    theirs = distances(case, attack.norm, peers.foolbox(case.model, FMN_OF["l2"], steps=50)(case.x, case.y))
    assert bool(ours.isfinite().all())
    assert float((ours / theirs).median()) < 0.95
    assert float((ours / theirs).max()) < 1.01


@with_foolbox
def test_carlini_wagner_is_its_carlini_wagner(double: Case) -> None:
    """Step for step, with consts that float32, to which foolbox rounds them, holds exactly."""
    case = few(double)
    attack = CarliniWagner(steps=40, binary_search_steps=3, lr=0.1, initial_const=0.125, abort_early=False)
    options = {"steps": 40, "binary_search_steps": 3, "stepsize": 0.1, "initial_const": 0.125, "abort_early": False}
    ours, theirs = case.perturb(attack), peers.foolbox(case.model, "L2CarliniWagnerAttack", **options)(case.x, case.y)
    found = ~case.standing(ours)
    assert int(found.sum()) > len(case.x) // 2
    torch.testing.assert_close(ours[found], theirs[found], atol=1e-12, rtol=0)


@with_art
@pytest.mark.filterwarnings("ignore")
def test_carlini_wagner_is_as_close_as_arts(single: Case) -> None:
    """ART optimises by steepest descent with a line search, not with Adam."""
    case = few(single, 6)
    attack = CarliniWagner(steps=200, binary_search_steps=5, lr=0.05, initial_const=0.1)
    run = peers.art(
        case.model,
        "CarliniL2Method",
        (1, 28, 28),
        binary_search_steps=5,
        max_iter=20,
        learning_rate=0.05,
        initial_const=0.1,
        batch_size=6,
        verbose=False,
    )
    ours, theirs = (distances(case, L2(), found) for found in (case.perturb(attack), run(case.x, case.y)))
    assert bool(ours.isfinite().all())
    assert float((ours / theirs).max()) < 1.05
