"""A network from elsewhere is fitted to images: their size, its normalisation, the order of their classes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robustcli.config import EvalSpec
from robustcli.data.images import Images
from robustcli.engine.guard import frozen
from robustcli.engine.outcome import predict
from robustcli.errors import AttackError, CheckpointError, ConfigError, nearest, one_line
from robustcli.fields import parse_number
from robustcli.models.inputs import Prepared, Preprocessing
from robustcli.models.logits import call_model, logits_of
from robustcli.models.onnx_file import OnnxNetwork
from robustcli.models.target import Target

FEW = 16
"""How many images an exported graph is held against its reference on."""

CHOICE = 256
"""How many images a normalisation is chosen on, even over the classes."""

AHEAD = 0.02
"""By how much a normalisation has to be ahead of none, in accuracy."""

SURELY = 10
"""By how many images it has to be ahead where there are fewer than CHOICE: a few are chance."""

CHUNK = 32
WORDNET_IDS = Path(__file__).parents[1] / "assets" / "imagenet_wordnet_ids.txt"


def fit_target(target: Target, images: Images, whole: Callable[[], Images], spec: EvalSpec, device: str) -> Target:
    """The target with all that images of this size need before it and after it; pixels in [0, 1] are what it takes.

    Args:
        target: a network from elsewhere, or one that is fitted already and stays as it is.
        images: that it will be measured on.
        whole: all images of the split, which `--limit` does not shorten: a normalisation is chosen on them.
        spec: says what the user has decided.
        device: where it is tried.

    Raises:
        CheckpointError: it does not fit the images.
        ConfigError: a flag that cannot be read, or does not fit the images.
    """
    if target.input is None or target.shape is not None:
        return target
    few = images.sample(_even(images.y, FEW)).batch(slice(None), device)
    before = _preprocessing(target.input, spec, images)
    model = Prepared(target.module, before).to(device)
    outputs = _outputs(model, few, target, images)
    order, notices = class_order(target, images, outputs)
    reason = ""
    for graph in model.modules():
        if isinstance(graph, OnnxNetwork):
            graph.compare(model.prepare(few))
            reason = graph.reason
    model = Prepared(target.module, before, order, outputs).to(device)
    if before.normalize == "auto":
        before, line = choose_normalization(model, whole(), device)
        model = model.otherwise(before).to(device)
        notices.append(f"{target.name}: {line}")
    if reason:
        notices.append(f"{target.name}: could not be converted to torch ({reason}): it has no gradients")
    return replace(
        target,
        module=model,
        key=hashlib.sha256(f"{target.key} {before} {order} {reason}".encode()).hexdigest(),
        shape=images.shape,
        classes=images.classes or tuple(map(str, range(outputs))),
        input=before,
        notices=(*target.notices, *notices),
        without_gradients=reason,
    )


def _preprocessing(said: Preprocessing, spec: EvalSpec, images: Images) -> Preprocessing:
    """What comes before a network: what the flags say, else what its source says."""
    shape = images.shape
    if spec.normalize != "auto":
        said = said.with_normalization(*read_normalization(spec.normalize, shape[0]))
    if images.fit is not None:  # they were made of the network's size as they were decoded
        return replace(said, resize=None, crop=None)
    if spec.resize is not None or spec.crop is not None:
        edge = read_edge(spec.crop, "--crop")
        return replace(said, resize=read_edge(spec.resize, "--resize"), crop=None if edge is None else (edge, edge))
    return replace(said, resize=None, crop=None) if said.size == shape[1:] else said


def read_edge(text: str | None, flag: str) -> int | None:
    """The number of pixels that `--resize` or `--crop` names; None for none.

    Raises:
        ConfigError: it names no such number.
    """
    if text is None or text == "none":
        return None
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise ConfigError(f"{flag} {text}: should be none or a number of pixels, 1 to 4096")
    return int(text)


def read_normalization(text: str, channels: int) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
    """(name, mean, std) of `--normalize`, for so many channels.

    Raises:
        ConfigError: an unknown name, or as many values as there are no channels.
    """
    if found := re.fullmatch(r"mean=([^=]+),std=([^=]+)", text.replace(" ", "")):
        try:
            mean, std = (tuple(parse_number(part) for part in group.split(",")) for group in found.groups())
        except ValueError:
            mean, std = (), ()
        mean, std = (one * channels if len(one) == 1 else one for one in (mean, std))
        if not len(mean) == len(std) == channels or min(std) <= 0:
            raise ConfigError(f"--normalize {text}: should be numbers, 1 or {channels} values each, std above 0")
        if max(mean) > 1:
            raise ConfigError(f"--normalize {text}: is for pixels in [0, 255]; here they lie in [0, 1]: divide by 255")
        return text, mean, std
    usual = Preprocessing().usual(channels)
    if text not in usual:
        allowed = f"auto, {', '.join(usual)} or mean=M,std=S for {channels} channels"
        raise ConfigError(f"--normalize '{text}': allowed: {allowed}{nearest(text, ['auto', *usual])}")
    return text, usual[text].mean, usual[text].std


def _outputs(model: Prepared, few: Tensor, target: Target, images: Images) -> int:
    """How many logits it gives; whatever fails on the first images is told here."""
    shown = "x".join(map(str, images.shape))
    labels = len(images.classes) or int(images.y.max()) + 1
    try:
        with frozen(model), torch.no_grad():
            return logits_of(call_model(model, few), few, labels - 1).shape[1]
    except Exception as error:
        raise CheckpointError(
            f"{target.name}: fails on images of {shown} of {images.name}: {one_line(error)}"
        ) from error


def class_order(target: Target, images: Images, outputs: int) -> tuple[list[int] | None, list[str]]:
    """The output of each class of the images, None where they are in the same order, and what has to be said of it.

    Classes are matched by their names where both sides have them, those of ImageNet by WordNet id too.

    Raises:
        CheckpointError: the model has other classes; says how many on each side.
    """
    wanted, has = images.classes, target.classes if len(target.classes) == outputs else ()
    named = any(not name.isdecimal() for name in wanted)
    for names in (has, wordnet_ids() if outputs == 1000 else ()):
        order = _by_name(wanted, names) if named and names else None
        if order == list(range(outputs)):
            return None, []
        if order is not None:
            return order, [f"{target.name}: its {outputs} outputs are matched to the {len(wanted)} classes by name"]
    if wanted and outputs != len(wanted):
        listed = ", ".join(wanted[:4]) + (", ..." if len(wanted) > 4 else "")
        raise CheckpointError(
            f"{target.name}: has {outputs} outputs; {images.name} has {len(wanted)} classes ({listed}), and their "
            "names match none of its own; --dataset takes images of its classes"
        )
    if named and has:
        other = f"({has[0]}, ...) have other names than those of {images.name} ({wanted[0]}, ...)"
        return None, [f"{target.name}: its classes {other}; they are taken in order"]
    return None, []


def _by_name(wanted: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """The output of each class, where each has one of its own; of `tench, Tinca tinca` each part counts."""
    parts = [(part, index) for index, name in enumerate(names) for part in _parts(name)]
    counts = Counter(part for part, _ in parts)
    table = {part: index for part, index in parts if counts[part] == 1}
    order = [table[name] for name in map(_plain, wanted) if name in table]
    return order if len(order) == len(set(order)) == len(wanted) else None


def _parts(name: str) -> set[str]:
    return {_plain(part) for part in (name, *name.split(","))}


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-]", " ", name.lower()).split())


def wordnet_ids() -> Sequence[str]:
    """Those of ImageNet's 1 000 classes, such as `n01440764`, in the order of every model's outputs."""
    return WORDNET_IDS.read_text(encoding="ascii").split()


def choose_normalization(model: Prepared, images: Images, device: str) -> tuple[Preprocessing, str]:
    """The usual normalisation with the highest clean accuracy, and a line that says so.

    It is tried on CHOICE images, even over the classes, the same for every limit and seed. Less than AHEAD ahead of
    none is none.
    """
    index, choices = _even(images.y, CHOICE), model.preprocessing.usual(images.shape[0])
    counts: dict[str, int] = {}
    for chunk in torch.split(index, CHUNK):
        part = images.sample(chunk)
        found = right_behind(model, choices, part.batch(slice(None), device), part.y.to(device))
        for name, right in found.items():
            counts[name] = counts.get(name, 0) + int(right.sum())
    best = max(counts, key=lambda name: counts[name], default="none")
    ahead = counts.get(best, 0) - counts.get("none", 0)
    if ahead < AHEAD * len(index) or (len(index) < CHOICE and ahead < SURELY):
        best = "none"
    shown = ", ".join(f"{name} {counts.get(name, 'fails')}" for name in choices)
    return choices[best], f"normalisation: {best} (right of {len(index)} images: {shown}); see --normalize"


def right_behind(model: Prepared, others: Mapping[str, Preprocessing], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Which images `x` (n, c, h, w) are right, (n,) bool, behind each other preprocessing that gives logits at all."""
    found = {}
    for name, other in others.items():
        with suppress(AttackError, AssertionError, ValueError), frozen(model), torch.no_grad():
            found[name] = predict(model.otherwise(other).to(x.device), x, CHUNK) == y
    return found


def _even(y: Tensor, count: int) -> Tensor:
    """At most `count` positions, in turn from each class, each in stored order."""
    rank = torch.zeros(len(y), dtype=torch.long)
    for label in set(y.tolist()):
        own = (y == label).nonzero()[:, 0]
        rank[own] = torch.arange(len(own))
    return torch.argsort(rank * (int(y.max()) + 1 if len(y) else 1) + y, stable=True)[:count].sort().values
