"""The paper's toy example (its Figure 1): five classes, each one Gaussian, moved by BatchOut itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustcli.models.augmentation import batchout

CLASSES, POINTS = 5, 60
RADIUS, SPREAD = 3.0, 0.45
ETA = 0.5
"""Each point moves by U[0, 0.5] of its way to a partner."""


@dataclass(frozen=True)
class Toy:
    """Points (n, 2) before and after, their classes (n,), one of them, and a point of each other class (4, 2)."""

    before: Tensor
    after: Tensor
    y: Tensor
    chosen: Tensor
    partners: Tensor
    eta: Tensor


def toy(seed: int = 0) -> Toy:
    """The example: the first point of the first class is the figure's x, and its partners one point of each class."""
    draw = torch.Generator().manual_seed(seed)
    angle = torch.arange(CLASSES) * 2 * math.pi / CLASSES + math.pi / 2
    means = RADIUS * torch.stack([angle.cos(), angle.sin()], 1)
    y = torch.arange(CLASSES).repeat_interleave(POINTS)
    before = means[y] + SPREAD * torch.randn(len(y), 2, generator=draw)
    partners = torch.randint(len(y), (len(y),), generator=draw)
    eta = ETA * torch.rand(len(y), 1, generator=draw)
    after = batchout(before, partners, eta, len(y))
    return Toy(before, after, y, before[0], before[::POINTS][1:], eta)


def measure_five_gaussians(seed: int = 0) -> dict[str, float | int]:
    """How far points move, and how many are still nearest to the mean of their own class."""
    example = toy(seed)
    moved = (example.after - example.before).norm(dim=1)
    return {
        "points": len(example.y),
        "mean distance moved": round(float(moved.mean()), 3),
        "nearest to their own class's mean before, %": round(100 * _own(example.before, example), 1),
        "nearest to their own class's mean after, %": round(100 * _own(example.after, example), 1),
        "spread of a class before": round(_spread(example.before, example.y), 3),
        "spread of a class after": round(_spread(example.after, example.y), 3),
        "seed": seed,
    }


def _own(points: Tensor, example: Toy) -> float:
    means = torch.stack([example.before[example.y == label].mean(0) for label in range(CLASSES)])
    return float((torch.cdist(points, means).argmin(1) == example.y).float().mean())


def _spread(points: Tensor, y: Tensor) -> float:
    """The root mean square distance to the class's mean, over classes."""
    groups = [points[y == label] for label in range(CLASSES)]
    return float(torch.stack([(group - group.mean(0)).square().sum(1).mean() for group in groups]).mean().sqrt())
