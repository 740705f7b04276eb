"""Shared by all tests: one thread, and properties that draw the same examples in every run."""

import os
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from torch import nn

from robustcli.config import TrainSpec
from robustcli.engine.run import Samples
from robustcli.store import cache, database
from robustcli.testing import tiny_net, tiny_samples
from robustcli.training.train import prepare, train

# The nets are tiny: threads cost more than they give, and one thread makes sums repeat bit for bit.
torch.set_num_threads(1)

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=50, database=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def net() -> nn.Module:
    return tiny_net()


@pytest.fixture
def samples(net: nn.Module) -> Samples:
    """Of `net`, which is wrong on every fifth."""
    return tiny_samples(net)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two networks trained for three epochs on 8x8 images with a bright bar in one of three places."""
    folder = tmp_path_factory.mktemp("bars")
    draw = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 240), ("test", 61)):
        y = np.arange(n) % 3
        x = draw.integers(0, 150, (n, 8, 8)).astype(np.uint8)
        for label in range(3):
            x[y == label, 2 * label : 2 * label + 3] += 60
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    np.savez(folder / "bars.npz", **arrays)
    paths = (folder / "a.pt", folder / "b.pt")
    for seed, path in enumerate(paths):
        train(prepare(TrainSpec(dataset=str(folder / "bars.npz"), epochs=3, batch_size=16, seed=seed)), path)
    return paths


@pytest.fixture(scope="session")
def checkpoint(checkpoints: tuple[Path, Path]) -> Path:
    """The first of them."""
    return checkpoints[0]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits long for a store that another process has locked."""
    for module in (database, cache):
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(cache, "IMPATIENT_SECONDS", 0.01)
    monkeypatch.setattr(database.connect, "__kwdefaults__", {"make": True, "wait": 0.05})
