"""The probes of a model as a whole, at no budget of the run: R1, R2, R4, R8, R9, R16, R17."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import nn

from robustcli.attacks import APGD, PGD, DeepFool, Square, label
from robustcli.attacks.base import Attack, BudgetAttack, passes_of
from robustcli.attacks.losses import is_right, margin
from robustcli.attacks.norms import L1
from robustcli.data.images import Images
from robustcli.engine.guard import Meter, check_result, frozen
from robustcli.engine.run import Outcome, Samples, predict, run_attack
from robustcli.errors import AttackError
from robustcli.measure.binarisation import LEAST_FOUND, Binarised, binarise
from robustcli.measure.eightbit import round_to_8bit
from robustcli.noise import Noise
from robustcli.verdict.case import tried
from robustcli.verdict.effort import MANY_QUERIES
from robustcli.verdict.findings import Finding
from robustcli.verdict.look import spread_over
from robustcli.verdict.runs import rounding_finding, standard_error, unbounded_finding

SMALL_STEP = 4 / 255
STEPS = 100
PLANTED = 32
"""Points of the binarisation test."""

BEYOND_CHANCE = 1e-4


@dataclass(frozen=True)
class Scene:
    """A model, some samples that it gets right, and how they are attacked.

    Attributes:
        model: what is probed.
        images: as stored.
        samples: the same as pixels, on the model's device.
        attack: the strongest of the run with a budget, or None.
        seed: of the run.
    """

    model: nn.Module
    images: Images
    samples: Samples
    attack: Attack | None
    seed: int

    def run(self, attack: Attack) -> Outcome:
        """What an attack does here."""
        eot = 1 if self.attack is None else passes_of(self.attack)
        return run_attack(self.model, attack, self.samples, seed=self.seed, eot=eot, keep_images=True)[-1]


def kept(scene: Scene, outcome: Outcome) -> list[Finding]:
    """R1; the driver refuses such images too, so this guards the driver itself."""
    assert outcome.x_adv is not None
    try:
        check_result(outcome.attack, scene.samples.x.cpu().float(), outcome.x_adv)
    except AttackError as error:
        return [Finding("R1", "INVALID", str(error))]
    return [Finding("R1", "OK", f"{len(outcome.x_adv)} images of {outcome.attack.name} keep the threat model")]


def re_evaluated(scene: Scene, outcome: Outcome) -> list[Finding]:
    """R2: alone, and in one batch in reverse."""
    assert outcome.x_adv is not None
    x, y = outcome.x_adv.to(scene.samples.x), scene.samples.y
    with frozen(scene.model), torch.no_grad():
        seen = [predict(scene.model, x, 1), predict(scene.model, x.flip(0), len(x)).flip(0)]
    robust = outcome.robust.to(y.device)
    moved = max(int(((pred == y) != robust).sum()) for pred in seen)
    told = f"asked again in other batches, {moved} of {len(y)} images change sides"
    if moved > 0.001 * len(y):
        return [Finding("R2", "WARN", f"{told}: a randomised or batch-dependent model", moved / len(y))]
    return [Finding("R2", "OK", told, 0)]


def rounded(scene: Scene, outcome: Outcome) -> list[Finding]:
    """R4."""
    found = round_to_8bit(scene.model, scene.images, outcome)
    return [rounding_finding(outcome.attack.name, int((~found.fools).sum()), len(scene.samples))]


def huge_eps(scene: Scene) -> list[Finding]:
    """R8."""
    attack = PGD(0.5, steps=STEPS, step_size=0.01)
    outcome = scene.run(attack)
    n, accuracy = len(scene.samples), float(outcome.robust.double().mean())
    with torch.no_grad(), frozen(scene.model):
        classes = Meter(scene.model)(scene.samples.x[:1]).shape[1]
    most = 1 / classes + 2 * standard_error(1 / classes, n)
    told = f"PGD-{STEPS} at Linf 0.5 leaves {100 * accuracy:.0f} % of {n}; at most {100 * most:.0f} % are possible"
    if accuracy > most:
        return [Finding("R8", "SUSPECT", f"{told}: gradients are masked, broken or useless", accuracy)]
    return [Finding("R8", "OK", told, accuracy)]


def without_budget(scene: Scene) -> list[Finding]:
    """R9, with DeepFool-50."""
    outcome = scene.run(DeepFool(iters=50))
    return [unbounded_finding("deepfool:iters=50", int(outcome.robust.sum()), int(outcome.clean.sum()))]


def noisy(scene: Scene) -> list[Finding]:
    """R16, on the margin: the cross-entropy of a confident point is so small that any change is a large share."""
    x, y = scene.samples.x, scene.samples.y
    noise = Noise(scene.seed, scene.samples.ids).stream("landscape")
    model = Meter(scene.model)
    with frozen(scene.model), torch.no_grad():
        at = margin(model(x), y)
        steps = [
            (margin(model(x + (2 * noise.stream(str(i)).uniform(x) - 1) * SMALL_STEP), y) - at).abs()
            for i in range(STEPS)
        ]
    change = float((torch.stack(steps).mean(0) / at.abs().clamp_min(1e-12)).clamp_max(1).mean())
    told = f"random steps within 4/255 change the margin by {100 * change:.1f} % in the mean"
    if change > 0.1:
        return [Finding("R16", "WARN", f"{told}: a noisy or stepped surface; average gradients (--eot)", change)]
    return [Finding("R16", "OK", told, change)]


def binarised(scene: Scene, attack: Attack) -> list[Finding]:
    """R17, of an attack with a budget.

    Raises:
        AttackError: the test does not fit the model.
    """
    assert isinstance(attack, BudgetAttack)
    few = scene.samples[spread_over(len(scene.samples), PLANTED).to(scene.samples.x.device)]
    test = binarise(scene.model, attack, few.x, attack.eps, attack.norm, scene.seed, ids=few.ids)
    again = found_again(scene, test, few) if below_chance(test) else 0
    return [binarisation_finding(f"{label(test.attack)} at {test.norm.label} {test.eps}", test, again)]


def below_chance(test: Binarised) -> bool:
    """Whether the attack finds fewer of the planted adversarials than chance lets one that finds LEAST_FOUND miss.

    PGD-20 and PGD-40 find 27 to 32 of 32 on a good PGD-trained network, gradient masks leave less than 16.
    """
    return float(binom.cdf(sum(test.found), test.n, LEAST_FOUND)) < BEYOND_CHANCE


def found_again(scene: Scene, test: Binarised, samples: Samples) -> int:
    """How many of the planted adversarials that an attack missed APGD of five starts, or Square, finds."""
    eps, norm = test.eps, test.norm
    stronger: list[Attack] = [APGD(eps, restarts=5, norm=norm, eot=passes_of(test.attack))]
    if not isinstance(norm, L1):
        stronger.append(Square(eps, queries=MANY_QUERIES, norm=norm))
    left = torch.tensor([sample for sample, found in zip(test.ids, test.found, strict=True) if not found])
    count = 0
    for attack in stronger:
        if len(left):
            few = samples[torch.isin(samples.ids.cpu(), left).nonzero()[:, 0].to(samples.x.device)]
            again = binarise(scene.model, attack, few.x, eps, norm, scene.seed, ids=few.ids)
            count += sum(again.found)
            left = torch.tensor([sample for sample, found in zip(again.ids, again.found, strict=True) if not found])
    return count


def binarisation_finding(attack: str, test: Binarised, again: int = 0) -> Finding:
    """R17; where noise finds half of the planted adversarials, the test asks for too little to pass it.

    Args:
        attack: as it is called.
        test: what it found.
        again: how many of those that it missed a stronger attack finds; asked only where it missed many.
    """
    found = sum(test.found)
    told = f"of {test.n} adversarials by construction {attack} finds {found}, noise {sum(test.found_at_random)}"
    if test.asr < LEAST_FOUND:
        if below_chance(test) and 2 * again >= test.n - found:
            told += f", a stronger attack {again} of the other {test.n - found}"
            return Finding("R17", "SUSPECT", f"{told}: the attack is too weak for this model", test.asr)
        return Finding("R17", "WARN", f"{told}: the attack may be weak for this model", test.asr)
    if not test.passed:
        return Finding("R17", "WARN", f"{told}: the test is too easy to tell", test.random_asr)
    return Finding("R17", "OK", told, test.asr)


def survey(scene: Scene) -> list[Finding]:
    """All of these; those of images only where a budget attack ran."""
    if not len(scene.samples):
        return []
    found = [finding for check in (huge_eps, without_budget, noisy) for finding in tried(check, scene)]
    return found if scene.attack is None else [*found, *tried(_of_images, scene, scene.attack)]


def _of_images(scene: Scene, attack: Attack) -> list[Finding]:
    outcome = scene.run(attack)
    found = [*kept(scene, outcome), *re_evaluated(scene, outcome), *rounded(scene, outcome)]
    return [*found, *tried(binarised, scene, attack)]


def right_ones(model: nn.Module, samples: Samples) -> torch.Tensor:
    """The indices of the samples that the model gets right."""
    with frozen(model), torch.no_grad():
        logits = torch.cat([Meter(model)(chunk) for chunk in torch.split(samples.x, 128)])
    return is_right(logits, samples.y).nonzero()[:, 0]
