"""Several seeds of one training recipe as one: mean and spread, and a test of two recipes over their seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from scipy.stats import ttest_ind_from_stats

from robustcli.measure.record import Record
from robustcli.measure.stats import ALPHA, holm


@dataclass(frozen=True)
class Family:
    """Checkpoints that differ in their seed alone.

    Attributes:
        method: the training method's name, and what tells it apart from another recipe of that name.
        groups: the records of each checkpoint.
    """

    method: str
    groups: tuple[tuple[Record, ...], ...]

    def accuracies(self, setting: str) -> list[float]:
        """Accuracy under an attack at a budget (`Record.setting`), one a seed that has met it."""
        return [record.accuracy for group in self.groups for record in group if record.setting == setting and record.n]

    @property
    def clean(self) -> list[float]:
        """Clean accuracy, one a seed."""
        return [rows[0].clean_correct / rows[0].n for rows in self.groups if rows and rows[0].n]

    @property
    def settings(self) -> dict[str, Record]:
        """What its seeds have met, each with a record of it."""
        return {record.setting: record for group in self.groups for record in group}

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

    @property
    def separable(self) -> bool:
        """Whether the two can be told apart beyond their seeds."""
        return self.p_holm <= ALPHA

    @property
    def difference(self) -> float:
        """The first one's mean accuracy less the second one's."""
        first, second = (family.accuracies(self.record.setting) for family in (self.a, self.b))
        return statistics.fmean(first) - statistics.fmean(second)

    def as_dict(self) -> dict[str, Any]:
        """The contest as JSON holds it, among the pairs."""
        named = {"a": self.a, "b": self.b}
        return {
            "kind": "seeds",
            **{key: family.as_dict()["checkpoints"] for key, family in named.items()},
            **{f"method_{key}": family.method for key, family in named.items()},
            **self.record.setting_as_dict(),
            **{f"accuracies_{key}": family.accuracies(self.record.setting) for key, family in named.items()},
            "difference": self.difference,
            "p": self.p,
            "p_holm": self.p_holm,
            "separable": self.separable,
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


def contests(found: Sequence[Family]) -> list[Contest]:
    """Each two families under each attack that two or more seeds of both have met."""
    made: list[Contest] = []
    for setting, record in {key: one for family in found for key, one in family.settings.items()}.items():
        two = list(combinations([family for family in found if len(family.accuracies(setting)) > 1], 2))
        ps = [_welch(a.accuracies(setting), b.accuracies(setting), record.n) for a, b in two]
        made += [Contest(a, b, record, p, q) for (a, b), p, q in zip(two, ps, holm(ps), strict=True)]
    return made


def _welch(a: Sequence[float], b: Sequence[float], n: int) -> float:
    """The two-sided p-value; seeds are taken to vary at least as much as n samples alone would make them."""
    said: list[float] = []
    for values in (a, b):
        mean = statistics.fmean(values)
        share = (mean * n + 1) / (n + 2)  # not 0 or 1, where nothing would vary
        said += [mean, max(statistics.stdev(values), math.sqrt(share * (1 - share) / n)), len(values)]
    return float(ttest_ind_from_stats(*said, equal_var=False).pvalue)
