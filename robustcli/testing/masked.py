"""Networks that only look robust: faults that the field has met, put around a network for checks to find."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from robustcli.models.augmentation import BatchOut

SCALE = 1e4
STEPS = 7
"""Of an input rounded to 8 levels."""


class Wrapped(nn.Module):
    """A network with something before it, images to images, and something after it, logits to logits."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.model = model
        self.before = before
        self.after = after
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to what stands for logits (n, classes)."""
        return self.after(self.model(self.before(x)))


class LeftOn(nn.Module):
    """A layer that ignores eval mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.eval()
        self.training = False

    def forward(self, h: Tensor) -> Tensor:
        """As the layer does while training."""
        self.layer.train()
        try:
            found: Tensor = self.layer(h)
        finally:
            self.layer.eval()
        return found


def _zero_gradient(x: Tensor) -> Tensor:
    return x.detach() + 0 * x


def _quantised(x: Tensor) -> Tensor:
    return (x * STEPS).round() / STEPS


def _batch_normalised(x: Tensor) -> Tensor:
    """By the batch's own statistics, to MNIST's mean and deviation: an image depends on its neighbours."""
    mean, deviation = x.new_full((x.shape[1],), 0.13), x.new_full((x.shape[1],), 0.31)
    return F.batch_norm(x, None, None, deviation, mean, training=True)


def _left_on(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A copy of the network, in which the layers of a kind ignore eval mode."""
    copied = copy.deepcopy(model)
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind) and not isinstance(module, LeftOn):
                setattr(module, name, LeftOn(child))
    return copied


@dataclass(frozen=True)
class Mask:
    """A fault put around a good network, and the check that must name it at this level or above."""

    name: str
    build: Callable[[nn.Module], nn.Module]
    check: str
    level: str


MASKS = (
    Mask("logits x 1e4", lambda model: Wrapped(model, after=lambda logits: SCALE * logits), "P4", "WARN"),
    Mask("softmax outputs", lambda model: Wrapped(model, after=lambda logits: logits.softmax(1)), "P3", "WARN"),
    Mask("input in 8 levels", lambda model: Wrapped(model, before=_quantised), "P8", "SUSPECT"),
    Mask("zero-gradient layer", lambda model: Wrapped(model, before=_zero_gradient), "P8", "SUSPECT"),
    Mask("dropout left on", lambda model: _left_on(model, nn.Dropout), "P5", "WARN"),
    Mask("BatchOut left on", lambda model: Wrapped(model, before=LeftOn(BatchOut(0.3, 1.0))), "P5", "WARN"),
    Mask("batch norm ignores eval", lambda model: Wrapped(model, before=_batch_normalised), "P6", "INVALID"),
)
"""All of them; P5 and P6 alone cannot tell dropout from BatchOut, nor P8 the levels from the layer."""
