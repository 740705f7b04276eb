"""A target: any model that can be measured, whatever file it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Origin:
    """What is known of a model's training: what it may not be measured on, and what has to be said of it.

    Attributes:
        dataset: what it was trained on, as it was named: a data set's name or a path.
        name, source: of those images; `source` is the namespace of their ids.
        ids: (n,) of all images seen, validation included.
        hashes: (n,) of their content, sorted (`Images.hashes`); None where they were not kept.
        recipe: the training spec.
        epochs: that were finished.
        complete: whether training came to its end.
    """

    dataset: str
    name: str
    source: str
    ids: Tensor
    hashes: Tensor | None
    recipe: Mapping[str, Any]
    epochs: int
    complete: bool


@dataclass(frozen=True, eq=False)
class Target:
    """A model that takes pixels in [0, 1] and returns logits; normalisation is a part of it.

    Attributes:
        module: in eval mode.
        name: as it was given, such as `zoo:mnist-vanilla`.
        key: the hash of all that decides its logits.
        shape: (c, h, w) of an image.
        classes: their names, by logit.
        model, method: the network and how it was trained, where that is known.
        architecture: what the network is built of, where the weights alone do not say.
        origin: of its weights, where that is known.
    """

    module: nn.Module
    name: str
    key: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    model: str | None = None
    method: str | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
