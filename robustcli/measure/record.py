"""Rows of results, and the JSON document that attack, evaluate and compare share (schema 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustcli.attacks import describe
from robustcli.attacks.base import Attack, BudgetAttack, MinimalAttack
from robustcli.engine.run import Outcome
from robustcli.measure.stats import median_distance, wilson

SCHEMA = 1


@dataclass(frozen=True)
class Subject:
    """The checkpoint under test, as rows name it."""

    checkpoint: str
    sha256: str
    model: str
    method: str


@dataclass(frozen=True)
class Row:
    """One checkpoint under one attack at one budget, counted per sample; rates are computed when shown.

    Attributes:
        subject: the checkpoint.
        dataset: the images' name.
        attack: with the budget of this row.
        ids: the samples' ids.
        robust: 1 where a sample is classified right after the attack, else 0.
        clean_correct: how many were right before.
        median_distance: of a minimal-norm attack, in its norm; None otherwise, or where half withstood it.
        by_iter: of a minimal-norm attack, how many were right after each iteration.
        seconds, forwards, backwards: the row's own share of the run's work, in samples.
        ensemble: of a member of an ensemble, that one's name. What the members before it broke counts as broken, and
            the worst case, which has done no work of its own, is the last row.
        distances: of a minimal-norm attack, that of each sample's closest adversarial, in its norm: 0 where the sample
            was wrong before, infinite where there is none.
        correct_8bit: how many are right after the attack once its images are rounded to 8 bits inside the ball; None
            where that was not looked at.
        cached: how many of the samples were known from an earlier run; the work is what was spent on them then.
        split: which part of the data set the samples are of, train or test.
    """

    subject: Subject
    dataset: str
    attack: Attack
    ids: tuple[int, ...]
    robust: tuple[int, ...]
    clean_correct: int
    median_distance: float | None
    by_iter: tuple[int, ...]
    seconds: float
    forwards: int
    backwards: int
    ensemble: str | None = None
    distances: tuple[float, ...] = ()
    correct_8bit: int | None = None
    cached: int = 0
    split: str = "test"

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.ids)

    @property
    def correct(self) -> int:
        """How many were right after the attack."""
        return sum(self.robust)

    @property
    def eps(self) -> float | None:
        """The budget, None for a minimal-norm attack."""
        return self.attack.eps if isinstance(self.attack, BudgetAttack) else None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        row: dict[str, Any] = {
            "checkpoint": self.subject.checkpoint,
            "checkpoint_sha256": self.subject.sha256,
            "dataset": self.dataset,
            "split": self.split,
            "model": self.subject.model,
            "method": self.subject.method,
            "attack": describe(self.attack),
            "norm": self.attack.norm.name,
            "eps": None if self.eps is None else float(self.eps),
            "n": self.n,
            "clean_correct": self.clean_correct,
            "correct": self.correct,
            "accuracy": self.correct / self.n if self.n else 0.0,
            "ci95": list(wilson(self.correct, self.n)),
            "correct_8bit": self.correct_8bit,
            "median_distance": self.median_distance,
            "seconds": self.seconds,
            "forwards": self.forwards,
            "backwards": self.backwards,
            "cached": self.cached,
        }
        if self.eps is None:
            row["unconverged"] = self.correct
        if self.by_iter:
            row["by_iter"] = list(self.by_iter)
        if self.ensemble is not None:
            row["ensemble"] = self.ensemble
        row |= {"ids": list(self.ids), "robust": list(self.robust)}
        if self.distances:
            row["distances"] = finite(self.distances)
        return row


def finite(distances: Sequence[float]) -> list[float | None]:
    """Distances as JSON holds them: null where there is no adversarial."""
    return [distance if math.isfinite(distance) else None for distance in distances]


def to_row(subject: Subject, dataset: str, ids: Sequence[int], outcome: Outcome, split: str = "test") -> Row:
    """An outcome of the driver as a row."""
    minimal = isinstance(outcome.attack, MinimalAttack)
    return Row(
        subject=subject,
        dataset=dataset,
        attack=outcome.attack,
        ids=tuple(ids),
        robust=tuple(int(flag) for flag in outcome.robust.tolist()),
        clean_correct=int(outcome.clean.sum()),
        median_distance=median_distance(outcome.distance) if minimal else None,
        by_iter=outcome.by_iter,
        seconds=outcome.seconds,
        forwards=outcome.forwards,
        backwards=outcome.backwards,
        ensemble=outcome.ensemble,
        distances=tuple(outcome.distance.tolist()) if minimal else (),
        cached=outcome.recalled,
        split=split,
    )


def document(
    rows: Sequence[Row],
    provenance: dict[str, Any],
    pairs: Sequence[dict[str, Any]] = (),
    curves: Sequence[dict[str, Any]] = (),
    transfer: Sequence[dict[str, Any]] = (),
    verdict: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON document of a run; `curves` and `transfer` are there where they were asked for."""
    return {
        "schema": SCHEMA,
        "rows": [row.as_dict() for row in rows],
        **({"curves": list(curves)} if curves else {}),
        **({"transfer": list(transfer)} if transfer else {}),
        "pairs": list(pairs),
        "verdict": verdict,
        "provenance": provenance,
    }
