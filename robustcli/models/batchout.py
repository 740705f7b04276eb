"""BatchOut: move some samples' activations towards those of random others of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustcli.fields import Eta
from robustcli.models.magnitude import draw_eta, n_augmented


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
