"""Tiny models and the images that go with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustcli.attacks.losses import Model, margin
from robustcli.attacks.norms import L1, Norm
from robustcli.engine.run import Samples
from robustcli.noise import Noise

SIDE = 8
LARGEST_MOVE = 0.3
"""The most that a pixel of `linear_samples` may move, so that no image on the way meets the box."""


def _fill(model: nn.Module) -> nn.Module:
    """The model in float64 and eval mode, with weights from a keyed draw: the global RNG is not used."""
    model = model.to_empty(device="cpu").double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(Noise(0, torch.zeros(1).long()).stream(name).normal(parameter[None])[0])
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
    return model


def tiny_net() -> nn.Module:
    """A smooth float64 net of 123 parameters for images (n, 1, 8, 8), with BatchNorm and Dropout, in eval mode."""
    with torch.device("meta"):
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(2 * (SIDE // 2) ** 2, 3),
        )
    return _fill(net)


def tiny_samples(model: Model, n: int = 11) -> Samples:
    """Images (n, 1, 8, 8) with black and white pixels among them; the model is wrong on every fifth."""
    ids = torch.arange(n) * 7 + 3
    x = Noise(0, ids).uniform(torch.empty(n, 1, SIDE, SIDE, dtype=torch.float64)).mul(1.4).sub(0.2).clamp(0, 1)
    with torch.no_grad():
        logits = model(x)
    y = (logits.argmax(1) + (torch.arange(n) % 5 == 4)) % logits.shape[1]
    return Samples(x, y, ids)


def linear_model(norm: Norm) -> nn.Module:
    """A float64 linear model of two classes, whose boundary runs through the grey image and whose margin is a distance.

    All weights are of similar size, so that the shortest way to the boundary stays far from 0 and 1 in every pixel; in
    L1, where it runs along the largest weight alone, no two are the same.
    """
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))
    filled = _fill(model)
    weight, bias = filled.get_parameter("1.weight"), filled.get_parameter("1.bias")
    with torch.no_grad():
        size = weight[1:].abs()
        normal = weight[:1].sign() * (0.5 + (size / (1 + size) if norm == L1() else size.clamp_max(1)))
        normal /= (normal * norm.steepest(normal)).sum()
        weight.copy_(torch.cat([-normal, normal]) / 2)
        bias.copy_(-weight.sum(1) / 2)
    return filled


def linear_samples(model: nn.Module, norm: Norm, distances: Sequence[float]) -> Samples:
    """Two images, one of each class, at each of these distances from the boundary of `linear_model(norm)`."""
    normal = model.get_parameter("1.weight").detach()[1:]
    away = torch.tensor(distances, dtype=normal.dtype).repeat_interleave(2)[:, None]
    y = torch.arange(len(away)) % 2
    along = Noise(0, torch.arange(len(away))).normal(normal.expand(len(away), -1)) / 50
    along -= normal * (along * normal).sum(1, keepdim=True) / normal.square().sum()
    flat = 0.5 + along + (2 * y - 1)[:, None] * away * norm.steepest(normal)
    return Samples(flat.reshape(-1, 1, SIDE, SIDE), y, torch.arange(len(y)))


def largest_eps(norm: Norm) -> float:
    """The largest budget at which a linear model's robust set does not depend on the box."""
    normal = linear_model(norm).get_parameter("1.weight").detach()[1:]
    return LARGEST_MOVE / float(norm.steepest(normal).abs().max())


def boundary_distance(model: nn.Module, norm: Norm, samples: Samples) -> Tensor:
    """(n,) the exact distance of each image from the boundary of a linear model of two classes, outside any box."""
    weight = model.get_parameter("1.weight").detach()
    normal = weight[1:] - weight[:1]
    with torch.no_grad():
        margins: Tensor = margin(model(samples.x), samples.y)
    return margins / (normal * norm.steepest(normal)).sum()
