from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import robustcli
from robustcli import provenance as module
from robustcli.provenance import provenance

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def made(spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return provenance(seed=3, device="cpu", data_fingerprint="ab12", spec=spec)


def test_plain_json_with_every_key() -> None:
    found = made({"eps": 0.1, "layers": ("c1", "c2"), "data_dir": Path("data")})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    keys = {"versions", "commit", "command", "seed", "device", "hardware", "threads", "platform"}
    assert set(found) == keys | {"data_fingerprint", "time", "spec"}
    assert found["spec"] == {"eps": 0.1, "layers": ["c1", "c2"], "data_dir": "data"}
    assert (found["seed"], found["device"], found["data_fingerprint"]) == (3, "cpu", "ab12")
    assert found["threads"] == torch.get_num_threads()
    assert found["hardware"]
    assert found["platform"]
    found = provenance(seed=None, device="cpu", data_fingerprint=None)
    assert (found["seed"], found["data_fingerprint"], found["spec"]) == (None, None, None)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = made()["versions"]
    assert list(versions) == ["robustcli", "python", "torch", "torchvision", "numpy"]
    assert (versions["robustcli"], versions["torch"]) == (robustcli.__version__, torch.__version__)
    assert versions["numpy"] == metadata.version("numpy")

    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    assert made()["versions"]["torchvision"] is None


def test_torchvision_is_not_imported() -> None:
    code = (
        "import sys, robustcli.provenance as p\n"
        "p.provenance(seed=0, device='cpu', data_fingerprint=None)\n"
        "assert 'torchvision' not in sys.modules"
    )
    root = str(Path(robustcli.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})


def test_the_time_is_utc_in_iso_8601() -> None:
    time = datetime.fromisoformat(made()["time"])
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/home/me/bin/robustcli", "train", "--eta", "U[0, 0.1]"], "robustcli train --eta 'U[0, 0.1]'"),
        (["/lib/robustcli/__main__.py", "list"], "python -m robustcli list"),
        (["-c"], "-c"),
        ([""], "''"),
        ([], "''"),
    ],
)
def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch, argv: list[str], command: str) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert made()["command"] == command
    assert shlex.split(command)[1:] == (argv[1:] if "-m" not in command else ["-m", "robustcli", "list"])


def test_hardware_of_a_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Example: CPU 9000\nmodel name\t: second\n")
    assert module._cpu_model(cpuinfo) == "Example: CPU 9000"
    cpuinfo.write_text("BogoMIPS: 50\n")
    assert module._cpu_model(cpuinfo) is None
    assert module._cpu_model(tmp_path / "missing") is None


def test_hardware_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    found = provenance(seed=0, device="cuda:1", data_fingerprint=None)
    assert (found["device"], found["hardware"]) == ("cuda:1", "GPU of cuda:1")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "check out"
    (root / "robustcli").mkdir(parents=True)
    (root / "robustcli" / "a.py").write_text("a = 1\n")
    (root / "results").mkdir()
    (root / "results" / "kept.json").write_text("{}\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


@needs_git
def test_the_commit_and_its_dirt(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD").strip()
    assert module._commit(checkout) == head
    (checkout / "results.json").touch()
    (checkout / "results" / "kept.json").write_text("[]\n")
    assert module._commit(checkout) == head
    (checkout / "robustcli" / "b.py").touch()
    assert module._commit(checkout) == f"{head}+dirty"
    (checkout / "robustcli" / "b.py").unlink()
    (checkout / "robustcli" / "a.py").write_text("a = 2\n")
    assert module._commit(checkout) == f"{head}+dirty"


@needs_git
def test_another_projects_commit_is_not_ours(checkout: Path, tmp_path: Path) -> None:
    installed = checkout / "venv" / "site-packages"
    installed.mkdir(parents=True)
    assert module._commit(installed) is None
    assert module._commit(tmp_path) is None
    assert module._commit(tmp_path / "missing") is None
    git(tmp_path, "init", "-q", "empty")
    assert module._commit(tmp_path / "empty") is None


@needs_git
def test_a_hooks_environment_does_not_mislead(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert module._commit(checkout) == git(checkout, "rev-parse", "HEAD").strip()


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("no git"), subprocess.TimeoutExpired("git", 5), subprocess.CalledProcessError(128, "git")],
)
def test_a_git_that_fails_or_is_missing_is_no_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert made()["commit"] is None
