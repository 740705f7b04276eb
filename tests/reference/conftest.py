"""One trained network and its digits, for the comparisons with the peers."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustcli.config import DataSpec, TrainSpec
from robustcli.data.load import load
from robustcli.models.nets import build_model, design
from robustcli.training.loop import Run, fit
from robustcli.training.train import prepare

# What the tests here share lies in three folders: task.py, golden/frozen.py and benchmarks/peers.py; the last one has
# a script of the name of the authors' package, which goes before it.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
sys.path.append(str(HERE.parents[1] / "benchmarks"))

from task import Task  # noqa: E402

N = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-goldens", action="store_true", help="freeze the peers' results in tests/golden")


def trained(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """Weights of an mnist-cnn after 3 epochs on 1500 digits: some seconds, hence kept in pytest's cache."""
    cache = request.config.cache
    assert cache is not None
    prepared = prepare(TrainSpec(dataset="mnist-sample", epochs=3, limit=1500, validation=0.0), device="cpu")
    path = cache.mkdir("reference") / f"{prepared.images.fingerprint[:16]}-{torch.__version__}.pt"
    if not path.exists():
        fit(prepared.job, Run())
        torch.save(prepared.job.model.state_dict(), path)
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


@pytest.fixture(scope="session")
def single(request: pytest.FixtureRequest) -> Task:
    """In float32."""
    images = load(DataSpec(dataset="mnist-sample", limit=N))
    model = build_model(design("mnist-cnn", images.x, 10)).eval().requires_grad_(False)
    model.load_state_dict(trained(request))
    task = Task(model, images.batch(slice(None)), images.y)
    assert 70 <= int(task.standing(task.x).sum()) < N, "the comparison needs a network that is good and not perfect"
    return task


@pytest.fixture(scope="session")
def double(single: Task) -> Task:
    """In float64, where no rounding hides or makes a difference."""
    return Task(copy.deepcopy(single.model).double(), single.x.double(), single.y)
