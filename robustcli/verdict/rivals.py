"""The checks of which attacks ran, and what one finds that others do not: R12, R15, R22, R23."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from robustcli.attacks import label
from robustcli.attacks.base import Attack
from robustcli.measure.record import Row
from robustcli.verdict.declared import Level
from robustcli.verdict.effort import (
    is_black_box,
    is_iterative,
    is_reference,
    is_weak,
    losses_of,
    parts,
    wants_gradients,
)
from robustcli.verdict.findings import Finding
from robustcli.verdict.runs import GAP, ahead, budgets, left, one_and_many

BLACK_BOX_WARNS = 0.002
BLACK_BOX_SUSPECTS = 0.1
"""On a good PGD-trained MNIST net, Square breaks 3 % of what PGD-20 leaves: AutoAttack's 0.2 points alone warn."""

LOSSES_DIFFER = 0.05


def black_box(rows: Sequence[Row]) -> list[Finding]:
    """R12: of an ensemble, what its black-box member breaks after the others.

    Beside FGSM alone it says nothing: what one step leaves, anything breaks.
    """
    found = []
    for name, group in budgets(rows):
        searchers = [row for row in group if is_black_box(row.attack)]
        white = [row for row in group if wants_gradients(row.attack)]
        if searchers and any(is_iterative(row.attack) for row in white):
            flags = tuple(min(one) for one in zip(*(row.robust for row in white), strict=True))
            found += [
                _black_box(row.attack, name, _only(flags, row.robust), sum(flags), len(flags)) for row in searchers
            ]
    for before, after in pairwise(rows):
        if before.ensemble and before.ensemble == after.ensemble and is_black_box(after.attack):
            name = f"{after.attack.norm.label} {after.eps}"
            found.append(_black_box(after.attack, name, before.correct - after.correct, before.correct, after.n))
    return found


def _black_box(attack: Attack, name: str, broken: int, stood: int, n: int) -> Finding:
    return black_box_finding(attack, name, broken, stood, broken / max(1, n))


def _only(standing: Sequence[int], after: Sequence[int]) -> int:
    """How many of those that stood do not stand after."""
    return sum(before and not now for before, now in zip(standing, after, strict=True))


def black_box_finding(attack: Attack, name: str, broken: int, n: int, share: float) -> Finding:
    """R12 of `broken` of n samples that no gradient attack broke: a `share` of all samples of the run.

    Args:
        attack: the black-box attack.
        name: of the budget.
        broken: how many it broke of those that had stood.
        n: how many it was tried on.
        share: of all samples, those that it would break.
    """
    told = f"{label(attack)} at {name} breaks {broken} of {n} that no gradient attack broke"
    if broken > 1 and share > BLACK_BOX_SUSPECTS:
        return Finding("R12", "SUSPECT", f"{told}: masked gradients", share)
    if broken > 1 and share > BLACK_BOX_WARNS:
        return Finding("R12", "WARN", f"{told}: the gradient attacks are too weak; more steps, restarts, losses", share)
    return Finding("R12", "OK", told, share)


def loss_diversity(rows: Sequence[Row]) -> list[Finding]:
    """R15: of an ensemble, what its members on the margin break after that on the cross-entropy."""
    found = []
    for name, group in budgets(rows):
        kinds = {
            kind: [row for row in group if losses_of(row.attack) == {kind} and is_iterative(row.attack)]
            for kind in ("cross-entropy", "margin")
        }
        if all(kinds.values()):
            by_ce, by_margin = (min(row.correct for row in kinds[kind]) for kind in kinds)
            fewer, n = by_ce - by_margin, group[0].n
            found.append(
                losses_finding(name, fewer, n, fewer / max(1, n), any(is_reference(row.attack) for row in group))
            )
    graded = {(row.attack.name, row.attack.norm, row.eps) for row in rows if is_reference(row.attack)}
    for before, after in pairwise(rows):
        follows = before.ensemble is not None and before.ensemble == after.ensemble
        if follows and losses_of(before.attack) == {"cross-entropy"} and losses_of(after.attack) == {"margin"}:
            name = f"{after.attack.norm.label} {after.eps}"
            fewer = before.correct - after.correct
            of_reference = (before.ensemble, before.attack.norm, before.eps) in graded
            found.append(losses_finding(name, fewer, before.correct, fewer / max(1, after.n), of_reference))
    return found


def losses_finding(name: str, fewer: int, n: int, share: float, graded: bool = False) -> Finding:
    """R15, where the margin leaves `fewer` of n samples than the cross-entropy does: a `share` of all.

    No more than INFO where an ensemble of AutoAttack's grade ran, which has both losses.
    """
    told = f"at {name} attacks on the margin leave {abs(fewer)} {'fewer' if fewer >= 0 else 'more'} of {n}"
    told += " than those on the cross-entropy"
    if abs(share) <= LOSSES_DIFFER:
        return Finding("R15", "OK", told, share)
    blind = "cross-entropy" if share > 0 else "margin"
    level: Level = "INFO" if graded else "WARN"
    return Finding("R15", level, f"{told}: the {blind} is masked; report the worst of both", share)


def knows_attack(rows: Sequence[Row]) -> list[Finding]:
    """R22."""
    if not rows:
        return []
    method = rows[0].subject.method
    if method not in ("fgsm", "pgd"):
        return [Finding("R22", "OK", f"trained by {method}, against no attack")]
    gaps = [(name, *two) for name, group in budgets(rows) for two in one_and_many(group) if ahead(*two) > GAP]
    if method == "fgsm" and gaps:
        name, one, many = gaps[0]
        told = (
            f"trained against FGSM, which leaves {left(one)} at {name} where {label(many.attack)} leaves {left(many)}"
        )
        return [Finding("R22", "SUSPECT", f"{told}: catastrophic overfitting to one step", ahead(one, many))]
    family = {"fgsm"} if method == "fgsm" else {"fgsm", "mifgsm", "pgd"}
    names = {one.name for row in rows for one in parts(row.attack)}
    if names <= family:
        add = "pgd, apgd-t and square" if method == "fgsm" else "apgd-t and square"
        told = f"trained against {method} and attacked by nothing else: it knows the attack; add {add}"
        return [Finding("R22", "WARN", told)]
    return [Finding("R22", "OK", f"trained against {method}, attacked by others too")]


def only_weak(rows: Sequence[Row]) -> list[Finding]:
    """R23."""
    if not rows:
        return []
    names = ", ".join(dict.fromkeys(label(row.attack) for row in rows))
    if all(is_weak(row.attack) for row in rows):
        return [Finding("R23", "WARN", f"only {names} ran: an upper bound from weak attacks; add pgd or autoattack")]
    return [Finding("R23", "OK", f"{names} ran")]


def reference_ran(rows: Sequence[Row], randomised: bool = False) -> list[Finding]:
    """R24 at each budget where an ensemble of AutoAttack's grade ran on all samples."""
    return [
        Finding("R24", "OK", f"at {name} {label(row.attack)} ran on all samples", budget=name)
        for name, group in budgets(rows)
        for row in group
        if is_reference(row.attack, randomised)
    ]


RIVALS = (black_box, loss_diversity, knows_attack, only_weak)
"""R12, R15, R22, R23."""
