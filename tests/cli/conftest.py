"""Commands run in process, in a folder of their own, without a network and without data but tiny images."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustcli.cli.main import run
from robustcli.config import ModelSpec, TrainSpec
from robustcli.models import checkpoint
from robustcli.models.checkpoint import Checkpoint
from robustcli.models.nets import build_model


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error; nothing else may look like one."""
        lines = [line for line in self.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on stdout, which holds nothing else."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Call = Callable[..., Ended]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("robustcli.data.load.reachable", lambda host: False)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path_factory.mktemp("data")))
    for name in ("FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Python's handlers of the signals, though a suite in the background of a script inherits that some are ignored."""
    before = {number: signal.getsignal(number) for number in CODES}
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `robustcli` with these arguments."""

    def called(*arguments: object) -> Ended:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Ended(code, *capsys.readouterr())

    return called


def write_images(path: Path, n_train: int = 240, n_test: int = 60, **changes: Any) -> Path:
    """An .npz of 8x8 images: a bright bar in one of three places, on noise."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", n_train), ("test", n_test)):
        y = np.arange(n) % 3
        x = draw.integers(0, 150, (n, 8, 8)).astype(np.uint8)
        for label in range(3):
            x[y == label, 2 * label : 2 * label + 3] += 60
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "bars.npz")


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, vanilla.pt and (newer) batchout.pt."""
    folder = tmp_path_factory.mktemp("trained")
    shared = ["--dataset", str(images), "--epochs", "4", "--batch-size", "16"]
    for method in ("vanilla", "batchout"):
        assert run(["train", "--method", method, "--output", str(folder / f"{method}.pt"), *shared]) == 0
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def models(here: Path, trained: Path) -> Path:
    """A working folder whose `checkpoints/` has both trained models."""
    shutil.copytree(trained, here / "checkpoints")
    return here / "checkpoints"


def write_checkpoint(path: Path, *, classes: int = 10, **changes: Any) -> Path:
    """A checkpoint of an untrained network that says it was trained on all of MNIST."""
    model = ModelSpec(name="mnist-cnn", channels=1, height=28, width=28, classes=classes)
    data = {"name": "mnist", "source": "mnist/train", "classes": list("0123456789")[:classes]}
    values: dict[str, Any] = {
        "spec": TrainSpec(method={"name": "vanilla"}, model="mnist-cnn").as_dict(),
        "model": model.as_dict(),
        "data": data | {"fingerprint": "", "n_train": 60_000, "n_validation": 0},
        "train_ids": torch.arange(60_000),
        "state_dict": build_model(model).state_dict(),
        "history": [],
        "metrics": {},
        "provenance": {},
        "complete": True,
        "resume": None,
    }
    checkpoint.save(path, Checkpoint(**(values | changes)))
    return path
