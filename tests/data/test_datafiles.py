from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from .conftest import arrays, draw, failure, load_path, write_images, write_npz

# An .npz


@pytest.mark.parametrize(
    ("tail", "shape"), [((8, 7), (1, 8, 7)), ((8, 7, 1), (1, 8, 7)), ((8, 7, 3), (3, 8, 7))], ids=str
)
def test_an_npz_becomes_channels_first(tmp_path, tail, shape):
    x = draw(3, *tail)
    images = load_path(write_npz(tmp_path / "mine.npz", x_train=draw(6, *tail), x_test=x))
    assert images.shape == shape
    assert np.array_equal(images.x.permute(0, 2, 3, 1).numpy(), x.reshape(3, 8, 7, -1))
    assert (images.name, images.classes) == ("mine", ("0", "1", "2"))
    assert (images.x.dtype, images.y.dtype, images.ids.dtype) == (torch.uint8, torch.int64, torch.int64)


def test_an_npz_of_unit_floats_is_taken_where_they_are_grey_levels(tmp_path):
    x = draw(3, 8, 8)
    images = load_path(write_npz(tmp_path / "a.npz", x_test=(x / 255).astype(np.float32)))
    assert np.array_equal(images.x[:, 0].numpy(), x)


def test_only_the_asked_split_is_decompressed(tmp_path):
    x_train = np.full((6, 64, 64), 7, np.uint8)  # longer than what zipfile reads ahead of the header
    path = write_npz(tmp_path / "a.npz", x_train=x_train, x_test=draw(3, 64, 64))
    damaged = x_train.tobytes()[:-1] + b"\x08"  # the checksum of x_train no longer fits
    path.write_bytes(path.read_bytes().replace(x_train.tobytes(), damaged))
    assert len(load_path(path, split="test")) == 3
    assert "CRC" in failure(path, split="train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "array 'x_test' is missing (the file holds x_train, y_train, y_test); did you mean"),
        ({"y_test": None, "Y_test": draw(3)}, "array 'y_test' is missing (the file holds x_train, y_train, x_test, Y_"),
        ({"x_test": draw(3, 64)}, "array 'x_test' has the shape (3, 64); allowed: (n, h, w) or (n, h, w, c)"),
        ({"x_test": draw(3, 3, 8, 8)}, "array 'x_test' has the shape (3, 3, 8, 8); allowed"),
        ({"x_test": draw(3, 8, 9)}, "array 'x_test' holds images of (8, 9, 1), but x_train of (8, 8, 1)"),
        ({"x_test": draw(3, 8, 8, 3)}, "array 'x_test' holds images of (8, 8, 3), but x_train of (8, 8, 1)"),
        ({"x_test": draw(0, 8, 8)}, "array 'x_test' is empty"),
        ({"x_test": draw(4, 8, 8)}, "array 'x_test' holds 4 images, but y_test 3 labels"),
        ({"x_test": np.full((3, 8, 8), 1.5)}, "array 'x_test' holds float64 from 1.5 to 1.5; allowed: uint8"),
        ({"x_test": np.full((3, 8, 8), np.nan)}, "array 'x_test' holds float64 from nan to nan; allowed: uint8"),
        ({"x_test": np.full((3, 8, 8), 0.5)}, "array 'x_test' holds float64 that are not k/255 (one is 0.002 off)"),
        ({"x_test": draw(3, 8, 8).astype(np.int64)}, "array 'x_test' holds int64; allowed: uint8 from 0 to 255"),
        ({"x_test": np.array([{}] * 3)}, "array 'x_test' has the shape (3,)"),
        ({"x_test": draw(3, 8, 8).astype(object)}, "array 'x_test' cannot be read: Object arrays"),
        ({"y_test": np.array([0, 1, 3])}, "array 'y_test' holds the label 3, but the labels of y_train go from 0 to 2"),
        ({"y_test": np.array([0, 1, -1])}, "array 'y_test' holds the label -1; labels start at 0"),
        ({"y_test": np.zeros(3)}, "array 'y_test' has the shape (3,) and holds float64; allowed: (n,) integers"),
        ({"y_test": np.zeros((3, 1), int)}, "array 'y_test' has the shape (3, 1) and holds int64; allowed"),
        ({"y_test": np.zeros(0, int)}, "array 'y_test' is empty"),
        ({"y_train": np.zeros(6, int)}, "array 'y_train' holds one class only; at least 2 are needed"),
        ({"y_train": np.full(6, 3)}, "array 'y_train' holds one class only; at least 2 are needed"),
    ],
)
def test_a_wrong_array_is_named(tmp_path, changes, message):
    path = write_npz(tmp_path / "a.npz", **changes)
    assert failure(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        ([0, 1, 3_000_000, 0, 1, 2], "labels up to 3000000, but not 3 to 2999999"),
        ([1, 2, 1, 2, 1, 2], "labels up to 2, but not 0"),
        ([0, 2, 5, 6, 0, 2], "labels up to 6, but not 1, 3 to 4"),
        ([1, 3, 5, 7, 9, 9], "labels up to 9, but not 0, 2, 4, ..."),
        (np.array([0, 1, 2, 0, 1, 2**64 - 1], np.uint64), f"labels up to {2**64 - 1}, but not 3 to {2**64 - 2}"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_a_training_image_is_refused_under_any_limit(tmp_path, split, labels, missing):
    path = write_npz(tmp_path / "a.npz", y_train=np.asarray(labels), y_test=np.array([1, 1, 1]))
    message = f"array 'y_train' holds {missing}: labels should be 0 to K-1, each with a training image"
    assert failure(path, split=split, limit=1) == failure(path, split=split) == f"{path}: {message}"


def test_a_limit_may_leave_a_class_without_an_image(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz"), split="train", limit=1)
    assert images.classes == ("0", "1", "2")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_in_an_npz_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **arrays(y_train=np.array([Bomb()] * 6)), allow_pickle=True)
    assert "array 'y_train' cannot be read: Object arrays" in failure("a.npz")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_what_is_no_zip_is_said(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    assert failure(path).startswith(f"{path}: cannot be read as an .npz file")


def test_a_cut_off_npz_is_said(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read as an .npz file" in failure(path)


def test_a_member_that_is_no_array_is_said(tmp_path):
    path = write_npz(tmp_path / "a.npz", x_test=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_test.npy", b"text")
    assert failure(path).startswith(f"{path}: array 'x_test' cannot be read:")


# A folder


def test_a_folder_with_splits(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            write_images(tmp_path / split / name, count, level=100 * label)
    images = load_path(tmp_path, split="train")
    assert images.classes == ("cat", "dog")
    assert images.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert images.x[:, 0, 0, 0].tolist() == [0, 100, 1, 101, 2, 102]
    assert len(load_path(tmp_path, split="test")) == 4


def test_a_folder_without_splits_tests_on_every_fifth_image(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 11)
    assert load_path(tmp_path).x[:, 0, 0, 0].tolist() == [4, 4, 9, 9]
    assert load_path(tmp_path, split="train").x[::2, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10]


def test_a_folder_of_colour_images_keeps_its_pixels(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 5, mode="RGB", size=(9, 8))
    images = load_path(tmp_path)
    assert images.shape == (3, 8, 9)
    assert images.x[0, :, 0, 0].tolist() == [4, 0, 255]


def test_classes_take_turns_until_they_run_out(tmp_path):
    for name, count in (("a", 1), ("b", 4), ("c", 2)):
        write_images(tmp_path / "train" / name, count)
    assert load_path(tmp_path, split="train").y.tolist() == [0, 1, 2, 1, 2, 1, 1]


def test_what_is_no_image_or_hidden_is_passed_over(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 5)
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    assert load_path(tmp_path).classes == ("a", "b")


def test_a_limit_reads_no_more_than_it_needs(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 2)
    (tmp_path / "test" / "b" / "01.png").write_bytes(b"broken")
    whole = len(load_path(tmp_path, limit=3))
    assert whole == 3
    assert "b/01.png: cannot be read as an image" in failure(tmp_path)


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("RGB", (8, 8), "has 8x8 pixels of mode RGB, but"),
        ("L", (9, 8), "has 9x8 pixels of mode L, but"),
        ("RGBA", (8, 8), "has 8x8 pixels of mode RGBA; allowed modes: L (grey) and RGB"),
    ],
)
def test_an_image_unlike_the_first_is_named(tmp_path, mode, size, message):
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 2)
    odd = tmp_path / "test" / "b" / "00.png"
    Image.new(mode, size).save(odd)
    assert failure(tmp_path).startswith(f"{odd}: {message}")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds 0 class folders; at least 2 are needed"),
        ({"a": 5}, "holds 1 class folders"),
        ({"a": 5, "b": 0}, "/b: this class folder holds no image"),
        ({"a": 5, "b": 4}, "/b: every fifth image of a class is a test image, and this one has fewer than 5"),
        ({"train/a": 1, "train/b": 1}, "/test: holds 0 class folders"),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "test/c": 1}, "class folder 'b' is in only one of train and test"),
    ],
)
def test_a_folder_that_lacks_something_is_named(tmp_path, counts, message):
    for name, count in counts.items():
        write_images(tmp_path / name, count)
    assert message in failure(tmp_path)
