"""A data set that trains in a moment: 64 noisy 8x8 images around 3 patterns."""

import numpy as np
import pytest
import torch

from robustcli.config import TrainSpec
from robustcli.training.train import prepare

PER_EPOCH = 5
"""Steps in an epoch of what `make` prepares."""


def write_blobs(path, seed=0):
    """The data set, the same for the same seed; returns its path."""
    generator = np.random.default_rng(seed)
    y = np.arange(64) % 3
    patterns = generator.choice(np.array([30, 220]), (3, 8, 8))
    x = (patterns[y] + generator.integers(-30, 31, (64, 8, 8))).astype(np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    return path


@pytest.fixture
def blobs(tmp_path):
    """The path of the data set, in a folder of its own."""
    (tmp_path / "data").mkdir()
    return write_blobs(tmp_path / "data" / "blobs.npz")


@pytest.fixture
def make(blobs):
    """`make(epochs=2)`: a prepared run on the blobs, 48 of them for training in 5 steps an epoch."""

    def prepared(**options):
        defaults = {"dataset": str(blobs), "epochs": 3, "batch_size": 11, "validation": 0.25}
        return prepare(TrainSpec(**(defaults | options)), device="cpu")

    return prepared


def stop_at(step):
    """The options of `fit` and `train` that end the training after a step."""
    last = []
    return {"on_step": lambda at: last.append(at.step), "should_stop": lambda: last[-1] == step}


def same(one, other):
    """Bit for bit, through dicts and lists, but for the seconds."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def weights(model):
    """A copy of the network's tensors, by name."""
    return {key: value.clone() for key, value in model.state_dict().items()}
