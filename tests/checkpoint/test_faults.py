from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.models import checkpoint as module
from robustcli.models.checkpoint import load, newest, save

from .conftest import fails, make, names


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
def test_a_failed_save_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, fault: Any, reason: str
) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(function, fault)
        try:  # Ctrl-C is answered by a save: its exception must not be taken for the reason
            raise KeyboardInterrupt
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
from robustcli.models.checkpoint import load, save
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
    root = str(Path(module.__file__).parents[2])
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
