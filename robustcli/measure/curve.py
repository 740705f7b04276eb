"""Robust accuracy at every budget, from the distance of each sample's closest adversarial. No torch here."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustcli.errors import DataError
from robustcli.fields import Eps, ball_edge
from robustcli.measure.record import SUBJECT_KEYS, Record, Subject, Written, finite, first_error
from robustcli.measure.stats import median_distance, wilson

POINTS = 10
"""About how many budgets are shown where none is given."""


class _Class(BaseModel):
    name: str = Field(alias="class")


class _Point(BaseModel):
    budget: Written


class _Curve(BaseModel):
    """What `Curve.from_dict` takes for granted."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    checkpoint: str
    checkpoint_sha256: str
    model: str | None
    method: str | None
    dataset: str
    split: str
    norm: str
    attacks: list[str]
    points: Annotated[list[_Point], Field(min_length=1)]
    by_class: list[_Class]
    ids: list[int]
    y: list[int]
    distances: list[Annotated[float, Field(ge=0)] | None]


@dataclass(frozen=True)
class Group:
    """Some of a curve's samples: all of them, or those of one class.

    Attributes:
        name: the class, or `all`.
        distances: of their closest adversarials, in ascending order: 0 where wrong before, infinite without one.
    """

    name: str
    distances: tuple[float, ...]

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.distances)

    @property
    def median(self) -> float | None:
        """The distance within which half of them are broken; None where half are not."""
        return median_distance(self.distances)

    def correct(self, eps: float) -> int:
        """How many have no adversarial within `eps`."""
        return self.n - bisect_right(self.distances, ball_edge(eps) if eps else 0.0)

    def points(self, budgets: Sequence[float]) -> list[dict[str, Any]]:
        """Each budget with what is left at it, as JSON holds it."""
        return [
            {
                "budget": str(eps) if hasattr(eps, "text") else f"{eps:g}",
                "eps": float(eps),
                "correct": self.correct(eps),
                "accuracy": self.correct(eps) / self.n if self.n else 0.0,
                "ci95": list(wilson(self.correct(eps), self.n)),
            }
            for eps in budgets
        ]


@dataclass(frozen=True)
class Curve:
    """A checkpoint's robust accuracy in one norm, under the best of its minimal-norm attacks on each sample.

    Attributes:
        subject, dataset, split, norm: what was measured.
        attacks: the attacks' labels.
        ids: (n,) the samples' ids.
        labels: (n,) their classes, by number.
        classes: their names, by number.
        distances: (n,) of the closest adversarial that any of the attacks found: 0 where wrong before, infinite where
            none did.
    """

    subject: Subject
    dataset: str
    norm: str
    attacks: tuple[str, ...]
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    classes: Mapping[int, str]
    distances: tuple[float, ...]
    split: str = "test"

    @cached_property
    def everyone(self) -> Group:
        """All samples."""
        return Group("all", tuple(sorted(self.distances)))

    @cached_property
    def by_class(self) -> tuple[Group, ...]:
        """The samples of each class that has any."""
        groups: dict[int, list[float]] = {}
        for number, distance in zip(self.labels, self.distances, strict=True):
            groups.setdefault(number, []).append(distance)
        return tuple(Group(self.classes[number], tuple(sorted(groups[number]))) for number in sorted(groups))

    def as_dict(self, budgets: Sequence[float]) -> dict[str, Any]:
        """The curve as JSON holds it: its value at the budgets, and the distances, which give it at every other."""
        return {
            "checkpoint": self.subject.checkpoint,
            "checkpoint_sha256": self.subject.sha256,
            "dataset": self.dataset,
            "split": self.split,
            "model": self.subject.model,
            "method": self.subject.method,
            "norm": self.norm,
            "attacks": list(self.attacks),
            "n": self.everyone.n,
            "median_distance": self.everyone.median,
            "points": self.everyone.points(budgets),
            "by_class": [
                {"class": group.name, "n": group.n, "median_distance": group.median, "points": group.points(budgets)}
                for group in self.by_class
            ],
            "ids": list(self.ids),
            "y": list(self.labels),
            "distances": finite(self.distances),
        }

    @classmethod
    def from_dict(cls, curve: Mapping[str, Any]) -> tuple[Curve, list[Eps]]:
        """The curve that `as_dict` made this of, and the budgets that it was shown at.

        Raises:
            DataError: it is no such curve; names the first key that is wrong.
        """
        try:
            _Curve.model_validate(curve)
        except ValidationError as error:
            raise DataError(first_error(error)) from None
        numbers = sorted(set(curve["y"]))
        for key, expected in (("y", len(curve["ids"])), ("distances", len(curve["ids"])), ("by_class", len(numbers))):
            if len(curve[key]) != expected:
                raise DataError(f"{key}: has {len(curve[key])} values, and should have {expected}")
        read = cls(
            subject=Subject(**{key: curve[name] for key, name in SUBJECT_KEYS.items()}),
            dataset=curve["dataset"],
            split=curve["split"],
            norm=curve["norm"],
            attacks=tuple(curve["attacks"]),
            ids=tuple(curve["ids"]),
            labels=tuple(curve["y"]),
            classes=dict(zip(numbers, (group["class"] for group in curve["by_class"]), strict=True)),
            distances=tuple(math.inf if value is None else value for value in curve["distances"]),
        )
        return read, [Eps(point["budget"]) for point in curve["points"]]


def curves(records: Sequence[Record], classes: Sequence[str]) -> list[Curve]:
    """A curve for each norm that a model's minimal-norm attacks measured distances in.

    Args:
        records: of one model on the same samples.
        classes: the classes' names.
    """
    minimal = [record for record in records if record.kind == "minimal"]
    by_norm = {norm: [record for record in minimal if record.norm == norm] for norm in (one.norm for one in minimal)}
    return [
        Curve(
            subject=same[0].subject,
            dataset=same[0].dataset,
            split=same[0].split,
            norm=norm,
            attacks=tuple(record.label for record in same),
            ids=same[0].ids,
            labels=same[0].y,
            classes=dict(enumerate(classes)),
            distances=tuple(map(min, zip(*(record.distance for record in same), strict=True))),
        )
        for norm, same in by_norm.items()
    ]


def budgets_of(all_curves: Sequence[Curve], budgets: Sequence[float]) -> dict[str, Sequence[float]]:
    """The budgets to show the curves of each norm at: those given, in ascending order, or about ten even ones."""
    norms = dict.fromkeys(curve.norm for curve in all_curves)
    return {norm: sorted(budgets) or _even([curve for curve in all_curves if curve.norm == norm]) for norm in norms}


def _even(all_curves: Sequence[Curve]) -> list[float]:
    """Round budgets from 0 to where 95 % of the broken samples are."""
    broken = sorted(d for curve in all_curves for d in curve.distances if 0 < d < math.inf)
    if not broken:
        return [0.0]
    reach = broken[math.ceil(0.95 * len(broken)) - 1]
    power = 10.0 ** math.floor(math.log10(reach / POINTS))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * POINTS >= reach)
    return [float(f"{i * step:.6g}") for i in range(math.ceil(reach / step - 1e-9) + 1)]
