from __future__ import annotations

import gzip
import os
import pickle

import numpy as np
import pytest
import torch

from robustcli.config import DataSpec, EvalSpec, TrainSpec, validated
from robustcli.data import load as data
from robustcli.data.load import DATASETS, load
from robustcli.errors import ConfigError

from .conftest import draw, failure, load_path, write_idx, write_npz

# Paths and names


ALLOWED = (
    "a name such as mnist or cifar10 (`robustcli list datasets`), an .npz or .pt file of arrays, a .csv or .txt list "
    "of path,label or a folder of class folders"
)


@pytest.mark.parametrize("path", ["./none", "data.npy", "foo/bar", "a.NPZ", "none.npz", "~none.d/x.npz", "/none/x"])
def test_what_looks_like_a_path_and_is_not_there_is_said(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    said = (
        "no user of that name has a home folder here"
        if path[0] == "~"
        else f"no such file or folder (allowed: {ALLOWED})"
    )
    assert failure(path) == f"--dataset {path}: {said}"


def test_a_file_of_another_kind_is_said(tmp_path):
    (tmp_path / "a.json").write_text("of another kind")
    for path in (tmp_path / "a.json", "/dev/null"):
        assert failure(path).startswith(
            f"--dataset {path}: is neither an .npz or .pt file of arrays, a .csv or .txt list"
        )


def test_a_mistyped_path_gets_the_nearest_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "digits.npz")
    (tmp_path / "my_data").mkdir()
    assert failure("digit.npz").endswith("; did you mean 'digits.npz'?")
    assert failure("./mydata").endswith("; did you mean 'my_data'?")
    fashion = "; did you mean 'fashion-mnist'?"
    for name, near in (("mydata", "; did you mean 'my_data'?"), ("fashion_mnist", fashion), ("photographs", ")")):
        with pytest.raises(ConfigError) as caught:
            load(DataSpec(dataset=name))
        assert str(caught.value).startswith(f"--dataset '{name}' is unknown, and no file or folder here (allowed: ")
        assert str(caught.value).endswith(near)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["dataset", "data_dir"])
@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("build", [DataSpec, EvalSpec])
def test_an_empty_path_is_refused(build, key, value):
    with pytest.raises(ConfigError, match=f"--{key.replace('_', '-')} {value}: is empty"):
        validated(build, {key: value}, "", frozenset({key}))
    with pytest.raises(ConfigError, match="dataset=: is empty"):
        validated(TrainSpec, {"dataset": ""}, "config.yaml")


def test_the_suffix_may_be_in_capitals(tmp_path):
    assert len(load_path(write_npz(tmp_path / "a.npz").rename(tmp_path / "A.NPZ"))) == 3


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    assert failure(tmp_path / "a.npz").endswith("is a pipe, a socket or a device, not a regular file")


def test_a_path_that_cannot_be_looked_at_is_said():
    assert failure("x" * 5000 + ".npz").endswith(": File name too long")


def test_a_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-sample").mkdir()
    assert len(load(DataSpec(dataset="mnist-sample"))) == 1000


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


def test_files_of_an_older_torchvision_do_not_replace_the_raw_ones(tmp_path):
    write_idx(tmp_path)
    processed = tmp_path / "MNIST/processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(7, 28, 28, dtype=torch.uint8), torch.zeros(7, dtype=torch.int64)), processed / name)
    assert load(DataSpec(data_dir=tmp_path)).y.tolist() == [0, 1, 2, 3]
    (processed / "test.pt").write_bytes(b"no tensors")
    assert failure("mnist", data_dir=tmp_path).startswith(f"{processed / 'test.pt'}: is damaged or holds a pickled")


@pytest.mark.parametrize("layout", ["MNIST", "FashionMNIST"])
def test_an_archive_that_was_compressed_anew_is_refused_by_its_checksum(tmp_path, probes, layout):
    write_idx(tmp_path, layout=layout)
    for file in list((tmp_path / layout / "raw").iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    message = failure({"MNIST": "mnist"}.get(layout, "fashion-mnist"), data_dir=tmp_path)
    assert message.startswith(f"{tmp_path / layout / 'raw/train-images-idx3-ubyte.gz'}: its checksum (MD5 ")
    assert not probes


def test_an_archive_of_cifar_with_another_checksum_is_refused(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"cut")
    assert "cifar-10-python.tar.gz: its checksum (MD5 " in failure("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_batch_of_cifar_with_another_checksum_is_never_opened(tmp_path, monkeypatch, name):
    from torchvision.datasets import cifar

    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5: not path.endswith(name))
    monkeypatch.setattr(cifar.pickle, "load", lambda *_, **__: {"data": draw(2, 3072), "labels": [1, 2]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for file in DATASETS["cifar10"].torchvision.files:
        (tmp_path / file).write_bytes(pickle.dumps(0))
    assert "its checksum (MD5 " in failure("cifar10", data_dir=tmp_path)


def test_a_file_that_is_missing_among_others_is_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    missing = (
        f"not whole in {tmp_path} (--data-dir: MNIST/raw/t10k-labels-idx1-ubyte is missing), and there is no network"
    )
    assert load(DataSpec(data_dir=tmp_path)).note.startswith(f"MNIST is {missing}")
    assert missing in failure("mnist", data_dir=tmp_path, allow_sample=False)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("t10k-images-idx3-ubyte", b""),
        ("t10k-images-idx3-ubyte", bytes([0, 0, 8, 3]) + b"\xff" * 12),
        ("t10k-images-idx3-ubyte", bytes([0, 0, 8, 3]) + bytes(12)),
        ("t10k-images-idx3-ubyte", bytes([0, 0, 10, 3]) + bytes(12)),
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 5]) + bytes(5)),
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 4]) + bytes([0, 1, 2, 10])),
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 0])),
    ],
)
def test_a_raw_file_that_lies_is_said(tmp_path, file, content):
    write_idx(tmp_path)
    (tmp_path / "MNIST/raw" / file).write_bytes(content)
    assert str(tmp_path) in failure("mnist", data_dir=tmp_path)


def test_a_raw_file_without_end_is_not_read(tmp_path):
    write_idx(tmp_path)
    with (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte").open("r+b") as file:
        file.truncate(1 << 40)
    assert "t10k-images-idx3-ubyte: has 1099511627776 bytes; at most" in failure("mnist", data_dir=tmp_path)


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
