"""Each bad attack makes one mistake that a published one has made; the contract must name it."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

from robustcli.attacks import FGSM, FMN, PGD, DeepFool, HopSkipJump, Square
from robustcli.attacks.losses import cross_entropy, input_gradient, is_right, margin
from robustcli.attacks.norms import L2, Linf, Norm
from robustcli.testing import check_attack

EPS = 0.1


@dataclass(frozen=True)
class Saboteur:
    """An attack that does `how(model, x, y, noise)`."""

    how: Callable
    norm: Norm = field(default_factory=Linf)
    needs: str = "gradients"
    name = "saboteur"
    summary = "a bad attack"
    losses, weak, parameter_free, cost = ("margin",), False, False, 2

    def perturb(self, model, x, y, noise):
        return self.how(model, x, y, noise)


@dataclass(frozen=True)
class Budget(Saboteur):
    eps: float = EPS
    kind = "budget"


class Minimal(Saboteur):
    kind, bounded, converges = "minimal", True, False


def fgsm(model, x, y, noise, eps=EPS):
    return FGSM(eps).perturb(model, x, y, noise)


def at_budget(eps):
    """FGSM that steps so far, whatever its budget is."""
    return lambda model, x, y, noise: fgsm(model, x, y, noise, eps)


def changed(change):
    """FGSM, and something is done to its images."""
    return lambda model, x, y, noise: change(fgsm(model, x, y, noise))


def followed_by(action):
    """FGSM with a side effect."""

    def how(model, x, y, noise):
        x_adv = fgsm(model, x, y, noise)
        action()
        return x_adv

    return how


def identity(model, x, y, noise):
    return x


def out_of_the_box(model, x, y, noise):
    gradient, _ = input_gradient(model, cross_entropy, x, y)
    return x + EPS * gradient.sign()


def wrong_sign(model, x, y, noise):
    gradient, _ = input_gradient(model, cross_entropy, x, y)
    return (x - EPS * gradient.sign()).clamp(0, 1)


def stale_last_iterate(model, x, y, noise):
    """PGD that returns the iterate before the last one, as it never looks at the last."""
    iterates = [x]
    for _ in range(1):
        iterates.append(fgsm(model, iterates[-1], y, noise))
    return iterates[-2]


def leaked_gradient(model, x, y, noise):
    x = x.clone().requires_grad_()
    cross_entropy(model(x), y).sum().backward()
    return (x + EPS * x.grad.sign()).clamp(0, 1).detach()


def frozen_for_good(model, x, y, noise):
    if isinstance(model, nn.Module):
        model.requires_grad_(False)
    return fgsm(model, x, y, noise)


def flips_to_eval_and_train(model, x, y, noise):
    if isinstance(model, nn.Module):
        model.eval()
    x_adv = fgsm(model, x, y, noise)
    if isinstance(model, nn.Module):
        model.train()
    return x_adv


def attacks_in_train_mode(model, x, y, noise):
    batch_norm = model[1] if isinstance(model, nn.Module) else nn.Identity()
    batch_norm.train()
    x_adv = fgsm(model, x, y, noise)
    batch_norm.eval()
    return x_adv


def mutates_its_input(model, x, y, noise):
    return x.copy_(fgsm(model, x, y, noise))


def relabels(model, x, y, noise):
    x_adv = fgsm(model, x, y, noise)
    y.zero_()
    return x_adv


def nan_once(model, x, y, noise):
    x_adv = fgsm(model, x, y, noise)
    x_adv[-1, 0, 0, 0] = torch.nan
    return x_adv


def scaled_by_the_batch(model, x, y, noise):
    gradient, _ = input_gradient(model, cross_entropy, x, y)
    return (x + EPS * gradient / gradient.abs().max()).clamp(0, 1)


def mixes_samples(model, x, y, noise):
    return torch.lerp(x, x.mean(0, keepdim=True), EPS)


def draws_by_place(model, x, y, noise):
    place = replace(noise, ids=torch.arange(len(x)))
    return Linf().spread(x, EPS, place).clamp(0, 1)


def forgets_its_seed():
    calls = itertools.count(1)
    return lambda model, x, y, noise: fgsm(model, x, y, noise, EPS / next(calls))


def goes_round_the_meter(model, x, y, noise):
    return fgsm(getattr(model, "model", model), x, y, noise)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (identity, "leaves 10 of 10 samples of a linear model robust; 4 are"),
        (wrong_sign, "samples of a linear model robust; 4 are"),
        (at_budget(EPS / 2), "samples of a linear model robust; 4 are"),
        (stale_last_iterate, "samples of a linear model robust; 4 are"),
        (at_budget(1.1 * EPS), "left the ball: Linf distance 0.11"),
        (out_of_the_box, "left the box"),
        (leaked_gradient, "changed the gradient of 0.bias"),
        (frozen_for_good, "changed requires_grad of 0.bias"),
        (flips_to_eval_and_train, "changed the train/eval flag of 0"),
        (attacks_in_train_mode, "changed the buffer 1.running_mean"),
        (followed_by(lambda: torch.rand(1)), "changed the global random state of torch"),
        # A seed that leaves no state that another test may have left.
        (followed_by(lambda: torch.manual_seed(987654321)), "changed the global random state of torch"),
        (followed_by(random.random), "changed the global random state of Python"),
        (followed_by(np.random.rand), "changed the global random state of numpy"),
        (followed_by(lambda: torch.set_grad_enabled(False)), "changed whether gradients are on"),
        (mutates_its_input, "changed its input"),
        (relabels, "changed the labels"),
        (changed(lambda x_adv: x_adv + torch.nan), "returned NaN or infinite pixels"),
        (nan_once, "returned NaN or infinite pixels"),
        (changed(torch.Tensor.float), "should be .* torch.float64"),
        (changed(torch.Tensor.double), "should be .* torch.float32"),
        (changed(lambda x_adv: x_adv.flatten(1)), r"returned \(11, 64\)"),
        (scaled_by_the_batch, "depends on the batch: pixels move by"),
        (mixes_samples, "depends on the batch: pixels move by"),
        (draws_by_place, "depends on the batch: pixels move by"),
        (forgets_its_seed(), "gave other images for the same seed"),
        (goes_round_the_meter, "ran 29 forwards, 20 were counted"),
    ],
)
def test_a_bad_attack_fails_for_its_own_mistake(how, message):
    with torch.random.fork_rng(), torch.enable_grad(), pytest.raises(AssertionError, match=message):
        check_attack(Budget(how))


class Lazy(DeepFool):
    """Stops halfway to the boundary."""

    def trace(self, model, x, y, noise):
        for x_adv in super().trace(model, x, y, noise):
            yield torch.lerp(x, x_adv, 0.5)


class Wasteful(DeepFool):
    """Goes on behind the boundary."""

    def trace(self, model, x, y, noise):
        for x_adv in super().trace(model, x, y, noise):
            yield torch.lerp(x, x_adv, 1.1).clamp(0, 1)


class ShowsAnother(DeepFool):
    """Returns another image than the last that it showed."""

    def perturb(self, model, x, y, noise):
        return DeepFool(iters=1).perturb(model, x, y, noise)


class Endless(DeepFool):
    """Goes on after its last iteration."""

    def trace(self, model, x, y, noise):
        for x_adv in super().trace(model, x, y, noise):
            yield from [x_adv] * (self.iters + 1)


def fmn(model, x, y, noise, norm=None):
    return FMN(iters=15, norm=norm or Linf()).perturb(model, x, y, noise)


def not_adversarial(model, x, y, noise):
    """Shrinks what it found by a hundredth, and does not look again: a smaller distance, and no adversarial."""
    return torch.lerp(x, fmn(model, x, y, noise), 0.99)


def stale_iterate(model, x, y, noise):
    """Ten halvings of the way to an adversarial, of which it returns the lower end: the last that was right."""
    low, high = x, fmn(model, x, y, noise)
    for _ in range(10):
        middle = (low + high) / 2
        right = is_right(model(middle), y)[:, None, None, None]
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return low


def in_another_norm(model, x, y, noise):
    """Measures in L2 what it says is Linf."""
    return fmn(model, x, y, noise, L2())


def first_success(model, x, y, noise):
    """Doubles a step until the sample is broken, and does not come back."""
    gradient, _ = input_gradient(model, cross_entropy, x, y)
    x_adv, eps = x, 1e-3
    while eps < 1 and bool(is_right(model(x_adv), y).any()):
        moved = (x + eps * gradient.sign()).clamp(0, 1)
        x_adv, eps = torch.where(is_right(model(x_adv), y)[:, None, None, None], moved, x_adv), 2 * eps
    return x_adv


def leaves_the_box(model, x, y, noise):
    return DeepFool(box="none", norm="linf").perturb(model, x, y, noise)


def ends_when_all_are_broken(model, x, y, noise):
    """Goes on with samples that are broken while another is not: the batch decides where each ends."""
    for i in range(1, 40):
        x_adv = (x + 0.01 * i * (0.5 - x).sign()).clamp(0, 1)
        if not bool(is_right(model(x_adv), y).any()):
            break
    return x_adv


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (identity, "did not break 10 of 10 samples of a linear model"),
        (not_adversarial, "did not break 10 of 10 samples of a linear model"),
        (stale_iterate, "did not break 10 of 10 samples of a linear model"),
        (in_another_norm, r"needs 1\.\d+ times the distance to a linear boundary; 1.020 is allowed"),
        (first_success, r"needs 1\.\d+ times the distance to a linear boundary; 1.020 is allowed"),
        (leaves_the_box, "left the box"),
        (ends_when_all_are_broken, "depends on the batch: pixels move by"),
        (followed_by(lambda: torch.rand(1)), "changed the global random state of torch"),
        (draws_by_place, "depends on the batch: pixels move by"),
    ],
)
def test_a_bad_minimal_attack_without_a_trace_fails_for_its_own_mistake(how, message):
    with torch.random.fork_rng(), pytest.raises(AssertionError, match=message):
        check_attack(Minimal(how))


def test_the_good_minimal_attack_that_they_are_made_of_passes():
    check_attack(Minimal(fmn))


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (ShowsAnother(), "gave other images than its trace ends with"),
        (Endless(iters=30), r"has \d+ iterations, 30 allowed"),
        (Lazy(), "did not break 10 of 10 samples of a linear model"),
        (Wasteful(), "needs 1.123 times the distance to a linear boundary; 1.020 is allowed"),
    ],
)
def test_a_bad_minimal_attack_fails_for_its_own_mistake(attack, message):
    with pytest.raises(AssertionError, match=message):
        check_attack(attack)


def test_an_attack_that_does_not_say_what_it_is_fails():
    class Silent(Budget):
        weak = property()

    with pytest.raises(AssertionError, match="Silent does not say its weak"):
        check_attack(Silent(fgsm))
    with pytest.raises(AssertionError, match="says that it needs luck"):
        check_attack(BlackBox(fgsm, needs="luck"))


@dataclass(frozen=True)
class BlackBox(Budget):
    """Says that it sees no gradient."""

    needs: str = "scores"


def looks_at_the_margin(model, x, y, noise):
    with torch.no_grad():
        return (x + EPS * margin(model(x), y).sign()[:, None, None, None] * (x - 0.5).tanh()).clamp(0, 1)


def steps_by_the_margin(model, x, y, noise):
    with torch.no_grad():
        return (x + EPS * margin(model(x), y).tanh()[:, None, None, None]).clamp(0, 1)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (BlackBox(fgsm), "says that it needs scores, and takes 9 gradients"),
        (BlackBox(fgsm, needs="decisions"), "says that it needs decisions, and takes 9 gradients"),
        (BlackBox(steps_by_the_margin, needs="decisions"), "needs decisions, and finds other images where scores are"),
    ],
)
def test_a_black_box_attack_that_looks_inside_fails(attack, message):
    with pytest.raises(AssertionError, match=message):
        check_attack(attack, weak=True)


def test_what_a_black_box_attack_says_that_it_needs_it_may_use():
    check_attack(BlackBox(steps_by_the_margin), weak=True)
    check_attack(BlackBox(looks_at_the_margin, needs="decisions"), weak=True)


class SharesItsSquares(Square):
    """Draws one square for the whole batch, the first sample's."""

    def perturb(self, model, x, y, noise):
        return super().perturb(model, x, y, replace(noise, ids=noise.ids[:1].expand(len(x))))


class ForgetsWhoLeft(HopSkipJump):
    """Keys its draws by the place among those that have a start."""

    def _normal(self, model, x_adv, y, reach, count, noise):
        return super()._normal(model, x_adv, y, reach, count, replace(noise, ids=torch.arange(len(x_adv))))


@pytest.mark.parametrize("attack", [SharesItsSquares(EPS, queries=20), ForgetsWhoLeft(iters=2, directions=10)])
def test_draws_that_are_not_the_samples_own_are_found(attack):
    with pytest.raises(AssertionError, match="depends on the batch"):
        check_attack(attack, weak=True)


def test_weak_excuses_from_the_closed_form_only():
    check_attack(Budget(identity), weak=True)
    with pytest.raises(AssertionError, match="left the ball"):
        check_attack(Budget(at_budget(1.1 * EPS)), weak=True)


def test_the_good_attack_that_the_saboteurs_are_made_of_passes():
    check_attack(Budget(fgsm))
    check_attack(PGD(EPS))
