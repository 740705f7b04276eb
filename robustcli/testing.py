"""The contracts of this package as checks for your own code: each raises AssertionError with one clear sentence."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, MinimalAttack
from robustcli.attacks.driver import Outcome, Samples, run_attack
from robustcli.attacks.guards import check_result, frozen
from robustcli.attacks.losses import Model, cross_entropy, margin
from robustcli.attacks.norms import Norm
from robustcli.errors import AttackError
from robustcli.noise import Noise
from robustcli.training.objectives import Objective

SIDE = 8
LARGEST_MOVE = 0.3
"""The most that a pixel of `linear_samples` may move, so that no image on the way meets the box."""
DISTANCE_SLACK = 0.01
"""How far above (1 + overshoot) times the optimum a minimal-norm attack may end."""


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)


# --- Tiny models and the images that go with them


def _fill(model: nn.Module) -> nn.Module:
    """The model in float64 and eval mode, with weights from a keyed draw: the global RNG is not asked."""
    model = model.to_empty(device="cpu").double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(Noise(0, torch.zeros(1).long()).stream(name).normal(parameter[None])[0])
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
    return model


def tiny_net() -> nn.Module:
    """A smooth float64 net of 123 parameters for images (n, 1, 8, 8), with BatchNorm and Dropout, in eval mode."""
    with torch.device("meta"):
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(2 * (SIDE // 2) ** 2, 3),
        )
    return _fill(net)


def tiny_samples(model: Model, n: int = 11) -> Samples:
    """Images (n, 1, 8, 8) with black and white pixels among them; the model is wrong on every fifth."""
    ids = torch.arange(n) * 7 + 3
    x = Noise(0, ids).uniform(torch.empty(n, 1, SIDE, SIDE, dtype=torch.float64)).mul(1.4).sub(0.2).clamp(0, 1)
    with torch.no_grad():
        logits = model(x)
    y = (logits.argmax(1) + (torch.arange(n) % 5 == 4)) % logits.shape[1]
    return Samples(x, y, ids)


def linear_model(norm: Norm) -> nn.Module:
    """A float64 linear model of two classes, whose boundary runs through the grey image and whose margin is a distance.

    All weights are of similar size, so that the shortest way to the boundary stays far from 0 and 1 in every pixel.
    """
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))
    filled = _fill(model)
    weight, bias = filled.get_parameter("1.weight"), filled.get_parameter("1.bias")
    with torch.no_grad():
        normal = weight[:1].sign() * (0.5 + weight[1:].abs().clamp_max(1))
        normal /= (normal * norm.steepest(normal)).sum()
        weight.copy_(torch.cat([-normal, normal]) / 2)
        bias.copy_(-weight.sum(1) / 2)
    return filled


def linear_samples(model: nn.Module, norm: Norm, distances: Sequence[float]) -> Samples:
    """Two images, one of each class, at each of these distances from the boundary of `linear_model(norm)`."""
    normal = model.get_parameter("1.weight").detach()[1:]
    away = torch.tensor(distances, dtype=normal.dtype).repeat_interleave(2)[:, None]
    y = torch.arange(len(away)) % 2
    along = Noise(0, torch.arange(len(away))).normal(normal.expand(len(away), -1)) / 50
    along -= normal * (along * normal).sum(1, keepdim=True) / normal.square().sum()
    flat = 0.5 + along + (2 * y - 1)[:, None] * away * norm.steepest(normal)
    return Samples(flat.reshape(-1, 1, SIDE, SIDE), y, torch.arange(len(y)))


def largest_eps(norm: Norm) -> float:
    """The largest budget at which a linear model's robust set does not depend on the box."""
    normal = linear_model(norm).get_parameter("1.weight").detach()[1:]
    return LARGEST_MOVE / float(norm.steepest(normal).abs().max())


def boundary_distance(model: nn.Module, norm: Norm, samples: Samples) -> Tensor:
    """(n,) the exact distance of each image from the boundary of a linear model of two classes, outside any box."""
    weight = model.get_parameter("1.weight").detach()
    normal = weight[1:] - weight[:1]
    with torch.no_grad():
        margins: Tensor = margin(model(samples.x), samples.y)
    return margins / (normal * norm.steepest(normal)).sum()


# --- Attacks


def check_attack(attack: Attack, *, weak: bool = False) -> None:
    """Check that an attack keeps the contract that the driver, the tables and the verdict rely on.

    It runs on tiny float64 models, in well under a second. What is checked:

    - `perturb` leaves images, labels and ids as they are, and so the model: parameters, gradients, `requires_grad`,
      train/eval flags (which are mixed) and buffers; and the global random states of torch, Python and numpy;
    - its images have the shape and dtype of the input (float32 too), are finite, and lie in [0, 1] and in the ball;
    - the same seed gives the same images, and no sample's image or flag depends on the batch it is in or on its order;
    - it calls the model that it is given only, so that the driver's counts are true;
    - a sample that is wrong before comes back untouched, with distance 0;
    - on a linear model its flags are the closed form, robust where the boundary is farther than eps; the distance that
      a minimal-norm attack finds is at most (1 + overshoot) times the optimum, and 1 % on top.

    Args:
        attack: what to check; its eps, if it has one, above 0 and at most 0.3 (Linf) or 1.9 (L2).
        weak: leave out the comparison with the closed form: for noise and for attacks with few queries.

    Raises:
        AssertionError: says in one sentence what is broken.
        ValueError: eps is out of the range above.
    """
    if isinstance(attack, BudgetAttack) and not 0 < attack.eps <= largest_eps(attack.norm):
        raise ValueError(f"eps is {attack.eps}; should be above 0 and at most {largest_eps(attack.norm):.3g}")
    net = tiny_net()
    samples = tiny_samples(net)
    _check_side_effects(attack, net, samples)
    x_adv = _check_images(attack, net, samples)
    _check_independence(attack, net, samples, x_adv)
    _check_driver(attack, net, samples)
    if not weak:
        _check_closed_form(attack)


def _perturb(attack: Attack, model: Model, samples: Samples) -> Tensor:
    return attack.perturb(model, samples.x, samples.y, Noise(0, samples.ids)).detach()


def _run(attack: Attack, model: nn.Module, samples: Samples, batch_size: int = 128) -> Outcome:
    try:
        return run_attack(model, attack, samples, batch_size=batch_size, keep_images=True)[0]
    except AttackError as error:
        raise AssertionError(str(error)) from None


def _state(model: nn.Module, samples: Samples) -> dict[str, object]:
    """All that an attack could change and should not, by what a sentence calls it."""
    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is what we watch
    state: dict[str, object] = {
        "its input": samples.x.clone(),
        "the labels": samples.y.clone(),
        "the ids": samples.ids.clone(),
        "the global random state of torch": torch.get_rng_state(),
        "the global random state of Python": random.getstate(),
        "the global random state of numpy": str([np.asarray(part).tobytes() for part in numpy_state]),
        "whether gradients are on": torch.is_grad_enabled(),
    }
    for name, parameter in model.named_parameters():
        state[f"the parameter {name}"] = parameter.detach().clone()
        state[f"the gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"requires_grad of {name}"] = parameter.requires_grad
    for name, buffer in model.named_buffers():
        state[f"the buffer {name}"] = buffer.clone()
    for name, module in model.named_modules():
        state[f"the train/eval flag of {name or 'the model'}"] = module.training
    return state


def _same(value: object, now: object) -> bool:
    if isinstance(value, Tensor) and isinstance(now, Tensor):
        return torch.equal(value, now)
    return type(value) is type(now) and value == now


def _check_side_effects(attack: Attack, net: nn.Module, samples: Samples) -> None:
    samples = Samples(samples.x.clone(), samples.y.clone(), samples.ids.clone())
    # Flags of modules that do nothing with them: Dropout in train mode would itself ask the global RNG.
    net.training = net[2].training = True  # type: ignore[index]
    net.get_parameter("0.weight").requires_grad_(False)
    before = _state(net, samples)
    _perturb(attack, net, samples)
    _require_unchanged(attack.name, before, _state(net, samples))
    net.eval().requires_grad_(True)


def _check_images(attack: Attack, net: nn.Module, samples: Samples) -> Tensor:
    """Form, box and ball in both precisions; returns the float64 images (n, c, h, w)."""
    single = replace(samples, x=samples.x.float())
    try:
        x_adv = _perturb(attack, net, samples)
        check_result(attack, samples.x, x_adv)
        check_result(attack, single.x, _perturb(attack, _in_single_precision(net), single))
        # The driver hands a minimal-norm attack an empty batch where no sample is right.
        if isinstance(attack, MinimalAttack):
            check_result(attack, samples.x[:0], _perturb(attack, net, samples[:0]))
    except AttackError as error:
        raise AssertionError(str(error)) from None
    return x_adv


def _in_single_precision(net: nn.Module) -> Callable[[Tensor], Tensor]:
    def logits(x: Tensor) -> Tensor:
        found: Tensor = net(x.double())
        return found.float()

    return logits


def _check_independence(attack: Attack, net: nn.Module, samples: Samples, x_adv: Tensor) -> None:
    _require(torch.equal(_perturb(attack, net, samples), x_adv), f"{attack.name} gave other images for the same seed")
    n = len(samples)
    backwards = torch.arange(n).flip(0)
    flags = _run(attack, net, samples).robust
    for batch_size in (1, 3, 7):
        parts = [_perturb(attack, net, samples[index]) for index in torch.split(backwards, batch_size)]
        gap = float((torch.cat(parts).flip(0) - x_adv).abs().max())
        _require(gap < 1e-6, f"{attack.name} depends on the batch: pixels move by {gap:.2g} in batches of {batch_size}")
        again = _run(attack, net, samples[backwards], batch_size).robust.flip(0)
        moved = int((again != flags).sum())
        _require(
            moved == 0, f"{attack.name} depends on the batch: {moved} of {n} flags differ in batches of {batch_size}"
        )


def _check_driver(attack: Attack, net: nn.Module, samples: Samples) -> None:
    seen: list[int] = []
    handle = net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    outcome = _run(attack, net, samples)
    handle.remove()
    _require(sum(seen) == outcome.forwards, f"{attack.name} ran {sum(seen)} forwards, {outcome.forwards} were counted")
    wrong = ~outcome.clean
    untouched = outcome.x_adv is not None and torch.equal(outcome.x_adv[wrong], samples.x[wrong].float())
    _require(untouched, f"{attack.name} moved a sample that was wrong before")
    _require(
        not bool(outcome.distance[wrong].any()), f"{attack.name} has a distance for a sample that was wrong before"
    )


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
        _require(
            torch.equal(outcome.robust, expected),
            f"{attack.name} leaves {robust} of {n} samples of a linear model robust; {int(expected.sum())} are",
        )
        return
    _require(robust == 0, f"{attack.name} did not break {robust} of {n} samples of a linear model")
    worst = float((outcome.distance / optimum).max())
    allowed = 1 + getattr(attack, "overshoot", 0.02)
    _require(
        worst <= allowed + DISTANCE_SLACK,
        f"{attack.name} needs {worst:.3f} times the distance to a linear boundary; {allowed:.3f} is allowed",
    )


# --- Models and objectives


def check_model(model: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
    """Check that a model is one that attacks and tables can trust, in eval mode; it is given back as it was.

    - logits (n, classes), finite, and the same for the same images;
    - a sample's logits do not depend on the other samples of its batch;
    - the loss has a finite gradient with respect to every image, without which attacks find nothing and a model looks
      robust;
    - a forward pass changes neither the images, the model nor a global random state.

    Args:
        model: what to check.
        shape: (c, h, w) of its images.
        classes: how many logits a sample has.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    ids = torch.arange(5)
    x = Noise(0, ids).uniform(torch.empty(len(ids), *shape, dtype=dtype))
    samples = Samples(x, ids % classes, ids)
    with frozen(model):
        before = _state(model, samples)
        logits = _checked_logits(model, samples, classes)
        _require_unchanged("the model", before, _state(model, samples))
        _require(bool(torch.equal(model(x), logits)), "the model gave other logits for the same images in eval mode")
        alone = torch.cat([model(image[None]) for image in x])
        gap = float((alone - logits).abs().max() / logits.abs().max().clamp_min(1e-3))
        _require(gap < 1e-3, f"the model's logits depend on the batch: they move by {gap:.2g} where a sample is alone")
        _check_input_gradient(model, samples)


def _checked_logits(model: nn.Module, samples: Samples, classes: int) -> Tensor:
    logits: Tensor = model(samples.x)
    found, wanted = tuple(logits.shape), (len(samples), classes)
    _require(found == wanted, f"the model returned shape {found}; should be {wanted}")
    _require(bool(logits.isfinite().all()), "the model returned NaN or infinite logits")
    return logits.detach()


def _check_input_gradient(model: nn.Module, samples: Samples) -> None:
    x = samples.x.clone().requires_grad_()
    loss = cross_entropy(model(x), samples.y).sum()
    gradient = torch.autograd.grad(loss, x, allow_unused=True)[0] if loss.requires_grad else None
    _require(gradient is not None, "the model passes no gradient to its images")
    assert gradient is not None
    _require(bool(gradient.isfinite().all()), "the gradient of the loss is NaN or infinite")
    flat = int((~gradient.flatten(1).any(1)).sum())
    _require(flat == 0, f"the gradient of the loss is zero for {flat} of {len(samples)} images")


def check_objective(objective: Objective) -> None:
    """Check that a training objective keeps the contract that `fit` and resuming rely on, on a tiny float64 net.

    - it returns a finite scalar loss with a gradient to every parameter, and the batch's logits (m, classes), in a
      batch of one too;
    - it leaves images, labels and ids as they are, and the model's parameters, gradients, `requires_grad` and
      train/eval flags; running statistics may change, and so may the global random state of torch, which `fit` keeps;
    - the same seed gives the same loss.

    Args:
        objective: what to check.

    Raises:
        AssertionError: says in one sentence what is broken.
    """
    samples = tiny_samples(tiny_net(), 8)
    with torch.random.fork_rng(devices=[]):
        loss = _checked_loss(objective, samples)
        again = _checked_loss(objective, samples)
        _require(bool(torch.equal(loss, again)), "the objective gave another loss for the same seed")
        _checked_loss(objective, samples[:1])


def _checked_loss(objective: Objective, samples: Samples) -> Tensor:
    """The loss on a fresh tiny net in train mode."""
    torch.manual_seed(0)
    net = tiny_net().train()
    before = _state(net, samples)
    loss, logits = objective(net, samples.x, samples.y, Noise(0, samples.ids))
    after = _state(net, samples)
    may_change = ("the buffer", "the global random state of torch")
    kept = {what: value for what, value in before.items() if not what.startswith(may_change)}
    _require_unchanged("the objective", kept, after)
    found, wanted = tuple(logits.shape), (len(samples), 3)
    _require(found == wanted, f"the objective returned logits of shape {found}; should be {wanted}")
    _require(loss.shape == (), f"the objective returned a loss of shape {tuple(loss.shape)}; should be a scalar")
    _require(bool(loss.isfinite()), f"the objective returned a loss of {loss.item()}")
    _require(loss.requires_grad, "the objective returned a loss without a gradient")
    names, parameters = zip(*net.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        _require(gradient is not None, f"the objective gives {name} no gradient")
        _require(bool(gradient.isfinite().all()), f"the objective gives {name} a gradient of NaN or infinity")
    return loss.detach()


def _require_unchanged(who: str, before: dict[str, object], after: dict[str, object]) -> None:
    for what, value in before.items():
        _require(_same(value, after[what]), f"{who} changed {what}")
