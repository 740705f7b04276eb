"""Flip, or crop and flip, on the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustcli.noise import Noise

PAD = 4


def flip(x: Tensor, noise: Noise) -> Tensor:
    """Each image mirrored half of the time.

    Args:
        x: (m, c, h, w) pixels in [0, 1].
        noise: the batch's.
    """
    mirrored = noise.stream("flip").uniform(x.new_empty(len(x), 1, 1, 1)) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def crop_and_flip(x: Tensor, noise: Noise) -> Tensor:
    """Each image shifted by up to 4 pixels, zeros moving in, and mirrored half of the time.

    Args:
        x: (m, c, h, w) pixels in [0, 1].
        noise: the batch's.
    """
    m, _, height, width = x.shape
    draws = noise.stream("crop-flip").uniform(x.new_empty(m, 3))
    shift = (draws[:, :2] * (2 * PAD + 1)).long()
    rows = shift[:, :1] + torch.arange(height, device=x.device)
    columns = shift[:, 1:] + torch.arange(width, device=x.device)
    columns = torch.where(draws[:, 2:] < 0.5, columns, columns.flip(1))
    padded = F.pad(x, (PAD,) * 4)
    index = torch.arange(m, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENT: dict[str, Callable[[Tensor, Noise], Tensor]] = {
    "none": lambda x, _: x,
    "flip": flip,
    "crop-flip": crop_and_flip,
}
