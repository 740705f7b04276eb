"""What comes before a network and after it: resizing, cropping and normalisation as layers, and the order of classes.

What the attacker changes are the pixels in [0, 1] at the size that the data has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustcli.models.logits import logits_of
from robustcli.models.nets import Normalize

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mnist": ((0.1307,), (0.3081,)),
    "half-grey": ((0.5,), (0.5,)),
}
"""The usual ones, (mean, std) a channel. `half` takes pixels to [-1, 1], as many transformers want them."""

Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to pixels before a network sees them.

    Attributes:
        normalize: its name in `NORMALISATIONS`, `own` for what the model's source says, `none` or `mean=..,std=..`.
        mean, std: a channel; empty without normalisation.
        resize: of the shorter side, or (h, w); None leaves the size.
        crop: (h, w) of the centre; None leaves all.
        interpolation: of resizing; images that shrink are smoothed first, as PIL does it.
    """

    normalize: str = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"

    def with_normalization(self, name: str, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Preprocessing:
        """The same sizes, and another normalisation."""
        return replace(self, normalize=name, mean=tuple(mean), std=tuple(std))

    def as_dict(self) -> dict[str, Any]:
        """What a row says of it."""
        found: dict[str, Any] = {"normalize": self.normalize}
        if self.mean:
            found |= {"mean": list(self.mean), "std": list(self.std)}
        if self.resize is not None:
            found |= {"resize": self.resize if isinstance(self.resize, int) else list(self.resize)}
        if self.crop is not None:
            found |= {"crop": list(self.crop)}
        return found | ({"interpolation": self.interpolation} if self.resize is not None else {})


class Resize(nn.Module):
    """Images of another size, by interpolation; gradients flow through it.

    Args:
        size: of the shorter side, or (h, w).
        interpolation: how.
    """

    def __init__(self, size: int | tuple[int, int], interpolation: Interpolation) -> None:
        super().__init__()
        self.size, self.interpolation = size, interpolation

    def resized(self, h: int, w: int) -> tuple[int, int]:
        """(h, w) of an image afterwards."""
        if not isinstance(self.size, int):
            return self.size
        scale = self.size / min(h, w)
        return (self.size, int(w * scale)) if h <= w else (int(h * scale), self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) to pixels of the new size."""
        h, w = x.shape[2:]
        wanted = self.resized(h, w)
        if wanted == (h, w):
            return x
        if self.interpolation == "nearest":
            return F.interpolate(x, wanted, mode="nearest-exact")
        resized = F.interpolate(x, wanted, mode=self.interpolation, align_corners=False, antialias=True)
        return resized.clamp(0, 1) if self.interpolation == "bicubic" else resized


class CenterCrop(nn.Module):
    """The centre of images; smaller ones are padded with black, as torchvision does it."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) to (n, c, *size)."""
        h, w = x.shape[2:]
        down, right = (max(0, wanted - has) for wanted, has in zip(self.size, (h, w), strict=True))
        if down or right:
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
            h, w = x.shape[2:]
        top, left = round((h - self.size[0]) / 2), round((w - self.size[1]) / 2)
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]


class Prepared(nn.Module):
    """A network with what comes before it, and its outputs in the order of the data's classes.

    Args:
        network: takes what `preprocessing` makes; returns what `logits_of` takes.
        preprocessing: of pixels (n, c, h, w) in [0, 1].
        order: (classes,) the network's output for each class of the data; None where they are the same.
    """

    order: Tensor | None

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, order: Sequence[int] | None = None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        layers: list[nn.Module] = []
        if preprocessing.resize is not None:
            layers.append(Resize(preprocessing.resize, preprocessing.interpolation))
        if preprocessing.crop is not None:
            layers.append(CenterCrop(preprocessing.crop))
        if preprocessing.mean:
            layers.append(Normalize(preprocessing.mean, preprocessing.std))
        self.before = nn.Sequential(*layers).eval()
        self.network = network
        self.training = network.training
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        if self.order is None and not len(self.before):
            output: Tensor = self.network(x)
            return output
        prepared = self.before(x)
        output = self.network(prepared)
        return output if self.order is None else logits_of(output, prepared)[:, self.order]

    def resized(self, h: int, w: int) -> tuple[int, int]:
        """(h, w) of an image once it is resized."""
        first = self.before[0] if len(self.before) else None
        return first.resized(h, w) if isinstance(first, Resize) else (h, w)

    def otherwise(self, preprocessing: Preprocessing) -> Prepared:
        """The same network behind another preprocessing."""
        made = Prepared(self.network, preprocessing, None if self.order is None else self.order.tolist())
        weight = next(self.parameters(), None)
        return made if weight is None else made.to(weight.device)
