"""From text to a target: a checkpoint, a program that builds a network, a model of a library, an exported file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from robustcli.config import DataSpec, ModelSpec, validated
from robustcli.disk import file_hash
from robustcli.errors import CheckpointError, ConfigError
from robustcli.models import checkpoint
from robustcli.models.nets import load_model
from robustcli.models.target import Origin, Target, Wants, key_of

HUBS = ("tv", "timm", "hf")
RANDOM = "none"
PROGRAM = re.compile(r"(.+\.py):([^:]+)")


@dataclass(frozen=True)
class Source:
    """A model's text, taken apart.

    Attributes:
        text: as it was given.
        body: without the weights.
        weights: a file, or `none` for random ones; None where the text names none.
    """

    text: str
    body: str
    weights: str | None = None

    @property
    def file(self) -> Path | None:
        """The weights' file."""
        return Path(self.weights) if self.weights is not None and self.weights != RANDOM else None


def split_source(text: str) -> Source:
    """A text at its last `@` whose right side is `none` or an existing file."""
    for found in reversed(list(re.finditer("@", text))):
        right = text[found.end() :]
        if right == RANDOM or (right and Path(right).is_file()):
            return Source(text, text[: found.start()], right)
    return Source(text, text)


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
    source = split_source(str(text))
    if weights is not None:
        if source.weights is not None:
            raise ConfigError(f"--weights {weights}: {text} names its weights already")
        source = Source(f"{text}@{weights}", source.body, str(weights))
    prefix, _, name = source.body.partition(":")
    program = PROGRAM.fullmatch(source.body)
    if "@" in source.body and (prefix in HUBS or program):
        raise CheckpointError(f"{text}: no file '{source.body.rpartition('@')[2]}', as the @ names its weights")
    if prefix in HUBS:
        return _from_hub(source, prefix, name)
    if program:
        return _from_program(source, Path(program[1]), program[2])
    if source.weights is not None:
        raise ConfigError(f"{text}: has weights of its own; @WEIGHTS go with FILE.py:FUNCTION, tv:, timm: and hf:")
    return _from_file(source) or from_checkpoint(Path(source.body))


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


def _from_program(source: Source, path: Path, function: str) -> Target:
    from robustcli.models.program import build_network
    from robustcli.models.weights import put_weights, read_weights

    module, code = build_network(path, function)
    if source.file is not None:
        put_weights(module, read_weights(source.file), source.file)
    return _foreign(source, module, Wants(random=source.weights == RANDOM), code=code)


def _from_hub(source: Source, prefix: str, name: str) -> Target:
    from robustcli.models import hub

    load = {"tv": hub.load_torchvision, "timm": hub.load_timm, "hf": hub.load_transformers}[prefix]
    found = load(name, source.file, source.weights == RANDOM)
    wants = Wants(found.preprocessing, source.weights is None, found.size, random=source.weights == RANDOM)
    return _foreign(source, found.module, wants, classes=found.classes, model=name)


def _from_file(source: Source) -> Target | None:
    """The network of an exported file; None for what is none."""
    from robustcli.models import exported

    path = Path(source.body)
    if path.suffix.lower() == ".py":
        raise ConfigError(f"{path}: name the function that builds the network: {path}:FUNCTION")
    if path.suffix.lower() == ".onnx":
        from robustcli.models.onnx_file import load_onnx

        module, network, shape = load_onnx(path)
        wants = Wants(size=shape and shape[1:], compare=network.compare, without_gradients=lambda: network.reason)
    elif path.suffix.lower() == ".pt2":
        module, shape = exported.load_exported(path)
        wants = Wants(size=shape and shape[1:])
    elif exported.is_torchscript(path):
        module, wants = exported.load_torchscript(path), Wants()
    else:
        return None
    return _foreign(source, module, wants, code=file_hash(path))


def _foreign(
    source: Source,
    module: nn.Module,
    wants: Wants,
    *,
    code: str = "",
    classes: tuple[str, ...] = (),
    model: str | None = None,
) -> Target:
    return Target(
        module=module,
        name=source.text,
        key=key_of(module, code),
        shape=None,
        classes=classes,
        model=model,
        wants=wants,
    )
