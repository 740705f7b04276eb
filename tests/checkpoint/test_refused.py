from __future__ import annotations

import dataclasses
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustcli.errors import CheckpointError
from robustcli.models.checkpoint import Checkpoint, load, newest, peek, same_data, save, sha256

from .conftest import fails, make, same, stored


def test_missing_files_and_folders(tmp_path: Path) -> None:
    save(tmp_path / "mnist-vanilla.pt", make())
    assert fails(tmp_path / "mnist-vanila.pt") == "no such checkpoint; did you mean 'mnist-vanilla.pt'?"
    assert fails(tmp_path / "nowhere" / "x.pt") == "no such checkpoint; `robustcli list zoo` names some that ship"
    assert fails(tmp_path) == "cannot be read: is a folder"
    assert fails(tmp_path, sha256) == "cannot be read: is a folder"
    assert fails(tmp_path / "x.pt", sha256) == "cannot be read: No such file or directory"


@pytest.mark.parametrize("read", [load, peek])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.99, 0.9999])
def test_truncated_files(tmp_path: Path, share: float, read: Any) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])
    assert fails(path, read) == "is not a robustcli checkpoint, or is empty, cut off or damaged"
    assert newest(tmp_path) is None


def test_a_flipped_bit_in_a_weight(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make(state_dict={"weight": torch.full((1000,), 1.5)}))
    whole = bytearray(path.read_bytes())
    at = whole.index(torch.full((10,), 1.5).numpy().tobytes())
    whole[at] ^= 1
    path.write_bytes(whole)
    assert "damaged" in fails(path)
    whole[at] ^= 1
    whole[whole.rindex(b"/data/0") - len("archive") - 8] ^= 16  # the folder bit of its entry in the directory
    path.write_bytes(whole)
    assert "damaged" in fails(path)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_bytes_give_one_line_or_the_same_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "run.pt"
    save(path, make())
    expected = load(path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        loaded = load(path)
    except CheckpointError:
        return
    # A byte of the padding, or one drawn as it was, changes nothing.
    for field in dataclasses.fields(expected):
        assert same(getattr(loaded, field.name), getattr(expected, field.name)), field.name


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


@pytest.mark.parametrize("read", [load, peek])
def test_a_pickle_bomb_does_not_go_off(tmp_path: Path, read: Any) -> None:
    path, crater = tmp_path / "run.pt", tmp_path / "crater"
    torch.save(stored(resume={"optimizer": Bomb(crater)}), path)
    refused = f"is refused: it holds a pickled object ({os.mkdir.__module__}.mkdir), which could run code; save the"
    assert fails(path, read).startswith(refused)
    torch.save(stored(resume={"optimizer": Bomb(crater)}), path, _use_new_zipfile_serialization=False)
    fails(path, read)
    path.write_bytes(pickle.dumps(stored(resume={"optimizer": Bomb(crater)})))
    fails(path, read)
    with zipfile.ZipFile(path, "w") as archive:  # a protocol torch does not write, in the shape of its files
        archive.writestr("run/data.pkl", pickle.dumps(Bomb(crater), protocol=4))
        archive.writestr("run/version", "3")
    fails(path, read)
    assert newest(tmp_path) is None
    assert not crater.exists()
    pickle.loads(pickle.dumps(Bomb(crater)))
    assert crater.exists()  # the bomb was a live one


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    unknown = "is not a robustcli checkpoint, or is empty, cut off or damaged"
    path.write_text("not a checkpoint\n" * 100)
    assert fails(path) == unknown
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert fails(tmp_path / "x.npz") == unknown
    no_schema = (
        "is not a robustcli checkpoint: it names no schema, as bare weights do not; they go with a network: "
        "FILE.py:FUNCTION@WEIGHTS"
    )
    for value in (torch.nn.Linear(2, 2).state_dict(), {"model": {"w": torch.zeros(1)}}, [1, 2], torch.zeros(2), 1):
        torch.save(value, path)
        assert fails(path) == no_schema


def nest(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def billions(times: int) -> list[Any]:
    """A list of 10 ** `times` values that takes no room."""
    value: list[Any] = [0] * 10
    for _ in range(times):
        value = [value] * 10
    return value


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"schema": 2}, "has schema 2; this version reads 1; take the one that wrote it"),
    ({"schema": True}, "is not a robustcli checkpoint: it names no schema"),
    ({"state_dict": [1]}, "state_dict: input should be a valid dictionary"),
    ({"state_dict": {"w": 1.0}}, "state_dict.w: input should be an instance of Tensor"),
    ({"state_dict": {1: torch.zeros(1)}}, "state_dict.1"),
    ({"train_ids": [1, 2]}, "train_ids: input should be an instance of Tensor"),
    (
        {"train_ids": torch.tensor(1)},
        "train_ids: should be one-dimensional int32 or int64, not 0-dimensional torch.int",
    ),
    ({"data": {"name": "mnist", "source": "", "classes": [], "n_train": 1}}, "data: lacks fingerprint, n_validation"),
    ({"history": [1.0]}, "history.0: input should be a valid dictionary"),
    ({"complete": 1}, "complete: input should be a valid boolean"),
    ({"extra": 1}, "extra: unexpected keyword argument"),
    ({"history": [{"epoch": "1"}]}, "history.0.epoch"),
    (
        {"train_hashes": torch.zeros(2)},
        "train_hashes: should be one-dimensional int32 or int64, not 1-dimensional torch",
    ),
    ({"train_ids": torch.zeros(1, dtype=torch.int64).expand(10**12)}, "train_ids: claims 1000000000000 values, but th"),
    ({"state_dict": {"w": torch.zeros(1).expand(1000, 1000)}}, "state_dict.w: claims 1000000 values, but the file ho"),
    ({"state_dict": {"w": torch.eye(3).to_sparse()}}, "state_dict.w: is a sparse coo tensor, should be a dense one"),
    ({"state_dict": {"w": torch.zeros(3, device="meta")}}, "state_dict.w: is a tensor without values"),
    ({"provenance": {"time": torch.zeros(2)}}, "provenance.time: is a tensor, not a plain value"),
    ({"provenance": {"time": {1, 2}}}, "provenance.time: is a set, not a tensor or a plain value"),
    ({"provenance": {"versions": {1: 2}}}, "provenance.versions: has a key that is a int"),
    ({"provenance": {"seed": 10**100}}, "provenance.seed: is too large a number"),
    ({"provenance": {"deep": nest(200)}}, "provenance: is nested too deeply, or has too many values"),
    ({"provenance": {"wide": billions(12)}}, "provenance: is nested too deeply, or has too many values"),
    ({"data": {**make().data, "name": ["mnist"]}}, "data: name should be a str, not a list"),
    ({"data": {**make().data, "classes": [1]}}, "data: classes should be names"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_other_schemas_and_wrong_types(tmp_path: Path, changes: dict[Any, Any], message: str) -> None:
    torch.save({**stored(), **changes}, tmp_path / "run.pt")
    assert fails(tmp_path / "run.pt").startswith(message)
    if "without values" not in message:  # which is how `peek` sees all tensors
        assert same_data(tmp_path, "mnist") == []
        assert newest(tmp_path) is None


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Checkpoint)])
def test_missing_keys(tmp_path: Path, key: str) -> None:
    content = stored()
    del content[key]
    torch.save(content, tmp_path / "run.pt")
    if key == "train_hashes":  # a file of before them
        assert load(tmp_path / "run.pt").train_hashes is None
    else:
        assert fails(tmp_path / "run.pt") == f"{key}: field required"


def rewritten(path: Path, target: Path, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> Path:
    """The archive once more, with other bytes for some of its entries, by their last name."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, replaced.get(Path(entry.filename).stem, source.read(entry)))
    return target


@pytest.mark.parametrize("read", [load, peek])
def test_an_archive_that_unpacks_to_more_than_its_size_is_refused_unread(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run.pt", make(state_dict={"weight": torch.zeros(100_000)}))
    read(rewritten(tmp_path / "run.pt", tmp_path / "same.pt"))
    bomb = rewritten(tmp_path / "run.pt", tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10_000
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("read"))
    assert fails(bomb, read) == "is compressed, which no checkpoint is: it may unpack to any size"
    many = zipfile.ZipFile(tmp_path / "same.pt").infolist() * 3
    monkeypatch.setattr("zipfile.ZipFile.infolist", lambda self: many)
    assert fails(tmp_path / "same.pt", read) == "claims to hold more than its size"


@pytest.mark.parametrize("read", [load, peek])
def test_a_file_of_more_parts_than_a_run_has_is_refused_unread(tmp_path: Path, read: Any) -> None:
    save(tmp_path / "run.pt", make())
    deep = rewritten(tmp_path / "run.pt", tmp_path / "deep.pt", data=b"\x80\x02" + b"]" * 3_000_000)
    assert fails(deep, read) == "has too many parts"
    with zipfile.ZipFile(tmp_path / "many.pt", "w") as archive:
        for number in range(10_001):
            archive.writestr(f"many/{number}", b"")
    assert fails(tmp_path / "many.pt", read) == "has too many parts"


def test_a_tensor_that_reaches_past_its_bytes_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", make(state_dict={"weight": torch.zeros(77)}))
    with zipfile.ZipFile(tmp_path / "run.pt") as archive:
        whole = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    at = whole.index(b"KM\x85")  # its shape, (77,)
    larger = whole[:at] + b"J" + (5 * 10**8).to_bytes(4, "little") + whole[at + 2 :]
    fails(rewritten(tmp_path / "run.pt", tmp_path / "large.pt", data=larger))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("read", [load, peek, sha256])
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "run.pt")
    reason = "cannot be read: is a pipe, a socket or a device, not a regular file"
    assert fails(tmp_path / "run.pt", read) == reason
    assert fails(Path("/dev/zero"), read) == reason
    assert newest(tmp_path) is None


def test_a_file_that_goes_while_others_are_looked_for_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run.pt", make())
    monkeypatch.setattr(
        "robustcli.models.checkpoint._files", lambda folder: [tmp_path / "gone.pt", tmp_path / "run.pt"]
    )
    assert newest(tmp_path) == tmp_path / "run.pt"
    assert same_data(tmp_path, "mnist") == [tmp_path / "run.pt"]
