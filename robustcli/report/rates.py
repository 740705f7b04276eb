"""Counts as rates with their intervals. No torch here: `robustcli results` answers without it."""

from __future__ import annotations

from robustcli.measure.stats import wilson


def percent(correct: int, n: int) -> str:
    """`46.8`, in per cent: one digit, two from 10 000 samples on, and more where 0 or 100 would be untrue."""
    if n == 0:
        return "-"
    digits = 2 if n >= 10_000 else 1
    while 0 < correct < n and float(f"{100 * correct / n:.{digits}f}") in (0, 100):
        digits += 1
    return f"{100 * correct / n:.{digits}f}"


def interval(correct: int, n: int) -> str:
    """`[45.8, 47.8]`, in per cent, with one digit, two from 10 000 samples on."""
    low, high = wilson(correct, n)
    digits = 2 if n >= 10_000 else 1
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"
