"""What fills a network's slots while it trains: BatchOut, and the paper's random baseline, Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustcli.errors import unknown
from robustcli.fields import Eta
from robustcli.models.nets import Slots

Scale = Literal["matched", "printed"]


def n_augmented(fraction: float, m: int) -> int:
    """`fraction * m` rounded down, in decimal arithmetic: 0.29 of 100 is 29, not 28."""
    return int(Fraction(str(fraction)) * m)


def draw_eta(eta: Eta, h: Tensor) -> Tensor | float:
    """The constant itself, or (k, 1, ...) draws from U[low, high], one for each sample of `h` (k, ...)."""
    if not isinstance(eta, tuple):
        return eta
    low, high = eta
    shape = (len(h), *[1] * (h.ndim - 1))
    return low + (high - low) * torch.rand(shape, dtype=h.dtype, device=h.device)


def batchout(
    h: Tensor, partners: Tensor, eta: Tensor | float, k: int, *, stop_gradient: bool = True, inplace: bool = False
) -> Tensor:
    """`h[:k] + eta * (h[partners] - h)[:k]`, the rest unchanged: Algorithm 1 and equation 2 of the BatchOut paper.

    Args:
        h: (m, ...) activations before the ReLU.
        partners: (m,) indices into the batch, R in the paper.
        eta: the magnitude; one number, or (k, 1, ...) one a sample.
        k: how many samples are augmented.
        stop_gradient: treat `eta * (h[partners] - h)` as a constant, as the paper does (its section 6.1).
        inplace: with `stop_gradient`, change `h` itself and return it; nothing else may use it, as for `nn.ReLU`.

    Returns:
        (m, ...) activations; without `inplace` a new tensor.
    """
    if stop_gradient:
        moved: Tensor = _AsConstant.apply(h if inplace else h.clone(), partners[:k], eta)
        return moved
    direction = h[partners[:k]] - h[:k]
    return torch.cat([h[:k] + eta * direction, h[k:]])


class _AsConstant(torch.autograd.Function):
    """Takes the step in `h` itself, as a constant: its gradient is the identity, and no way copies."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, partners: Tensor, eta: Tensor | float) -> Tensor:
        ctx.mark_dirty(h)
        # Rows of a channels_last tensor are gathered 6 x faster in the order in which they lie in memory.
        last = h.ndim == 4 and h.is_contiguous(memory_format=torch.channels_last)
        rows = h.permute(0, 2, 3, 1) if last else h
        weight = eta.to(h.dtype) if isinstance(eta, Tensor) else eta
        rows[: len(partners)].lerp_(rows.index_select(0, partners), weight)
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class BatchOut(nn.Module):
    """`batchout` with partners drawn uniformly with replacement, while training; the identity in eval mode.

    Subramanya, Mopuri and Babu 2018, *BatchOut: Batch-level feature augmentation to improve robustness to adversarial
    examples*. A sample may draw itself or its own class. No parameters.

    Args:
        eta: the magnitude; a pair (low, high) is a uniform distribution, drawn from for each sample.
        fraction: the share of the batch that is augmented, k in the paper; k * m is rounded down.
        stop_gradient, inplace: see `batchout`.
    """

    def __init__(self, eta: Eta, fraction: float = 0.5, stop_gradient: bool = True, inplace: bool = False) -> None:
        super().__init__()
        self.eta = eta
        self.fraction = fraction
        self.stop_gradient = stop_gradient
        self.inplace = inplace

    def forward(self, h: Tensor) -> Tensor:
        """Activations (m, ...) to activations (m, ...)."""
        k = n_augmented(self.fraction, len(h))
        if not self.training or k == 0:
            return h
        partners = torch.randint(len(h), (len(h),), device=h.device)
        eta = draw_eta(self.eta, h[:k])
        return batchout(h, partners, eta, k, stop_gradient=self.stop_gradient, inplace=self.inplace)

    def extra_repr(self) -> str:
        """The layer's options, for `print(model)`."""
        inplace = ", inplace=True" if self.inplace else ""
        return f"eta={self.eta}, fraction={self.fraction}, stop_gradient={self.stop_gradient}{inplace}"


def gaussian(h: Tensor, noise: Tensor, eta: Tensor | float, scale: Scale = "matched") -> Tensor:
    """`h + eta * ||h|| * n / ||n||`: equation 5 of the BatchOut paper, per sample.

    Args:
        h: (k, ...) activations before the ReLU.
        noise: (k, ...) draws n from N(0, 1).
        eta: the magnitude; one number, or (k, 1, ...) one a sample.
        scale: `matched` has the magnitude of BatchOut's step, as the paper's text asks; `printed` is the formula as
            printed, with one more `1 / ||n||`.

    Returns:
        (k, ...) activations. No gradient flows through the noise term.
    """
    each = tuple(range(1, h.ndim))  # reduced where they lie: flattening a channels_last tensor would copy it
    size = torch.linalg.vector_norm(h.detach(), dim=each, keepdim=True)
    length = torch.linalg.vector_norm(noise, dim=each, keepdim=True)
    step = eta * size / (length.square() if scale == "printed" else length)
    moved: Tensor = torch.addcmul(h, noise, step)
    return moved


def _normals(h: Tensor) -> Tensor:
    """Draws from N(0, 1) of the shape of `h`, in its memory order: 4 x faster than `randn_like` where that differs."""
    if h.ndim == 4 and h.is_contiguous(memory_format=torch.channels_last):
        n, c, height, width = h.shape
        return torch.randn(n, height, width, c, dtype=h.dtype, device=h.device).permute(0, 3, 1, 2)
    return torch.randn_like(h)


class GaussianNoise(nn.Module):
    """`gaussian` on the first samples of the batch, while training; the identity in eval mode. No parameters.

    Args:
        eta: the magnitude; a pair (low, high) is a uniform distribution, drawn from for each sample.
        fraction: the share of the batch that is augmented; rounded down.
        scale: see `gaussian`.
    """

    def __init__(self, eta: Eta, fraction: float = 0.5, scale: Scale = "matched") -> None:
        super().__init__()
        self.eta = eta
        self.fraction = fraction
        self.scale: Scale = scale

    def forward(self, h: Tensor) -> Tensor:
        """Activations (m, ...) to activations (m, ...)."""
        k = n_augmented(self.fraction, len(h))
        if not self.training or k == 0:
            return h
        augmented = gaussian(h[:k], _normals(h[:k]), draw_eta(self.eta, h[:k]), self.scale)
        return torch.cat([augmented, h[k:]])

    def extra_repr(self) -> str:
        """The layer's options, for `print(model)`."""
        return f"eta={self.eta}, fraction={self.fraction}, scale={self.scale}"


def fill_slots(model: nn.Module, filling: Mapping[str, nn.Module]) -> None:
    """Put the layers of `filling` into the model's slots of those names.

    Raises:
        ConfigError: the model has no such slot.
    """
    slots = getattr(model, "slots", Slots())
    for name, layer in filling.items():
        if name not in slots:
            raise unknown("--layers", name, slots)
        slots[name] = layer
