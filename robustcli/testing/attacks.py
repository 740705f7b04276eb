"""The contract of attacks."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, Kind, Needs, TracingAttack
from robustcli.attacks.losses import Model
from robustcli.engine.guard import check_result
from robustcli.engine.run import Outcome, Samples, run_attack
from robustcli.errors import AttackError
from robustcli.noise import Noise
from robustcli.testing.state import require, require_unchanged, state_of
from robustcli.testing.tiny import boundary_distance, largest_eps, linear_model, linear_samples, tiny_net, tiny_samples

FACTS = ("name", "summary", "kind", "needs", "losses", "weak", "parameter_free", "cost", "norm")
"""What every attack says of itself."""

DISTANCE_SLACK = 0.01
"""How far above (1 + overshoot) times the optimum a minimal-norm attack may end."""


def check_attack(attack: Attack, *, weak: bool = False) -> None:
    """Check that an attack keeps the contract that the driver, the tables and the verdict rely on.

    It runs on tiny float64 models, in well under a second. What is checked:

    - it says what is true of it, as `robustcli.attacks.base.Attack` has it;
    - `perturb` leaves images, labels and ids as they are, and so the model: parameters, gradients, `requires_grad`,
      train/eval flags (which are mixed) and buffers; and the global random states of torch, Python and numpy;
    - its images have the shape and dtype of the input (float32 too), are finite, and lie in [0, 1] and in the ball;
    - the same seed gives the same images, and no sample's image or flag depends on the batch it is in or on its order;
    - its trace, if it has one, is no longer than `iters` and ends with those images;
    - it calls the model that it is given only, so that the driver's counts are true;
    - a sample that is wrong before comes back untouched, with distance 0;
    - a black-box attack takes no gradient, and one that needs decisions only finds the same where scores are hidden;
    - on a linear model its flags are the closed form, robust where the boundary is farther than eps; the distance that
      a minimal-norm attack finds is at most (1 + overshoot) times the optimum, and 1 % on top.

    Args:
        attack: what to check; its eps, if it has one, above 0 and at most 0.3 (Linf, L1) or 1.9 (L2).
        weak: leave out the comparison with the closed form: for noise and for attacks with few queries.

    Raises:
        AssertionError: says in one sentence what is broken.
        ValueError: eps is out of the range above.
    """
    _check_facts(attack)
    if isinstance(attack, BudgetAttack) and not 0 < attack.eps <= largest_eps(attack.norm):
        raise ValueError(f"eps is {attack.eps}; should be above 0 and at most {largest_eps(attack.norm):.3g}")
    net = tiny_net()
    samples = tiny_samples(net)
    _check_side_effects(attack, net, samples)
    x_adv = _check_images(attack, net, samples)
    _check_trace(attack, net, samples, x_adv)
    seen: list[int] = []
    handle = net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    outcome = _run(attack, net, samples)
    handle.remove()
    _check_independence(attack, net, samples, x_adv, outcome)
    _check_driver(attack, samples, outcome, sum(seen))
    _check_needs(attack, net, samples, x_adv, outcome.backwards)
    if not weak:
        _check_closed_form(attack)


def _perturb(attack: Attack, model: Model, samples: Samples) -> Tensor:
    return attack.perturb(model, samples.x, samples.y, Noise(0, samples.ids)).detach()


def _run(attack: Attack, model: nn.Module, samples: Samples, batch_size: int = 128) -> Outcome:
    try:
        outcomes = run_attack(model, attack, samples, batch_size=batch_size, keep_images=True)
    except AttackError as error:
        raise AssertionError(str(error)) from None
    return replace(outcomes[-1], forwards=sum(outcome.forwards for outcome in outcomes))


def _check_side_effects(attack: Attack, net: nn.Module, samples: Samples) -> None:
    samples = Samples(samples.x.clone(), samples.y.clone(), samples.ids.clone())
    # Flags of modules that do nothing with them: Dropout in train mode would itself ask the global RNG.
    net.training = net[2].training = True  # type: ignore[index]
    net.get_parameter("0.weight").requires_grad_(False)
    before = state_of(net, samples)
    _perturb(attack, net, samples)
    require_unchanged(attack.name, before, state_of(net, samples))
    net.eval().requires_grad_(True)


def _check_images(attack: Attack, net: nn.Module, samples: Samples) -> Tensor:
    """Form, box and ball in both precisions; returns the float64 images (n, c, h, w)."""
    single = replace(samples, x=samples.x.float())
    try:
        x_adv = _perturb(attack, net, samples)
        check_result(attack, samples.x, x_adv)
        check_result(attack, single.x, _perturb(attack, lambda x: net(x.double()).float(), single))
        # The driver hands a tracing attack an empty batch where no sample is right.
        if isinstance(attack, TracingAttack):
            check_result(attack, samples.x[:0], _perturb(attack, net, samples[:0]))
    except AttackError as error:
        raise AssertionError(str(error)) from None
    return x_adv


def _check_independence(attack: Attack, net: nn.Module, samples: Samples, x_adv: Tensor, outcome: Outcome) -> None:
    """Each image alone, and in the driver's chunks of 3; both in reverse.

    An image alone is the farthest from the whole batch: whatever a batch changes, it changes most there.
    """
    require(torch.equal(_perturb(attack, net, samples), x_adv), f"{attack.name} gave other images for the same seed")
    n = len(samples)
    backwards = torch.arange(n).flip(0)
    alone = torch.cat([_perturb(attack, net, samples[index]) for index in torch.split(backwards, 1)]).flip(0)
    _require_close(attack, alone, x_adv, 1)
    parts = _run(attack, net, samples[backwards], 3)
    assert outcome.x_adv is not None
    assert parts.x_adv is not None
    _require_close(attack, parts.x_adv.flip(0), outcome.x_adv, 3)
    moved = int((parts.robust.flip(0) != outcome.robust).sum())
    require(moved == 0, f"{attack.name} depends on the batch: {moved} of {n} flags differ in batches of 3")


def _require_close(attack: Attack, images: Tensor, expected: Tensor, batch_size: int) -> None:
    gap = float((images - expected).abs().max())
    require(gap < 1e-6, f"{attack.name} depends on the batch: pixels move by {gap:.2g} in batches of {batch_size}")


def _check_trace(attack: Attack, net: nn.Module, samples: Samples, x_adv: Tensor) -> None:
    if not isinstance(attack, TracingAttack):
        return
    images = [samples.x, *attack.trace(net, samples.x, samples.y, Noise(0, samples.ids))]
    require(len(images) - 1 <= attack.iters, f"{attack.name} has {len(images) - 1} iterations, {attack.iters} allowed")
    require(torch.equal(images[-1].detach(), x_adv), f"{attack.name} gave other images than its trace ends with")


def _check_driver(attack: Attack, samples: Samples, outcome: Outcome, forwards: int) -> None:
    require(forwards == outcome.forwards, f"{attack.name} ran {forwards} forwards, {outcome.forwards} were counted")
    wrong = ~outcome.clean
    untouched = outcome.x_adv is not None and torch.equal(outcome.x_adv[wrong], samples.x[wrong].float())
    require(untouched, f"{attack.name} moved a sample that was wrong before")
    require(not bool(outcome.distance[wrong].any()), f"{attack.name} has a distance for a sample that was wrong before")


def _check_facts(attack: Attack) -> None:
    needed = [*FACTS, *(("bounded", "converges") if getattr(attack, "kind", "") == "minimal" else ("eps",))]
    missing = [fact for fact in needed if not hasattr(attack, fact)]
    require(not missing, f"{type(attack).__name__} does not say its {', '.join(missing)}")
    require(attack.kind in get_args(Kind), f"{attack.name} says that its kind is {attack.kind}")
    require(attack.needs in get_args(Needs), f"{attack.name} says that it needs {attack.needs}")


def _check_needs(attack: Attack, net: nn.Module, samples: Samples, x_adv: Tensor, taken: int) -> None:
    needs = attack.needs
    honest = needs == "gradients" or taken == 0
    require(honest, f"{attack.name} says that it needs {needs}, and takes {taken} gradients")

    def decisions(x: Tensor) -> Tensor:
        logits: Tensor = net(x)
        return torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1.0)

    if needs == "decisions":
        same = torch.equal(_perturb(attack, decisions, samples), x_adv)
        require(same, f"{attack.name} says that it needs decisions, and finds other images where scores are hidden")


def _check_closed_form(attack: Attack) -> None:
    norm = attack.norm
    eps = attack.eps if isinstance(attack, BudgetAttack) else largest_eps(norm) / 3
    model = linear_model(norm)
    samples = linear_samples(model, norm, [factor * eps for factor in (0.3, 0.6, 0.9, 1.1, 1.4)])
    optimum = boundary_distance(model, norm, samples)
    outcome = _run(attack, model, samples)
    n, robust = len(samples), int(outcome.robust.sum())
    if isinstance(attack, BudgetAttack):
        expected = optimum > eps
        require(
            torch.equal(outcome.robust, expected),
            f"{attack.name} leaves {robust} of {n} samples of a linear model robust; {int(expected.sum())} are",
        )
        return
    require(robust == 0, f"{attack.name} did not break {robust} of {n} samples of a linear model")
    worst = float((outcome.distance / optimum).max())
    allowed = 1 + getattr(attack, "overshoot", 0.02)
    require(
        worst <= allowed + DISTANCE_SLACK,
        f"{attack.name} needs {worst:.3f} times the distance to a linear boundary; {allowed:.3f} is allowed",
    )
