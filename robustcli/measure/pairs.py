"""Two checkpoints on the same samples under the same attack: whether their difference is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from robustcli.errors import DataError
from robustcli.measure.record import Record
from robustcli.measure.stats import ALPHA, Table, holm, mcnemar, paired_interval, samples_needed


@dataclass(frozen=True)
class Pair:
    """Two records of one attack and budget, and what McNemar's exact test says of them.

    Attributes:
        a, b: their records.
        table: the samples by who of them withstood the attack.
        p: of the test.
        p_holm: adjusted for all pairs under this attack and budget.
    """

    a: Record
    b: Record
    table: Table
    p: float
    p_holm: float

    @property
    def separable(self) -> bool:
        """Whether the two can be told apart."""
        return self.p_holm <= ALPHA

    @property
    def needed(self) -> int | None:
        """About how many samples would tell the two apart, by the test as adjusted; None where none can be named."""
        if self.separable:
            return None
        count = samples_needed(self.table, ALPHA * self.p / self.p_holm if self.p_holm else ALPHA)
        return None if count is None else max(count, self.table.n + 1)

    def as_dict(self) -> dict[str, Any]:
        """The pair as JSON holds it."""
        return {
            "kind": "samples",
            "a": self.a.subject.checkpoint,
            "b": self.b.subject.checkpoint,
            **self.a.setting_as_dict(),
            "n": self.table.n,
            "both": self.table.both,
            "only_a": self.table.only_a,
            "only_b": self.table.only_b,
            "neither": self.table.neither,
            "difference": self.table.difference,
            "ci95": list(paired_interval(self.table)),
            "p": self.p,
            "p_holm": self.p_holm,
            "separable": self.separable,
            "samples_needed": self.needed,
        }


def pairs(groups: Sequence[Sequence[Record]]) -> list[Pair]:
    """Each two checkpoints under each attack that both have met, an attack after the other.

    Args:
        groups: the records of each checkpoint; an interrupted one may have fewer.

    Raises:
        DataError: two rows of one attack are not of the same samples.
    """
    settings = dict.fromkeys(record.setting for records in groups for record in records)
    found: list[Pair] = []
    for setting in settings:
        met = [record for records in groups for record in records if record.setting == setting]
        made = [_pair(a, b) for a, b in combinations(met, 2)]
        adjusted = holm([pair.p for pair in made])
        found += [replace(pair, p_holm=p) for pair, p in zip(made, adjusted, strict=True)]
    return found


def _pair(a: Record, b: Record) -> Pair:
    refuse_unequal(a, b)
    flags = list(zip(a.robust, b.robust, strict=True))
    table = Table(*(flags.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))))
    p = mcnemar(table)
    return Pair(a, b, table, p, p)


def refuse_unequal(a: Record, b: Record) -> None:
    """Refuse to compare records that differ in anything but their checkpoint.

    Raises:
        DataError: names what differs.
    """
    conditions = [
        ("data set", a.dataset, b.dataset),
        ("number of samples", a.n, b.n),
        ("norm", a.norm, b.norm),
        ("eps", a.eps, b.eps),
        ("attack", dict(a.attack), dict(b.attack)),
    ]
    for what, first, second in conditions:
        if first != second:
            raise DataError(f"{_both(a, b)}: cannot be compared: {what} {first} and {second}")
    if a.ids != b.ids:
        count = sum(one != other for one, other in zip(a.ids, b.ids, strict=True))
        raise DataError(f"{_both(a, b)}: cannot be compared: {count} of {a.n} samples are others")


def _both(a: Record, b: Record) -> str:
    return f"{a.subject.checkpoint} and {b.subject.checkpoint}"
