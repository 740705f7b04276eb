"""Intervals and medians of per-sample results."""

from __future__ import annotations

import math

from scipy.stats import binomtest
from torch import Tensor


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def median_distance(distance: Tensor) -> float | None:
    """The distance within which half of the samples have an adversarial; None where half withstood the attack.

    Args:
        distance: (n,) 0 where wrong before the attack, infinite where robust.
    """
    if len(distance) == 0:
        return None
    middle = float(distance.double().quantile(0.5, interpolation="higher"))
    return middle if math.isfinite(middle) else None
