"""Per-sample losses and their gradient with respect to the input."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustcli.errors import AttackError, memory_error

CUT = "its forward pass runs under torch.no_grad or inference_mode, or detaches or rounds them"
"""Why logits have no gradient at all."""

TINY = 1e-12
"""Added to a denominator of logits, as in the authors' code: two equal logits give a large loss, not NaN."""

Model = Callable[[Tensor], Tensor]
"""Pixels (n, c, h, w) in [0, 1] to logits (n, classes); deterministic, in eval mode."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, classes) and labels (n,) to one loss a sample, (n,); attacks raise it."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) cross-entropy of the true class."""
    return F.cross_entropy(logits, y, reduction="none")


def likeness(logits: Tensor, target: Tensor) -> Tensor:
    """(n,) negated cross-entropy of the class `target`: what a targeted attack raises."""
    return -cross_entropy(logits, target)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) logit of the true class less the best other one: negative once the sample is broken."""
    true = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return true[:, 0] - others.amax(1)


def is_right(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) bool: the predicted class is the true one."""
    return logits.argmax(1) == y


def lead(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(n,) logit of the class `target` less that of the true one."""
    pair = logits.gather(1, torch.stack((target, y), 1))
    return pair[:, 0] - pair[:, 1]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) difference-of-logits ratio: the negated margin over that between the first and the third logit.

    Unlike the cross-entropy it does not change when logits are shifted or scaled (Croce & Hein 2020, *Reliable
    Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks*, eq. 6).

    Raises:
        AttackError: fewer than three classes.
    """
    top = _sorted_logits(logits, 3, "dlr")
    return -margin(logits, y) / (top[:, 0] - top[:, 2] + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(n,) lead of the class `target` over the true one, in units that do not change with shift or scale (eq. 7).

    Raises:
        AttackError: fewer than four classes.
    """
    top = _sorted_logits(logits, 4, "targeted dlr")
    return lead(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + TINY)


def _sorted_logits(logits: Tensor, least: int, loss: str) -> Tensor:
    """(n, least), the largest first."""
    if logits.shape[1] < least:
        raise AttackError(f"loss {loss}: needs at least {least} classes; the model has {logits.shape[1]}")
    return logits.topk(least).values


def runners_up(logits: Tensor, y: Tensor) -> Tensor:
    """(n, classes - 1) the wrong classes, that of the largest logit first."""
    order = logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
    return order[:, :-1]


def input_gradient(model: Model, loss: Loss, x: Tensor, y: Tensor, eot: int = 1) -> tuple[Tensor, Tensor]:
    """The gradient of each sample's loss, (n, c, h, w), and the logits it was taken at, (n, classes).

    Only the input's gradient is computed: no parameter's `.grad` is touched. Of a randomised model both are means over
    `eot` passes (expectation over transformations; Athalye et al. 2018, *Obfuscated Gradients Give a False Sense of
    Security*).

    Raises:
        AttackError: the model passes no gradient to its images.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        passes = [_one_pass(model, loss, x, y) for _ in range(eot)]
    gradients, logits = zip(*passes, strict=True)
    return (gradients[0], logits[0]) if eot == 1 else (torch.stack(gradients).mean(0), torch.stack(logits).mean(0))


def _one_pass(model: Model, loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    logits = model(x)
    return gradient_of(loss(logits, y).sum(), x), logits.detach()


def gradient_of(total: Tensor, x: Tensor, retain_graph: bool = False) -> Tensor:
    """The gradient of a sum over samples with respect to the images or what they are made of, in its shape.

    Raises:
        AttackError: there is none: the model cuts the graph, or fails on the way back.
    """
    try:
        return torch.autograd.grad(total, x, retain_graph=retain_graph)[0]
    except Exception as error:  # a RuntimeError where the graph is cut, else whatever a layer's own backward raises
        if (memory := memory_error(error)) is not None:
            raise memory from error
        reason = str(error).splitlines()[0] if total.requires_grad else CUT
        raise AttackError(
            f"the model passes no gradient to its images ({reason}); square and hopskipjump take none"
        ) from error


def mean_logits(model: Model, x: Tensor, eot: int = 1) -> Tensor:
    """(n, classes) logits, the mean of `eot` passes, without a gradient."""
    with torch.no_grad():
        return model(x) if eot == 1 else torch.stack([model(x) for _ in range(eot)]).mean(0)
