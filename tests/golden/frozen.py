"""A small trained network, its images, and what the peers' attacks made of them: read from `attacks.json`.

`sh scripts/peers.sh --write-goldens` makes the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks.norms import Norm

FILE = Path(__file__).with_name("attacks.json")
SIDE = 8


@dataclass(frozen=True)
class Small:
    """The network, in float64 and eval mode, and images `x` (n, 1, 8, 8) of the classes `y` (n,), all of them right."""

    net: nn.Module
    x: Tensor
    y: Tensor


def read() -> dict[str, Any]:
    """All that is frozen."""
    frozen: dict[str, Any] = json.loads(FILE.read_text())
    return frozen


def bare_net() -> nn.Sequential:
    """410 parameters."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)).double()


def small(frozen: dict[str, Any]) -> Small:
    """The frozen network and images."""
    net = bare_net()
    state = {name: torch.tensor(value, dtype=torch.float64) for name, value in frozen["weights"].items()}
    net.load_state_dict({name: state[name].reshape(value.shape) for name, value in net.state_dict().items()})
    x = torch.tensor(frozen["images"], dtype=torch.float64).reshape(-1, 1, SIDE, SIDE) / 255
    return Small(net.eval().requires_grad_(False), x, torch.tensor(frozen["labels"]))


def measure(case: Small, norm: Norm, x_adv: Tensor) -> dict[str, Any]:
    """What is frozen of adversarial images: who still stands, the distances, and one number for all of the pixels.

    The last one is the inner product with a fixed wave: it moves with any pixel, as the distances do not.
    """
    with torch.no_grad():
        standing = case.net(x_adv).argmax(1) == case.y
    wave = torch.arange(1, SIDE * SIDE + 1, dtype=torch.float64).cos()
    return {
        "standing": "".join(str(int(flag)) for flag in standing),
        "distance": [round(float(value), 8) for value in norm.distance(x_adv, case.x)],
        "wave": [round(float(value), 8) for value in (x_adv - case.x).flatten(1) @ wave],
    }
