"""What the preflight sees of a model: a few forward and backward passes, made once for all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks.losses import Loss, cross_entropy, input_gradient, is_right, margin
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Samples
from robustcli.errors import AttackError

PASSES = 5
CLOSE = 64
"""How many samples are looked at closely."""

WIDE = 256
"""How many are classified."""

LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": lambda logits, y: -margin(logits, y)}


@dataclass(frozen=True)
class Look:
    """What there was to see.

    Attributes:
        in_train_mode: modules that were handed over in train mode.
        low, high: the smallest and the largest pixel.
        y: (n,) the classes of all samples.
        logits: (n, classes) of all samples, one pass.
        near: (m,) the classes of the few that were looked at closely.
        passes: PASSES times (m, classes), of these.
        alone: (m, classes), each of them in a batch of its own; None where that fails.
        gradients: by loss, (m, ...); None where there is none.
        broken: why there is none.
        asks_autograd: how often autograd was called inside a forward pass.
    """

    in_train_mode: tuple[str, ...]
    low: float
    high: float
    y: Tensor
    logits: Tensor
    near: Tensor
    passes: tuple[Tensor, ...]
    alone: Tensor | None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    broken: str = ""
    asks_autograd: int = 0

    @property
    def classes(self) -> int:
        """K."""
        return self.logits.shape[1]

    @property
    def right(self) -> Tensor:
        """(n,) bool."""
        return is_right(self.logits, self.y)


def look(model: nn.Module, samples: Samples) -> Look:
    """Look at a model through at most WIDE of its samples, in eval mode; it is handed back as it was.

    Raises:
        AttackError: the model returned no usable logits.
    """
    in_train_mode = tuple(name or "the model" for name, module in model.named_modules() if module.training)
    few = samples[spread_over(len(samples), WIDE)]
    close = few[spread_over(len(few), CLOSE)]
    with frozen(model), torch.random.fork_rng(devices=[]):  # a randomised model draws; the run must not notice
        meter = Meter(model, largest=int(samples.y.max()) if len(samples) else -1)
        with _watched() as calls:
            first = meter.exact(close.x).detach()
        with torch.no_grad():
            passes = (first, *(meter.exact(close.x) for _ in range(PASSES - 1)))
            logits = torch.cat([meter.exact(chunk) for chunk in torch.split(few.x, CLOSE)])
            alone = _alone(meter, close.x)
        gradients, broken = _gradients(meter, close)
    return Look(
        in_train_mode=in_train_mode,
        low=float(few.x.min()),
        high=float(few.x.max()),
        y=few.y,
        logits=logits,
        near=close.y,
        passes=passes,
        alone=alone,
        gradients=gradients,
        broken=broken,
        asks_autograd=len(calls),
    )


def spread_over(n: int, count: int) -> Tensor:
    """At most `count` of n indices, evenly spread: stored images may be sorted by class."""
    return torch.linspace(0, max(0, n - 1), min(n, count)).round().long()


def _alone(meter: Meter, x: Tensor) -> Tensor | None:
    try:
        return torch.cat([meter.exact(image[None]) for image in x])
    except (RuntimeError, ValueError):  # such as a batch norm in train mode, which refuses a batch of one
        return None


def _gradients(meter: Meter, samples: Samples) -> tuple[dict[str, Tensor | None], str]:
    found: dict[str, Tensor | None] = {}
    broken = ""
    for name, loss in LOSSES.items():
        try:
            found[name] = input_gradient(meter.exact, loss, samples.x, samples.y)[0]
        except AttackError as error:
            found[name], broken = None, str(error.__cause__ or error).splitlines()[0]
    return found, broken


@contextmanager
def _watched() -> Iterator[list[str]]:
    """A list that is told each call of autograd, as AutoAttack's `check_dynamic` counts them."""
    calls: list[str] = []

    def told(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return original(*arguments, **options)

        return called

    names = ("grad", "backward")
    originals = {name: getattr(torch.autograd, name) for name in names}
    try:
        for name in names:
            setattr(torch.autograd, name, told(name, originals[name]))
        yield calls
    finally:
        for name in names:
            setattr(torch.autograd, name, originals[name])
