"""What stands between an attack and a model: frozen parameters, counting, and the check of each result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from threading import Event

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustcli.attacks.base import Attack, BudgetAttack, MinimalAttack
from robustcli.errors import AttackError
from robustcli.fields import ball_edge
from robustcli.models.logits import call_model, logits_of


def require_module(model: object) -> None:
    """Refuse a plain function: whatever layers it calls could be neither put in eval mode nor frozen.

    Raises:
        AttackError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise AttackError(
            f"the model is a {type(model).__name__}; should be a torch.nn.Module that holds all its layers, so that "
            f"they can be put in eval mode"
        )


@contextmanager
def frozen(model: nn.Module, training: bool = False) -> Iterator[None]:
    """The model in eval mode (or in train mode), its parameters without gradients; all restored exactly after.

    Raises:
        AttackError: it is no module, or one whose weights have no values yet.
    """
    require_module(model)
    weights = [*model.named_parameters(), *model.named_buffers()]
    if empty := [name for name, weight in weights if is_lazy(weight)]:
        raise AttackError(f"the model's '{empty[0]}' has no values yet; call it once before it is measured")
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    places = [(module, dict(module._buffers.items())) for module in model.modules()]
    values = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with suppress(NotImplementedError, AttributeError):  # the mode of an exported or a frozen graph is built in
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
        for module, buffers in places:
            _restore_buffers(module, buffers)
        with torch.no_grad():
            for buffer, value in values:
                buffer.resize_(value.shape).copy_(value)


def _restore_buffers(module: nn.Module, buffers: Mapping[str, Tensor | None]) -> None:
    """The module's own buffers where a forward pass has put others in their place, or has added some."""
    for name in set(module._buffers.keys()) - buffers.keys():
        delattr(module, name)
    for name, buffer in buffers.items():
        if getattr(module, name) is not buffer:
            setattr(module, name, buffer)


class Meter:
    """A model that counts its samples, forwards and backwards, and refuses logits that are no logits.

    What the model returns may be whatever `logits_of` takes. It gets a copy of the images, which it may change.

    Args:
        model: what is called.
        dtype: of its activations, by autocast; logits come back in the type of the images.
        stop: once it is set, the next call is refused.
        largest: the largest class among the samples; a model without an output for it is refused.

    `on_pass` is called with the meters of the chunks that run: after each forward pass of this one's, and now and then
    while others run in threads. Of its chunk a meter knows the `size`, how many samples are `alive`, as the larger of
    the last two calls says (an attack may ask about a single one in between), and how many passes each of these `had`.
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype = torch.float32,
        stop: Event | None = None,
        largest: int = -1,
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.stop = stop
        self.largest = largest
        self.forwards = 0
        self.backwards = 0
        self.on_pass: Callable[[Sequence[Meter]], None] = lambda _: None
        self.begin(0)

    def begin(self, samples: int) -> None:
        """A chunk of so many samples begins."""
        self.size = self.alive = self._last = samples
        self.had = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of pixels (n, c, h, w)."""
        if not self.rounded:
            return self.exact(x)
        with torch.autocast(x.device.type, self.dtype):
            return self.exact(x)

    @property
    def passes(self) -> int:
        """Forwards and backwards."""
        return self.forwards + self.backwards

    @property
    def rounded(self) -> bool:
        """Whether calls are less exact than `exact`."""
        return self.dtype != torch.float32

    def exact(self, x: Tensor) -> Tensor:
        """Logits without autocast, counted like all."""
        if self.stop is not None and self.stop.is_set():
            raise CancelledError
        return self._check_logits(logits_of(call_model(self.model, x), x, self.largest), x)

    def _check_logits(self, logits: Tensor, x: Tensor) -> Tensor:
        if logits.shape[1] <= self.largest:
            raise AttackError(
                f"the labels go up to {self.largest}, and the model's {logits.shape[1]} outputs stand for 0 to "
                f"{logits.shape[1] - 1}: labels count from 0, one output each"
            )
        bad = int((~logits.detach().isfinite()).any(1).sum())
        if bad:
            raise AttackError(f"the model returned NaN or infinite logits for {bad} of {len(x)} images")
        self.forwards += len(x)
        if self.size:
            self.alive = max(1, min(self.alive, max(len(x), self._last)))
            self._last = len(x)
            self.had += len(x) / self.alive
            self.on_pass([self])
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
        self.had += len(gradient) / max(1, self.alive)


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
