"""Networks from elsewhere, as files of each kind: one small network, 8x8 images, 3 classes."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

PROGRAM = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        h = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.head(h.flatten(1))

def make():
    return Net().eval()
"""


class Net(nn.Module):
    """What `PROGRAM` makes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        logits: Tensor = self.head(h.flatten(1))
        return logits


def network(seed: int = 1) -> Net:
    """With random weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net().eval()


def images(n: int = 5) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def export(net: nn.Module, path: Path, batch: int | None = None) -> Path:
    """A `.pt2` file; for any batch, or for one size."""
    x = torch.rand(batch or 2, 3, 8, 8)
    sizes = None if batch else ({0: torch.export.Dim("n", min=1, max=4096)},)
    with warnings.catch_warnings(action="ignore"):
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=sizes), path)
    return path


def export_onnx(net: nn.Module, path: Path, batch: int | None = None) -> Path:
    x = torch.rand(batch or 2, 3, 8, 8)
    axes = None if batch else {"x": {0: "n"}}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(net, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


def script(net: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(net).save(path)
    return path
