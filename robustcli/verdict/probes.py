"""The checks that must compute (`--checks full`): more attacks, on at most LIMIT survivors of each budget."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustcli.attacks import APGD, PGD, Square, UniformNoise
from robustcli.attacks.guards import ball_edge, frozen
from robustcli.attacks.losses import cross_entropy
from robustcli.attacks.norms import L1
from robustcli.noise import Noise
from robustcli.verdict.case import Case, Recorder, Witness, stronger, tried
from robustcli.verdict.effort import is_iterative, losses_of, parts, wants_gradients
from robustcli.verdict.findings import Finding
from robustcli.verdict.rivals import black_box_finding, losses_finding

Probe = Callable[[Case], list[Finding]]

LIMIT = 100
"""Survivors of a budget that are probed."""

WITNESSED = 16
"""Survivors that are attacked alone, one by one, to see what the attack saw."""

QUERIES = 1000
DRAWS = 200
MOVES = 0.05
CONVERGED_WARNS = 0.005
CONVERGED_SUSPECTS = 0.05


def silent_success(case: Case) -> list[Finding]:
    """R3, of each gradient attack."""
    found = []
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
            broken = bool((case.model(x_adv).argmax(1) != one.y).any())
    return witness.saw_it and not broken


def converged(case: Case) -> list[Finding]:
    """R10: twice the steps, and whether the loss still moves."""
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
        return [Finding("R10", "WARN", f"{told}: more steps may lower accuracy", points)]
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
    """R11."""
    reference = case.reference
    attack = PGD(case.eps, steps=reference.steps, restarts=5, norm=case.norm, eot=getattr(reference, "eot", 1))
    broken = case.breaks(attack)
    points = case.points(broken)
    told = f"at {case.name} 5 restarts break {broken} of {len(case.standing)} survivors"
    if points > 0.01:
        return [Finding("R11", "WARN", f"{told}: raise restarts", points)]
    return [Finding("R11", "OK", told, points)]


def black_box_probe(case: Case) -> list[Finding]:
    """R12, with Square."""
    norm = case.norm
    if isinstance(norm, L1):
        return []
    attack = Square(case.eps, queries=QUERIES, norm=norm)
    broken = case.breaks(attack)
    return [black_box_finding(attack, case.name, broken, len(case.standing), case.points(broken))]


def random_search(case: Case) -> list[Finding]:
    """R13."""
    broken = case.breaks(UniformNoise(case.eps, draws=DRAWS, norm=case.norm))
    n = len(case.standing)
    told = f"at {case.name} {DRAWS} draws of uniform noise break {broken} of {n} survivors"
    if not broken:
        return [Finding("R13", "OK", told, 0)]
    level = "SUSPECT" if broken > 1 and broken / n > 0.01 else "WARN"
    return [Finding("R13", level, f"{told}: the attack misses what noise finds", broken / n)]  # type: ignore[arg-type]


def other_loss(case: Case) -> list[Finding]:
    """R15, with APGD on the difference-of-logits ratio, beside an attack on the cross-entropy."""
    if not any("cross-entropy" in losses_of(one) for one in case.attacks if is_iterative(one)):
        return []
    attack = APGD(case.eps, steps=50, loss="dlr", norm=case.norm, eot=getattr(case.reference, "eot", 1))
    broken = case.breaks(attack)
    return [losses_finding(case.name, broken, len(case.standing), case.points(broken))]


OF_ANY: tuple[Probe, ...] = (silent_success, random_search)
"""R3, R13, at each budget."""

OF_STEPS: tuple[Probe, ...] = (converged, restarts, black_box_probe, other_loss)
"""R10, R11, R12, R15, at each budget where an attack of many steps along gradients ran: what FGSM alone leaves, any of
them breaks."""

STANDS_NOTHING = ("R10", "R11", "R12", "R13", "R15", "R3")


def probe(case: Case) -> list[Finding]:
    """All probes of a budget; where nothing stands there is nothing to find."""
    if not len(case.standing):
        return [Finding(check, "OK", f"nothing stands at {case.name}") for check in STANDS_NOTHING]
    checks = OF_ANY + (OF_STEPS if any(map(is_iterative, case.attacks)) else ())
    return [finding for check in checks for finding in tried(check, case)]
