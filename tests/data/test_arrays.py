from __future__ import annotations

import contextlib
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from robustcli.data import arrays as datafiles
from robustcli.errors import DataError

from .conftest import arrays, draw, failure, load_path, write_npz

# An .npz


@pytest.mark.parametrize("kind", ["<f4", ">f4", ">f8", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("tail", [(8, 7), (8, 7, 1), (8, 7, 3)], ids=str)
@pytest.mark.parametrize("chunk", [1, 500, 1 << 24])
def test_an_array_in_any_order_of_bytes_and_axes_is_read_by_parts(tmp_path, monkeypatch, kind, order, tail, chunk):
    monkeypatch.setattr(datafiles, "_CHUNK", chunk)
    x = draw(5, *tail)
    stored = np.asarray(x if kind == "u1" else (x / 255).astype(kind), order=order)
    path = write_npz(tmp_path / "a.npz", x_train=draw(6, *tail), x_test=stored, y_test=np.array([2, 1, 0, 1, 2], ">i4"))
    for limit in (None, 99, 2):
        images = load_path(path, limit=limit)
        assert np.array_equal(images.x.permute(0, 2, 3, 1).numpy(), x.reshape(5, 8, 7, -1)[:limit])
        assert images.y.tolist() == [2, 1, 0, 1, 2][:limit]
        assert images.ids.tolist() == [0, 1, 2, 3, 4][:limit]
    assert (images.name, images.classes) == ("a", ("0", "1", "2"))
    assert (images.x.dtype, images.y.dtype, images.ids.dtype) == (torch.uint8, torch.int64, torch.int64)


def test_labels_may_be_a_column(tmp_path):
    path = write_npz(tmp_path / "a.npz", y_train=np.array([[0], [1], [2]] * 2), y_test=np.array([[2], [1], [0]]))
    assert load_path(path).y.tolist() == [2, 1, 0]


def test_of_the_images_no_more_than_the_limit_is_decompressed(tmp_path):
    x_test = draw(3, 64, 64)
    path = write_npz(tmp_path / "a.npz", x_train=draw(6, 64, 64), x_test=x_test)
    content = path.read_bytes()
    path.write_bytes(content.replace(x_test.tobytes(), x_test.tobytes()[:-1] + b"?"))
    assert len(load_path(path, limit=2)) == 2
    assert "CRC" in failure(path)


def test_what_does_not_fit_into_memory_is_said_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datafiles.os, "sysconf", lambda name: 10)
    path = write_npz(tmp_path / "a.npz")
    assert len(load_path(path, limit=1)) == 1
    assert failure(path, limit=2) == (
        f"{path}: 2 images of 8x8 pixels take 0.0 GB, which this machine has not free: --limit N reads the first N"
    )


# The names of classes


def test_an_npz_may_name_its_classes(tmp_path):
    for names in (["cat", "dog", "été"], ["cat", "dog", "été", "fish"]):
        for kind in (np.array(names), np.array([name.encode() for name in names])):
            assert load_path(write_npz(tmp_path / "a.npz", classes=kind)).classes == tuple(names)


def test_a_named_class_needs_no_image(tmp_path):
    labels = {"y_train": np.array([0, 2] * 3), "y_test": np.array([3, 1, 0])}
    images = load_path(write_npz(tmp_path / "a.npz", classes=np.array(list("abcd")), **labels))
    assert images.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (np.array(["a", "b"]), "array 'y_train' holds the label 2, but the names in classes are for 0 to 1"),
        (np.array(["a", "b", "a"]), "array 'classes' holds the name 'a' more than once; allowed: (k,) strings"),
        (np.array(["a", "b", ""]), "array 'classes' holds 3 names, some of them empty"),
        (np.array(["a"]), "array 'classes' holds 1 names; allowed"),
        (np.array("abc"), "array 'classes' has the shape () and holds <U3; allowed: (k,) strings"),
        (np.array([["a"], ["b"], ["c"]]), "array 'classes' has the shape (3, 1) and holds <U1; allowed"),
        (np.arange(3), "array 'classes' has the shape (3,) and holds int64; allowed: (k,) strings"),
        (np.array(["a", "b", "c"], object), "array 'classes' cannot be read: Object arrays hold pickles, which"),
        (np.array([b"\xff", b"b", b"c"]), "array 'classes' holds what is no text in UTF-8"),
        (np.array(["\ud800", "b", "c"]), "array 'classes' holds what is no text in UTF-8"),
    ],
)
def test_wrong_names_of_classes_are_refused(tmp_path, classes, message):
    path = write_npz(tmp_path / "a.npz", classes=classes)
    assert failure(path).startswith(f"{path}: {message}")


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
        ({"x_test": None}, "array 'x_test' is missing (the file holds x_train, y_train, y_test)"),
        (
            {"y_test": None, "Y_test": draw(3)},
            "array 'y_test' is missing (the file holds x_train, y_train, x_test, Y_test); did you mean 'Y_test'?",
        ),
        ({"x_test": draw(3, 64)}, "array 'x_test' has the shape (3, 64); allowed: (n, h, w) or (n, h, w, c)"),
        ({"x_test": draw(3, 3, 8, 8)}, "array 'x_test' has the shape (3, 3, 8, 8); allowed"),
        ({"x_test": draw(3, 8, 9)}, "array 'x_test' holds images of (8, 9, 1), but x_train of (8, 8, 1)"),
        ({"x_test": draw(0, 8, 8)}, "array 'x_test' is empty"),
        ({"x_test": draw(4, 8, 8)}, "array 'x_test' holds 4 images, but y_test 3 labels"),
        ({"x_test": np.full((3, 8, 8), 1.5)}, "array 'x_test' holds float64 from 1.5 to 1.5; allowed: uint8"),
        ({"x_test": np.full((3, 8, 8), np.nan)}, "array 'x_test' holds float64 from nan to nan; allowed: uint8"),
        ({"x_test": np.full((3, 8, 8), 0.5)}, "array 'x_test' holds float64 that are not k/255 (one is 0.002 off)"),
        ({"x_test": draw(3, 8, 8).astype(object)}, "array 'x_test' cannot be read: Object arrays"),
        ({"y_test": np.array([0, 1, 3])}, "array 'y_test' holds the label 3, but the labels of y_train go from 0 to 2"),
        ({"y_test": np.array([0, 1, -1])}, "array 'y_test' holds the label -1; labels start at 0"),
        (
            {"y_test": np.zeros(3)},
            "array 'y_test' has the shape (3,) and holds float64; allowed: (n,) or (n, 1) integers",
        ),
        (
            {"y_test": np.eye(3, dtype=int)},
            "array 'y_test' has the shape (3, 3) and holds int64; allowed: (n,) or (n, 1) integers; rows of one-hot "
            "labels become integers by y.argmax(1)",
        ),
        ({"y_test": np.zeros((3, 1, 1), int)}, "array 'y_test' has the shape (3, 1, 1) and holds int64; allowed: (n,)"),
        ({"x_test": np.array(0)}, "array 'x_test' has the shape (); allowed: (n, h, w)"),
        ({"x_test": np.full((3, 8, 8), -0.5, np.float16)}, "array 'x_test' holds float16 from -0.5 to -0.5; allowed"),
        ({"x_test": draw(3, 8, 8).astype(np.uint16)}, "array 'x_test' holds uint16; allowed: uint8 from 0 to 255"),
        ({"x_test": np.zeros((3, 8, 8), "u1,f4")}, "array 'x_test' holds [('f0', 'u1'), ('f1', '<f4')]; allowed"),
        ({"y_test": np.zeros(0, int)}, "array 'y_test' is empty"),
        ({"y_train": np.zeros(6, int)}, "array 'y_train' holds one class only; at least 2 are needed"),
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


TRUE = "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8, 8)}"
HEADERS = {
    "too large": "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 8, 8)}",
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (3, -8, -8)}",
    "one more": "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 8, 8)}",
    "other kind": "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 8, 8)}",
    "no kind": "{'descr': 'what', 'fortran_order': False, 'shape': (3, 8, 8)}",
    "a key more": "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8, 8), 'more': 1}",
    "huge number": "{'descr': '|u1', 'fortran_order': False, 'shape': (0x" + "f" * 5000 + ", 8, 8)}",
    "many numbers": "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 4000 + ")}",
    "deep": "(" * 5000,
    "no Python": "{'descr",
    "a string without end": '"' * 3,
    "a null byte": "{'descr\0",
    "bytes": "\xff\xfe",
    "a subarray": "{'descr': ('|u1', (1000000,)), 'fortran_order': False, 'shape': (3, 8, 8)}",
    "none": "",
}


def write_member(path: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A valid data set, but for the bytes of `x_test`."""
    write_npz(path, x_test=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_test.npy", content, method)
    return path


def npy(header: str, content: bytes, version: int = 1) -> bytes:
    text = header.encode("latin1")
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + content


def test_a_member_that_is_no_array_is_refused(tmp_path):
    path = write_member(tmp_path / "a.npz", b"text")
    assert failure(path).startswith(f"{path}: array 'x_test' cannot be read:")


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, header):
    path = write_member(tmp_path / "a.npz", npy(header, bytes(192)))
    message = failure(path)
    assert message.startswith(f"{path}: array 'x_test' ")
    assert len(message) < len(str(path)) + 500


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_header_of_any_version_is_read(tmp_path, version):
    content = npy(TRUE, draw(3, 8, 8).tobytes(), version)
    assert len(load_path(write_member(tmp_path / "a.npz", content))) == 3


def test_a_header_of_python_2_is_read_without_a_word(tmp_path, capfd):
    content = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3L, 8L, 8L)}", draw(3, 8, 8).tobytes())
    assert len(load_path(write_member(tmp_path / "a.npz", content))) == 3
    assert capfd.readouterr() == ("", "")


def test_a_long_header_is_not_read_whole(tmp_path):
    content = npy(" " * 50_000_000, b"", 2)
    path = write_member(tmp_path / "a.npz", content, method=zipfile.ZIP_DEFLATED)
    assert "array 'x_test' cannot be read: " in failure(path)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datafiles, "MAX_PIXELS", 63)
    path = write_npz(tmp_path / "a.npz")
    assert failure(path) == f"{path}: has images of 8x8 pixels; at most 63 pixels an image are read"


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x_test.npy", b"")
    assert failure(path) == f"{path}: array 'x_test' is in the file more than once"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_without_a_bound_is_refused(tmp_path, method):
    path = write_member(tmp_path / "a.npz", b"", method=method)
    assert "array 'x_test' is compressed in a way that numpy does not write" in failure(path)


def test_a_size_that_the_zip_makes_up_is_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    content = path.read_bytes()
    at = content.rindex(b"x_test.npy") - 22  # in the central directory: the size once decompressed
    for size in (0, 1, 200, 321, 1 << 31):
        path.write_bytes(content[:at] + size.to_bytes(4, "little") + content[at + 4 :])
        assert "x_test" in failure(path)


def test_an_encrypted_file_is_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(path) as archive:
        places = [(info.header_offset + 6, info.filename) for info in archive.infolist()]
    content = bytearray(path.read_bytes())
    for at, name in places:
        content[at] |= 1
        content[content.rindex(name.encode()) - 38] |= 1
    path.write_bytes(content)
    assert "encrypted" in failure(path)


def test_damaged_arrays_give_one_line_or_images(tmp_path):
    path = write_npz(tmp_path / "a.npz", classes=np.array(["a", "b", "c"]))
    content, draws = path.read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(content[: draws.choice([len(content), draws.randrange(len(content))])])
        for _ in range(draws.randrange(4) if damaged else 0):
            damaged[draws.randrange(len(damaged))] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert len(load_path(path)) == 3
