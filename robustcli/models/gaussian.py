"""The paper's random baseline: Gaussian noise of the same magnitude, in BatchOut's place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from robustcli.fields import Eta
from robustcli.models.magnitude import draw_eta, n_augmented

Scale = Literal["matched", "printed"]


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
