"""Objectives: from a model and a batch to a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustcli.attacks.base import Attack
from robustcli.engine.guard import frozen
from robustcli.models.augmentation import n_augmented
from robustcli.noise import Noise

Objective = Callable[[nn.Module, Tensor, Tensor, Noise], tuple[Tensor, Tensor]]
"""(model in train mode, pixels (m, c, h, w), classes (m,), the batch's noise) to (mean loss, logits (m, classes))."""

Craft = Literal["eval", "train"]


def standard(model: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the batch as it is."""
    logits: Tensor = model(x)
    return F.cross_entropy(logits, y), logits


def adversarial(attack: Attack, fraction: float, craft: Craft) -> Objective:
    """Cross-entropy of a batch whose first `fraction` is replaced by its adversarial images.

    They are made on the same network at that instant (BatchOut paper, section 6.2).

    Args:
        attack: makes the images.
        fraction: the share of the batch that is replaced, rounded down; 1 is Madry's adversarial training.
        craft: the network's mode while it is attacked. With dropout on (`train`) the gradient's sign agrees with the
            `eval` one on 74 % of MNIST's pixels only.
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        k = n_augmented(fraction, len(x))
        with frozen(model, training=craft == "train"):
            x_adv = attack.perturb(model, x[:k], y[:k], noise[:k])
        return standard(model, torch.cat([x_adv, x[k:]]), y, noise)

    return objective
