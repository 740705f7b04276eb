"""Where a number comes from: versions, device, command line, seed, code and data, as plain JSON values."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import robustcli

_GIT_SECONDS = 5.0


def provenance(
    *, seed: int | None, device: str, data_fingerprint: str | None, spec: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a reader needs in order to make a result again.

    Args:
        seed: the run's seed.
        device: where it ran, as torch writes it: `cpu`, `cuda:0`, `mps`.
        data_fingerprint: the hash of the images that were used.
        spec: the resolved spec.

    Returns:
        JSON values only; what is not known is None. `commit` is that of the git checkout which robustcli runs
        from, ending in `+dirty` where its files were changed.
    """
    return {
        "versions": _versions(),
        "commit": _commit(Path(__file__).resolve().parents[1]),
        "command": _command(sys.argv),
        "seed": seed,
        "device": device,
        "hardware": _hardware(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "data_fingerprint": data_fingerprint,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": None if spec is None else json.loads(json.dumps(dict(spec), default=str)),
    }


def _versions() -> dict[str, str | None]:
    # torch names its build (2.4.0+cu121) in the module only; torchvision and numpy are not imported for this.
    own = {"robustcli": robustcli.__version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return {**own, "torchvision": _installed("torchvision"), "numpy": _installed("numpy")}


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _command(argv: list[str]) -> str:
    """The command line, without the folder that the program lies in."""
    program = Path(argv[0]) if argv else Path()
    start = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *argv[1:]])


def _hardware(device: str) -> str:
    """The name of the processor or GPU behind a torch device."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return _cpu_model(Path("/proc/cpuinfo")) or platform.processor() or platform.machine()


def _cpu_model(cpuinfo: Path) -> str | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _commit(root: Path) -> str | None:
    """The commit of the git checkout at `root`; None where `root` is not the top of one.

    A package installed inside another project's checkout must not take that project's commit for its own.
    """
    top_and_head = _git(root, "rev-parse", "--show-toplevel", "HEAD")
    status = _git(root, "status", "--porcelain")
    if top_and_head is None or status is None:
        return None
    top, head = top_and_head.splitlines()
    if Path(top).resolve() != root.resolve():
        return None
    # A new file counts in the package, where it is code, and nowhere else; results are what is being made.
    files = [(line[:2], line[3:].strip('"')) for line in status.splitlines()]
    changed = any(
        path.startswith("robustcli/") if state == "??" else not path.startswith("results/") for state, path in files
    )
    return f"{head}+dirty" if changed else head


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None without git, outside a checkout, or when it takes too long."""
    # Inside a git hook, GIT_DIR and GIT_INDEX_FILE would point git at another checkout.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - literal arguments
            ["git", "--no-optional-locks", *arguments],  # noqa: S607 - whichever git is installed
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout
