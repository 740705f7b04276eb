from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustcli.disk import file_hash
from robustcli.errors import CheckpointError
from robustcli.models.checkpoint import (
    InUseError,
    claim,
    claim_first,
    default_paths,
    load,
    newest,
    peek,
    same_data,
    save,
    sha256,
)

from .conftest import make, names, stored


def test_peek_reads_no_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    save(path, make(state_dict={"weight": torch.ones(2, 3)}))
    head = peek(path)
    assert head.state_dict["weight"].shape == (2, 3)
    assert head.state_dict["weight"].is_meta
    assert head.train_ids.is_meta
    assert (head.complete, head.data, head.spec) == (True, make().data, make().spec)


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
    stem = "runs/mnist-batchout-mnist-cnn-seed7"

    def paths() -> Iterator[Path]:
        return default_paths(tmp_path / "runs", "mnist", "batchout", "mnist-cnn", 7)

    for number in ("", "-2", "-3"):
        with claim_first(paths()) as path:
            save(path, make())
        assert path == tmp_path / f"{stem}{number}.pt"
    (tmp_path / f"{stem}-2.pt").unlink()
    with claim_first(paths()) as path, claim_first(paths()) as other:
        assert (path, other) == (tmp_path / f"{stem}-2.pt", tmp_path / f"{stem}-4.pt")


def test_a_default_path_stays_in_its_folder(tmp_path: Path) -> None:
    path = next(default_paths(tmp_path, "../my photos/pets.npz", "vanilla", "resnet18", 0))
    assert path == tmp_path / "my_photos_pets.npz-vanilla-resnet18-seed0.pt"


@pytest.mark.parametrize("name", ["x" * 300, "\N{SNOWMAN}" * 300, "é" * 300, "\udce9" * 300])
def test_a_default_path_fits_the_file_system_and_keeps_the_rest_of_its_name(tmp_path: Path, name: str) -> None:
    with claim_first(default_paths(tmp_path, name, "vanilla", "mnist-cnn", 2**32 - 1)) as path:
        save(path, make())
    assert path.name.endswith("-vanilla-mnist-cnn-seed4294967295.pt")
    assert names(tmp_path) == [path.name]


# --- Runs at the same time, and killed ones


def test_one_run_writes_a_file_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with claim(path):
        with pytest.raises(InUseError, match=r"run\.pt: another run is writing it") as caught, claim(path):
            pass
        assert caught.value.exit_code == 2
        (tmp_path / "link.pt").symlink_to(path)
        with pytest.raises(InUseError), claim(tmp_path / "link.pt"):
            pass
    with claim(path):
        pass
    assert names(tmp_path) == ["link.pt"]


def test_what_a_killed_run_left_is_removed_by_the_next_one_on_that_file_alone(tmp_path: Path) -> None:
    stale, other = tmp_path / ".run.pt.0123abcd.tmp", tmp_path / ".run.pt.x.pt.0123abcd.tmp"
    mine = [tmp_path / name for name in (".run.pt.tmp", "run.pt.0123abcd.tmp", ".run.pt.0123abcdef.tmp")]
    for path in (stale, other, *mine, tmp_path / ".run.pt.lock"):
        path.touch()
    with claim(tmp_path / "run.pt"):
        assert not stale.exists()
    assert names(tmp_path) == sorted(path.name for path in (other, *mine))


def test_a_file_that_cannot_be_claimed_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    for path, reason in (
        ("file/run.pt", "its folder is a file"),
        (".", "it is a folder"),
        ("loop.pt", ""),
        ("x" * 300, "File name"),
        ("new/" + "x" * 300, "File name"),
    ):
        with pytest.raises(CheckpointError, match=f"cannot be written: {reason}"), claim(tmp_path / path):
            pass


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link.pt").symlink_to("store/run.pt")
    for accuracy in (0.1, 0.2):
        save(tmp_path / "link.pt", make(metrics={"accuracy": accuracy}))
    assert (tmp_path / "link.pt").is_symlink()
    assert load(tmp_path / "store" / "run.pt").metrics == {"accuracy": 0.2}
    assert names(tmp_path / "store") == ["run.pt"]


@pytest.mark.parametrize("name", ["x" * 200, "x" * 201, "x" * 252, "caf\udce9", "two\nlines", "\x1b[2J", "a b*"])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.pt"
    with claim(path):
        save(path, make())
    assert names(tmp_path) == [path.name]
    assert newest(tmp_path) == path
    assert sha256(path) == file_hash(path)
