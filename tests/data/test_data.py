from __future__ import annotations

import pickle

import numpy as np
import pytest

from robustcli import data
from robustcli.config import DataSpec
from robustcli.data import DATASETS, load
from robustcli.errors import ConfigError

from .conftest import draw, failure, load_path, write_idx, write_npz

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
