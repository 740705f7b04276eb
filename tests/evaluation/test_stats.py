from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustcli.evaluation.stats import median_distance, wilson

Z = 1.959963984540054


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_formula_of_1927(counts: tuple[int, int]) -> None:
    successes, n = counts
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert wilson(successes, n) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-9)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (0, 1, 0.0, 0.7935),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17, Table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_known_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_proportion_and_is_symmetric(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([], None),
        ([1.0], 1.0),
        ([math.inf], None),
        ([0.0, 0.0, 5.0], 0.0),  # wrong before the attack counts as distance 0
        ([1.0, 2.0, 3.0], 2.0),
        ([3.0, math.inf, 1.0], 3.0),
        ([1.0, math.inf, math.inf], None),
        ([1.0, 2.0], 2.0),  # half of two samples within 1: the higher one, so never less than half
        ([1.0, math.inf], None),
    ],
)
def test_the_median_distance_counts_robust_samples_as_infinitely_far(
    distances: list[float], expected: float | None
) -> None:
    assert median_distance(torch.tensor(distances)) == expected
