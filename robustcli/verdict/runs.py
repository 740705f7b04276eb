"""The checks of finished rows: each a pure function of per-sample flags; an empty list where there is nothing to judge.

Members of an ensemble meet what those before them left standing: their rows are left out here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from scipy.stats import binom, binomtest

from robustcli.attacks import label
from robustcli.attacks.norms import ball_edge
from robustcli.measure.record import Row
from robustcli.measure.stats import ALPHA, Table, paired_interval, wilson
from robustcli.verdict.effort import ONE_STEP, converges, is_iterative
from robustcli.verdict.findings import Finding

RunCheck = Callable[[Sequence[Row]], list[Finding]]

GAP = 0.3
"""FGSM above PGD by so much is no accident at the usual budgets: vanilla MNIST nets reach 0.11 there."""

WIDE_INTERVAL = 0.1
"""Half a 95 % interval at an accuracy of 50 %: 10 points, as of 93 samples."""

ALONE = 0.01
UNBOUNDED_WARNS = 0.01
UNBOUNDED_SUSPECTS = 0.1
"""Carlini et al. ask for 0; of good PGD-trained MNIST nets DeepFool-50 leaves 3 to 12 % of the hardest points."""

BEYOND_CHANCE = 1e-3


def table(a: Sequence[int], b: Sequence[int]) -> Table:
    """Two rows of flags on the same samples."""
    flags = list(zip(a, b, strict=True))
    return Table(*(flags.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0))))


def budgets(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows at each norm and budget, and its name, such as `Linf 0.3`; without an ensemble's members."""
    whole = [row for row in rows if row.ensemble is None and row.eps is not None]
    for norm, eps in dict.fromkeys((row.attack.norm, float(row.eps or 0)) for row in whole):
        group = [row for row in whole if row.attack.norm == norm and row.eps == eps]
        yield f"{norm.label} {group[0].eps}", group


def worst_case(rows: Sequence[Row], group: Sequence[Row]) -> tuple[int, ...]:
    """(n,) flags: what stands under all attacks of a budget, and has no closer adversarial of a minimal-norm attack.

    Args:
        rows: all of a checkpoint.
        group: those of one norm and budget.
    """
    eps, norm = float(group[0].eps or 0), group[0].attack.norm
    near = [
        [int(distance > ball_edge(eps)) for distance in row.distances]
        for row in rows
        if row.eps is None and row.attack.norm == norm and row.distances and getattr(row.attack, "bounded", True)
    ]
    return tuple(min(flags) for flags in zip(*(row.robust for row in group), *near, strict=True))


def worst_cases(rows: Sequence[Row]) -> list[Finding]:
    """R5."""
    found = []
    for name, group in budgets(rows):
        flags = worst_case(rows, group)
        told = f"under all attacks at {name} stand {percent(sum(flags), len(flags))} of the samples"
        single = min(row.correct for row in group)
        less = f", {single - sum(flags)} fewer than under the strongest alone" if sum(flags) < single else ""
        found.append(Finding("R5", "INFO", told + less, sum(flags) / max(1, len(flags))))
    return found


def steps_beat_one(rows: Sequence[Row]) -> list[Finding]:
    """R6."""
    found = []
    for name, group in budgets(rows):
        found += [_steps(name, one, many) for one, many in one_and_many(group)]
    return found


def one_and_many(group: Sequence[Row]) -> list[tuple[Row, Row]]:
    """FGSM's row with each of an iterative attack at the same budget."""
    one_step = [row for row in group if row.attack.name in ONE_STEP]
    return [(one, many) for one in one_step for many in group if is_iterative(many.attack)]


def _steps(name: str, one: Row, many: Row) -> Finding:
    counts = table(one.robust, many.robust)
    only_fgsm = counts.only_b  # stands under many steps alone
    told = f"at {name} {label(one.attack)} leaves {left(one)}, {label(many.attack)} {left(many)}"
    if many.correct > one.correct and _more(counts.only_b, counts.only_a):
        cause = "masked gradients: the surface is bent where the iterates are, or the steps are too short"
        return Finding("R6", "SUSPECT", f"{told}: {cause}", (many.correct - one.correct) / one.n)
    if only_fgsm > ALONE * one.n:
        return Finding(
            "R6", "WARN", f"{told}; FGSM alone breaks {only_fgsm}: more steps or restarts", only_fgsm / one.n
        )
    gap = ahead(one, many)
    if gap > GAP:
        return Finding("R6", "WARN", f"{told}: FGSM's number says nothing of robustness here", gap)
    return Finding("R6", "OK", told, gap)


def ahead(one: Row, many: Row) -> float:
    """By what share of all samples FGSM leaves more than an iterative attack."""
    return (one.correct - many.correct) / max(1, one.n)


def monotone(rows: Sequence[Row]) -> list[Finding]:
    """R7: on accuracy, for single points of good nets recover too."""
    whole = [row for row in rows if row.ensemble is None and row.eps is not None]
    found = []
    for key in dict.fromkeys((label(row.attack), row.attack.norm) for row in whole):
        curve = sorted(
            (row for row in whole if (label(row.attack), row.attack.norm) == key), key=lambda row: float(row.eps or 0)
        )
        found += [_rise(low, high) for low, high in pairwise(curve)]
    return found


def _rise(low: Row, high: Row) -> Finding:
    counts = table(high.robust, low.robust)
    least, told = paired_interval(counts)[0], f"{label(low.attack)} leaves {left(low)} at eps {low.eps}"
    if least > 0:
        cause = "label leaking, or gradients that mislead beyond the smaller budget"
        told = f"{told} and {left(high)} at {high.eps}: {cause}"
        return Finding("R7", "SUSPECT", told, counts.difference)
    return Finding("R7", "OK", f"{told} and {left(high)} at {high.eps}", counts.difference)


def unbounded(rows: Sequence[Row]) -> list[Finding]:
    """R9, of minimal-norm attacks that ran long enough."""
    return [
        unbounded_finding(label(row.attack), row.correct, row.clean_correct)
        for row in rows
        if row.eps is None and converges(row.attack) and row.clean_correct
    ]


def unbounded_finding(attack: str, failed: int, n: int) -> Finding:
    """R9 of an attack that `failed` on so many of n."""
    share = failed / max(1, n)
    told = f"{attack}, without a budget, fails on {failed} of {n} samples"
    if float(binom.sf(failed - 1, n, UNBOUNDED_SUSPECTS)) < BEYOND_CHANCE:
        return Finding("R9", "SUSPECT", f"{told}: gradients are masked or zero", share)
    return Finding("R9", "WARN" if share > UNBOUNDED_WARNS else "OK", told, share)


def sample_size(rows: Sequence[Row]) -> list[Finding]:
    """R18: at the row where the interval is widest; whether there are enough samples does not depend on the outcome."""
    widths = [half_width(row.correct, row.n) for row in rows if row.n]
    if not widths:
        return []
    least, most = (end(row.n for row in rows if row.n) for end in (min, max))
    n = f"{most}" if least == most else f"{least} to {most}, and what all of them met is compared"
    told = f"n = {n}: the 95 % intervals reach to {100 * max(widths):.1f} points to each side"
    if half_width(least // 2, least) <= WIDE_INTERVAL:
        return [Finding("R18", "INFO", told, max(widths))]
    enough = next(n for n in itertools.count(least) if half_width(n // 2, n) <= WIDE_INTERVAL)
    return [
        Finding("R18", "WARN", f"{told}; too few samples for a reliable number: take {enough} or more", max(widths))
    ]


def half_width(successes: int, n: int) -> float:
    """Half of the 95 % interval of a share."""
    low, high = wilson(successes, n)
    return (high - low) / 2


def eight_bit(rows: Sequence[Row]) -> list[Finding]:
    """R4, of rows that were measured with `--eight-bit`."""
    return [
        rounding_finding(
            f"{label(row.attack)} at {row.attack.norm.label} {row.eps}", row.correct_8bit - row.correct, row.n
        )
        for row in rows
        if row.correct_8bit is not None and row.n
    ]


def rounding_finding(attack: str, saved: int, n: int) -> Finding:
    """R4, where rounding saves so many of n samples."""
    told = f"rounded to 8 bits inside the ball, {saved} of {n} images of {attack} no longer fool"
    return Finding("R4", "INFO" if saved > 0.01 * n else "OK", told, saved / n)


def shared(rows: Sequence[Row]) -> list[Row]:
    """The rows on the samples that they all have: those of a run that may stop early come to different ones.

    Counts that are no sum over samples, such as `clean_correct`, stay those of all.
    """
    if len({row.ids for row in rows}) < 2:
        return list(rows)
    common = set(rows[0].ids).intersection(*(row.ids for row in rows))
    return [_cut(row, common) for row in rows]


def _cut(row: Row, common: Collection[int]) -> Row:
    places = [i for i, sample in enumerate(row.ids) if sample in common]
    ids, robust = (tuple(values[i] for i in places) for values in (row.ids, row.robust))
    return replace(row, ids=ids, robust=robust, distances=tuple(row.distances[i] for i in places if row.distances))


EACH: tuple[RunCheck, ...] = (eight_bit, unbounded, sample_size)
"""R4, R9, R18: of each row by itself."""

RUNS: tuple[RunCheck, ...] = (worst_cases, steps_beat_one, monotone)
"""R5, R6, R7: they hold rows against each other, on the same samples."""


def _more(often: int, seldom: int) -> bool:
    """Whether `often` of the discordant samples are more than chance, one-sided (exact)."""
    both = often + seldom
    return both > 0 and float(binomtest(often, both, 0.5, alternative="greater").pvalue) < ALPHA


def percent(correct: int, n: int) -> str:
    """`46.8 %`."""
    return f"{100 * correct / n:.1f} %" if n else "-"


def left(row: Row) -> str:
    """What stands, in per cent."""
    return percent(row.correct, row.n)


def standard_error(share: float, n: int) -> float:
    """Of a share of n."""
    return math.sqrt(share * (1 - share) / max(1, n))
