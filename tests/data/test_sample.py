from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from robustcli.config import DataSpec
from robustcli.data.load import SAMPLE_FILE, load

SAMPLE_SHA256 = "7f27f0fa6bb400dcb081fc1a8a198feceeddcb8a02cacc6d7a0a2f43ee312bb6"


# The bundled sample


def test_the_sample_is_the_file_that_its_script_makes():
    content = SAMPLE_FILE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SAMPLE_SHA256
    assert len(content) <= 1_200_000


@pytest.mark.parametrize(("split", "n"), [("train", 4000), ("test", 1000)])
def test_every_prefix_of_the_sample_is_balanced(split, n):
    images = load(DataSpec(dataset="mnist-sample", split=split))
    assert images.y.tolist() == list(range(10)) * (n // 10)
    assert len(images.ids.unique()) == n


# The real data sets


@pytest.fixture
def real_data(monkeypatch):
    monkeypatch.undo()
    beside = Path(__file__).parents[2] / "../shared/data"
    folder = Path(os.environ.get("ROBUSTCLI_DATA", beside))
    if not (folder / "MNIST/raw/train-images-idx3-ubyte").is_file() or not (folder / "cifar10.npz").is_file():
        pytest.skip(f"no MNIST and CIFAR-10 in {folder}")
    return folder


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "n", "labels"),
    [("train", 60000, "a25bea736e30d166cdddb491f175f624"), ("test", 10000, "27ae3e4e09519cfbb04c329615203637")],
)
def test_mnist_is_read_whole(real_data, split, n, labels):
    images = load(DataSpec(data_dir=real_data, split=split))
    assert images.x.shape == (n, 1, 28, 28)
    header = b"".join(size.to_bytes(4, "big") for size in (0x801, n))
    md5 = hashlib.md5(header + images.y.to(torch.uint8).numpy().tobytes())
    assert md5.hexdigest() == labels


@pytest.mark.data
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_samples_digits_are_mnists_training_images(real_data, split):
    mnist = load(DataSpec(data_dir=real_data, split="train"))
    sample = load(DataSpec(dataset="mnist-sample", split=split))
    assert torch.equal(mnist.x[sample.ids], sample.x)
    assert torch.equal(mnist.y[sample.ids], sample.y)


@pytest.mark.data
def test_cifar10_is_read_in_colour(real_data):
    images = load(DataSpec(dataset="cifar10", data_dir=real_data, split="train"))
    assert images.x.shape == (50000, 3, 32, 32)
    means = images.x.numpy().mean(axis=(0, 2, 3)) / 255
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
