from __future__ import annotations

import io
import os
import socket
import sys
import urllib.error
import urllib.request

import pytest
import torch

from robustcli.config import DataSpec
from robustcli.data import load as data
from robustcli.data.images import split_validation
from robustcli.data.load import DATASETS, load

from .conftest import failure, write_idx

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


@pytest.mark.parametrize(
    ("name", "layout"),
    [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
def test_what_is_missing_names_the_three_ways_out(tmp_path, name, layout):
    message = failure(name, data_dir=tmp_path, allow_sample=False)
    for part in (f"not in {tmp_path} (--data-dir)", f"({layout}/...)", f"or {name}.npz (x_train,", "a network"):
        assert part in message
    assert "mnist-sample" not in message  # refused for what was trained on MNIST


def test_the_sample_by_name_needs_no_data_folder_and_no_permission(tmp_path, probes):
    spec = DataSpec(dataset="mnist-sample", data_dir=tmp_path / "mistyped", allow_sample=False)
    assert load(spec).name == "mnist-sample"
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
def test_an_unknown_host_is_not_reachable_and_one_behind_a_proxy_is_left_to_the_download(monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert not data.reachable("example.org:443")
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
