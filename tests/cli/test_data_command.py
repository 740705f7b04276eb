"""`robustcli data`: what is where, what is in it, what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustcli.data import inspection

from .conftest import Call


@pytest.fixture
def photos(here: Path) -> Path:
    """Three images in each class of each split: one file broken, one repeated in a class, in another, and in train."""
    draws = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (here / "photos" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(here / "photos" / split / name / f"{i}.png")
    test = here / "photos" / "test"
    (test / "a/1.png").write_bytes((test / "a/1.png").read_bytes()[:-40])
    (test / "a/3.png").write_bytes((test / "a/0.png").read_bytes())
    (test / "b/3.png").write_bytes((test / "a/0.png").read_bytes())
    (test / "b/4.png").write_bytes((here / "photos/train/b/1.png").read_bytes())
    (test / "b/5.png").touch()
    return here / "photos"


def test_what_is_here_is_listed_with_the_ways_to_the_rest(call: Call, here: Path) -> None:
    (here / "data" / "mine").mkdir(parents=True)
    (here / "data" / "KMNIST" / "raw").mkdir(parents=True)
    (here / "data" / "set.npz").touch()
    document = call("data", "list", "--data-dir", "data", "--format", "json").document
    by_name = {row["name"]: row for row in document["datasets"]}
    assert [by_name[name]["here"] for name in ("mnist-sample", "kmnist", "set.npz", "mine", "svhn")] == [True] * 4 + [
        False
    ]
    assert by_name["svhn"]["get"].endswith("or put train_32x32.mat or svhn.npz there")
    assert "cifar100" in call("data", "list").out


def test_info_counts_by_split_and_class(call: Call, photos: Path) -> None:
    said = call("data", "info", photos, "--format", "json").document["splits"]
    assert said["train"]["classes"] == {"a": 3, "b": 3}
    assert said["test"]["classes"] == {"a": 3, "b": 5}
    assert said["test"]["shape"] == "3x8x8"
    assert said["test"]["bytes"] == sum(file.stat().st_size for file in (photos / "test").rglob("*.png"))
    ended = call("data", "info", photos)
    assert "2 of 10 images cannot be read and are left out" in ended.err
    assert "3x8x8" in ended.out
    assert call("data", "info", "mnist-sample", "--format", "json").document["splits"]["test"]["images"] == 1000
    assert call("data", "info", "none/").code == 3


@pytest.mark.parametrize("few", [0, 1000])
def test_verify_names_what_is_broken_or_there_twice(
    call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(inspection, "_FEW", few)
    ended = call("data", "verify", photos, "--format", "json")
    test = ended.document["splits"]["test"]
    assert ended.code == 3
    assert list(test["broken"]) == ["test/a/1.png", "test/b/5.png"]
    assert test["broken"]["test/b/5.png"] == "it is empty"
    assert test["several_classes"] == [["test/a/0.png", "test/a/3.png", "test/b/3.png"]]
    train = ended.document["splits"]["train"]
    assert (train["images"], train["broken"], train["same_class"], train["several_classes"]) == (6, {}, [], [])
    assert ended.document["test_in_train"] == [["test/b/4.png", "train/b/1.png"]]
    assert ended.err.endswith(
        f"{photos}: 6 train, 8 test images; 2 broken; groups of equal ones: 0 in one class, 1 in several; 1 test "
        "images are in train\n"
    )
    table = call("data", "verify", photos).out
    assert "it is empty" in table
    assert "test/b/4.png = train/b/1.png" in table


def test_verify_is_content_with_what_is_whole(call: Call, photos: Path) -> None:
    for name in ("a/1", "a/3", "b/3", "b/4", "b/5"):
        (photos / "test" / f"{name}.png").unlink()
    assert (call("data", "verify", photos).code, call("data", "verify", "mnist-sample").code) == (0, 0)
    (photos / "list.csv").write_text("test/a/0.png,a\ntest/b/0.png,b\n")
    ended = call("data", "verify", photos / "list.csv")
    assert (ended.code, "2 test images; 0 broken" in ended.err, "has no column 'split'" in ended.err) == (0, True, True)


def test_verify_compares_published_checksums(call: Call, here: Path) -> None:
    (here / "data" / "MNIST" / "raw").mkdir(parents=True)
    np.savez(
        here / "data" / "mnist.npz",
        **{f"x_{split}": np.zeros((20, 28, 28), np.uint8) for split in ("train", "test")},
        **{f"y_{split}": np.arange(20) % 10 for split in ("train", "test")},
    )
    (here / "data/MNIST/raw/train-images-idx3-ubyte.gz").write_bytes(b"other")
    ended = call("data", "verify", "mnist", "--data-dir", "data", "--format", "json")
    assert ended.code == 3
    assert "its checksum (MD5 " in ended.document["checksums"][0]


def test_images_of_any_sizes_are_measured_and_the_way_is_told(call: Call, here: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (here / "set" / "test" / name).mkdir(parents=True)
        for i in range(2):
            pixels = draws.integers(0, 256, (9 + i, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "set" / "test" / name / f"{i}.png")
    (here / "net.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))\n"
    )
    flags = ("--dataset", "set", "--attack", "fgsm", "--eps", "8/255", "--checks", "off", "--no-store")
    ended = call("evaluate", "net.py:make", *flags, "--normalize", "none", "--resize", "8", "--crop", "6")
    assert ended.code == 0
    assert (
        "set: images have 2 sizes: each is resized to a shorter side of 8 and cropped to 6x6 as it is de" in ended.err
    )
    (here / "set" / "test").rename(here / "set" / "train")
    ended = call("train", "--dataset", "set", "--epochs", "1", "--output", "m.pt")
    assert (ended.code, "to train on them, resize the files before" in ended.error) == (3, True)
