"""Learning rates and optimisers, as functions of the spec: nothing here has a state to resume but the optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from robustcli.config import TrainSpec

WARM_UP = 0.3
START, END = 1 / 25, 1e-4 / 25


def learning_rate(spec: TrainSpec, step: int, steps: int) -> float:
    """The rate of step `step` of `steps`.

    `cosine` falls from lr to 0. `onecycle` rises from lr/25 over the first 30 % and falls to lr/250 000, both along a
    cosine (Smith & Topin 2017, step for step as PyTorch's OneCycleLR).
    """
    if spec.schedule == "constant":
        return spec.lr
    if spec.schedule == "cosine":
        return _anneal(spec.lr, 0.0, step / steps)
    top = max(0.0, WARM_UP * steps - 1)
    if step < top:
        return _anneal(START * spec.lr, spec.lr, step / top)
    return _anneal(spec.lr, END * spec.lr, (step - top) / max(1.0, steps - 1 - top))


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(spec: TrainSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or SGD with Nesterov momentum, fused: one kernel a step."""
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.momentum > 0,
        weight_decay=spec.weight_decay,
        fused=True,
    )
