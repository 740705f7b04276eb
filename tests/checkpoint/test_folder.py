from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch

from robustcli.checkpoint import (
    default_path,
    newest,
    peek,
    same_data,
    save,
    sha256,
)

from .conftest import make, stored


def test_peek_reads_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    save(path, make(state_dict={"weight": torch.ones(2, 3)}))
    head = peek(path)
    assert head.state_dict["weight"].shape == (2, 3)
    assert head.state_dict["weight"].is_meta
    assert head.train_ids.is_meta
    assert (head.complete, head.data, head.spec) == (True, make().data, make().spec)


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", make())
    assert sha256(tmp_path / "run.pt") == hashlib.sha256((tmp_path / "run.pt").read_bytes()).hexdigest()


def test_newest_and_same_data_see_complete_files_only(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") is None
    assert same_data(tmp_path / "nowhere", "mnist") == []
    cifar = {**make().data, "name": "cifar10"}
    runs = {"b": make(), "a": make(), "c": make(data=cifar), "d": make(complete=False)}
    for second, (name, checkpoint) in enumerate(runs.items()):
        save(tmp_path / f"{name}.pt", checkpoint)
        os.utime(tmp_path / f"{name}.pt", (1_000_000 + second, 1_000_000 + second))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:500])
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "gone")
    torch.save(stored(schema=2), tmp_path / "later.pt")
    assert newest(tmp_path) == tmp_path / "c.pt"
    assert same_data(tmp_path, "mnist") == [tmp_path / "a.pt", tmp_path / "b.pt"]
    assert same_data(tmp_path, "cifar10") == [tmp_path / "c.pt"]
    os.utime(tmp_path / "b.pt", (2_000_000, 2_000_000))
    assert newest(tmp_path) == tmp_path / "b.pt"


def test_default_paths_are_numbered_when_taken(tmp_path: Path) -> None:
    def path() -> str:
        return default_path(tmp_path / "runs", "mnist", "batchout", "mnist-cnn", 7).relative_to(tmp_path).as_posix()

    assert path() == "runs/mnist-batchout-mnist-cnn-seed7.pt"
    assert not (tmp_path / "runs").exists()
    for number in ("", "-2", "-3"):
        assert path() == f"runs/mnist-batchout-mnist-cnn-seed7{number}.pt"
        save(tmp_path / path(), make())
    (tmp_path / "runs" / "mnist-batchout-mnist-cnn-seed7-2.pt").unlink()
    assert path() == "runs/mnist-batchout-mnist-cnn-seed7-2.pt"


def test_a_default_path_stays_in_its_folder(tmp_path: Path) -> None:
    path = default_path(tmp_path, "../my photos/pets.npz", "vanilla", "resnet18", 0)
    assert path == tmp_path / "my_photos_pets.npz-vanilla-resnet18-seed0.pt"
