"""A target: any model that can be measured, whatever file it comes from."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.disk import file_hash
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
        history: the numbers of each epoch.
    """

    dataset: str
    name: str
    source: str
    ids: Tensor
    hashes: Tensor | None
    recipe: Mapping[str, Any]
    epochs: int
    complete: bool
    history: Sequence[Mapping[str, float]] = ()


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
        input: what comes before a network from elsewhere: as its source says, once it is fitted as `module` does it.
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
    input: Preprocessing | None = None
    notices: tuple[str, ...] = ()
    without_gradients: str = ""


SMALL = 100_000
"""Values of a tensor that is no parameter and no buffer; larger ones are told by what is shown of them."""

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "onnx2pytorch", "robustcli")


def key_of(module: nn.Module, code: str = "") -> str:
    """The hash of a network: its layers, the files of their classes, and the values of its weights and buffers.

    Args:
        module: the network.
        code: the hash of what else decides its logits.
    """
    digest = hashlib.sha256(f"{code} {module}".encode())
    for code_of_layer in sorted({_code_of(type(layer)) for layer in module.modules()}):
        digest.update(code_of_layer.encode())
    for name, layer in module.named_modules():
        digest.update(f"{name} {_state_of(layer)}".encode())
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


def _code_of(kind: type) -> str:
    """What tells one version of a layer's code from another."""
    package = kind.__module__.partition(".")[0]
    if package in LIBRARIES:
        return f"{kind.__module__}.{kind.__qualname__} {version(package)}"
    try:
        return f"{kind.__qualname__} {file_hash(Path(inspect.getfile(kind)))}"
    except (OSError, TypeError):  # of a notebook, or made at run time
        return f"{kind.__qualname__} {_functions_in(vars(kind).values())}"


def _state_of(layer: nn.Module) -> str:
    """A layer's plain attributes, such as a scale, and the functions of its hooks."""
    hooks = [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
    plain = {
        key: value.tolist() if isinstance(value, Tensor) and value.numel() < SMALL else repr(value)
        for key, value in vars(layer).items()
        if key != "training" and isinstance(value, bool | int | float | str | tuple | list | Tensor)
    }
    shown = [item for item in sorted(plain.items(), key=str) if " at 0x" not in str(item)]  # an address is no state
    return f"{shown} {_functions_in([*vars(layer).values(), *hooks])}"


def _functions_in(values: Iterable[object]) -> list[tuple[str, str]]:
    """The code of plain functions."""
    codes = [value.__code__ for value in values if inspect.isfunction(value)]
    return [(code.co_code.hex(), repr([one for one in code.co_consts if not inspect.iscode(one)])) for code in codes]
