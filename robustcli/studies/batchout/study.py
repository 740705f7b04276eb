"""A study under way: where its files lie, how much of everything, and how it trains, measures and speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from robustcli.config import DataSpec
from robustcli.data.load import load
from robustcli.measure.evaluate import evaluate
from robustcli.measure.record import Record
from robustcli.measure.session import Session
from robustcli.models.checkpoint import Checkpoint
from robustcli.store.cache import Cache
from robustcli.studies.batchout.experiments import Network, Scale
from robustcli.training.loop import Run
from robustcli.training.train import Prepared, train


def _train(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
    return train(prepared, path, run)


def _measure(session: Session, cache: Cache) -> Iterator[Record]:
    return (result.record for result in evaluate(session, cache=cache))


@dataclass(frozen=True)
class Study:
    """The settings that every part of the study shares.

    Attributes:
        folder: holds the checkpoints in `models/`, what was measured in `store.db`, and the parts' files.
        scale: how much of everything.
        data_dir: where data sets lie.
        device: as `--device` takes it.
        zoo: use the zoo's network where it is the one that is asked for, and it was not trained here.
        train: trains a prepared run; the command line passes one with a progress bar.
        measure: gives a session's records, and what the cache knows is not computed again.
        say: takes a line on what is being done.
    """

    folder: Path
    scale: Scale
    data_dir: Path | None = None
    device: str = "auto"
    zoo: bool = True
    train: Callable[[Prepared, Path, Run], Checkpoint] = _train
    measure: Callable[[Session, Cache], Iterator[Record]] = _measure
    say: Callable[[str], None] = field(default=lambda _: None)

    @property
    def store(self) -> Path:
        """The store of all that was measured."""
        return self.folder / "store.db"

    def fingerprint(self, network: Network, split: Literal["train", "test"]) -> str:
        """That of all images that the network is trained on, or may be measured on."""
        limit = network.spec.limit if split == "train" else None
        return _fingerprint(network.spec.dataset, self.data_dir, split, limit)


@lru_cache
def _fingerprint(dataset: str, data_dir: Path | None, split: Literal["train", "test"], limit: int | None) -> str:
    wanted = DataSpec(dataset=dataset, data_dir=data_dir, split=split, limit=limit, allow_sample=False)
    return load(wanted).fingerprint


def move_aside(path: Path) -> Path:
    """Rename a file to `NAME.old`, or `NAME.old-2` and so on where that is taken; the new path."""
    aside, number = path.with_name(f"{path.name}.old"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.old-{number}"), number + 1
    return path.replace(aside)
