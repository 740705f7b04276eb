"""APGD against the authors' code: github.com/fra31/auto-attack on sys.path, as `autoattack`. It is not on PyPI.

Their single run takes our starting points, so that nothing but the algorithms is compared. In float64 the points of
highest loss are the same but for rounding, and so are the flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from task import Task, authors_code_is_here
from torch import Tensor

from robustcli.attacks import APGD, APGDT
from robustcli.attacks.apgd import random_start
from robustcli.attacks.norms import NORMS
from robustcli.noise import Noise

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not authors_code_is_here(), reason="the authors' autoattack is not importable"),
]
EPS = {"linf": 0.08, "l2": 1.2, "l1": 10.0}
STEPS = 40
norms = pytest.mark.parametrize("norm", NORMS)


@pytest.fixture(autouse=True)
def all_in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Their buffers are of the default type, and their L1 projection asks for `float()`."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def task(double: Task) -> Task:
    return double.right().first(32)


def authors(task: Task, norm: str, rank: int | None, loss: str = "ce") -> Any:
    from autoattack import autopgd_base  # type: ignore[import-not-found]

    options: dict[str, Any] = {"n_iter": STEPS, "norm": NORMS[norm].label, "eps": EPS[norm], "device": "cpu"}
    if rank is None:
        run = autopgd_base.APGDAttack(task.model, loss=loss, **options)
    else:
        run = autopgd_base.APGDAttack_targeted(task.model, **options)
        run.y_target = task.model(task.x).sort(dim=1)[1][:, -2 - rank]
    run.init_hyperparam(task.x)
    return run


def in_stages(run: Any, task: Task, norm: str, start: Tensor) -> tuple[Tensor, Tensor]:
    """Their highest points, and (n,) bool, what they leave standing."""
    from autoattack.autopgd_base import L1_projection

    stages = [(3, 0.3), (2, 0.3), (1, 0.4)] if norm == "l1" else [(1, 1.0)]
    point = start
    for radius, share in stages:
        run.eps, run.n_iter = radius * EPS[norm], round(share * STEPS)
        if norm == "l1":
            point = point + L1_projection(task.x, point - task.x, run.eps)
        point, standing, *_ = run.attack_single_run(task.x, task.y, x_init=point.clone())
    return point, standing == 1


@norms
@pytest.mark.parametrize(("loss", "rank"), [("ce", None), ("dlr", None), ("dlr", 0), ("dlr", 4)])
def test_from_the_same_starts_apgd_goes_where_the_authors_code_goes(
    task: Task, norm: str, loss: str, rank: int | None
) -> None:
    start = random_start(NORMS[norm], EPS[norm], task.x, Noise(0, torch.arange(len(task.x))))
    top, standing = in_stages(authors(task, norm, rank, loss), task, norm, start)
    if rank is None:
        ours = APGD(EPS[norm], STEPS, loss=loss, norm=NORMS[norm]).ascend(task.model, start, task.x, task.y)  # type: ignore[arg-type]
    else:
        ours = APGDT(EPS[norm], STEPS, norm=NORMS[norm]).ascend(task.model, start, task.x, task.y, rank)
    left = task.standing(ours)
    assert torch.equal(left, standing)
    # A step of L2 carries rounding on, and a network with maxima in it makes a jump of it now and then.
    gap = (ours - top)[left].flatten(1).abs().amax(1)
    assert float((gap < 1e-7).double().mean()) > 0.9
