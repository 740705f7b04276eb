from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcli.measure.stats import (
    Table,
    holm,
    mcnemar,
    median_distance,
    paired_interval,
    samples_needed,
    wilson,
)

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
    assert median_distance(distances) == expected


TABLES = st.builds(Table, *[st.integers(0, 60)] * 4)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(6, 0, 0.03125), (5, 0, 0.0625), (15, 5, 0.04139), (20, 8, 0.03570), (0, 0, 1.0), (7, 7, 1.0)],
)
def test_mcnemar_gives_known_values(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(Table(40, only_a, only_b, 3)) == pytest.approx(p, abs=5e-6)


@given(TABLES)
def test_mcnemar_looks_only_at_the_samples_that_differ_and_not_at_the_order(table: Table) -> None:
    assert mcnemar(table) == mcnemar(Table(0, table.only_b, table.only_a, 0))


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998, Statistics in Medicine 17, 2635, Table II, method 10
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((53, 0, 0, 1), -0.0728, 0.0728),
    ],
)
def test_the_paired_interval_gives_known_values(cells: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_interval(Table(*cells)) == pytest.approx((low, high), abs=5e-4)


@given(TABLES)
def test_the_paired_interval_contains_the_difference_and_turns_with_the_order(table: Table) -> None:
    low, high = paired_interval(table)
    assert -1 <= low <= table.difference <= high <= 1
    swapped = paired_interval(Table(table.both, table.only_b, table.only_a, table.neither))
    assert swapped == pytest.approx((-high, -low))


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_keeps_the_order_and_stays_below_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, raised in zip(p_values, adjusted, strict=True):
        assert p <= raised <= min(1.0, len(p_values) * p)
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in ranked] == sorted(adjusted)


def test_samples_needed_are_those_of_connor() -> None:
    # (1.95996 sqrt(0.05) + 0.84162 sqrt(0.05 - 0.01^2))^2 / 0.01^2
    assert samples_needed(Table(800, 30, 20, 150)) == 3923
    assert samples_needed(Table(800, 20, 20, 160)) is None


@given(TABLES)
def test_fewer_samples_are_needed_than_there_are_only_where_the_test_tells_them_apart(table: Table) -> None:
    needed = samples_needed(table)
    if needed is not None and 2 * needed < table.n:
        assert mcnemar(table) < 0.05
