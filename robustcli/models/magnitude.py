"""How many samples an augmentation layer moves, and how far: shared by BatchOut and the Gaussian baseline."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from robustcli.fields import Eta


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
