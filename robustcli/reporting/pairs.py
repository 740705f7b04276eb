"""Pairs of checkpoints as a table, in words that rank only what can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustcli.attacks import label
from robustcli.evaluation.pairs import Pair
from robustcli.evaluation.results import Row
from robustcli.evaluation.stats import paired_interval, samples_needed
from robustcli.reporting.tables import Sheet, budget, short_names

HEADERS = ("first - second", "attack", "points", "only first", "only second", "p", "so")
NOTE = (
    "Points: accuracy of the first less that of the second on the same samples, with Newcombe's 95 % interval; only "
    "first, only second: samples that are right after the attack in one of them. p: McNemar's exact test, adjusted for "
    "all pairs under an attack (Holm)."
)
MANY = 4
"""From so many checkpoints on, the table has only the pairs of the first one with each other; JSON has all."""


def pairs_sheet(found: Sequence[Pair], groups: Sequence[Sequence[Row]]) -> Sheet:
    """One line a pair, attack and budget.

    Args:
        found: the pairs.
        groups: each checkpoint's rows, as `compare_sheet` has them.
    """
    subjects, many = [rows[0].subject for rows in groups], len(groups) >= MANY
    names = {subject.checkpoint: name for subject, name in zip(subjects, short_names(groups), strict=True)}
    first = subjects[0]
    shown = [pair for pair in found if pair.a.subject == first] if many else found
    left_out = (f"The pairs of {names[first.checkpoint]}; all {len(found)} are in the JSON.",) if many else ()
    return Sheet("Told apart", HEADERS, tuple(_line(pair, names) for pair in shown), (*left_out, NOTE), left=2)


def _line(pair: Pair, names: Mapping[str, str]) -> tuple[str, ...]:
    table, (low, high) = pair.table, paired_interval(pair.table)
    return (
        f"{names[pair.a.subject.checkpoint]} - {names[pair.b.subject.checkpoint]}",
        f"{label(pair.a.attack)} {budget(pair.a)}",
        f"{100 * table.difference:+.1f}\n[{100 * low:+.1f}, {100 * high:+.1f}]",
        str(table.only_a),
        str(table.only_b),
        "< 0.001" if pair.p_holm < 0.001 else f"{pair.p_holm:.3f}",
        verdict(pair, names),
    )


def verdict(pair: Pair, names: Mapping[str, str]) -> str:
    """`vanilla is ahead`, or that the two cannot be told apart and how many samples it would take."""
    if pair.separable:
        ahead = pair.a if pair.table.difference > 0 else pair.b
        return f"{names[ahead.subject.checkpoint]} is ahead"
    needed = samples_needed(pair.table)
    more = "" if needed is None else f"; about {_rounded(needed)} samples would be needed"
    return f"cannot be told apart at n = {pair.table.n}{more}"


def _rounded(count: int) -> str:
    """Two digits: `3900` for 3923."""
    step = 10 ** max(0, len(str(count)) - 2)
    return str(-(-count // step) * step)
