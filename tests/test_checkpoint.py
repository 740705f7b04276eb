from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from robustcli import checkpoint as module
from robustcli.checkpoint import (
    SCHEMA,
    Checkpoint,
    default_path,
    load,
    newest,
    peek,
    same_data,
    save,
    sha256,
)
from robustcli.config import ModelSpec, TrainSpec
from robustcli.errors import CheckpointError
from robustcli.fields import Eps


def make(**changes: Any) -> Checkpoint:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    values: dict[str, Any] = {
        "spec": TrainSpec(method={"name": "batchout", "eta": "0.1"}).as_dict(),
        "model": ModelSpec(name="mnist-cnn", channels=1, height=8, width=8, classes=10).as_dict(),
        "data": {
            "name": "mnist",
            "source": "mnist/train",
            "classes": list("0123456789"),
            "fingerprint": "ab12",
            "n_train": 5,
            "n_validation": 2,
        },
        "train_ids": torch.arange(5),
        "state_dict": net.state_dict(),
        "history": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": float("inf")}],
        "metrics": {"accuracy": 0.75},
        "provenance": {"seed": 0, "commit": None, "command": "robustcli train \udce9.yaml"},
        "complete": True,
        "resume": {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.99)}]}},
    }
    return Checkpoint(**{**values, **changes})


def stored(**changes: Any) -> dict[str, Any]:
    checkpoint = make()
    values = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    return {"schema": SCHEMA, **values, **changes}


def same(a: Any, b: Any) -> bool:
    """Equal in value, type and (for tensors) shape and dtype."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def fails(path: Path, read: Any = load) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.exit_code == 3
    return message.removeprefix(f"{path}: ")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    path, checkpoint = tmp_path / "new" / "folder" / "run.pt", make()
    save(path, checkpoint)
    loaded = load(path)
    for field in dataclasses.fields(Checkpoint):
        expected = getattr(checkpoint, field.name)
        expected = dict(expected) if isinstance(expected, OrderedDict) else expected
        assert same(getattr(loaded, field.name), expected), field.name
    assert names(path.parent) == ["run.pt"]
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    network.load_state_dict(loaded.state_dict, strict=True)


def test_an_incomplete_run_without_resume(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", make(complete=False, resume=None, train_ids=torch.arange(3, dtype=torch.int32)))
    loaded = load(tmp_path / "run.pt")
    assert (loaded.complete, loaded.resume, loaded.train_ids.dtype) == (False, None, torch.int32)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=3))
@settings(max_examples=40, deadline=None)
def test_round_trip_of_nested_plain_values(tmp_path_factory: pytest.TempPathFactory, resume: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("plain") / "run.pt"
    save(path, make(resume=resume))
    assert same(load(path).resume, resume)


def test_tensors_are_stored_contiguous_without_their_storage(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    big = torch.zeros(500_000)
    parameter = torch.nn.Parameter(torch.ones(2))
    state = {"weight": weight, "view": big[:3], "parameter": parameter}
    save(tmp_path / "run.pt", make(state_dict=state, resume={"last": dict(state)}))
    loaded = load(tmp_path / "run.pt")
    assert loaded.resume is not None
    for read in (loaded.state_dict, loaded.resume["last"]):
        assert torch.equal(read["weight"], weight)
        assert read["weight"].is_contiguous()
        assert type(read["parameter"]) is torch.Tensor
        assert not read["parameter"].requires_grad
    assert (tmp_path / "run.pt").stat().st_size < 50_000
    assert not weight.is_contiguous()
    assert parameter.requires_grad


def test_subclasses_of_plain_types_become_plain(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", make(spec={"eps": Eps("8/255")}, metrics={"loss": np.float64(0.5)}))
    loaded = load(tmp_path / "run.pt")
    assert same(loaded.spec, {"eps": 8 / 255})
    assert same(loaded.metrics, {"loss": 0.5})


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    before = path.read_bytes()
    for bad in (Path("x"), np.zeros(2), {1, 2}, torch.float32):
        message = fails(path, lambda path, bad=bad: save(path, make(resume={"optimizer": [1, {"state": bad}]})))
        assert message == (
            f"cannot be written: resume.optimizer[1].state is a {type(bad).__name__}, not a tensor or a plain value"
        )
    assert path.read_bytes() == before


def test_a_checkpoint_checks_its_types() -> None:
    with pytest.raises(ValidationError, match="Tensor"):
        make(state_dict={"weight": 1.0})
    with pytest.raises(ValidationError, match="lacks classes"):
        make(data={"name": "mnist", "source": "", "fingerprint": "", "n_train": 1, "n_validation": 0})


def test_saving_replaces_the_file_and_keeps_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make(metrics={"accuracy": 0.1}))
    save(path, make(metrics={"accuracy": 0.2}))
    assert load(path).metrics == {"accuracy": 0.2}
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def raising(error: BaseException) -> Any:
    def fault(*_: Any, **__: Any) -> None:
        raise error

    return fault


def half_written(_: Any, file: Any) -> None:
    file.write(b"PK" * 100)
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        # What torch makes of a failed write; it must not be shown.
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598") from None


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
FAULTS = [
    ("torch.save", half_written, "No space left on device"),
    ("torch.save", raising(RuntimeError("PytorchStreamWriter failed\nwriting file")), "PytorchStreamWriter failed wri"),
    ("os.fsync", raising(FULL), "No space left on device"),
    ("os.replace", raising(READ_ONLY), "Permission denied"),
    ("pathlib.Path.open", raising(READ_ONLY), "Permission denied"),
]


@pytest.mark.parametrize(("function", "fault", "reason"), FAULTS)
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_failed_save_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, fault: Any, reason: str, interrupted: bool
) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(function, fault)
        try:
            if interrupted:  # Ctrl-C is answered by a save: its exception must not be taken for the reason
                raise KeyboardInterrupt
            message = fails(path, lambda path: save(path, make(metrics={})))
        except KeyboardInterrupt:
            message = fails(path, lambda path: save(path, make(metrics={})))
    assert message.startswith(f"cannot be written: {reason}")
    assert path.read_bytes() == before
    assert names(tmp_path) == ["run.pt"]


def test_ctrl_c_during_a_save_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "run.pt", make())
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, synced = os.fsync, []

    def only_files(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", only_files)
    save(tmp_path / "run.pt", make())
    assert len(synced) == 2
    assert load(tmp_path / "run.pt").complete


def test_a_path_that_cannot_hold_a_file(tmp_path: Path) -> None:
    write = lambda path: save(path, make())  # noqa: E731
    assert fails(tmp_path, write) == "cannot be written: it is a folder"
    (tmp_path / "file").touch()
    assert fails(tmp_path / "file" / "run.pt", write) == "cannot be written: its folder is a file"
    if Path("/dev/null").is_char_device():
        assert fails(Path("/dev/null"), write) == "cannot be written: it is not a regular file"
        assert Path("/dev/null").is_char_device()
    assert fails(tmp_path / ("x" * 300), write) == "cannot be written: File name too long"


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from robustcli.checkpoint import load, save
import dataclasses
{limit}
path = Path(sys.argv[1])
checkpoint = load(path)
number = 0
while True:
    number += 1
    weight = torch.full((300_000,), float(number))
    save(path, dataclasses.replace(checkpoint, state_dict={{"weight": weight}}, metrics={{"number": number}}))
    print(number, flush=True)
"""


def child(path: Path, limit: str = "") -> subprocess.Popen[str]:
    root = str(Path(module.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(limit=limit), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_it_saves_in_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    for delay in (0.0, 0.013):
        with child(path) as process:
            assert process.stdout is not None
            for _ in range(3):
                assert process.stdout.readline(), process.communicate()[1]
            time.sleep(delay)
            process.kill()
        loaded = load(path)
        assert loaded.metrics["number"] >= 3
        assert torch.all(loaded.state_dict["weight"] == loaded.metrics["number"])
        assert newest(tmp_path) == path


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE as Linux has it")
def test_a_system_that_refuses_to_write_on(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    before = path.read_bytes()
    with child(path, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))") as process:
        output, errors = process.communicate(timeout=60)
    assert output == ""
    assert errors.splitlines()[-1].endswith(f"CheckpointError: {path}: cannot be written: File too large")
    assert path.read_bytes() == before
    assert names(tmp_path) == ["run.pt"]


def test_missing_files_and_folders(tmp_path: Path) -> None:
    save(tmp_path / "mnist-vanilla.pt", make())
    assert fails(tmp_path / "mnist-vanila.pt") == "no such checkpoint; did you mean 'mnist-vanilla.pt'?"
    assert fails(tmp_path / "nowhere" / "x.pt") == "no such checkpoint"
    assert fails(tmp_path) == "cannot be read: Is a directory"
    assert fails(tmp_path, sha256) == "cannot be read: Is a directory"
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


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Checkpoint)])
def test_missing_keys(tmp_path: Path, key: str) -> None:
    content = stored()
    del content[key]
    torch.save(content, tmp_path / "run.pt")
    assert fails(tmp_path / "run.pt") == f"{key}: field required"


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


def test_nothing_is_written_to_the_streams(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "run.pt", make())
    load(tmp_path / "run.pt")
    (tmp_path / "legacy.pt").write_bytes(legacy())
    fails(tmp_path / "legacy.pt")
    assert capfd.readouterr() == ("", "")


def legacy() -> bytes:
    """torch's file format of before 1.6."""
    file = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()
