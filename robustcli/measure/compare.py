"""Whether two models differ by more than chance: on the same samples, or over several seeds of their training."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from scipy.stats import ttest_ind_from_stats

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
        """Whether the test finds a difference."""
        return self.p_holm <= ALPHA

    @property
    def needed(self) -> int | None:
        """About how many samples would separate the two, by the test as adjusted; None where none can be named."""
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
        same = [record for records in groups for record in records if record.setting == setting]
        new = [_pair(a, b) for a, b in combinations(same, 2)]
        adjusted = holm([pair.p for pair in new])
        found += [replace(pair, p_holm=p) for pair, p in zip(new, adjusted, strict=True)]
    return found


def _pair(a: Record, b: Record) -> Pair:
    refuse_unequal(a, b)
    table = Table.of(a.robust, b.robust)
    p = mcnemar(table)
    return Pair(a, b, table, p, p)


def refuse_unequal(a: Record, b: Record) -> None:
    """Refuse to compare records that differ in anything but their checkpoint.

    Raises:
        DataError: names what differs.
    """
    refusal = f"{a.subject.checkpoint} and {b.subject.checkpoint}: cannot be compared: "
    conditions = [
        ("data set", a.dataset, b.dataset),
        ("number of samples", a.n, b.n),
        ("norm", a.norm, b.norm),
        ("eps", a.eps, b.eps),
        ("attack", dict(a.attack), dict(b.attack)),
    ]
    for what, first, second in conditions:
        if first != second:
            raise DataError(f"{refusal}{what} {first} and {second}")
    if a.ids != b.ids:
        count = sum(one != other for one, other in zip(a.ids, b.ids, strict=True))
        raise DataError(f"{refusal}{count} of {a.n} samples are others")


@dataclass(frozen=True)
class Family:
    """Checkpoints that differ in their seed alone.

    Attributes:
        method: the training method's name, and the options that distinguish it from another recipe of that name.
        groups: the records of each checkpoint.
    """

    method: str
    groups: tuple[tuple[Record, ...], ...]

    def accuracies(self, setting: str) -> list[float]:
        """Accuracy under an attack at a budget (`Record.setting`), one a seed that has met it."""
        return [record.accuracy for group in self.groups for record in group if record.setting == setting and record.n]

    def as_dict(self) -> dict[str, Any]:
        """The family as JSON holds it."""
        return {"method": self.method, "checkpoints": [group[0].subject.checkpoint for group in self.groups]}


@dataclass(frozen=True)
class Contest:
    """Two families under one attack, and the p-value of Welch's t-test over their seeds (Welch 1947).

    `record` is one of the records under that attack; `p_holm` is adjusted for all contests under it.
    """

    a: Family
    b: Family
    record: Record
    p: float
    p_holm: float

    def as_dict(self) -> dict[str, Any]:
        """The contest as JSON holds it, among the pairs."""
        accuracies_a, accuracies_b = (family.accuracies(self.record.setting) for family in (self.a, self.b))
        return {
            "kind": "seeds",
            "a": self.a.as_dict()["checkpoints"],
            "b": self.b.as_dict()["checkpoints"],
            "method_a": self.a.method,
            "method_b": self.b.method,
            **self.record.setting_as_dict(),
            "accuracies_a": accuracies_a,
            "accuracies_b": accuracies_b,
            "difference": statistics.fmean(accuracies_a) - statistics.fmean(accuracies_b),
            "p": self.p,
            "p_holm": self.p_holm,
            "separable": self.p_holm <= ALPHA,
        }


def families(groups: Sequence[Sequence[Record]], specs: Sequence[Mapping[str, Any]]) -> list[Family]:
    """Checkpoints whose training specs differ in the seed alone, two or more of them together.

    Args:
        groups: the records of each checkpoint.
        specs: the training spec of each.
    """
    found: dict[str, dict[int, tuple[Record, ...]]] = {}
    for rows, spec in zip(groups, specs, strict=True):
        if rows:
            found.setdefault(_recipe(spec), {}).setdefault(spec["seed"], tuple(rows))  # a copy is no other seed
    several = {recipe: by_seed for recipe, by_seed in found.items() if len(by_seed) > 1}
    names = _names([json.loads(recipe) for recipe in several])
    return [Family(name, tuple(by_seed.values())) for name, by_seed in zip(names, several.values(), strict=True)]


def _recipe(spec: Mapping[str, Any]) -> str:
    """The spec without its seed, the method's options beside the others."""
    flat = {key: value for key, value in spec.items() if key not in ("seed", "method")}
    return json.dumps(flat | dict(spec["method"]), sort_keys=True, default=str)


def _names(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The methods' names; those that several recipes share with the options in which they differ."""
    names = []
    for recipe in recipes:
        alike = [other for other in recipes if other["name"] == recipe["name"]]
        own = [f"{key}={value}" for key, value in recipe.items() if any(other.get(key) != value for other in alike)]
        names.append(" ".join([recipe["name"], *own]))
    return names


def contests(families: Sequence[Family]) -> list[Contest]:
    """Each two families under each attack that two or more seeds of both have met."""
    found: list[Contest] = []
    settings = {record.setting: record for family in families for group in family.groups for record in group}
    for setting, record in settings.items():
        two = list(combinations([family for family in families if len(family.accuracies(setting)) > 1], 2))
        ps = [_welch(a.accuracies(setting), b.accuracies(setting), record.n) for a, b in two]
        found += [Contest(a, b, record, p, q) for (a, b), p, q in zip(two, ps, holm(ps), strict=True)]
    return found


def _welch(a: Sequence[float], b: Sequence[float], n: int) -> float:
    """The two-sided p-value; seeds are taken to vary at least as much as n samples alone would make them."""
    moments: list[float] = []
    for values in (a, b):
        mean = statistics.fmean(values)
        share = (mean * n + 1) / (n + 2)  # not 0 or 1, where nothing would vary
        moments += [mean, max(statistics.stdev(values), math.sqrt(share * (1 - share) / n)), len(values)]
    return float(ttest_ind_from_stats(*moments, equal_var=False).pvalue)
