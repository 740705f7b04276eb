"""A data set that trains in a moment: 64 noisy 8x8 images around 3 patterns."""

import numpy as np
import pytest

from robustcli.config import TrainSpec
from robustcli.training.train import prepare


@pytest.fixture
def write_blobs():
    """`write_blobs(path, seed)`: the data set, the same for the same seed."""

    def write(path, seed=0):
        generator = np.random.default_rng(seed)
        y = np.arange(64) % 3
        patterns = generator.choice(np.array([30, 220]), (3, 8, 8))
        x = (patterns[y] + generator.integers(-30, 31, (64, 8, 8))).astype(np.uint8)
        np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])

    return write


@pytest.fixture
def blobs(tmp_path, write_blobs):
    """The path of the data set, in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_blobs(folder / "blobs.npz")
    return folder / "blobs.npz"


@pytest.fixture
def make(blobs):
    """`make(epochs=2)`: a prepared run on the blobs, 48 of them for training in 5 steps an epoch."""

    def prepared(**options):
        defaults = {"dataset": str(blobs), "epochs": 3, "batch_size": 11, "validation": 0.25}
        return prepare(TrainSpec(**(defaults | options)), device="cpu")

    return prepared
