"""A target: any model that can be measured, whatever file it comes from."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustcli.disk import file_hash

if TYPE_CHECKING:
    from robustcli.models.inputs import Preprocessing


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
class Wants:
    """What a network from elsewhere says of its input; what it does not say is found out on images.

    Attributes:
        preprocessing: what its source puts before it; None where nobody says.
        known: whether its normalisation is that of these weights, and not of the library's own ones.
        size: (h, w) of the images that it takes; None where that is open or unknown.
        random: whether its weights are random, so that no accuracy says anything.
        compare: holds it against its own reference on images, as they reach the network; None where it has none.
        without_gradients: why it has no gradients, asked after `compare`; "" where it has.
    """

    preprocessing: Preprocessing | None = None
    known: bool = False
    size: tuple[int, int] | None = None
    random: bool = False
    compare: Callable[[Tensor], None] | None = None
    without_gradients: Callable[[], str] = lambda: ""


@dataclass(frozen=True, eq=False)
class Target:
    """A model that takes pixels in [0, 1] and returns logits; normalisation is a part of it.

    Attributes:
        module: in eval mode.
        name: as it was given, such as `zoo:mnist-vanilla`.
        key: the hash of all that decides its logits.
        shape: (c, h, w) of an image; None until it is fitted to images.
        classes: their names, by logit; empty where they are unknown.
        model, method: the network and how it was trained, where that is known.
        architecture: what the network is built of, where the weights alone do not say.
        origin: of its weights, where that is known.
        wants: of a network that is not fitted to images yet; None of one that is.
        input: what is done to pixels before the network, as a row says it; empty where the network does it itself.
        notices: lines to be said before it is measured.
        without_gradients: why attacks that need gradients cannot run; "" where they can.
    """

    module: nn.Module
    name: str
    key: str
    shape: tuple[int, int, int] | None
    classes: tuple[str, ...]
    model: str | None = None
    method: str | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    wants: Wants | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    without_gradients: str = ""


def key_of(module: nn.Module, code: str = "") -> str:
    """The hash of a network: its layers, the files of their classes, and the values of its weights and buffers.

    Args:
        module: the network.
        code: the hash of what else decides its logits.
    """
    digest = hashlib.sha256(f"{code} {module}".encode())
    for kind in sorted({type(one) for one in module.modules()}, key=lambda one: f"{one.__module__}.{one.__qualname__}"):
        digest.update(_code_of(kind).encode())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


def _code_of(kind: type) -> str:
    """What tells one version of a layer's code from another."""
    package = kind.__module__.partition(".")[0]
    if package in ("torch", "torchvision", "timm", "transformers", "onnx2pytorch", "robustcli"):
        return f"{kind.__module__}.{kind.__qualname__} {version(package)}"
    try:
        return f"{kind.__qualname__} {file_hash(Path(inspect.getfile(kind)))}"
    except (OSError, TypeError):  # of a notebook, or made at run time
        return kind.__qualname__
