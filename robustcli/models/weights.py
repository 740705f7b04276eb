"""A state_dict from a file that anybody may have made, and its way into a network. Nothing in it is executed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.disk import open_regular
from robustcli.errors import CheckpointError, nearest
from robustcli.models import tensorfile

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
)
"""The keys that training scripts keep a state_dict under; the first one that holds tensors is taken."""

PREFIXES = ("module.", "_orig_mod.", "model.")
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
    try:
        with open_regular(path) as file:
            if path.suffix == ".safetensors":
                from safetensors.torch import load

                return load(file.read())
            if zipfile.is_zipfile(file):
                file.seek(0)
                content = tensorfile.read(file, tensors=True)
            else:  # as torch wrote before 1.6
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path}: is refused: it holds a pickled object ({found[1] if found else 'unknown'}), which could run "
            "code; save its weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except tensorfile.FlawError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # whatever a damaged or foreign file makes torch and safetensors raise
        raise CheckpointError(f"{path}: holds no weights that can be read, or is cut off or damaged") from None
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a file's content, wherever a training script keeps them."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in CONTAINERS if key in content]
    for found in candidates:
        if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
            weights = {str(key): value for key, value in found.items()}
            try:
                tensorfile.check(weights, "weights", tensors=True, meta=False)
            except tensorfile.FlawError as error:
                raise CheckpointError(f"{path}: {error}") from None
            return weights
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
    found = _renamed(weights, expected.keys())
    missing = [key for key in expected if key not in found and not UNUSED.search(key)]
    unexpected = [key for key in found if key not in expected and not UNUSED.search(key)]
    if missing or unexpected:
        parts = [
            f"{what} {_listed(names, others)}"
            for what, names, others in (("lacks", missing, unexpected), ("has unexpected", unexpected, missing))
            if names
        ]
        raise CheckpointError(f"{where}: does not fit the network: it {'; it '.join(parts)}")
    for key, value in expected.items():
        if key in found and found[key].shape != value.shape:
            raise CheckpointError(
                f"{where}: does not fit the network: '{key}' is {tuple(found[key].shape)}, should be "
                f"{tuple(value.shape)}"
            )
    kept = {key: value.to(expected[key].dtype) for key, value in found.items() if key in expected}
    model.load_state_dict(kept, strict=False)


def _renamed(weights: Mapping[str, Tensor], wanted: Iterable[str]) -> Mapping[str, Tensor]:
    """The weights with those prefixes taken off that make the most names fit."""
    names = set(wanted)
    best = weights
    while True:
        shorter = [
            {key.removeprefix(prefix): value for key, value in best.items()}
            for prefix in PREFIXES
            if any(key.startswith(prefix) for key in best)
        ]
        # `module._orig_mod.` fits only after both are off, so that a step may gain nothing.
        shorter = [
            one for one in shorter if len(one) == len(best) and len(names & one.keys()) >= len(names & best.keys())
        ]
        if not shorter or len(names & best.keys()) == len(names):
            return best
        best = max(shorter, key=lambda one: len(names & one.keys()))


def _listed(names: list[str], others: Iterable[str]) -> str:
    near = {name: re.sub(r".*'(.*)'.*", r" (near '\1')", nearest(name, others)) for name in names[:LISTED]}
    shown = ", ".join(f"'{name}'{other}" for name, other in near.items())
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
