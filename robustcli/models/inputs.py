"""What comes before a network and after it: resizing, cropping, normalisation, and the order of classes.

What the attacker changes are the pixels in [0, 1] at the size that the data has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustcli.models.logits import logits_of
from robustcli.models.nets import Normalize

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "mnist": ((0.1307,), (0.3081,)),
    "half-grey": ((0.5,), (0.5,)),
    "bytes": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "bytes-grey": ((0.0,), (1 / 255,)),
}
"""The usual ones, (mean, std) a channel: `half` takes pixels to [-1, 1], as many transformers want them, `bytes` to
[0, 255]."""

Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to pixels before a network sees them.

    Attributes:
        normalize: its name in `NORMALISATIONS`, `own` for what the model's source says, `none`, `mean=M,std=S`, or
            `auto` where it has to be found out on images.
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

    @property
    def size(self) -> tuple[int, int] | None:
        """(h, w) of what a square image becomes; None where it keeps its size."""
        return self.crop or ((self.resize, self.resize) if isinstance(self.resize, int) else self.resize)

    def with_normalization(self, name: str, mean: Sequence[float] = (), std: Sequence[float] = ()) -> Preprocessing:
        """The same sizes, and another normalisation."""
        return replace(self, normalize=name, mean=tuple(mean), std=tuple(std))

    def usual(self, channels: int) -> dict[str, Preprocessing]:
        """The same sizes with no normalisation, and with each usual one for so many channels, by its name."""
        fitting = {name: value for name, value in NORMALISATIONS.items() if len(value[0]) == channels}
        normalised = {name: self.with_normalization(name, *value) for name, value in fitting.items()}
        return {"none": self.with_normalization("none")} | normalised

    def as_dict(self) -> dict[str, Any]:
        """What a row says of it."""
        said = {key: value for key, value in asdict(self).items() if value not in ((), None)}
        if self.resize is None:
            del said["interpolation"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}


class Prepared(nn.Module):
    """A network with what comes before it, and its outputs in the order of the data's classes.

    Args:
        network: takes what `preprocessing` makes; returns what `logits_of` takes.
        preprocessing: of pixels (n, c, h, w) in [0, 1].
        order: (classes,) the network's output for each class of the data; None where they are the same.
        outputs: how many logits the network has; None where that is not known yet.
    """

    order: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        order: Sequence[int] | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.preprocessing = preprocessing
        self.normalize = Normalize(preprocessing.mean, preprocessing.std).eval() if preprocessing.mean else None
        self.network = network
        self.training = network.training
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        prepared = self.prepare(x)
        output: Tensor = self.network(prepared)
        if self.outputs is None and self.order is None:
            return output
        logits = logits_of(output, prepared, (self.outputs or 0) - 1)
        return logits if self.order is None else logits[:, self.order]

    def prepare(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to what the network takes."""
        settings = self.preprocessing
        if settings.resize is not None:
            x = resize(x, settings.resize, settings.interpolation)
        if settings.crop is not None:
            from torchvision.transforms.v2 import functional

            x = functional.center_crop(x, list(settings.crop))  # which pads small images with black
        return x if self.normalize is None else self.normalize(x)

    def otherwise(self, preprocessing: Preprocessing) -> Prepared:
        """The same network behind another preprocessing."""
        order = None if self.order is None else self.order.tolist()
        return Prepared(self.network, preprocessing, order, self.outputs)


def resize(x: Tensor, size: int | tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Pixels (n, c, h, w) with a shorter side of `size`, or of the size (h, w); gradients flow through it."""
    from torchvision.transforms.v2 import InterpolationMode, functional  # which takes seconds to import

    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    resized: Tensor = functional.resize(x, [size] if isinstance(size, int) else list(size), mode, antialias=True)
    return resized.clamp(0, 1) if interpolation == "bicubic" else resized
