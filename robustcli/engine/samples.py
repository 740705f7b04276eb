"""What is attacked, in memory or read chunk by chunk, and its check: images in [0, 1], classes from 0 on, ids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustcli.errors import AttackError

EXCESS = 1e-4
"""How far from [0, 1] a pixel may lie from rounding alone; it is clamped."""

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


LEAST_SAMPLE, SAMPLE = 50, 0.1
"""Of what stands, those that an ensemble's sampled members meet first: so many, or a larger share."""


def sample_size(standing: float) -> int:
    """How many of so many that stand."""
    return math.ceil(min(standing, max(LEAST_SAMPLE, SAMPLE * standing)))


@dataclass(frozen=True)
class Samples:
    """What is attacked: images `x` (n, c, h, w) in [0, 1], classes `y` (n,) and ids `ids` (n,), all on one device."""

    x: Tensor
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> Samples:
        return Samples(self.x[index], self.y[index], self.ids[index])

    @property
    def broken(self) -> Mapping[int, str]:
        """None of them."""
        return {}

    def expect(self, parts: Sequence[Tensor]) -> None:
        """All of them are there."""


class SampleSource(Protocol):
    """Samples that are read when they are indexed, each checked where it was stored."""

    @property
    def y(self) -> Tensor:
        """(n,) int64, their classes."""
        ...

    @property
    def ids(self) -> Tensor:
        """(n,) int64, unique."""
        ...

    @property
    def broken(self) -> Mapping[int, str]:
        """Why samples that were expected cannot be read, by position."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> Samples:
        """The chosen samples, on the device of `y`."""
        ...

    def expect(self, parts: Sequence[Tensor]) -> None:
        """Take note of the positions (k,) that will be asked for, in turn."""
        ...


def check_samples(samples: Samples) -> Samples:
    """The samples, their classes and ids as int64.

    Raises:
        AttackError: they are no images in [0, 1] with a class and an id each; says what is wrong and how to mend it.
    """
    for name in ("x", "y", "ids"):
        value = getattr(samples, name, None)
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            found = str(value.layout) if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise AttackError(f"samples: {name} is {found}; should be a dense tensor")
    return Samples(_check_pixels(samples.x), _check_classes(samples.y, samples.x), _check_ids(samples.ids, samples.x))


def _check_pixels(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise AttackError(f"samples: x is {x.dtype}; should be floats in [0, 1], such as x.float() / 255 of bytes")
    if x.dtype not in (torch.float32, torch.float64):
        raise AttackError(
            f"samples: x is {x.dtype}, which is too coarse to keep to a ball; should be float32 or float64: a model "
            f"may cast it in its forward pass"
        )
    if x.ndim != 4 or not x[:1].numel() >= min(1, len(x)):
        raise AttackError(f"samples: x has the shape {tuple(x.shape)}; should be images (n, c, h, w)")
    x = _without_inference(x.detach())
    if not x.numel():
        return x
    low, high = map(float, x.aminmax())
    if low >= -EXCESS and high <= 1 + EXCESS:
        return x if low >= 0 and high <= 1 else x.clamp(0, 1)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AttackError("samples: x has NaN or infinite pixels; should be in [0, 1]")
    if low < -EXCESS:
        cure = "undo the normalisation and put it into the model, as its first layer"
    elif 2 < high <= 255:
        cure = "divide by 255"
    else:
        cure = "bring them there, and what the model expects into the model"
    raise AttackError(f"samples: x has pixels from {low:g} to {high:g}; should be in [0, 1]: {cure}")


def _check_classes(y: Tensor, x: Tensor) -> Tensor:
    if y.ndim == 2 and y.shape == (len(x), 1):
        raise AttackError(f"samples: y has the shape {tuple(y.shape)}; should be ({len(x)},): y[:, 0]")
    if y.ndim == 2 and len(y) == len(x):
        raise AttackError(
            f"samples: y has the shape {tuple(y.shape)}; should be a class an image, ({len(x)},); of one-hot labels "
            f"y.argmax(1)"
        )
    if y.shape != (len(x),):
        raise AttackError(f"samples: y has the shape {tuple(y.shape)} for {len(x)} images; should be ({len(x)},)")
    if y.dtype not in INTEGERS:
        raise AttackError(f"samples: y is {y.dtype}; should be classes as integers: y.long()")
    if y.device != x.device:
        raise AttackError(f"samples: y is on {y.device}, x on {x.device}; should be on one device")
    if len(y) and int(y.min()) < 0:
        raise AttackError(f"samples: y has the class {int(y.min())}; should count from 0")
    return _without_inference(y.long())


def _check_ids(ids: Tensor, x: Tensor) -> Tensor:
    whole = ids.dtype in INTEGERS or (ids.is_floating_point() and bool((ids == ids.long()).all()))
    if ids.shape != (len(x),) or not whole:
        raise AttackError(
            f"samples: ids are {ids.dtype} of shape {tuple(ids.shape)} for {len(x)} images; should be integers, "
            f"({len(x)},), such as torch.arange({len(x)})"
        )
    ids = _without_inference(ids.long().to(x.device))
    ordered = ids.sort().values
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise AttackError(f"samples: the id {int(twice[0])} occurs twice; each image's draws are keyed by its own")
    return ids


def _without_inference(values: Tensor) -> Tensor:
    """Values that torch takes gradients of, or beside."""
    return values.clone() if values.is_inference() else values
