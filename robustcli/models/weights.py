"""A state_dict from a file that anybody may have made, and its way into a network. Nothing in it is executed."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli import tensorfile
from robustcli.disk import open_regular
from robustcli.errors import CheckpointError, nearest
from robustcli.models.nets import FLOATS

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_model",
)
"""The keys that training scripts keep a state_dict under; the first one that holds tensors is taken."""

PREFIXES = re.compile(r"module\.|_orig_mod\.|model\.")
"""What DataParallel, `torch.compile` and Lightning put before each name."""

LISTED = 5
"""How many names a message lists."""

UNUSED = re.compile(r"(^|\.)(num_batches_tracked|n_averaged)$")
"""Counters that no forward pass in eval mode reads: older files lack them, averaged models add one."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state_dict of a `.safetensors` file or of one that `torch.save` wrote, bare or in a training checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged, holds an object, or no state_dict.
    """
    damaged = "holds no weights that can be read, or is cut off or damaged"
    with tensorfile.refusals(path, damaged, f"; {tensorfile.ADVICE}"), open_regular(path) as file:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(file.read())
        zipped = zipfile.is_zipfile(file)
        file.seek(0)
        if zipped:
            content = tensorfile.read(file, tensors=True)
        else:  # as torch wrote before 1.6
            if tensorfile.GROWS.search(file.read()):
                raise tensorfile.FlawError(tensorfile.TO_ANY_SIZE)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
        weights = _state_dict(content, path)
        tensorfile.check(weights, "weights", tensors=True, meta=False)
    return weights


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a file's content, wherever a training script keeps them."""
    candidates = {"": content}
    if isinstance(content, Mapping):
        candidates |= {key: content[key] for key in CONTAINERS if key in content}
    found = [
        name
        for name, value in candidates.items()
        if isinstance(value, Mapping) and value and all(isinstance(one, Tensor) for one in value.values())
    ]
    if len(found) > 1:
        others = ", ".join(map(repr, found[1:]))
        message = f"{path}: the weights under '{found[0]}' are taken; it holds {others} too: save that alone to take it"
        warnings.warn(message, stacklevel=2)
    if found:
        return {str(key): value for key, value in candidates[found[0]].items()}
    keys = ", ".join(map(repr, list(content)[:LISTED])) if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(
        f"{path}: holds no state_dict, neither bare nor under {', '.join(CONTAINERS)} (it holds: {keys})"
    )


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Load a state_dict into a network, strictly; prefixes are taken off, and half precision becomes float32.

    Args:
        model: takes the weights, in place.
        weights: by name.
        where: the file they are from, for messages.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; names at most five, with the nearest.
    """
    expected = model.state_dict()
    found = rename(weights, expected)
    missing = [key for key in expected if key not in found and not UNUSED.search(key)]
    unexpected = [key for key in found if key not in expected and not UNUSED.search(key)]
    reasons = []
    if missing:
        reasons.append(f"lacks {_listed(missing, unexpected)}")
    if unexpected:
        reasons.append(f"has unexpected {_listed(unexpected, missing)}")
    if reasons:
        raise CheckpointError(f"{where}: does not fit the network: it {'; it '.join(reasons)}")
    fitting = {key: value for key, value in found.items() if key in expected}
    for key, value in fitting.items():
        wanted = tuple(expected[key].shape)
        if value.shape != wanted:
            raise CheckpointError(
                f"{where}: does not fit the network: '{key}' is {tuple(value.shape)}, should be {wanted}"
            )
        if expected[key].is_floating_point() and value.dtype not in FLOATS:
            raise CheckpointError(f"{where}: does not fit the network: '{key}' is {value.dtype}, should be floats")
    model.load_state_dict(fitting, strict=False)


def rename(weights: Mapping[str, Tensor], names: Collection[str]) -> Mapping[str, Tensor]:
    """The weights without the prefixes that keep their names from being among a network's `names`."""
    renamed = {}
    for key, value in weights.items():
        name = key
        while name not in names and (prefix := PREFIXES.match(name)):
            name = name[prefix.end() :]
        renamed[name] = value
    return renamed if len(renamed) == len(weights) else weights


def _listed(names: list[str], others: Iterable[str]) -> str:
    near = {name: re.sub(r".*'(.*)'.*", r" (near '\1')", nearest(name, others)) for name in names[:LISTED]}
    shown = ", ".join(f"'{name}'{other}" for name, other in near.items())
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
