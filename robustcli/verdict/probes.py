"""The checks of a whole model that must compute (`--checks full`): more attacks on what it gets right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
from scipy.stats import binom
from torch import nn

from robustcli.attacks import APGD, PGD, DeepFool, Square, label
from robustcli.attacks.base import Attack, BudgetAttack, is_iterative, passes_of
from robustcli.attacks.losses import margin
from robustcli.attacks.norms import L1
from robustcli.data.images import Images
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import ChunkSize
from robustcli.engine.outcome import predict_samples
from robustcli.engine.run import Outcome, Samples, predict, run_attack
from robustcli.measure.binarisation import LEAST_FOUND, Binarised, binarise
from robustcli.measure.eightbit import round_to_8bit
from robustcli.measure.record import Record
from robustcli.measure.session import ImageSamples
from robustcli.measure.transfer import Transferred
from robustcli.noise import Noise
from robustcli.verdict.check import CARLINI, PINTOR, Finding, When, check
from robustcli.verdict.model import FEW, spread_over
from robustcli.verdict.rows import BEYOND_CHANCE as UNBOUNDED_BEYOND_CHANCE
from robustcli.verdict.rows import (
    MANY_QUERIES,
    SAVED,
    UNBOUNDED_SUSPECTS,
    UNBOUNDED_WARNS,
    attack_of,
    budgets,
    rounding_finding,
    unbounded_finding,
    worst_case,
)
from robustcli.verdict.survivors import LIMIT, Survivors, stronger_ensemble

GREY = 0.5
"""In Linf every image can be made grey."""

STEPS = 100
SMALL_STEP = 4 / 255
NOISY = 0.1
SIDES = 0.001
CONVERGING = 50

INSIDE = 0.05
"""So far from 0 and 1 no pixel is where a clamp has no gradient; of digits most are at 0."""

PLANTED = 32
"""Points of the binarisation test."""

BEYOND_CHANCE = 1e-4


@dataclass(frozen=True)
class Measurement:
    """A model on its device, the images that it was measured on, and its finished rows, all of them on these.

    Attributes:
        limit: how many survivors of a budget meet more attacks.
        randomised: whether the model answers the same image differently.
        transfers: what images of other checkpoints, and its own, did to it, where that was measured.
    """

    when: ClassVar[When] = "full"

    model: nn.Module
    images: Images
    rows: Sequence[Record]
    device: str = "cpu"
    seed: int = 0
    chunk: ChunkSize = field(default_factory=lambda: ChunkSize(128))
    limit: int = LIMIT
    randomised: bool = False
    transfers: Sequence[Transferred] = ()

    @cached_property
    def samples(self) -> ImageSamples:
        """All images, read as they are indexed."""
        return ImageSamples(self.images, self.device)

    @cached_property
    def classes(self) -> int:
        """How many the network has."""
        with frozen(self.model), torch.no_grad():
            return Meter(self.model)(self.samples[slice(1)].x).shape[1]

    @cached_property
    def correct(self) -> Images:
        """At most FEW images that the model gets right, evenly spread."""
        y = self.samples.y
        with frozen(self.model), torch.no_grad():
            index = (predict_samples(Meter(self.model), self.samples, self.chunk) == y).nonzero()[:, 0].cpu()
        return self.images.take(index[spread_over(len(index), min(self.limit, FEW))])

    @cached_property
    def correct_samples(self) -> Samples:
        """The same as pixels, on the device."""
        return ImageSamples(self.correct, self.device)[slice(None)]

    @cached_property
    def strongest(self) -> Attack | None:
        """The iterative attack with a budget that leaves the least."""
        rows = [row for row in self.rows if row.ensemble is None and is_iterative(attack_of(row))]
        return attack_of(min(rows, key=lambda row: row.correct)) if rows else None

    @cached_property
    def outcome(self) -> Outcome | None:
        """What the strongest attack does, with its images."""
        return None if self.strongest is None else self.run(self.strongest)

    def run(self, attack: Attack, samples: Samples | None = None) -> Outcome:
        """What an attack does to samples, or else to the images that are right."""
        eot = 1 if self.strongest is None else passes_of(self.strongest)
        samples = self.correct_samples if samples is None else samples
        return run_attack(
            self.model, attack, samples, seed=self.seed, batch_size=self.chunk, eot=eot, keep_images=True
        )[-1]

    @cached_property
    def survivors(self) -> tuple[Survivors, ...]:
        """Those of each budget."""
        return tuple(self._survivors())

    def _survivors(self) -> Iterator[Survivors]:
        for name, group in budgets(self.rows):
            flags = torch.tensor(worst_case(self.rows, group), dtype=torch.bool)
            index = flags.nonzero()[:, 0]
            first = attack_of(group[0])
            assert isinstance(first, BudgetAttack)
            yield Survivors(
                model=self.model,
                name=name,
                norm=first.norm,
                eps=first.eps,
                standing=self.samples[index[spread_over(len(index), self.limit)]],
                count=len(index),
                total=len(flags),
                attacks=tuple(attack_of(row) for row in group),
                seed=self.seed,
                chunk=self.chunk,
                randomised=self.randomised,
            )


@check(
    "R8",
    "huge eps",
    f"under PGD-{STEPS} at Linf {GREY:g}, where every image can be made grey, accuracy is above 1/K + 2 standard "
    "errors",
    level="SUSPECT",
    source=f"{CARLINI}; ART",
)
def huge_eps(measured: Measurement) -> Finding:
    """Whether anything stands where nothing can."""
    outcome = measured.run(PGD(GREY, steps=STEPS, step_size=2 * GREY / STEPS))
    n, accuracy = len(outcome.robust), float(outcome.robust.double().mean())
    chance = 1 / measured.classes
    most = chance + 2 * math.sqrt(chance * (1 - chance) / max(1, n))
    message = f"PGD-{STEPS} at Linf {GREY:g} leaves {100 * accuracy:.0f} % of {n}; "
    message += f"at most {100 * most:.0f} % are possible"
    if accuracy > most:
        return Finding("SUSPECT", f"{message}: gradients are masked, broken or useless", accuracy)
    return Finding("OK", message, accuracy)


@check(
    "R9",
    "unbounded attack",
    f"DeepFool of {CONVERGING} iterations or more, without a budget, fails on more than {100 * UNBOUNDED_WARNS:g} % of "
    f"the correct points: WARN; on more than {100 * UNBOUNDED_SUSPECTS:g} % beyond chance (p < "
    f"{UNBOUNDED_BEYOND_CHANCE:g}): SUSPECT, under --checks full only if so of images {INSIDE:g} inside of [0, 1] too",
    level="SUSPECT",
    source=f"{CARLINI}; ours",
)
def without_budget(measured: Measurement) -> Finding:
    """Whether DeepFool breaks all, where no budget stops it; a clamp before a network stops it, and is no mask."""
    attack, samples = DeepFool(iters=CONVERGING), measured.correct_samples
    outcome = measured.run(attack)
    failed, n = int(outcome.robust.sum()), int(outcome.clean.sum())
    found = unbounded_finding(f"deepfool:iters={CONVERGING}", failed, n)
    if found.level != "SUSPECT":
        return found
    inside = measured.run(attack, replace(samples, x=samples.x.clamp(INSIDE, 1 - INSIDE)))
    left = int(inside.robust.sum())
    if unbounded_finding("", left, n).level == "SUSPECT":
        return found
    message = f"deepfool:iters={CONVERGING}, without a budget, fails on {failed} of {n} samples, and on {left} whose "
    message += f"pixels are moved {INSIDE:g} inside of [0, 1]: does a clamp stop the gradient at 0 and 1? take it out"
    return Finding("WARN", message, left / n)


@check(
    "R16",
    "noisy landscape",
    f"{STEPS} random steps within {255 * SMALL_STEP:g}/255 change the margin by more than {100 * NOISY:g} % in the "
    "mean",
    level="WARN",
    source=f"{PINTOR}; ours",
)
def noisy_landscape(measured: Measurement) -> Finding:
    """On the margin: the cross-entropy of a confident point is so small that any change is a large share."""
    samples = measured.correct_samples
    noise = Noise(measured.seed, samples.ids).stream("landscape")
    model = Meter(measured.model)
    with frozen(measured.model), torch.no_grad():
        at = margin(model(samples.x), samples.y)
        draws = (2 * noise.stream(str(i)).uniform(samples.x) - 1 for i in range(STEPS))
        changes = [(margin(model(samples.x + draw * SMALL_STEP), samples.y) - at).abs() for draw in draws]
    change = float((torch.stack(changes).mean(0) / at.abs().clamp_min(1e-12)).clamp_max(1).mean())
    message = f"random steps within {255 * SMALL_STEP:g}/255 change the margin by {100 * change:.1f} % in the mean"
    if change > NOISY:
        return Finding("WARN", f"{message}: a noisy or stepped surface; average gradients (--eot)", change)
    return Finding("OK", message, change)


@check(
    "R2",
    "re-evaluation",
    f"asked again alone and in other batches, more than {100 * SIDES:g} % of the adversarials change sides",
    level="WARN",
    source="ours",
    bars=True,
)
def re_evaluation(measured: Measurement) -> Finding | None:
    """Alone, and in one batch in reverse."""
    outcome = measured.outcome
    if outcome is None or outcome.x_adv is None:
        return None
    samples = measured.correct_samples
    x, y = outcome.x_adv.to(samples.x), samples.y
    with frozen(measured.model), torch.no_grad():
        again = [predict(measured.model, x, 1), predict(measured.model, x.flip(0), len(x)).flip(0)]
    robust = outcome.robust.to(y.device)
    moved = max(int(((pred == y) != robust).sum()) for pred in again)
    message = f"asked again in other batches, {moved} of {len(y)} images change sides"
    if moved > SIDES * len(y):
        return Finding("WARN", f"{message}: a randomised or batch-dependent model", moved / len(y))
    return Finding("OK", message, 0)


@check(
    "R4",
    "8-bit",
    f"rounding to k/255 inside the ball saves more than {100 * SAVED:g} point; of the rows too under --eight-bit",
    level="INFO",
    source="ours",
)
def rounding(measured: Measurement) -> Finding | None:
    """Whether images of the strongest attack still fool once they are rounded."""
    outcome = measured.outcome
    if outcome is None:
        return None
    saved = int((~round_to_8bit(measured.model, measured.correct, outcome, measured.chunk.samples).fools).sum())
    return rounding_finding(outcome.attack.name, saved, len(measured.correct))


@check(
    "R17",
    "binarisation test",
    f"of adversarials by construction at {PLANTED} points the attack finds under {100 * LEAST_FOUND:g} %, or noise "
    f"finds half: WARN; SUSPECT where it is under {100 * LEAST_FOUND:g} % beyond chance (p < {BEYOND_CHANCE:g}) and a "
    "stronger attack finds half of those it missed, unless R24 breaks little at this budget",
    level="SUSPECT",
    source="Zimmermann et al. 2022; ours",
)
def binarisation(measured: Measurement) -> Finding | None:
    """Whether the strongest attack finds adversarials that are known to be there."""
    attack = measured.strongest
    if attack is None:
        return None
    assert isinstance(attack, BudgetAttack)
    samples = measured.correct_samples
    few = samples[spread_over(len(samples), PLANTED).to(samples.x.device)]
    test = binarise(measured.model, attack, few.x, attack.eps, attack.norm, measured.seed, ids=few.ids)
    again = found_again(measured, test, few) if below_chance(test) else 0
    agrees = ensemble_agrees(measured.survivors, attack)
    return binarisation_finding(f"{label(test.attack)} at {test.norm.label} {test.eps}", test, again, agrees)


def ensemble_agrees(groups: Sequence[Survivors], attack: BudgetAttack) -> bool:
    """Whether an ensemble of AutoAttack's grade, at an attack's budget, says that its misses cost little (R24)."""
    group = next((one for one in groups if (one.norm, one.eps) == (attack.norm, attack.eps)), None)
    if group is None:
        return False
    found = stronger_ensemble(group)
    return group.graded or (bool(found) and all(one.level != "SUSPECT" for one in found))


def below_chance(test: Binarised) -> bool:
    """Whether the attack finds fewer of the planted adversarials than chance lets one that finds LEAST_FOUND miss.

    PGD-20 and PGD-40 find 27 to 32 of 32 on a good PGD-trained network, gradient masks leave less than 16.
    """
    return float(binom.cdf(sum(test.found), test.n, LEAST_FOUND)) < BEYOND_CHANCE


def found_again(measured: Measurement, test: Binarised, samples: Samples) -> int:
    """How many of the planted adversarials that an attack missed APGD of five starts, or Square, finds."""
    eps, norm = test.eps, test.norm
    stronger: list[Attack] = [APGD(eps, restarts=5, norm=norm, eot=passes_of(test.attack))]
    if not isinstance(norm, L1):
        stronger.append(Square(eps, queries=MANY_QUERIES, norm=norm))
    count, missed = 0, test.missed
    for attack in stronger:
        if missed:
            few = samples[torch.isin(samples.ids.cpu(), torch.tensor(missed)).nonzero()[:, 0].to(samples.x.device)]
            again = binarise(measured.model, attack, few.x, eps, norm, measured.seed, ids=few.ids)
            count, missed = count + sum(again.found), again.missed
    return count


def binarisation_finding(attack: str, test: Binarised, again: int = 0, agrees: bool = False) -> Finding:
    """R17, where a stronger attack finds `again` of those that were missed.

    Where noise finds half of the planted adversarials, the test is too easy to pass it. Where the ensemble `agrees`
    with the number, R24 has measured what the attack misses on the network itself.
    """
    found = sum(test.found)
    message = f"of {test.n} adversarials by construction {attack} finds {found}, noise {sum(test.found_at_random)}"
    if test.asr < LEAST_FOUND:
        if below_chance(test) and 2 * again >= test.n - found:
            message += f", a stronger attack {again} of the other {test.n - found}"
            if agrees:
                return Finding("WARN", f"{message}: the attack is weak for this model; R24 says by how much", test.asr)
            return Finding("SUSPECT", f"{message}: the attack is too weak for this model", test.asr)
        return Finding("WARN", f"{message}: the attack may be weak for this model", test.asr)
    if not test.passed:
        return Finding("WARN", f"{message}: the test is too easy to tell", test.random_asr)
    return Finding("OK", message, test.asr)
