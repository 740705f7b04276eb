"""Intervals, tests and medians of per-sample results. scipy loads with the first test: tables need none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Table:
    """Two models on the same samples: how many both got right, only the first, only the second, and neither."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, a: Sequence[int], b: Sequence[int]) -> Table:
        """From flags of the same samples, 1 where a model got it right."""
        flags = list(zip(a, b, strict=True))
        return cls(*(flags.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))))

    @property
    def n(self) -> int:
        """Samples."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """The first one's accuracy less the second one's."""
        return (self.only_a - self.only_b) / self.n if self.n else 0.0


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    square = NormalDist().inv_cdf(1 - ALPHA / 2) ** 2
    centre = (successes + square / 2) / (n + square)
    half = math.sqrt(square * (successes * (n - successes) / n + square / 4)) / (n + square)
    return (centre - half if successes else 0.0), (centre + half if successes < n else 1.0)


def half_width(successes: int, n: int) -> float:
    """Half of the width of a proportion's 95 % interval."""
    low, high = wilson(successes, n)
    return (high - low) / 2


def mcnemar(table: Table) -> float:
    """The two-sided p-value of McNemar's exact test (1947): are the samples that only one got right balanced?"""
    from scipy.stats import binomtest

    discordant = table.only_a + table.only_b
    return float(binomtest(table.only_a, discordant, 0.5).pvalue) if discordant else 1.0


def paired_interval(table: Table) -> tuple[float, float]:
    """The 95 % interval of `table.difference`: Wilson's intervals of both, joined by their correlation.

    Newcombe 1998, *Improved confidence intervals for the difference between binomial proportions based on paired data*,
    method 10.
    """
    n = table.n
    if n == 0:
        return -1.0, 1.0
    a, b = table.both + table.only_a, table.both + table.only_b
    low_a, high_a = wilson(a, n)
    low_b, high_b = wilson(b, n)
    phi, p_a, p_b = _correlation(table), a / n, b / n
    below = _joined(p_a - low_a, high_b - p_b, phi)
    above = _joined(high_a - p_a, p_b - low_b, phi)
    return table.difference - below, table.difference + above


def _joined(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def _correlation(table: Table) -> float:
    """Newcombe's phi: the correlation of the two, towards 0 by a continuity correction where it is positive."""
    a, b = table.both + table.only_a, table.both + table.only_b
    spread = a * (table.n - a) * b * (table.n - b)
    cross = table.both * table.neither - table.only_a * table.only_b
    if spread == 0:
        return 0.0
    return (max(0.0, cross - table.n / 2) if cross > 0 else cross) / math.sqrt(spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for being several, in their order (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def samples_needed(table: Table, alpha: float = ALPHA) -> int | None:
    """About how many samples would tell the two apart, if these shares are true; None where they are equal.

    Connor 1987, *Sample size for testing differences in proportions for the paired-sample design*: McNemar's test at
    `alpha` with a power of 80 %.
    """
    from scipy.stats import norm

    share, difference = (table.only_a + table.only_b) / max(1, table.n), abs(table.difference)
    if difference == 0:
        return None
    z_alpha, z_power = float(norm.isf(alpha / 2)), float(norm.isf(1 - POWER))
    root = z_alpha * math.sqrt(share) + z_power * math.sqrt(max(0.0, share - difference**2))
    return math.ceil((root / difference) ** 2)


def student(n: int) -> float:
    """How many standard errors a 95 % interval of the mean of n values reaches to each side (Student's t)."""
    from scipy.stats import t

    return float(t.ppf(1 - ALPHA / 2, n - 1))


def median_distance(distances: Sequence[float]) -> float | None:
    """The distance within which half of the samples have an adversarial; None where half withstood the attack.

    Args:
        distances: 0 where wrong before the attack, infinite where robust.
    """
    if not distances:
        return None
    middle = sorted(distances)[len(distances) // 2]
    return middle if math.isfinite(middle) else None
