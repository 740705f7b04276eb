"""The checks that must compute (`--checks full`): more attacks, on at most LIMIT survivors of each budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustcli.attacks import APGD, FABT, PGD, AutoAttack, Square, UniformNoise
from robustcli.attacks.autoattack import EOT
from robustcli.attacks.base import Attack
from robustcli.attacks.losses import cross_entropy
from robustcli.attacks.norms import L1, ball_edge
from robustcli.engine.guard import Meter, frozen
from robustcli.measure.stats import wilson
from robustcli.noise import Noise
from robustcli.verdict.case import Case, Recorder, Witness, stronger, tried
from robustcli.verdict.effort import MANY_QUERIES, is_iterative, losses_of, parts, wants_gradients
from robustcli.verdict.findings import Finding
from robustcli.verdict.rivals import black_box_finding, losses_finding

Probe = Callable[[Case], list[Finding]]

LIMIT = 100
"""Survivors of a budget that are probed; twice as many where there are more than MANY samples."""

MANY = 1000

WITNESSED = 16
"""Survivors that are attacked alone, one by one, to see what the attack saw."""

DRAWS = 200
MOVES = 0.05
CONVERGED_WARNS = 0.005
CONVERGED_SUSPECTS = 0.05
RESTARTS_WARN = 0.01
ENSEMBLE_WARNS = 0.01
ENSEMBLE_SUSPECTS = 0.1


def silent_success(case: Case) -> list[Finding]:
    """R3, of each gradient attack."""
    found: list[Finding] = []
    if case.randomised:
        return found  # what it saw in one pass is no misclassification
    for attack in dict.fromkeys(one for whole in case.attacks for one in parts(whole) if wants_gradients(one)):
        silent = sum(_is_silent(case, attack, i) for i in range(min(WITNESSED, len(case.standing))))
        told = f"{attack.name} at {case.name} passed by {silent} adversarials of {min(WITNESSED, len(case.standing))}"
        cause = ": it returns another iterate than its best" if silent else ""
        found.append(Finding("R3", "WARN" if silent else "OK", told + cause, silent))
    return found


def _is_silent(case: Case, attack: object, i: int) -> bool:
    one = case.standing[slice(i, i + 1)]
    with frozen(case.model):
        witness = Witness(case.model, one.x, one.y, case.norm, ball_edge(case.eps))
        x_adv = attack.perturb(witness, one.x, one.y, Noise(case.seed, one.ids).stream(attack.name))  # type: ignore[attr-defined]
        with torch.no_grad():
            broken = bool((Meter(case.model)(x_adv).argmax(1) != one.y).any())
    return witness.saw_it and not broken


def stronger_ensemble(case: Case) -> list[Finding]:
    """R24, and what its members tell of R11, R12 and R15: AutoAttack without FAB-T, and with fewer queries of Square.

    FAB-T takes a third of AutoAttack's time and breaks next to nothing that APGD-T left. The draws are others than the
    run's, so that no attack of the run is only made again. A randomised model is asked as AutoAttack's `rand` does.
    """
    case = replace(case, seed=case.seed + 1)
    if case.randomised:
        whole = AutoAttack(case.eps, "rand", eot=max(EOT, case.passes), norm=case.norm)
    else:
        whole = AutoAttack(case.eps, queries=MANY_QUERIES, norm=case.norm)
    members = [member for member in whole.members if not isinstance(member, FABT)]
    left, broken = case.standing, []
    for member in members:
        before = len(left)
        left = case.left_by(member, left) if before else left
        broken.append((member, before - len(left)))
    found = [ensemble_finding(case, len(case.standing) - len(left), broken)]
    if any(map(is_iterative, case.attacks)):
        found.append(restarts_finding(case, f"APGD from a start of its own breaks {broken[0][1]}", broken[0][1]))
        if any("cross-entropy" in losses_of(one) for one in case.attacks if is_iterative(one)):
            stood, fewer = len(case.standing) - broken[0][1], broken[1][1]
            found.append(losses_finding(case.name, fewer, stood, case.points(fewer)))
    searched = [(member, count) for member, count in broken if isinstance(member, Square)]
    stood = len(case.standing) - sum(count for member, count in broken if not isinstance(member, Square))
    found += [black_box_finding(member, case.name, count, stood, case.points(count)) for member, count in searched]
    return found


def ensemble_finding(case: Case, broken: int, by_member: Sequence[tuple[Attack, int]]) -> Finding:
    """R24, where the ensemble breaks so many of the survivors that were probed.

    Judged by the point estimate; the upper end of the interval, beside it, says what survivors that were not probed
    leave open.
    """
    n, points = len(case.standing), round(case.points(broken), 9)
    each = ", ".join(f"{member.name} {count}" for member, count in by_member)
    told = f"at {case.name} a stronger ensemble breaks {broken} of {n} survivors ({each}): {100 * points:.1f} points"
    if n < case.survivors:
        told += f", at most {100 * case.share * wilson(broken, n)[1]:.1f} (95 %)"
    quote = f"{told}; quote {100 * (case.share - points):.1f} % and not {100 * case.share:.1f} %"
    if points > ENSEMBLE_SUSPECTS:
        return Finding("R24", "SUSPECT", f"{quote}: the attacks that ran are too weak for this model", points)
    if points > ENSEMBLE_WARNS:
        return Finding("R24", "WARN", quote, points)
    return Finding("R24", "OK", told, points)


def converged(case: Case, agreed: bool = False) -> list[Finding]:
    """R10: twice the steps, and whether the loss still moves.

    Args:
        case: the budget.
        agreed: whether R24 passed, so that a loss that moves is known to break next to nothing.
    """
    reference = case.reference
    doubled = stronger(reference, steps=2 * reference.steps, restarts=1)
    broken = case.breaks(doubled)
    points, moving = case.points(broken), _moving(case, reference.steps)
    told = (
        f"at {case.name} twice the steps ({doubled.name}, {2 * reference.steps}) break {broken} of "
        f"{len(case.standing)} survivors; of {100 * moving:.0f} % the loss still moves"
    )
    if points > CONVERGED_SUSPECTS:
        return [Finding("R10", "SUSPECT", f"{told}: far from converged; raise steps", points)]
    if points > CONVERGED_WARNS or moving > 0.1:
        known = case.has_reference or (agreed and points <= CONVERGED_WARNS)
        return [Finding("R10", "INFO" if known else "WARN", f"{told}: more steps may lower accuracy", points)]
    return [Finding("R10", "OK", told, points)]


def _moving(case: Case, steps: int) -> float:
    """The share of survivors whose best loss so far rises by MOVES of its range in the last half of PGD's steps."""
    with frozen(case.model):
        recorder = Recorder(case.model, case.standing.y, cross_entropy)
        attack = PGD(case.eps, steps=max(4, steps), norm=case.norm, early_stop=False)
        attack.perturb(recorder, case.standing.x, case.standing.y, Noise(case.seed, case.standing.ids).stream("pgd"))
    return share_moving(torch.stack(recorder.seen))


def share_moving(losses: Tensor) -> float:
    """R10 (b): the share of samples whose best loss so far still moves (Pintor et al. 2022).

    Args:
        losses: (steps, n) after each step.
    """
    best = losses.double().cummax(0).values
    span = best[-1] - best[0]
    late = (best[-1] - best[len(best) // 2]) / span.clamp_min(1e-12)
    return float(((span > 1e-12) & (late > MOVES)).double().mean())


def restarts(case: Case) -> list[Finding]:
    """R11, where R24 does not tell it."""
    reference = case.reference
    attack = PGD(case.eps, steps=reference.steps, restarts=5, norm=case.norm, eot=case.passes)
    broken = case.breaks(attack)
    return [restarts_finding(case, f"5 restarts break {broken}", broken)]


def restarts_finding(case: Case, what: str, broken: int) -> Finding:
    """R11 of new starts that break so many of the survivors."""
    told, points = f"at {case.name} {what} of {len(case.standing)} survivors", case.points(broken)
    if points > RESTARTS_WARN:
        return Finding("R11", "INFO" if case.has_reference else "WARN", f"{told}: raise restarts", points)
    return Finding("R11", "OK", told, points)


def black_box_probe(case: Case) -> list[Finding]:
    """R12, with Square."""
    norm = case.norm
    if isinstance(norm, L1):
        return []
    attack = Square(case.eps, queries=MANY_QUERIES, norm=norm)
    broken = case.breaks(attack)
    return [black_box_finding(attack, case.name, broken, len(case.standing), case.points(broken))]


def random_search(case: Case) -> list[Finding]:
    """R13."""
    broken = case.breaks(UniformNoise(case.eps, draws=DRAWS, norm=case.norm))
    n = len(case.standing)
    told = f"at {case.name} {DRAWS} draws of uniform noise break {broken} of {n} survivors"
    if not broken:
        return [Finding("R13", "OK", told, 0)]
    level = "SUSPECT" if broken > 1 and broken / n > 0.01 and not case.randomised else "WARN"
    return [Finding("R13", level, f"{told}: the attack misses what noise finds", broken / n)]  # type: ignore[arg-type]


def other_loss(case: Case) -> list[Finding]:
    """R15, with APGD on the difference-of-logits ratio, beside an attack on the cross-entropy."""
    if not any("cross-entropy" in losses_of(one) for one in case.attacks if is_iterative(one)):
        return []
    attack = APGD(case.eps, steps=50, loss="dlr", norm=case.norm, eot=case.passes)
    broken = case.breaks(attack)
    return [losses_finding(case.name, broken, len(case.standing), case.points(broken), case.has_reference)]


STANDS_NOTHING = ("R24", "R10", "R11", "R12", "R13", "R15", "R3")

INSTEAD: dict[str, Probe] = {"R11": restarts, "R12": black_box_probe, "R15": other_loss}
"""What runs where R24 does not tell it: where its attacks do not fit, and R12 beside an ensemble of its own grade."""


def probe(case: Case) -> list[Finding]:
    """All probes of a budget; where nothing stands there is nothing to find.

    R10, R11, R12 and R15 take an attack of many steps along gradients: what FGSM alone leaves, any of them breaks.
    """
    if not len(case.standing):
        found = [Finding(check, "OK", f"nothing stands at {case.name}") for check in STANDS_NOTHING]
    else:
        found = [] if case.has_reference else tried(stronger_ensemble, case)
        agreed = any(finding.id == "R24" and finding.level == "OK" for finding in found)
        known = {finding.id for finding in found}
        found += [*tried(silent_success, case), *tried(random_search, case)]
        if any(map(is_iterative, case.attacks)):
            found += tried(converged, case, agreed)
            for name, check in INSTEAD.items():
                found += [] if name in known or (case.has_reference and name != "R12") else tried(check, case)
    return [replace(finding, budget=case.name) for finding in found]
