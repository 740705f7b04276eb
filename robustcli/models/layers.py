"""Layers that the networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustcli.errors import unknown


class Normalize(nn.Module):
    """`(x - mean) / std` for each channel, as a network's first layer, so that eps stays in pixel units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to normalised ones."""
        return (x - self.mean) / self.std


class Slots(nn.ModuleDict):
    """The places before a network's ReLUs where an augmentation layer can sit; empty ones pass activations on.

    Such layers have no parameters, so a network's state_dict does not depend on what fills its slots. They may change
    what they are given in place: a network uses it for nothing else.
    """

    def __init__(self, *names: str) -> None:
        super().__init__({name: nn.Identity() for name in names})


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
