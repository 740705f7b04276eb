from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustcli import data
from robustcli.config import DataSpec
from robustcli.data import DATASETS, SAMPLE_FILE, load
from robustcli.errors import ConfigError, DataError
from robustcli.images import Images, overlap, split_validation

SAMPLE_SHA256 = "7f27f0fa6bb400dcb081fc1a8a198feceeddcb8a02cacc6d7a0a2f43ee312bb6"


@pytest.fixture(autouse=True)
def probes(monkeypatch, tmp_path):
    """No network and no data folder but the test's own; the hosts that were asked for."""
    asked = []
    monkeypatch.setattr(data, "reachable", lambda host: asked.append(host))
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "none"))
    return asked


def draw(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


def arrays(**changes: object) -> dict[str, object]:
    """A valid data set of 3 classes, 8x8 and grey, with some arrays replaced, or left out where None."""
    valid = {
        "x_train": draw(6, 8, 8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": draw(3, 8, 8),
        "y_test": np.array([2, 1, 0]),
    }
    return {name: array for name, array in (valid | changes).items() if array is not None}


def write_npz(path: Path, **changes: object) -> Path:
    np.savez(path, **arrays(**changes))
    return path


def write_idx(root: Path, n: int = 4) -> None:
    """The four files of an MNIST of n images a split, as torchvision reads them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = b"".join(size.to_bytes(4, "big") for size in (0x803, n, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + draw(n, 28, 28).tobytes())
        header = b"".join(size.to_bytes(4, "big") for size in (0x801, n))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(range(n)))


def write_images(folder: Path, count: int, mode: str = "L", size: tuple[int, int] = (8, 8), level: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new(mode, size, (level + i) if mode == "L" else (level + i, 0, 255)).save(folder / f"{i:02}.png")


def load_path(path: Path, **spec: object) -> Images:
    return load(DataSpec(dataset=str(path), **spec))


def failure(dataset: object, **spec: object) -> str:
    with pytest.raises(DataError) as caught:
        load(DataSpec(dataset=str(dataset), **spec))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The value


def test_pixels_are_floats_from_0_to_1(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz", x_test=np.full((3, 8, 8), 51, np.uint8)))
    pixels = images.pixels(torch.tensor([2, 0]))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.full((2, 1, 8, 8), 0.2))


def test_take_keeps_images_labels_and_ids_together(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz"))
    taken = images.take(torch.tensor([2, 0]))
    assert taken.ids.tolist() == [2, 0]
    assert taken.y.tolist() == [0, 2]
    assert torch.equal(taken.x, images.x[[2, 0]])
    assert taken.note == images.note == ""


def test_the_fingerprint_is_of_the_content_and_not_of_the_name(tmp_path):
    one, two = (load_path(write_npz(tmp_path / f"{name}.npz")) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert len({one.fingerprint, one.take(slice(2)).fingerprint, one.take(torch.tensor([1, 0, 2])).fingerprint}) == 3


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


# Paths and names


def test_a_path_that_is_not_there_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("of another kind")
    for path in (tmp_path / "a.npz", "./none", tmp_path / "a.csv"):
        assert failure(path) == f"--dataset {path}: no such .npz file or folder of class folders"


def test_a_path_that_cannot_be_looked_at_is_said():
    assert failure("x" * 5000 + ".npz").endswith(": File name too long")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"--dataset 'fashion_mnist' is unknown .*did you mean 'fashion-mnist'") as e:
        load(DataSpec(dataset="fashion_mnist"))
    assert e.value.exit_code == 2


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-sample").mkdir()
    assert len(load(DataSpec(dataset="mnist-sample"))) == 1000


@pytest.mark.parametrize(("limit", "n"), [(2, 2), (3, 3), (99, 3), (None, 3)])
def test_limit_keeps_the_first_in_stored_order(tmp_path, limit, n):
    images = load_path(write_npz(tmp_path / "a.npz"), limit=limit)
    assert images.ids.tolist() == list(range(n))
    assert images.y.tolist() == [2, 1, 0][:n]


# Data sets by name


def test_torchvisions_layout_comes_first(tmp_path, probes):
    write_idx(tmp_path)
    write_npz(tmp_path / "mnist.npz")
    images = load(DataSpec(data_dir=tmp_path, split="train"))
    assert (images.name, images.source, images.shape) == ("mnist", "mnist/train", (1, 28, 28))
    assert images.y.tolist() == images.ids.tolist() == [0, 1, 2, 3]
    assert not probes


def test_an_npz_of_the_data_sets_name_comes_next(tmp_path, probes):
    write_npz(tmp_path / "cifar10.npz", x_train=draw(6, 32, 32, 3), x_test=draw(3, 32, 32, 3))
    images = load(DataSpec(dataset="cifar10", data_dir=tmp_path))
    assert (images.source, images.shape, images.classes[9]) == ("cifar10/test", (3, 32, 32), "truck")
    assert not probes


def test_the_data_folder_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path))
    write_idx(tmp_path)
    assert load(DataSpec()).name == "mnist"


def test_the_users_cache_is_the_last_resort(tmp_path, monkeypatch):
    monkeypatch.delenv("ROBUSTCLI_DATA")
    monkeypatch.setattr(data.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    assert data.data_folder(None) == tmp_path / "robustcli"


def test_an_npz_that_is_another_data_set_is_refused(tmp_path):
    write_npz(tmp_path / "mnist.npz")
    assert "'mnist' there holds 3 images of (1, 8, 8)" in failure("mnist", data_dir=tmp_path)


def test_a_damaged_file_of_torchvisions_is_said(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"cut")
    message = failure("mnist", data_dir=tmp_path)
    assert message.startswith(f"{tmp_path / 'MNIST/raw'}: a file is damaged, delete it to get it again")


def test_cifars_batches_become_channels_first(tmp_path, monkeypatch):
    from torchvision.datasets import cifar

    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    known = DATASETS["cifar10"]
    rows = draw(2, 3 * 32 * 32)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for file in known.torchvision.files:
        content = {"data": rows, "labels": [3, 9], "label_names": list(known.classes)}
        (tmp_path / file).write_bytes(pickle.dumps(content))
    images = load(DataSpec(dataset="cifar10", data_dir=tmp_path, split="train"))
    assert images.y.tolist() == [3, 9] * 5
    assert np.array_equal(images.x[:2].reshape(2, -1).numpy(), rows)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_the_literals_agree_with_torchvision(name):
    from torchvision import datasets

    known = DATASETS[name]
    loader = getattr(datasets, known.torchvision.loader)
    address = loader.mirrors[0] if hasattr(loader, "mirrors") else loader.url
    host, _, port = known.torchvision.host.partition(":")
    assert address.startswith({"443": "https", "80": "http"}[port] + f"://{host}/")
    assert len(known.classes) == 10


# No network


def test_mnist_falls_back_on_the_sample_and_says_so_by_its_name(tmp_path, probes):
    images = load(DataSpec(data_dir=tmp_path, limit=20))
    assert (images.name, images.source, len(images)) == ("mnist-sample", "mnist/train", 20)
    assert probes == ["ossci-datasets.s3.amazonaws.com:443"]


def test_the_sample_keeps_the_reason_for_which_it_stands_in(tmp_path):
    images = load(DataSpec(data_dir=tmp_path, split="train", limit=20))
    host = "ossci-datasets.s3.amazonaws.com"
    reason = f"MNIST is not in {tmp_path} (--data-dir), and there is no network ({host} does not answer)"
    assert images.note == images.take(slice(2)).note == reason
    assert {part.note for part in split_validation(images, 0.5, seed=0)} == {reason}
    assert load(DataSpec(dataset="mnist-sample")).note == ""


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_data_folder_that_was_named_must_be_there(tmp_path, name):
    message = failure(name, data_dir=tmp_path / "mistyped")
    assert message.startswith(f"--data-dir {tmp_path / 'mistyped'}: no such folder, and there is no network (")
    (tmp_path / "file").touch()
    assert "file: no such folder" in failure(name, data_dir=tmp_path / "file")


def test_a_data_folder_of_the_environment_need_not_be_there(tmp_path):
    assert load(DataSpec()).note.startswith(f"MNIST is not in {tmp_path / 'none'} (--data-dir), and there is no")


def test_the_sample_by_name_needs_no_data_folder(tmp_path):
    assert load(DataSpec(dataset="mnist-sample", data_dir=tmp_path / "mistyped")).name == "mnist-sample"


@pytest.mark.parametrize(
    ("name", "layout"),
    [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
def test_what_is_missing_names_the_three_ways_out(tmp_path, name, layout):
    message = failure(name, data_dir=tmp_path, allow_sample=False)
    for part in (f"not in {tmp_path} (--data-dir)", f"({layout}/...)", f"or {name}.npz (x_train,", "a network"):
        assert part in message
    assert "mnist-sample" not in message  # refused for what was trained on MNIST


def test_the_sample_by_name_needs_no_permission(probes):
    assert load(DataSpec(dataset="mnist-sample", allow_sample=False)).name == "mnist-sample"
    assert not probes


@pytest.fixture
def no_proxy(monkeypatch):
    """The real `reachable`, without the proxies of the machine that tests run on."""
    monkeypatch.undo()
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(urllib.request, "getproxies", urllib.request.getproxies_environment)
    monkeypatch.setattr(urllib.request, "proxy_bypass", urllib.request.proxy_bypass_environment)


@pytest.mark.usefixtures("no_proxy")
def test_reachable_asks_the_host_once(monkeypatch):
    calls = []
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: calls.append((a, k)) or io.BytesIO())
    assert data.reachable("example.org:80")
    assert calls == [((("example.org", 80),), {"timeout": 3})]


def refuse(*_, **__):
    raise socket.gaierror("unknown")


@pytest.mark.usefixtures("no_proxy")
def test_an_unknown_host_is_not_reachable(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert not data.reachable("example.org:443")


@pytest.mark.usefixtures("no_proxy")
def test_a_host_behind_a_proxy_is_left_to_the_download(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "example.net")
    found = {host: data.reachable(host) for host in ("example.org:443", "example.org:80", "example.net:443")}
    assert found == {"example.org:443": True, "example.org:80": False, "example.net:443": False}


# The download


def fake_download(monkeypatch, outcome: object) -> None:
    """Replaces torchvision's MNIST by one that prints, then returns or raises."""

    class MNIST:
        data = torch.zeros(2, 28, 28, dtype=torch.uint8)
        targets = torch.tensor([1, 0])

        def __init__(self, root: str, *, train: bool, download: bool) -> None:
            assert download
            sys.stdout.write("Downloading\n")
            if isinstance(outcome, Exception):
                raise outcome

    monkeypatch.setattr("torchvision.datasets.MNIST", MNIST)
    monkeypatch.setattr(data, "reachable", lambda host: True)


def test_a_download_prints_on_stderr_only(tmp_path, monkeypatch, capsys):
    fake_download(monkeypatch, None)
    assert load(DataSpec(data_dir=tmp_path)).y.tolist() == [1, 0]
    assert capsys.readouterr() == ("", "Downloading\n")


def test_a_download_may_make_the_data_folder(tmp_path, monkeypatch):
    fake_download(monkeypatch, None)
    assert load(DataSpec(data_dir=tmp_path / "new")).name == "mnist"


def test_archives_of_an_earlier_download_need_no_network(tmp_path, monkeypatch, probes):
    fake_download(monkeypatch, None)
    monkeypatch.setattr(data, "reachable", probes.append)
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for archive in DATASETS["mnist"].torchvision.archives:
        (tmp_path / archive).touch()
    assert load(DataSpec(data_dir=tmp_path)).name == "mnist"
    assert not probes


@pytest.mark.parametrize(
    "outcome",
    [urllib.error.URLError("refused"), RuntimeError("Error\ndownloading"), ConnectionResetError(), TimeoutError()],
    ids=repr,
)
def test_a_download_that_fails_counts_as_no_network(tmp_path, monkeypatch, outcome):
    fake_download(monkeypatch, outcome)
    assert load(DataSpec(data_dir=tmp_path)).note.startswith(
        f"MNIST is not in {tmp_path} (--data-dir), and the download"
    )
    assert "new: no such folder, and the download failed (" in failure("mnist", data_dir=tmp_path / "new")
    assert "the download failed (" in failure("mnist", data_dir=tmp_path, allow_sample=False)


def test_a_data_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    fake_download(monkeypatch, PermissionError(13, "Permission denied"))
    message = failure("mnist", data_dir=tmp_path)
    assert message == f"--data-dir {tmp_path}: cannot be written: Permission denied"


def test_a_torchvision_that_cannot_be_imported_says_what_to_do(tmp_path, monkeypatch):
    write_idx(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = failure("mnist", data_dir=tmp_path)
    assert message.startswith("--dataset mnist: torchvision cannot be imported (")
    assert message.endswith("pip install --upgrade torch torchvision")


# Ids, overlap, validation


def test_a_path_keeps_its_ids_when_it_moves_and_not_when_it_changes(tmp_path):
    first, moved = (load_path(write_npz(tmp_path / f"{name}.npz"), split="train") for name in "ab")
    changed = load_path(write_npz(tmp_path / "c.npz", x_train=draw(6, 8, 8) // 2), split="train")
    assert first.source == moved.source != changed.source
    assert first.source.endswith("/train")


def test_a_folder_has_the_same_source_under_any_limit(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 6)
    sources = [load_path(tmp_path, limit=limit, split="train").source for limit in (1, None)]
    assert sources[0] == sources[1] != load_path(tmp_path).source


def test_overlap_counts_shared_ids_of_the_same_source(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz"), split="train")
    assert overlap(images.source, torch.tensor([5, 1, 77]), images) == 2
    assert overlap("mnist/train", images.ids, images) == 0


def test_the_sample_overlaps_mnists_training_set_and_not_itself():
    train, test = (load(DataSpec(dataset="mnist-sample", split=split)) for split in ("train", "test"))
    assert overlap("mnist/train", torch.arange(60000), test) == 1000
    assert overlap(train.source, train.ids, test) == 0


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.25, 250), (0.9999, 999)])
def test_validation_divides_the_images(fraction, count):
    images = load(DataSpec(dataset="mnist-sample"))
    train, validation = split_validation(images, fraction, seed=3)
    assert len(validation) == count
    assert torch.equal(torch.cat([train.ids, validation.ids]).sort().values, images.ids.sort().values)


def test_validation_depends_on_the_seed_alone():
    images = load(DataSpec(dataset="mnist-sample"))
    state = torch.get_rng_state()
    parts = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(parts))
        parts.append(split_validation(images, 0.1, seed)[1].ids)
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
    torch.set_rng_state(state)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    split_validation(load(DataSpec(dataset="mnist-sample")), 0.1, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


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
    beside = Path(__file__).parents[1] / "../shared/data"
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
