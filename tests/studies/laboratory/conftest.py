"""A laboratory that notes what it does, and a folder in which a part is finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.measure.evaluate import Session, evaluate
from robustcli.measure.record import Record
from robustcli.models.checkpoint import Checkpoint
from robustcli.studies.batchout.design import Network, Probe
from robustcli.studies.batchout.laboratory import Laboratory
from robustcli.studies.batchout.run import run_part
from robustcli.studies.batchout.studies import parts
from robustcli.training.loop import Run
from robustcli.training.train import Observers, Prepared, train

from ..conftest import TINY, Json

PROBES = (Probe("fgsm", ("0.1", "0.3")), Probe("pgd:steps=3", ("0.1",), price="costly"))
PART = replace(parts(TINY)["stopgrad"], probes=PROBES)
FIRST, SECOND = PART.networks
Train = Callable[[Prepared, Path, Run], Checkpoint]
Measure = Callable[[Session], Iterator[Record]]
ROWS = 3
"""A network's: FGSM at two budgets and PGD at one."""


def measure(session: Session) -> Iterator[Record]:
    return (result.record for result in evaluate(session))


@dataclass(frozen=True)
class Bench(Laboratory):
    """A laboratory that notes what it does, and what it says."""

    did: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def bench_in(folder: Path, *, train: Train = train, measure: Measure = measure, **changes: Any) -> Bench:
    did: list[str] = []
    said: list[str] = []

    def noted(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
        did.append(f"train {path.stem}")
        return train(prepared, path, run)

    def measured(session: Session) -> Iterator[Record]:
        for row in measure(session):
            did.append(f"measure {row.attack['name']} {row.eps:g}")
            yield row

    values: Json = {"scale": TINY, "device": "cpu"} | changes
    return Bench(folder, train=noted, measure=measured, say=said.append, did=did, said=said, **values)


def stop_after_an_epoch(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
    return train(prepared, path, run, Observers(should_stop=lambda: True))


def never(*_: object) -> Any:
    raise AssertionError("should have been found")


def stop_after(count: int) -> Callable[[Session], Iterator[Record]]:
    """Measures so many rows, then Ctrl-C."""
    left = [count]

    def measured(session: Session) -> Iterator[Record]:
        for row in measure(session):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            yield row

    return measured


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the part is finished. To be copied."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    run_part(PART, Laboratory(folder, TINY, device="cpu"))
    return folder


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once, tmp_path / "out")


def measured_file(folder: Path, network: Network = FIRST) -> Path:
    return folder / "measured" / f"{network.name}.json"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.studies.batchout.run.save_figure", lambda *_: None)
