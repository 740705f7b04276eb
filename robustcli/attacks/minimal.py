"""What minimal-norm attacks share: the closest adversarials found so far, and how far one can lie at most."""

from __future__ import annotations

import torch
from torch import Tensor

from robustcli.attacks.norms import Norm

TIE = 1e-6
"""Distances that differ by less, as a share, are equal: rounding, and so the batch, would choose between two images."""


class Closest:
    """What n samples were offered, and the closest of it that was adversarial.

    Attributes:
        x: (n, c, h, w) the samples.
        x_adv: (n, c, h, w) the closest adversarials; the sample itself where there is none.
        distance: (n,) their distances; infinite where there is none.
    """

    def __init__(self, norm: Norm, x: Tensor) -> None:
        self.norm = norm
        self.x = x
        self.x_adv = x.clone()
        self.distance = x.new_full((len(x),), torch.inf)

    def offer(self, index: Tensor, x_adv: Tensor, broken: Tensor) -> None:
        """Keep the images `x_adv` of the samples `index` that are `broken` and closer than what is there."""
        distance = self.norm.distance(x_adv, self.x[index])
        better = broken & (distance < self.distance[index] * (1 - TIE))
        kept = index[better]
        self.x_adv[kept] = x_adv[better]
        self.distance[kept] = distance[better]


def largest_distance(norm: Norm, x: Tensor) -> Tensor:
    """(n,) distances of `x` to the image of [0, 1] that is farthest from it, in any norm the same."""
    return norm.distance((x < 0.5).to(x.dtype), x) if len(x) else x.new_empty(0)
