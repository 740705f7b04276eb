"""Pairs of checkpoints, and recipes over seeds, as tables: in words that rank only what can be told apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from robustcli.attacks import label
from robustcli.attacks.base import Attack, BudgetAttack
from robustcli.measure.pairs import Pair
from robustcli.measure.record import Row
from robustcli.measure.seeds import Contest, Family
from robustcli.measure.stats import paired_interval
from robustcli.report.tables import Sheet, budget, short_names
from robustcli.text import visible

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
    needed = pair.needed
    more = "" if needed is None else f"; about {_rounded(needed)} samples would be needed"
    return f"cannot be told apart at n = {pair.table.n}{more}"


def _rounded(count: int) -> str:
    """Two digits: `3900` for 3923."""
    step = 10 ** max(0, len(str(count)) - 2)
    return str(-(-count // step) * step)


SEEDS_NOTE = (
    "Per cent, mean and standard deviation over seeds of one recipe. Told apart over seeds, by Welch's t-test adjusted "
    "for all pairs under an attack (Holm): "
)


def seeds_sheet(found: Sequence[Family], contests: Sequence[Contest], told: Sequence[Pair] = ()) -> Sheet:
    """A recipe a row, an attack and budget a column; below, which recipes differ beyond their seeds.

    Args:
        found: the recipes.
        contests: of them.
        told: the pairs of checkpoints; of two seeds of one recipe that can be told apart it is said what that means.
    """
    attacks = list(dict.fromkeys(attack for family in found for attack in family.attacks))
    cells = tuple(
        (
            visible(family.method),
            str(len(family.groups)),
            _spread(family.clean),
            *(_spread(family.accuracies(attack)) for attack in attacks),
        )
        for family in found
    )
    headers = ("method", "seeds", "clean", *(f"{label(attack)}\n{_budget(attack)}" for attack in attacks))
    apart = [_told(contest) for contest in contests if contest.separable] or ["none"]
    note = (SEEDS_NOTE + "; ".join(apart) + ".",) if contests else ()
    return Sheet("Over seeds", headers, cells, (*note, *filter(None, (_luck(family, told) for family in found))))


def _luck(family: Family, told: Sequence[Pair]) -> str:
    """Why two seeds of one recipe can be told apart, where they can."""
    own = {rows[0].subject for rows in family.groups}
    apart = [pair.a.attack for pair in told if pair.separable and {pair.a.subject, pair.b.subject} <= own]
    if not apart:
        return ""
    under = ", ".join(dict.fromkeys(f"{label(attack)} {_budget(attack)}" for attack in apart))
    return (
        f"Seeds of {family.method} are told apart under {under}: the luck of training sets these networks apart, so "
        "that one seed says little of the recipe, and less of it against another."
    )


def _spread(accuracies: Sequence[float]) -> str:
    """`46.1 ± 0.8`, in per cent."""
    if not accuracies:
        return "-"
    mean = f"{100 * statistics.fmean(accuracies):.1f}"
    return mean if len(accuracies) < 2 else f"{mean} ± {100 * statistics.stdev(accuracies):.1f}"


def _told(contest: Contest) -> str:
    first, second = (contest.a, contest.b) if contest.difference > 0 else (contest.b, contest.a)
    points = 100 * abs(contest.difference)
    p = "< 0.001" if contest.p_holm < 0.001 else f"= {contest.p_holm:.3f}"
    attack = f"{label(contest.attack)} {_budget(contest.attack)}"
    return f"{first.method} above {second.method} by {points:.1f} points under {attack} (p {p})"


def _budget(attack: Attack) -> str:
    return f"{attack.norm.label} {attack.eps}" if isinstance(attack, BudgetAttack) else attack.norm.label
