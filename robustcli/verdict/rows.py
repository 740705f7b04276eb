"""The checks of finished rows: pure functions of per-sample flags, and of which attacks ran.

Members of an ensemble meet what those before them left standing: each is held against the one before it, and left out
where attacks are held against each other.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, ClassVar

from scipy.stats import binom, binomtest

from robustcli.attacks import ATTACKS, attack_from, label, parse_attack
from robustcli.attacks.autoattack import EOT
from robustcli.attacks.base import Attack, MinimalAttack, is_black_box, is_iterative, parts
from robustcli.attacks.norms import L1
from robustcli.errors import DataError
from robustcli.fields import ball_edge
from robustcli.measure.compare import Pair, refuse_unequal
from robustcli.measure.record import Record
from robustcli.measure.stats import ALPHA, Table, half_width, paired_interval
from robustcli.verdict.check import AUTOATTACK, CARLINI, Finding, Level, When, also, check

MANY_STEPS = 100
"""What the authors of AutoAttack give each run of APGD."""

MANY_QUERIES = 1000
"""From so many on, Square's random search does what R13's uniform noise does."""

WIDE_INTERVAL = 0.1
"""Half a 95 % interval at an accuracy of 50 %: 10 points, as of 93 samples."""

SAVED = 0.01
ALONE = 0.01

GAP = 0.3
"""FGSM above PGD by so much is no accident at the usual budgets: vanilla MNIST nets reach 0.11 there."""

UNBOUNDED_WARNS = 0.01
UNBOUNDED_SUSPECTS = 0.1
"""Carlini et al. ask for 0; of good PGD-trained MNIST nets DeepFool-50 leaves 3 to 12 % of the hardest points."""

BEYOND_CHANCE = 1e-3

BLACK_BOX_WARNS = 0.002
BLACK_BOX_SUSPECTS = 0.1
"""On a good PGD-trained MNIST net, Square breaks 3 % of what PGD-20 leaves: AutoAttack's 0.2 points alone warn."""

LOSSES_DIFFER = 0.05

UNEQUAL = 0.1


@dataclass(frozen=True)
class Results:
    """The finished rows of one checkpoint, and whether it answers the same image differently."""

    when: ClassVar[When] = "reuse"

    rows: Sequence[Record]
    randomised: bool = False

    @cached_property
    def common(self) -> list[Record]:
        """The rows on the samples that they all have, where there are any."""
        common = on_common_samples(self.rows)
        return common if common and common[0].n else []

    def budgets(self) -> Iterator[tuple[str, list[Record]]]:
        """The common rows at each norm and budget, and its name, such as `Linf 0.3`; without an ensemble's members."""
        return budgets(self.common)


def on_common_samples(rows: Sequence[Record]) -> list[Record]:
    """The rows on the samples that they all have: those of a run that may stop early come to different ones."""
    if len({row.ids for row in rows}) < 2:
        return list(rows)
    common = set(rows[0].ids).intersection(*(row.ids for row in rows))
    reduced = []
    for row in rows:
        places = [i for i, sample in enumerate(row.ids) if sample in common]
        columns = ("ids", "y", "pred", "pred_after", "robust", "distance")
        changes: dict[str, Any] = {name: tuple(getattr(row, name)[i] for i in places) for name in columns}
        reduced.append(replace(row, **changes))
    return reduced


def budgets(rows: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    """The rows at each norm and budget, and its name, such as `Linf 0.3`; without an ensemble's members."""
    whole = [row for row in rows if row.ensemble is None and row.eps is not None]
    for norm, eps in dict.fromkeys((row.norm, row.eps) for row in whole):
        group = [row for row in whole if (row.norm, row.eps) == (norm, eps)]
        yield group[0].ball, group


def attack_of(row: Record) -> Attack:
    """The attack that a row is of, at its budget: what it is stands on its class."""
    return _attack(json.dumps(row.attack), row.budget)


@lru_cache(maxsize=1024)
def _attack(description: str, budget: str | None) -> Attack:
    return attack_from(json.loads(description), budget)


def consecutive_members(rows: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    """Each member of an ensemble with the one that runs after it."""
    return (two for two in pairwise(rows) if two[0].ensemble and two[0].ensemble == two[1].ensemble)


def worst_case(rows: Sequence[Record], group: Sequence[Record]) -> tuple[int, ...]:
    """(n,) flags: what stands under the attacks of a budget, a `group` of a checkpoint's `rows`.

    Nor has it a closer adversarial of a minimal-norm attack.
    """
    eps, norm = float(group[0].eps or 0), group[0].norm
    near = [
        [int(distance > ball_edge(eps)) for distance in row.distance]
        for row in rows
        if row.kind == "minimal" and row.norm == norm and getattr(attack_of(row), "bounded", True)
    ]
    return tuple(min(flags) for flags in zip(*(row.robust for row in group), *near, strict=True))


def percent(correct: int, n: int) -> str:
    """`46.8 %`."""
    return f"{100 * correct / n:.1f} %" if n else "-"


def left(row: Record) -> str:
    """What stands, in per cent."""
    return percent(row.correct, row.n)


def is_autoattack_grade(attack: Attack, randomised: bool = True) -> bool:
    """Whether it is an ensemble of AutoAttack's grade, whose own number is then the one to judge.

    That takes parameter-free attacks on the cross-entropy and towards each wrong class, each of the authors' steps, and
    a random search of many queries, which L1 does not have; of a randomised model also both losses with gradients
    averaged over passes, as AutoAttack's `rand` does.
    """
    members = [one for one in parts(attack) if one.parameter_free] if attack.kind == "ensemble" else []
    long = [one for one in members if getattr(one, "steps", 0) >= MANY_STEPS]
    losses = {loss for one in long if not hasattr(one, "targets") for loss in one.losses}
    targeted = any(hasattr(one, "targets") for one in long)
    searched = isinstance(attack.norm, L1) or any(getattr(one, "queries", 0) >= MANY_QUERIES for one in members)
    averaged = randomised and all(getattr(one, "eot", 1) >= EOT for one in long)
    return "cross-entropy" in losses and ((targeted and searched) or (averaged and "margin" in losses))


@also("R4")
def rounding_of_rows(results: Results) -> Iterator[Finding]:
    """R4 of rows that were measured with `--eight-bit`."""
    for row in results.rows:
        if row.correct_8bit is not None and row.n:
            name = f"{row.label} at {row.ball}"
            yield rounding_finding(name, row.correct_8bit - row.correct, row.n)


def rounding_finding(attack: str, saved: int, n: int) -> Finding:
    """R4, where rounding saves so many of n samples."""
    message = f"rounded to 8 bits inside the ball, {saved} of {n} images of {attack} no longer fool"
    return Finding("INFO" if saved > SAVED * n else "OK", message, saved / n)


@also("R9")
def unbounded(results: Results) -> Iterator[Finding]:
    """R9 of minimal-norm attacks that ran long enough."""
    for row in results.rows:
        attack = attack_of(row)
        if isinstance(attack, MinimalAttack) and attack.converges and row.clean_correct:
            yield unbounded_finding(row.label, row.correct, row.clean_correct)


def unbounded_finding(attack: str, failed: int, n: int) -> Finding:
    """R9 of an attack that `failed` on so many of n."""
    share = failed / max(1, n)
    message = f"{attack}, without a budget, fails on {failed} of {n} samples"
    if float(binom.sf(failed - 1, n, UNBOUNDED_SUSPECTS)) < BEYOND_CHANCE:
        return Finding("SUSPECT", f"{message}: gradients are masked or zero", share)
    return Finding("WARN" if share > UNBOUNDED_WARNS else "OK", message, share)


@check(
    "R18",
    "sample size",
    "always told: the half width of the 95 % interval; WARN where at an accuracy of 50 % it is above "
    f"{100 * WIDE_INTERVAL:g} points",
    level="WARN",
    source="Wilson 1927; ours",
    bars=True,
)
def sample_size(results: Results) -> Finding | None:
    """At the row where the interval is widest; whether there are enough samples does not depend on the outcome."""
    counts = [row.n for row in results.rows if row.n]
    if not counts:
        return None
    width = max(half_width(row.correct, row.n) for row in results.rows if row.n)
    least, most = min(counts), max(counts)
    n = f"{most}" if least == most else f"{least} to {most}, and what all of them met is compared"
    message = f"n = {n}: the 95 % intervals reach to {100 * width:.1f} points to each side"
    if half_width(least // 2, least) <= WIDE_INTERVAL:
        return Finding("INFO", message, width)
    enough = next(n for n in itertools.count(least) if half_width(n // 2, n) <= WIDE_INTERVAL)
    return Finding("WARN", f"{message}; too few samples for a reliable number: take {enough} or more", width)


@check(
    "R5",
    "per-sample worst case",
    "always told: what stands under all attacks at once",
    level="INFO",
    source=CARLINI,
)
def worst_cases(results: Results) -> Iterator[Finding]:
    """What stands at each budget."""
    for name, group in results.budgets():
        flags = worst_case(results.common, group)
        message = f"under all attacks at {name} stand {percent(sum(flags), len(flags))} of the samples"
        single = min(row.correct for row in group)
        less = f", {single - sum(flags)} fewer than under the strongest alone" if sum(flags) < single else ""
        yield Finding("INFO", message + less, sum(flags) / max(1, len(flags)))


@check(
    "R6",
    "many steps beat one",
    f"at one budget more stand under an iterative attack than under FGSM (exact one-sided test, p < {ALPHA:g}): "
    f"SUSPECT; FGSM alone breaks more than {100 * ALONE:g} %, or leaves {100 * GAP:g} points more: WARN",
    level="SUSPECT",
    source=f"{CARLINI}; ours",
)
def steps_beat_one(results: Results) -> Iterator[Finding]:
    """Each attack of one step against each of many, budget by budget."""
    for name, group in results.budgets():
        yield from (_steps(name, one, many) for one, many in one_and_many(group))


def one_and_many(group: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The row of each attack of one step with each of an iterative attack at the same budget."""
    one_step = [row for row in group if attack_of(row).weak and attack_of(row).needs == "gradients"]
    return [(one, many) for one in one_step for many in group if is_iterative(attack_of(many))]


def _steps(name: str, one: Record, many: Record) -> Finding:
    counts = Table.of(one.robust, many.robust)
    only_one, only_many = counts.only_b, counts.only_a  # what only one step breaks, and what only many steps do
    message = f"at {name} {one.label} leaves {left(one)}, {many.label} {left(many)}"
    p = binomtest(only_one, only_one + only_many, 0.5, alternative="greater").pvalue if only_one > only_many else 1.0
    if p < ALPHA:
        cause = "masked gradients: the surface is bent where the iterates are, or the steps are too short"
        return Finding("SUSPECT", f"{message}: {cause}", (many.correct - one.correct) / one.n)
    called = str(one.attack["name"]).upper()
    if only_one > ALONE * one.n:
        cause = f"{called} alone breaks {only_one}: more steps or restarts"
        return Finding("WARN", f"{message}; {cause}", only_one / one.n)
    gap = ahead(one, many)
    if gap > GAP:
        return Finding("WARN", f"{message}: {called}'s number says nothing of robustness here", gap)
    return Finding("OK", message, gap)


def ahead(one: Record, many: Record) -> float:
    """By what share of all samples one step leaves more than an iterative attack."""
    return (one.correct - many.correct) / max(1, one.n)


@check(
    "R7",
    "monotone in eps",
    "accuracy rises with eps: the 95 % interval of the paired difference lies above 0",
    level="SUSPECT",
    source=f"{CARLINI}; ours",
)
def monotone(results: Results) -> Iterator[Finding]:
    """On accuracy, for single points of good nets recover too."""
    whole = [row for row in results.common if row.ensemble is None and row.eps is not None]
    for key in dict.fromkeys((row.label, row.norm) for row in whole):
        curve = [row for row in whole if (row.label, row.norm) == key]
        curve.sort(key=lambda row: float(row.eps or 0))
        yield from (_rise(low, high) for low, high in pairwise(curve))


def _rise(low: Record, high: Record) -> Finding:
    counts = Table.of(high.robust, low.robust)
    message = f"{low.label} leaves {left(low)} at eps {low.budget} and {left(high)} at {high.budget}"
    if paired_interval(counts)[0] > 0:
        cause = "label leaking, or gradients that mislead beyond the smaller budget"
        return Finding("SUSPECT", f"{message}: {cause}", counts.difference)
    return Finding("OK", message, counts.difference)


@check(
    "R12",
    "black-box not better",
    "a black-box attack breaks survivors of all white-box attacks, one of many steps among them: WARN above "
    f"{100 * BLACK_BOX_WARNS:g} points, SUSPECT above {100 * BLACK_BOX_SUSPECTS:g}",
    level="SUSPECT",
    source=f"{AUTOATTACK}; ours",
)
def black_box(results: Results) -> Iterator[Finding]:
    """Of each black-box attack; of an ensemble, what its black-box member breaks after the others.

    Beside FGSM alone it says nothing: what one step leaves, anything breaks.
    """
    for name, group in results.budgets():
        white = [row for row in group if attack_of(row).needs == "gradients"]
        if not any(is_iterative(attack_of(row)) for row in white):
            continue
        flags = [min(one) for one in zip(*(row.robust for row in white), strict=True)]
        for row in group:
            if is_black_box(attack_of(row)):
                broken = sum(stood and not now for stood, now in zip(flags, row.robust, strict=True))
                yield black_box_finding(attack_of(row), name, broken, sum(flags), broken / len(flags))
    for before, after in consecutive_members(results.common):
        if is_black_box(attack_of(after)):
            broken, met = before.correct - after.correct, before.correct - (after.sampled.unmet if after.sampled else 0)
            yield black_box_finding(attack_of(after), after.ball, broken, met, broken / after.n)


def black_box_finding(attack: Attack, name: str, broken: int, n: int, share: float) -> Finding:
    """R12 of `broken` of n samples that no gradient attack broke: a `share` of all samples of the run."""
    message = f"{label(attack)} at {name} breaks {broken} of {n} that no gradient attack broke"
    if broken > 1 and share > BLACK_BOX_SUSPECTS:
        return Finding("SUSPECT", f"{message}: masked gradients", share)
    if broken > 1 and share > BLACK_BOX_WARNS:
        cause = "the gradient attacks are too weak; more steps, restarts, losses"
        return Finding("WARN", f"{message}: {cause}", share)
    return Finding("OK", message, share)


@check(
    "R15",
    "loss diversity",
    f"attacks on the cross-entropy and on the margin differ by more than {100 * LOSSES_DIFFER:g} points; INFO between "
    "the members of an ensemble of AutoAttack's grade, and beside it",
    level="WARN",
    source=f"{AUTOATTACK}; ours",
    bars=True,
)
def loss_diversity(results: Results) -> Iterator[Finding]:
    """Of whole attacks; of an ensemble, what its members on the margin break after that on the cross-entropy."""
    for name, group in results.budgets():
        iterative = [row for row in group if is_iterative(attack_of(row))]
        counts = {
            loss: [row.correct for row in iterative if attack_of(row).losses == (loss,)]
            for loss in ("cross-entropy", "margin")
        }
        if all(counts.values()):
            fewer, n = min(counts["cross-entropy"]) - min(counts["margin"]), group[0].n
            graded = any(is_autoattack_grade(attack_of(row)) for row in group)
            yield losses_finding(name, fewer, n, fewer / n, graded)
    wholes = [row for row in results.common if is_autoattack_grade(attack_of(row))]
    grade = {(row.attack["name"], row.norm, row.eps) for row in wholes}
    for before, after in consecutive_members(results.common):
        if attack_of(before).losses == ("cross-entropy",) and attack_of(after).losses == ("margin",):
            fewer = before.correct - after.correct
            graded = (before.ensemble, before.norm, before.eps) in grade
            yield losses_finding(after.ball, fewer, before.correct, fewer / after.n, graded)


def losses_finding(name: str, fewer: int, n: int, share: float, graded: bool = False) -> Finding:
    """R15, where the margin leaves `fewer` of n than the cross-entropy does; `graded`: an ensemble with both ran."""
    message = f"at {name} attacks on the margin leave {abs(fewer)} {'fewer' if fewer >= 0 else 'more'} of {n}"
    message += " than those on the cross-entropy"
    if abs(share) <= LOSSES_DIFFER:
        return Finding("OK", message, share)
    blind = "cross-entropy" if share > 0 else "margin"
    level: Level = "INFO" if graded else "WARN"
    return Finding(level, f"{message}: the {blind} is masked; report the worst of both", share)


@check(
    "R22",
    "the defence knows the attack",
    "all attacks are of the family that it was trained against: WARN; FGSM training, and FGSM leaves "
    f"{100 * GAP:g} points more than an iterative attack within its budget: SUSPECT",
    level="SUSPECT",
    source=f"{CARLINI}; Wong et al. 2020; ours",
)
def knows_attack(results: Results) -> Finding | None:
    """Whether the attacks are others than the one that the network was trained against, if it was: its method."""
    if not results.common:
        return None
    method = results.common[0].subject.method
    if method not in ATTACKS:
        return Finding("OK", f"trained by {method}, against no attack" if method else "nobody says how it was trained")
    one_step = parse_attack(method, {"eps": 0.1}).weak
    groups = results.budgets() if one_step else ()
    pairs = ((name, *two) for name, group in groups for two in one_and_many(group))
    gap = next((one for one in pairs if one[1].attack["name"] == method and ahead(*one[1:]) > GAP), None)
    if gap is not None:
        name, one, many = gap
        message = (
            f"trained against {method.upper()}, which leaves {left(one)} at {name} where {many.label} leaves "
            f"{left(many)}: catastrophic overfitting to one step"
        )
        return Finding("SUSPECT", message, ahead(one, many))
    if all(_in_family(one, one_step) for row in results.common for one in parts(attack_of(row))):
        add = "pgd, apgd-t and square" if one_step else "apgd-t and square"
        message = f"trained against {method} and attacked by nothing else: it knows the attack; add {add}"
        return Finding("WARN", message)
    return Finding("OK", f"trained against {method}, attacked by others too")


def _in_family(attack: Attack, one_step: bool) -> bool:
    """Whether it takes steps up the cross-entropy, of a length chosen beforehand: a single one, or any number."""
    same = attack.losses == ("cross-entropy",) and not attack.parameter_free
    return same and (attack.weak or not one_step)


@check(
    "R23",
    "weak attacks only",
    "FGSM, DeepFool, noise or attacks of a single step are all that ran",
    level="WARN",
    source=CARLINI,
    bars=True,
)
def only_weak(results: Results) -> Finding | None:
    """Whether an attack ran that proves something."""
    if not results.common:
        return None
    names = ", ".join(dict.fromkeys(row.label for row in results.common))
    if all(attack_of(row).weak for row in results.common):
        return Finding("WARN", f"only {names} ran: an upper bound from weak attacks; add pgd or autoattack")
    return Finding("OK", f"{names} ran")


@also("R24")
def autoattack_ran(results: Results) -> Iterator[Finding]:
    """R24 at each budget where an ensemble of AutoAttack's grade ran on all samples, or says what it leaves open."""
    for name, group in results.budgets():
        for row in group:
            if is_autoattack_grade(attack_of(row), results.randomised):
                sample = f"; {row.sampled.text(row.n)}" if row.sampled else ""
                yield Finding("OK", f"at {name} {row.label} ran on all samples{sample}", budget=name)


@check(
    "R19",
    "comparison",
    f"p > {ALPHA:g} in McNemar's exact test: never ranked",
    level="INFO",
    when="compare",
    source="McNemar 1947",
)
def comparison(pair: Pair) -> Finding:
    """Whether the difference of two checkpoints is more than chance."""
    message = f"{pair.a.label}: {pair.a.subject.checkpoint} and {pair.b.subject.checkpoint}"
    if pair.separable:
        return Finding("OK", f"{message} can be told apart", pair.p_holm)
    return Finding("INFO", f"{message} cannot be told apart at n = {pair.table.n}", pair.p_holm)


@check(
    "R20",
    "equal effort",
    f"passes a sample differ by more than {100 * UNEQUAL:g} %",
    level="INFO",
    when="compare",
    source="ours",
)
def equal_effort(pair: Pair) -> Finding:
    """Equal attacks differ in effort by when samples are broken; Square, which evaluates ahead, by how many stand."""
    spent = [(row.forwards + row.backwards) / max(1, row.n) for row in (pair.a, pair.b)]
    most = max(spent)
    gap = (most - min(spent)) / most if most else 0.0
    message = f"{pair.a.label}: {spent[0]:.0f} and {spent[1]:.0f} passes a sample"
    if gap <= UNEQUAL:
        return Finding("OK", message, gap)
    return Finding("INFO", f"{message}: the cost depends on how many samples stand, and how long", gap)


@check(
    "R21",
    "same threat model",
    "data, samples, norm, eps or attack differ",
    level="INVALID",
    when="compare",
    source=CARLINI,
)
def threat_model(pair: Pair) -> Finding:
    """Whether two rows answer the same question."""
    try:
        refuse_unequal(pair.a, pair.b)
    except DataError as error:
        return Finding("INVALID", str(error))
    return Finding("OK", f"{pair.a.label}: the same samples, norm, budget and attack")
