"""From text to a target: a checkpoint, a program that builds a network, a model of a library, an exported file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from robustcli.config import DataSpec, ModelSpec, validated
from robustcli.disk import file_hash
from robustcli.errors import CheckpointError, ConfigError
from robustcli.models import checkpoint, hub
from robustcli.models.exported import load_exported, load_torchscript
from robustcli.models.inputs import Preprocessing
from robustcli.models.nets import load_model
from robustcli.models.onnx_file import load_onnx
from robustcli.models.program import build_network
from robustcli.models.target import Origin, Target, key_of
from robustcli.models.weights import put_weights, read_weights

TORCHSCRIPT = (".pt", ".pth", ".ts", ".jit", ".torchscript")
"""How a TorchScript file's name ends: its code runs, which no file of weights may by another name."""

PROGRAM = re.compile(r"(.+\.py):([^:]+)")


class Source(NamedTuple):
    """A model's text without its weights, and these: a file, `none` for random ones; None where it names none."""

    body: str
    weights: str | None = None


def split_source(text: str) -> Source:
    """A text at its last `@` whose right side is `none` or an existing file."""
    for found in reversed(list(re.finditer("@", text))):
        right = text[found.end() :]
        if right == hub.RANDOM or (right and Path(right).is_file()):
            return Source(text[: found.start()], right)
    return Source(text)


def open_target(text: str | Path, weights: Path | None = None) -> Target:
    """The model that a text names; nothing is unpickled, and no program runs but a named one.

    Args:
        text: a checkpoint, `zoo:NAME`, `FILE.py:FUNCTION`, `tv:NAME`, `timm:NAME`, `hf:NAME`, `FILE.pt2`, TorchScript
            or `FILE.onnx`; perhaps with `@WEIGHTS`.
        weights: a file of weights, where the text names none.

    Raises:
        CheckpointError: something is missing, unreadable or does not fit.
        ConfigError: an extra that it needs is not installed, or weights were given to what has its own.
    """
    source, named = split_source(str(text)), str(text)
    if weights is not None:
        if source.weights is not None:
            raise ConfigError(f"--weights {weights}: {text} names its weights already")
        source, named = Source(source.body, str(weights)), f"{text}@{weights}"
    prefix, _, name = source.body.partition(":")
    program = PROGRAM.fullmatch(source.body)
    library = prefix in hub.LIBRARIES
    missing = program and not Path(program[1]).exists()
    if "@" in source.body and (library or missing or (program and "@" in program[2])):
        raise CheckpointError(f"{named}: no file '{source.body.rpartition('@')[2]}', as the @ names its weights")

    classes: tuple[str, ...] = ()
    before, code = Preprocessing("auto"), ""
    if library:
        module, before, classes = hub.load_network(prefix, name, source.weights)
    elif program:
        module, code = build_network(Path(program[1]), program[2])
        if source.weights not in (None, hub.RANDOM):
            put_weights(module, read_weights(Path(source.weights)), source.weights)
    elif source.weights is not None:
        raise ConfigError(f"{named}: has weights of its own; @WEIGHTS go with FILE.py:FUNCTION, tv:, timm: and hf:")
    else:
        path = Path(source.body)
        found = _read_exported(path)
        if found is None:
            return from_checkpoint(path)
        (module, size), code = found, file_hash(path)
        before = Preprocessing("auto", resize=size)
    if source.weights is not None:
        before = before.with_normalization("none" if source.weights == hub.RANDOM else "auto")
    model = name if library else None
    if not program:
        try:
            module.eval()
        except NotImplementedError:  # the mode of an exported graph is built in
            for part in module.modules():
                part.training = False
    check_values(module, named)
    return Target(module, named, key_of(module, code), None, classes, model, input=before)


def check_values(module: nn.Module, name: str) -> None:
    """Make weights of other floating types float32, in place.

    Raises:
        CheckpointError: one has no values yet, or is sparse.
    """
    for key, weight in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(weight) or weight.is_meta or weight.layout != torch.strided:
            kind = "is sparse" if weight.layout != torch.strided else "has no values yet"
            raise CheckpointError(
                f"{name}: its '{key}' {kind}; call it once, or load its weights, before it is measured"
            )
    if any(weight.dtype in (torch.float16, torch.bfloat16, torch.float64) for weight in module.parameters()):
        module.float()


def _read_exported(path: Path) -> tuple[nn.Module, tuple[int, int] | None] | None:
    """The network of an exported file, and the (h, w) that it takes, where they are fixed; None for another file."""
    suffix = path.suffix.lower()
    if suffix == ".py":
        raise ConfigError(f"{path}: name the function that builds the network: {path}:FUNCTION")
    if suffix == ".onnx":
        return load_onnx(path)
    if suffix == ".pt2":
        return load_exported(path)
    module = load_torchscript(path) if suffix in TORCHSCRIPT else None
    return None if module is None else (module, None)


def from_checkpoint(path: Path) -> Target:
    """The model of a checkpoint, which says where it comes from.

    Raises:
        CheckpointError: as `open_target`.
    """
    saved = checkpoint.load(path)
    try:
        spec = validated(ModelSpec, saved.model, "its model")
        model = load_model(spec, saved.state_dict, path)
        method = str(dict(saved.spec["method"])["name"])
        dataset = validated(DataSpec, {"dataset": saved.spec["dataset"]}, "its spec").dataset
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: is unusable: {reason}") from None
    origin = Origin(
        dataset=dataset,
        name=saved.data["name"],
        source=saved.data["source"],
        ids=saved.train_ids,
        hashes=saved.train_hashes,
        recipe=saved.spec,
        epochs=len(saved.history),
        complete=saved.complete,
        history=saved.history,
    )
    return Target(
        module=model,
        name=str(path),
        key=checkpoint.sha256(path),
        shape=(spec.channels, spec.height, spec.width),
        classes=tuple(saved.data["classes"]),
        model=spec.name,
        method=method,
        architecture=saved.model,
        origin=origin,
    )
