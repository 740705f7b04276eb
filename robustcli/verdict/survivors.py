"""The checks of what stands at a budget (R3, R10 to R13, R15, R24): more attacks on its survivors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustcli.attacks import APGD, FABT, PGD, AutoAttack, Square, UniformNoise
from robustcli.attacks.autoattack import EOT
from robustcli.attacks.base import Attack, is_black_box, is_iterative, parts, passes_of
from robustcli.attacks.losses import cross_entropy
from robustcli.attacks.norms import L1, Norm
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import ChunkSize
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import AttackError, OutOfMemoryError
from robustcli.fields import ball_edge
from robustcli.measure.stats import wilson
from robustcli.noise import Noise
from robustcli.verdict.check import AUTOATTACK, CARLINI, PINTOR, Finding, When, also, check, spaced
from robustcli.verdict.rows import (
    MANY_QUERIES,
    black_box_finding,
    is_autoattack_grade,
    losses_finding,
)

LIMIT = 100
"""Survivors of a budget that are probed; twice as many where there are more than MANY samples."""

MANY = 1000

ALONE = 16
"""Survivors that are attacked alone, one by one, to see what the attack saw."""

ENSEMBLE_WARNS = 0.01
ENSEMBLE_SUSPECTS = 0.1
STARTS = 5
RESTARTS_WARN = 0.01
CONVERGED_WARNS = 0.005
CONVERGED_SUSPECTS = 0.05
MOVES = 0.05
MOVING_WARNS = 0.1
DRAWS = 200
NOISE_SUSPECTS = 0.01


@dataclass(frozen=True)
class Survivors:
    """What stands at one budget of one model.

    Attributes:
        name: of the budget, such as `Linf 0.3`.
        standing: the survivors that meet more attacks: of `count`, which stand of `total` samples.
        attacks: that ran at this budget.
        randomised: whether the model answers the same image differently.
    """

    when: ClassVar[When] = "full"

    model: nn.Module
    name: str
    norm: Norm
    eps: float
    standing: Samples
    count: int
    total: int
    attacks: tuple[Attack, ...]
    seed: int = 0
    chunk: ChunkSize = field(default_factory=lambda: ChunkSize(128))
    randomised: bool = False

    @property
    def iterative(self) -> list[Attack]:
        """The attacks of many steps along gradients: what none of them met, any of them breaks."""
        return [one for one in self.attacks if is_iterative(one)]

    @property
    def baseline(self) -> Any:
        """The attack that ran with the most steps, or PGD-20: what R10 and R11 make stronger. APGD-T is many runs."""
        stepping = [one for one in self.iterative if hasattr(one, "steps") and not hasattr(one, "targets")]
        if stepping:
            return max(stepping, key=lambda one: int(getattr(one, "steps", 0)))
        return PGD(self.eps, steps=20, norm=self.norm, eot=self.passes)

    @property
    def passes(self) -> int:
        """The passes that the attacks of the budget average a gradient over."""
        return max(map(passes_of, self.attacks))

    @property
    def graded(self) -> bool:
        """Whether an ensemble of AutoAttack's grade ran on all samples: then its own number is judged."""
        return any(is_autoattack_grade(attack, self.randomised) for attack in self.attacks)

    @property
    def share(self) -> float:
        """Of all samples, those that stand."""
        return self.count / max(1, self.total)

    def breaks(self, attack: Attack) -> int:
        """How many of the survivors an attack breaks."""
        return len(self.standing) - len(self.left_by(attack, self.standing))

    def left_by(self, attack: Attack, samples: Samples) -> Samples:
        """What an attack leaves of samples."""
        outcomes = run_attack(self.model, attack, samples, seed=self.seed, batch_size=self.chunk, eot=self.passes)
        return samples[outcomes[-1].robust.nonzero()[:, 0].to(samples.x.device)]

    def points(self, broken: int) -> float:
        """By what share of all samples accuracy would fall, if so many of the probed survivors are broken."""
        return broken * self.count / max(1, len(self.standing) * self.total)

    @cached_property
    def ensemble(self) -> list[tuple[Attack, int]]:
        """What each member of a stronger ensemble breaks after the ones before; empty where none is due, or can run.

        It is AutoAttack with fewer queries of Square and without FAB-T, which takes a third of its time and breaks next
        to nothing that APGD-T left; of a randomised model its `rand`. Its draws are not the run's, so that no attack of
        the run is only made again.
        """
        if self.graded:
            return []
        if self.randomised:
            whole = AutoAttack(self.eps, "rand", eot=max(EOT, self.passes), norm=self.norm)
        else:
            whole = AutoAttack(self.eps, queries=MANY_QUERIES, norm=self.norm)
        anew, left = replace(self, seed=self.seed + 1), self.standing
        broken: list[tuple[Attack, int]] = []
        try:
            for member in whole.members:
                if not isinstance(member, FABT):
                    before = len(left)
                    left = anew.left_by(member, left) if before else left
                    broken.append((member, before - len(left)))
        except (AttackError, OutOfMemoryError):
            return []
        return broken


@check(
    "R24",
    "stronger ensemble",
    f"APGD, APGD-T and Square with {spaced(MANY_QUERIES)} queries, on at most {LIMIT} survivors of a budget "
    f"({2 * LIMIT} where n > {spaced(MANY)}), lower accuracy by more than {100 * ENSEMBLE_WARNS:g} point: WARN, "
    f"{100 * ENSEMBLE_SUSPECTS:g} points: SUSPECT; not asked where an ensemble of that grade ran",
    level="SUSPECT",
    source=f"{AUTOATTACK}; ours",
    bars=True,
)
def stronger_ensemble(survivors: Survivors) -> Finding | None:
    """Judged by the point estimate; the end of the interval, beside it, says what those not probed leave open."""
    if not survivors.ensemble:
        return None
    n, broken = len(survivors.standing), sum(count for _, count in survivors.ensemble)
    points = round(survivors.points(broken), 9)
    each = ", ".join(f"{member.name} {count}" for member, count in survivors.ensemble)
    message = f"at {survivors.name} a stronger ensemble breaks {broken} of {n} survivors ({each}): "
    message += f"{100 * points:.1f} points"
    if n < survivors.count:
        message += f", at most {100 * survivors.share * wilson(broken, n)[1]:.1f} (95 %)"
    quote = f"{message}; quote {100 * (survivors.share - points):.1f} % and not {100 * survivors.share:.1f} %"
    if points > ENSEMBLE_SUSPECTS:
        return Finding("SUSPECT", f"{quote}: the attacks that ran are too weak for this model", points)
    if points > ENSEMBLE_WARNS:
        return Finding("WARN", quote, points)
    return Finding("OK", message, points)


@check(
    "R11",
    "restarts",
    f"new starts, those of R24's APGD or else {STARTS} of PGD, lower accuracy by more than {100 * RESTARTS_WARN:g} "
    "point; not run beside an ensemble of AutoAttack's grade",
    level="WARN",
    source=f"{CARLINI}; ours",
    bars=True,
)
def restarts(survivors: Survivors) -> Finding | None:
    """Whether other starts break more."""
    if not survivors.iterative or survivors.graded:
        return None
    if survivors.ensemble:
        broken = survivors.ensemble[0][1]
        what = f"APGD from a start of its own breaks {broken}"
    else:
        steps, norm = survivors.baseline.steps, survivors.norm
        broken = survivors.breaks(PGD(survivors.eps, steps=steps, restarts=STARTS, norm=norm, eot=survivors.passes))
        what = f"{STARTS} restarts break {broken}"
    message, points = f"at {survivors.name} {what} of {len(survivors.standing)} survivors", survivors.points(broken)
    if points > RESTARTS_WARN:
        return Finding("WARN", f"{message}: raise restarts", points)
    return Finding("OK", message, points)


@also("R15")
def other_loss(survivors: Survivors) -> Finding | None:
    """R15 beside an attack on the cross-entropy: by R24's ensemble, or by APGD on the difference-of-logits ratio."""
    if not any("cross-entropy" in one.losses for one in survivors.iterative) or survivors.graded:
        return None
    stood = len(survivors.standing)
    if survivors.ensemble:
        stood -= survivors.ensemble[0][1]
        fewer = survivors.ensemble[1][1]
    else:
        attack = APGD(survivors.eps, steps=50, loss="dlr", norm=survivors.norm, eot=survivors.passes)
        fewer = survivors.breaks(attack)
    return losses_finding(survivors.name, fewer, stood, survivors.points(fewer))


@also("R12")
def black_box_search(survivors: Survivors) -> Finding | None:
    """R12 by Square: as a member of R24's ensemble, or by itself."""
    stood = len(survivors.standing)
    for member, broken in survivors.ensemble:
        if is_black_box(member):
            return black_box_finding(member, survivors.name, broken, stood, survivors.points(broken))
        stood -= broken
    norm = survivors.norm
    if isinstance(norm, L1) or not survivors.iterative:
        return None
    attack = Square(survivors.eps, queries=MANY_QUERIES, norm=norm)
    broken = survivors.breaks(attack)
    return black_box_finding(attack, survivors.name, broken, len(survivors.standing), survivors.points(broken))


@check(
    "R3",
    "silent success",
    "an image that the attack asked about inside the ball was misclassified, and it returned another that is not",
    level="WARN",
    source=PINTOR,
)
def silent_success(survivors: Survivors) -> Iterator[Finding]:
    """Of each gradient attack; what it saw in one pass of a randomised model is no misclassification."""
    if survivors.randomised:
        return
    inner = [one for whole in survivors.attacks for one in parts(whole) if one.needs == "gradients"]
    n = min(ALONE, len(survivors.standing))
    for attack in dict.fromkeys(inner):
        silent = sum(_is_silent(survivors, attack, i) for i in range(n))
        message = f"{attack.name} at {survivors.name} passed by {silent} adversarials of {n}"
        cause = ": it returns another iterate than its best" if silent else ""
        yield Finding("WARN" if silent else "OK", message + cause, silent)


def _is_silent(survivors: Survivors, attack: Attack, i: int) -> bool:
    """Whether an attack on one image alone met an adversarial, and returned an image that is none."""
    one = survivors.standing[slice(i, i + 1)]
    model, norm, edge = Meter(survivors.model), survivors.norm, ball_edge(survivors.eps)
    met = False

    def watched(x: Tensor) -> Tensor:
        nonlocal met
        logits = model(x)
        at = x.detach()
        inside = norm.distance(at, one.x.expand_as(at)) <= edge
        inside &= ((at >= 0) & (at <= 1)).flatten(1).all(1)
        met |= bool((inside & (logits.detach().argmax(1) != one.y)).any())
        return logits

    with frozen(survivors.model):
        x_adv = attack.perturb(watched, one.x, one.y, Noise(survivors.seed, one.ids).stream(attack.name))
        with torch.no_grad():
            broken = bool((Meter(survivors.model)(x_adv).argmax(1) != one.y).any())
    return met and not broken


@check(
    "R13",
    "random search",
    f"uniform noise in the ball breaks a survivor: WARN, more than {100 * NOISE_SUSPECTS:g} %: SUSPECT; {DRAWS} draws "
    f"on at most {LIMIT}",
    level="SUSPECT",
    source=f"{CARLINI}; ours",
)
def random_search(survivors: Survivors) -> Finding:
    """Whether noise breaks what the attacks left."""
    broken = survivors.breaks(UniformNoise(survivors.eps, draws=DRAWS, norm=survivors.norm))
    n = len(survivors.standing)
    message = f"at {survivors.name} {DRAWS} draws of uniform noise break {broken} of {n} survivors"
    if not broken:
        return Finding("OK", message, 0)
    many = broken > 1 and broken / n > NOISE_SUSPECTS and not survivors.randomised
    return Finding("SUSPECT" if many else "WARN", f"{message}: the attack misses what noise finds", broken / n)


@check(
    "R10",
    "converged",
    f"twice the steps lower accuracy by more than {100 * CONVERGED_WARNS:g} points: WARN, "
    f"{100 * CONVERGED_SUSPECTS:g} points: SUSPECT; the loss of more than {100 * MOVING_WARNS:g} % of the survivors "
    f"still moves by {MOVES:g} of its range in the last half of the steps: WARN, INFO where R24 passed; beside an "
    "ensemble of AutoAttack's grade no more than INFO, but for SUSPECT",
    level="SUSPECT",
    source=f"{CARLINI}; {PINTOR}; ours",
    bars=True,
)
def converged(survivors: Survivors) -> Finding | None:
    """Twice the steps, and whether the loss still moves; where R24 passed that is known to break next to nothing."""
    if not survivors.iterative:
        return None
    baseline = survivors.baseline
    doubled = replace(baseline, steps=2 * baseline.steps, **({"restarts": 1} if hasattr(baseline, "restarts") else {}))
    broken = survivors.breaks(doubled)
    points, moving = survivors.points(broken), _moving(survivors, baseline.steps)
    message = (
        f"at {survivors.name} twice the steps ({doubled.name}, {2 * baseline.steps}) break {broken} of "
        f"{len(survivors.standing)} survivors; of {100 * moving:.0f} % the loss still moves"
    )
    if points > CONVERGED_SUSPECTS:
        return Finding("SUSPECT", f"{message}: far from converged; raise steps", points)
    if points > CONVERGED_WARNS or moving > MOVING_WARNS:
        agreed = any(finding.level == "OK" for finding in stronger_ensemble(survivors))
        known = survivors.graded or (agreed and points <= CONVERGED_WARNS)
        return Finding("INFO" if known else "WARN", f"{message}: more steps may lower accuracy", points)
    return Finding("OK", message, points)


def _moving(survivors: Survivors, steps: int) -> float:
    """The share of survivors whose best loss so far rises by MOVES of its range in the last half of PGD's steps."""
    standing = survivors.standing
    chunks = torch.split(torch.arange(len(standing), device=standing.x.device), survivors.chunk.samples)
    return share_moving(torch.cat([_losses(survivors, standing[chunk], steps) for chunk in chunks], 1))


def _losses(survivors: Survivors, samples: Samples, steps: int) -> Tensor:
    """(steps, n) losses of n samples on the way of PGD."""
    model, losses = Meter(survivors.model), list[Tensor]()

    def recorded(x: Tensor) -> Tensor:
        logits = model(x)
        losses.append(cross_entropy(logits.detach(), samples.y))
        return logits

    with frozen(survivors.model):
        attack = PGD(survivors.eps, steps=max(4, steps), norm=survivors.norm, early_stop=False)
        attack.perturb(recorded, samples.x, samples.y, Noise(survivors.seed, samples.ids).stream("pgd"))
    return torch.stack(losses)


def share_moving(losses: Tensor) -> float:
    """R10 (b): the share of samples whose best loss so far still moves, of (steps, n) losses (Pintor et al. 2022)."""
    best = losses.double().cummax(0).values
    span = best[-1] - best[0]
    late = (best[-1] - best[len(best) // 2]) / span.clamp_min(1e-12)
    return float(((span > 1e-12) & (late > MOVES)).double().mean())
