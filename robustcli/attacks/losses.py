"""Per-sample losses and their gradient with respect to the input."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Model = Callable[[Tensor], Tensor]
"""Pixels (n, c, h, w) in [0, 1] to logits (n, classes); deterministic, in eval mode."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, classes) and labels (n,) to one loss a sample, (n,); attacks raise it."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) cross-entropy of the true class."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) logit of the true class less the best other one: negative once the sample is broken."""
    true = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return true[:, 0] - others.amax(1)


def is_right(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) bool: the predicted class is the true one."""
    return logits.argmax(1) == y


def input_gradient(model: Model, loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each sample's loss, (n, c, h, w), and the logits it was taken at, (n, classes).

    Only the input's gradient is computed: no parameter's `.grad` is touched.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return gradient, logits.detach()
