"""A study so small that each of its networks takes a moment, and that notes what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustcli.data.named import SAMPLE
from robustcli.measure.evaluate import evaluate
from robustcli.measure.record import Record
from robustcli.measure.session import Session
from robustcli.models.checkpoint import Checkpoint
from robustcli.store.cache import Cache
from robustcli.studies.batchout.experiments import AttackSpec, Scale, parts
from robustcli.studies.batchout.study import Study
from robustcli.training.loop import Run
from robustcli.training.train import Prepared, train

TINY = Scale(mnist=SAMPLE, seeds=1, epochs=2, ablation_epochs=2, limit=32, n=16, n_costly=8, n_dear=4, quick=True)
ATTACKS = (AttackSpec("fgsm", ("0.1", "0.3")), AttackSpec("pgd:steps=3", ("0.1",), price="costly"))
PART = replace(parts(TINY)["stopgrad"], attacks=ATTACKS)
FIRST, SECOND = PART.networks
ROWS = 3
"""A network's: FGSM at two budgets and PGD at one."""

Train = Callable[[Prepared, Path, Run], Checkpoint]
Measure = Callable[[Session, Cache], Iterator[Record]]


def measure(session: Session, cache: Cache) -> Iterator[Record]:
    return (result.record for result in evaluate(session, cache=cache))


@dataclass(frozen=True)
class Noted:
    """A study, what it did, and what it said."""

    study: Study
    did: list[str]
    said: list[str]


def study_in(folder: Path, *, train: Train = train, measure: Measure = measure, **changes: Any) -> Noted:
    did: list[str] = []
    said: list[str] = []

    def noted(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
        did.append(f"train {path.stem}")
        return train(prepared, path, run)

    def measured(session: Session, cache: Cache) -> Iterator[Record]:
        for record in measure(session, cache):
            if record.cached < record.n:
                did.append(" ".join(filter(None, ("measure", str(record.attack["name"]), record.budget))))
            yield record

    values: dict[str, Any] = {"scale": TINY, "device": "cpu"} | changes
    return Noted(Study(folder, train=noted, measure=measured, say=said.append, **values), did, said)


def stop_after_an_epoch(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
    return train(prepared, path, run, should_stop=lambda: True)


def never(*_: object) -> Any:
    raise AssertionError("should have been found")


def stop_after(count: int) -> Measure:
    """Measures so many rows, then Ctrl-C."""
    left = [count]

    def measured(session: Session, cache: Cache) -> Iterator[Record]:
        for record in measure(session, cache):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            yield record

    return measured
