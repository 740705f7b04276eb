from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustcli.config import TrainSpec
from robustcli.training.train import prepare, train


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for three epochs on 8x8 images with a bright bar in one of three places."""
    folder = tmp_path_factory.mktemp("store")
    draw = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 240), ("test", 61)):
        y = np.arange(n) % 3
        x = draw.integers(0, 150, (n, 8, 8)).astype(np.uint8)
        for label in range(3):
            x[y == label, 2 * label : 2 * label + 3] += 60
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    np.savez(folder / "bars.npz", **arrays)
    train(prepare(TrainSpec(dataset=str(folder / "bars.npz"), epochs=3, batch_size=16)), folder / "a.pt")
    return folder / "a.pt"
