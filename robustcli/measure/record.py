"""The one shape of a result: what an attack at a budget did to each sample of a model's images.

No torch here: a record is read from a document and shown without it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict, TypeAdapter, ValidationError

from robustcli.errors import DataError
from robustcli.fields import parse_number
from robustcli.measure.stats import median_distance, wilson

Kind = Literal["budget", "minimal", "ensemble"]
"""An attack within a budget, one that looks for the closest adversarial, or the worst case over several attacks."""

Bound = Literal["upper", "lower"]
"""Of the true robust accuracy, a number is a bound from above (attacks) or from below (certificates)."""

Whole = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[int, Strict(), Field(ge=0, le=1)]
Distance = Annotated[float, Strict(), Field(ge=0)]
Seconds = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]


def _budget(text: str) -> str:
    if parse_number(text) < 0:
        raise ValueError("should be at least 0")
    return text


Written = Annotated[str, AfterValidator(_budget)]
"""A budget as text."""


@dataclass(frozen=True)
class Subject:
    """The model under test: as it was given, its key, what it is, where that is known, and what comes before it."""

    checkpoint: str
    sha256: str
    model: str | None
    method: str | None
    input: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Sampled:
    """What the last `members` of an ensemble met: a sample of the survivors, and all where they broke one of it.

    Of the `survivors` so many were `probed`, so many of these `broken`, and so many `unmet` in the end.
    """

    members: tuple[str, ...]
    survivors: Count
    probed: Count
    broken: Count
    unmet: Count

    @property
    def most(self) -> float:
        """How many of the unmet could be broken: the upper end of the 95 % interval."""
        return self.unmet * wilson(self.broken, self.probed)[1]

    def text(self, n: int) -> str:
        """In words, of a run of n samples."""
        names, broken, most = " and ".join(self.members), self.broken or "none", f"{100 * self.most / n:.1f}"
        if self.unmet:
            part = f"{self.probed} of {self.survivors} survivors"
            return f"{names} on {part} broke {broken}: at most {most} points less (95 %)"
        why = f", as {broken} of a sample of {self.probed} broke" if self.probed < self.survivors else ""
        return f"{names} ran on all {self.survivors} survivors{why}"


@dataclass(frozen=True)
class Record:
    """One model under one attack at one budget, by sample; rates are computed when shown.

    Attributes:
        subject: the model.
        dataset, split: what the samples are of.
        kind: of result.
        attack: its name and parameters, without the budget.
        label: the attack as a SPEC without norm and budget.
        norm: `linf`, `l2` or `l1`.
        budget: eps as it was written; None for a minimal-norm attack.
        ids, y: (n,) the samples and their classes.
        pred, pred_after: (n,) the predicted class before and after the attack.
        robust: (n,) 1 where a sample is classified right before and after, else 0.
        distance: (n,) of the adversarial, in the norm: 0 where wrong before, infinite where there is none.
        by_iter: of an attack with a trace, how many are right after each iteration.
        seconds, forwards, backwards: the record's own share of the run's work; passes are counted in samples.
        ensemble: of a member of an ensemble, that one's name. It met what the members before it left standing, and
            what they broke counts as broken; the worst case, which has done no work of its own, comes last.
        correct_8bit: how many are right after the attack once its images are rounded to 8 bits inside the ball; None
            where that was not looked at.
        cached: how many of the samples were known from an earlier run; the work is what was spent on them then.
        bound: which side of the true robust accuracy it is on.
        sampled: of an ensemble whose last members met a sample first, and of these members.
    """

    subject: Subject
    dataset: str
    split: str
    kind: Kind
    attack: Mapping[str, Any] = field(hash=False)
    label: str
    norm: str
    budget: Written | None
    ids: tuple[Whole, ...]
    y: tuple[Whole, ...]
    pred: tuple[Whole, ...]
    pred_after: tuple[Whole, ...]
    robust: tuple[Flag, ...]
    distance: tuple[Distance, ...]
    by_iter: tuple[Count, ...] = ()
    seconds: Seconds = 0.0
    forwards: Count = 0
    backwards: Count = 0
    ensemble: str | None = None
    correct_8bit: Count | None = None
    cached: Count = 0
    bound: Bound = "upper"
    sampled: Sampled | None = None

    def __post_init__(self) -> None:
        for name in ("y", "pred", "pred_after", "robust", "distance"):
            if len(getattr(self, name)) != self.n:
                raise ValueError(f"{name}: has {len(getattr(self, name))} values for {self.n} ids")
        if max((*self.by_iter, self.correct_8bit or 0)) > self.n:
            raise ValueError(f"{'by_iter' if max(self.by_iter, default=0) > self.n else 'correct_8bit'}: is over n")
        if (part := self.sampled) and not part.broken <= part.probed <= part.survivors - part.unmet <= self.n:
            raise ValueError("sampled: its numbers contradict each other")
        if (self.budget is None) != (self.kind == "minimal"):
            raise ValueError(f"budget: should be {'null' if self.budget else 'given'} where kind is {self.kind}")

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.ids)

    @property
    def clean_correct(self) -> int:
        """How many were right before the attack."""
        return sum(before == y for before, y in zip(self.pred, self.y, strict=True))

    @property
    def correct(self) -> int:
        """How many were right before and after."""
        return sum(self.robust)

    @property
    def accuracy(self) -> float:
        """Robust accuracy, a fraction."""
        return self.correct / self.n if self.n else 0.0

    @cached_property
    def eps(self) -> float | None:
        """The budget as a number, None for a minimal-norm attack."""
        return None if self.budget is None else parse_number(self.budget)

    @property
    def settled(self) -> int:
        """The first iteration after which nothing changes any more."""
        return next((i for i in range(1, len(self.by_iter)) if len(set(self.by_iter[i - 1 :])) == 1), len(self.by_iter))

    @property
    def median_distance(self) -> float | None:
        """Of a minimal-norm attack; None otherwise, or where half withstood it."""
        return median_distance(self.distance) if self.kind == "minimal" else None

    @property
    def name(self) -> str:
        """The attack; a member of an ensemble behind that one's name."""
        return f"{self.ensemble}/{self.label}" if self.ensemble else self.label

    @property
    def ball(self) -> str:
        """`Linf 8/255`, or `L2` alone for a minimal-norm attack."""
        return " ".join(filter(None, (self.norm.capitalize(), self.budget)))

    @cached_property
    def setting(self) -> str:
        """What is equal for two records of one attack, with all its parameters, at one budget."""
        return json.dumps([self.attack, self.norm, self.eps, self.ensemble], sort_keys=True)

    def setting_as_dict(self) -> dict[str, Any]:
        """The attack and its budget as JSON holds them."""
        return {
            "attack": dict(self.attack),
            "label": self.label,
            "norm": self.norm,
            "budget": self.budget,
            "eps": self.eps,
        }

    def as_dict(self) -> dict[str, Any]:
        """The row of the JSON document, schema 1."""
        row = {
            "checkpoint": self.subject.checkpoint,
            "checkpoint_sha256": self.subject.sha256,
            "dataset": self.dataset,
            "split": self.split,
            "model": self.subject.model,
            "method": self.subject.method,
            **({"input": dict(self.subject.input)} if self.subject.input else {}),
            "kind": self.kind,
            "bound": self.bound,
            **self.setting_as_dict(),
            "n": self.n,
            "clean_correct": self.clean_correct,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "ci95": list(wilson(self.correct, self.n)),
            "correct_8bit": self.correct_8bit,
            "median_distance": self.median_distance,
            "seconds": self.seconds,
            "forwards": self.forwards,
            "backwards": self.backwards,
            "cached": self.cached,
        }
        if self.kind == "minimal":
            row["unconverged"] = self.correct
        if self.by_iter:
            row["by_iter"] = list(self.by_iter)
        if self.ensemble is not None:
            row["ensemble"] = self.ensemble
        if self.sampled is not None:
            low = max(0.0, self.correct - self.sampled.most) / self.n if self.n else 0.0
            row["sampled"] = asdict(self.sampled) | {"members": list(self.sampled.members), "accuracy_low": low}
        columns = {name: list(getattr(self, name)) for name in ("ids", "robust", "y", "pred", "pred_after")}
        return row | columns | {"distance": finite(self.distance)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Record:
        """The record of a row of a document; what follows from the samples is counted anew.

        Raises:
            DataError: it is no such row; names the first key that is wrong.
        """
        if not isinstance(row, Mapping):
            raise DataError("should be an object")
        fields = (cls.__dataclass_fields__.keys() - OPTIONAL - {"subject"}) | set(SUBJECT_KEYS.values())
        for key in sorted(fields - row.keys()):
            raise DataError(f"{key}: is missing")
        subject = {key: row[name] for key, name in SUBJECT_KEYS.items()} | {"input": row.get("input", {})}
        values = {key: value for key, value in row.items() if key in cls.__dataclass_fields__}
        if isinstance(row["distance"], list):
            values["distance"] = [math.inf if value is None else value for value in row["distance"]]
        try:
            return _reader().validate_python(values | {"subject": subject})
        except ValidationError as error:
            raise DataError(first_error(error)) from None


OPTIONAL = {"by_iter", "ensemble", "sampled"}
SUBJECT_KEYS = {"checkpoint": "checkpoint", "sha256": "checkpoint_sha256", "model": "model", "method": "method"}


def first_error(error: ValidationError) -> str:
    """The first mistake, behind its key: `robust.3: Input should be ...`."""
    first = error.errors(include_url=False)[0]
    place = [SUBJECT_KEYS[str(first["loc"][1])]] if first["loc"][:1] == ("subject",) else list(first["loc"])
    return ": ".join(filter(None, (".".join(map(str, place)), first["msg"].removeprefix("Value error, "))))


@cache
def _reader() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def finite(distances: Sequence[float]) -> list[float | None]:
    """Distances as JSON holds them: null where there is no adversarial."""
    return [distance if math.isfinite(distance) else None for distance in distances]
