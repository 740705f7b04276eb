"""What stands between an attack and a model: frozen parameters, counting, and the check of each result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from threading import Event

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, MinimalAttack
from robustcli.errors import AttackError


@contextmanager
def frozen(model: nn.Module, training: bool = False) -> Iterator[None]:
    """The model in eval mode (or in train mode), its parameters without gradients; all restored exactly after."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train(training)
    for parameter, _ in gradients:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, mode in gradients:
            parameter.requires_grad_(mode)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


class Meter:
    """A model that counts its samples, forwards and backwards, and refuses logits that are no logits.

    Args:
        model: what is called.
        dtype: of its activations, by autocast; logits come back in the type of the images.
        stop: once it is set, the next question is refused.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32, stop: Event | None = None) -> None:
        self.model = model
        self.dtype = dtype
        self.stop = stop
        self.forwards = 0
        self.backwards = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of pixels (n, c, h, w)."""
        if not self.rounded:
            return self.exact(x)
        self._stop_if_told()
        with torch.autocast(x.device.type, self.dtype):
            logits = self.model(x)
        return self._checked(logits.to(x.dtype), x)

    @property
    def rounded(self) -> bool:
        """Whether calls are less exact than `exact`."""
        return self.dtype != torch.float32

    def exact(self, x: Tensor) -> Tensor:
        """Logits without autocast, counted like all."""
        self._stop_if_told()
        return self._checked(self.model(x), x)

    def _stop_if_told(self) -> None:
        if self.stop is not None and self.stop.is_set():
            raise CancelledError

    def _checked(self, logits: Tensor, x: Tensor) -> Tensor:
        if logits.ndim != 2 or len(logits) != len(x):
            raise AttackError(f"the model returned shape {tuple(logits.shape)}; it should be (n, classes), n={len(x)}")
        bad = int((~logits.detach().isfinite()).any(1).sum())
        if bad:
            raise AttackError(f"the model returned NaN or infinite logits for {bad} of {len(x)} images")
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def ball_edge(eps: float) -> float:
    """The largest distance that counts as within eps: distances are rounded."""
    return eps * (1 + 1e-5) + 1e-7


def check_result(attack: Attack, x: Tensor, x_adv: Tensor) -> None:
    """Refuse images that are malformed, outside the ball or outside [0, 1].

    Raises:
        AttackError: says by how much.
    """
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        raise AttackError(
            f"{attack.name} returned {tuple(x_adv.shape)} {x_adv.dtype}; should be {tuple(x.shape)} {x.dtype}"
        )
    if not x_adv.numel():
        return
    low, high = map(float, x_adv.aminmax())  # NaN if any pixel is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AttackError(f"{attack.name} returned NaN or infinite pixels")
    bounded = attack.bounded if isinstance(attack, MinimalAttack) else True
    if bounded and (low < 0 or high > 1):
        raise AttackError(f"{attack.name} left the box: pixels from {low:g} to {high:g}, allowed is [0, 1]")
    if isinstance(attack, BudgetAttack):
        distance = float(attack.norm.distance(x_adv, x).max())
        if distance > ball_edge(attack.eps):
            raise AttackError(
                f"{attack.name} left the ball: {attack.norm.label} distance {distance:g}, eps {attack.eps}"
            )
