"""What was found: all parts' numbers in one place, and what it takes to tell two of them apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from robustcli.measure.stats import student
from robustcli.studies.batchout.part_results import Accuracy, PartResults

Verdict = Literal["holds", "holds in part", "does not hold", "cannot be told", "not measured"]

LARGE = {"mnist": "0.3", "cifar10": "8/255"}
"""The budget at which claims on FGSM are judged; the paper names none."""


class NotMeasuredError(Exception):
    """A number that a claim needs is not there."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, the numbers behind it, and the attack that breaks what was claimed."""

    verdict: Verdict
    numbers: str
    breaks: str = "-"


@dataclass(frozen=True)
class Evidence:
    """The parts that there are, by name, and seconds an epoch by method where they were measured side by side."""

    parts: Mapping[str, PartResults]
    speed: Mapping[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> PartResults:
        """A part's results; NotMeasuredError where there are none."""
        if name not in self.parts:
            raise NotMeasuredError(name)
        return self.parts[name]

    def get(self, part: str, label: str, column: str) -> Accuracy:
        """One number; NotMeasuredError where it is not there."""
        found = self.part(part).accuracy(label, column)
        if found is None:
            raise NotMeasuredError(f"{part}: {label}, {column}")
        return found

    def distances(self, part: str, label: str) -> str:
        """The median L2 distances of a label's seeds, as text."""
        found = self.part(part).median_distance(label)
        if not found:
            raise NotMeasuredError(f"{part}: {label}, median L2")
        return " / ".join("inf" if value is None else f"{value:.2f}" for value in found)

    def medians(self, part: str, label: str) -> list[float]:
        """The median L2 distances of a label's seeds; infinite where half withstood the attack."""
        self.distances(part, label)
        return [math.inf if value is None else value for value in self.part(part).median_distance(label)]

    def beyond_seeds(self, a: Accuracy, b: Accuracy, column: str) -> bool:
        """Whether `a` is above `b` beyond both the choice of samples and that of the seed, each of one seed.

        The intervals are disjoint, and the difference is over what 95 % of the differences of two networks that differ
        in their seed alone would be: Student's t for the spread of section 6.1's seeds, that of BatchOut in all slots,
        taken to be that of any other network too. With fewer than three of them nothing is beyond seeds.
        """
        seeds = self.parts["stopgrad"].accuracy("with the stop-gradient", column) if "stopgrad" in self.parts else None
        if seeds is None or len(seeds.counts) < 3:
            return False
        moved = student(len(seeds.counts)) * math.sqrt(2) * statistics.stdev(seeds.percents)
        return above(a, b) and a.mean - b.mean > moved


def grade(full: bool, part: bool) -> Verdict:
    """The verdict of a claim that is met in full, or in part."""
    return "holds" if full else "holds in part" if part else "does not hold"


def contrast(full: bool, contrary: bool) -> Verdict:
    """The verdict of a claim that one thing is above another: which of the two is established, if any."""
    return "holds" if full else "does not hold" if contrary else "cannot be told"


def above(a: Accuracy, b: Accuracy) -> bool:
    """Whether the intervals are disjoint, `a` the higher one."""
    return a.low > b.high


def list_accuracies(pairs: Sequence[tuple[str, Accuracy]]) -> str:
    """`f1 46.12 [45.1, 47.1], c1 ...`."""
    return ", ".join(f"{name} {accuracy.text}" for name, accuracy in pairs)
