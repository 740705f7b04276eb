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

from robustcli.checkpoint import (
    Checkpoint,
    load,
    newest,
    peek,
    same_data,
    save,
    sha256,
)
from robustcli.errors import CheckpointError

from .conftest import fails, make, same, stored


def test_missing_files_and_folders(tmp_path: Path) -> None:
    save(tmp_path / "mnist-vanilla.pt", make())
    assert fails(tmp_path / "mnist-vanila.pt") == "no such checkpoint; did you mean 'mnist-vanilla.pt'?"
    assert fails(tmp_path / "nowhere" / "x.pt") == "no such checkpoint"
    assert fails(tmp_path) == "cannot be read: is a folder"
    assert fails(tmp_path, sha256) == "cannot be read: is a folder"
    assert fails(tmp_path / "x.pt", sha256) == "cannot be read: No such file or directory"


@pytest.mark.parametrize("read", [load, peek])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.01, 0.3, 0.9, 0.99, 0.9999])
def test_truncated_files(tmp_path: Path, kept: float, read: Any) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(len(whole) * kept), len(whole) - 1)])
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
    assert (
        fails(path, read)
        == f"is refused: it holds a pickled object ({os.mkdir.__module__}.mkdir), which could run code"
    )
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
    no_schema = "is not a robustcli checkpoint: it names no schema, as bare weights do not"
    for value in (torch.nn.Linear(2, 2).state_dict(), {"model": {"w": torch.zeros(1)}}, [1, 2], torch.zeros(2), 1):
        torch.save(value, path)
        assert fails(path) == no_schema


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"schema": 2}, "has schema 2; robustcli "),
    ({"schema": True}, "is not a robustcli checkpoint: it names no schema"),
    ({"state_dict": [1]}, "state_dict: input should be a valid dictionary"),
    ({"state_dict": {"w": 1.0}}, "state_dict.w: input should be an instance of Tensor"),
    ({"state_dict": {1: torch.zeros(1)}}, "state_dict.1"),
    ({"train_ids": [1, 2]}, "train_ids: input should be an instance of Tensor"),
    ({"train_ids": torch.zeros(2)}, "train_ids: should be one-dimensional int32 or int64, not 1-dimensional torch.flo"),
    (
        {"train_ids": torch.tensor(1)},
        "train_ids: should be one-dimensional int32 or int64, not 0-dimensional torch.int",
    ),
    ({"data": {"name": "mnist", "source": "", "classes": [], "n_train": 1}}, "data: lacks fingerprint, n_validation"),
    ({"history": {}}, "history: input should be a valid list"),
    ({"history": [1.0]}, "history.0: input should be a valid dictionary"),
    ({"complete": 1}, "complete: input should be a valid boolean"),
    ({"resume": []}, "resume: input should be a valid dictionary"),
    ({"extra": 1}, "extra: unexpected keyword argument"),
    ({7: 1}, "7: unexpected keyword argument"),  # type: ignore[dict-item]
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_other_schemas_and_wrong_types(tmp_path: Path, changes: dict[Any, Any], message: str) -> None:
    torch.save({**stored(), **changes}, tmp_path / "run.pt")
    assert fails(tmp_path / "run.pt").startswith(message)
    assert same_data(tmp_path, "mnist") == []


@pytest.mark.parametrize(
    "key", [field.name for field in dataclasses.fields(Checkpoint) if field.name != "train_hashes"]
)
def test_missing_keys(tmp_path: Path, key: str) -> None:
    content = stored()
    del content[key]
    torch.save(content, tmp_path / "run.pt")
    assert fails(tmp_path / "run.pt") == f"{key}: field required"
