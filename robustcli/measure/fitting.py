"""A network from elsewhere is fitted to images: their size, its normalisation, the order of their classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustcli.config import EvalSpec
from robustcli.data.images import Images
from robustcli.engine.guard import Meter, frozen
from robustcli.errors import CheckpointError, ConfigError, nearest
from robustcli.fields import parse_number
from robustcli.models.imagenet import wordnet_order
from robustcli.models.inputs import NORMALISATIONS, Prepared, Preprocessing
from robustcli.models.target import Target, Wants, key_of

FEW = 16
"""How many images an exported graph is held against its reference on."""

CHOICE = 256
"""How many images a normalisation is chosen on, even over the classes."""

AHEAD = 0.02
"""By how much a normalisation has to be ahead of none, in accuracy."""

CHUNK = 32
GIVEN = ("normalize", "resize", "crop")


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
    if target.wants is None:
        return target
    wants, (channels, *_) = target.wants, images.shape
    few = images.batch(_even(images.y, FEW), device)
    network = target.module.to(device)
    before = _sizes(wants, spec, images.shape)
    explicit = read_normalization(spec.normalize, channels) if spec.normalize != "auto" else None
    own = wants.preprocessing if wants.known and not wants.random else None
    if explicit is not None:
        before = before.with_normalization(*explicit)
    elif own is not None:
        before = before.with_normalization(own.normalize, own.mean, own.std)
    outputs = _outputs(Prepared(network, before), few, target, images)
    if wants.compare is not None:
        with torch.no_grad():
            wants.compare(Prepared(network, before).before(few))
    order, notices = class_order(target, images, outputs)
    if explicit is None and own is None and not wants.random:
        before, line = choose_normalization(Prepared(network, before, order), whole(), device)
        notices.append(f"{target.name}: {line}")
    made = Prepared(network, before, order)
    reason = wants.without_gradients()
    if reason:
        notices.append(f"{target.name}: could not be converted to torch ({reason}): it has no gradients")
    return replace(
        target,
        module=made,
        key=key_of(made, target.key),
        shape=images.shape,
        classes=images.classes or tuple(map(str, range(outputs))),
        wants=None,
        input=before.as_dict(),
        notices=(*target.notices, *notices),
        without_gradients=reason,
    )


def read_normalization(text: str, channels: int) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
    """(name, mean, std) of `--normalize`, for so many channels.

    Raises:
        ConfigError: an unknown name, or as many values as there are no channels.
    """
    if text == "none":
        return "none", (), ()
    if found := re.fullmatch(r"mean=([^=]+),std=([^=]+)", text.replace(" ", "")):
        try:
            mean, std = (tuple(parse_number(part) for part in group.split(",")) for group in found.groups())
        except ValueError:
            raise ConfigError(
                f"--normalize {text}: should be numbers, as in mean=0.5,0.5,0.5,std=0.25,0.25,0.25"
            ) from None
        mean, std = (one * channels if len(one) == 1 else one for one in (mean, std))
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ConfigError(f"--normalize {text}: should be 1 or {channels} values each, std above 0")
        return text, mean, std
    fitting = {name: value for name, value in NORMALISATIONS.items() if len(value[0]) == channels}
    if text not in fitting:
        allowed = f"auto, none, {', '.join(fitting)} or mean=..,std=.. for {channels} channels"
        raise ConfigError(f"--normalize '{text}': allowed: {allowed}{nearest(text, ['auto', 'none', *fitting])}")
    return text, *fitting[text]


def _sizes(wants: Wants, spec: EvalSpec, shape: tuple[int, int, int]) -> Preprocessing:
    """Resizing and cropping, without a normalisation: what the flags say, else what brings the images to its size."""
    resize, crop = (_size(getattr(spec, key), f"--{key}") for key in ("resize", "crop"))
    said = wants.preprocessing or Preprocessing()
    interpolation = said.interpolation
    if spec.resize is not None or spec.crop is not None:
        return Preprocessing(resize=resize, crop=(crop, crop) if crop else None, interpolation=interpolation)
    if wants.size is None or wants.size == shape[1:]:
        return Preprocessing()
    if said.resize is None:
        return Preprocessing(resize=wants.size, interpolation=interpolation)
    return Preprocessing(resize=said.resize, crop=said.crop, interpolation=interpolation)


def _size(text: str | None, flag: str) -> int | None:
    if text is None or text == "none":
        return None
    if not text.isdecimal() or not 0 < int(text) <= 4096:
        raise ConfigError(f"{flag} {text}: should be none or a number of pixels, 1 to 4096")
    return int(text)


def _outputs(model: Prepared, few: Tensor, target: Target, images: Images) -> int:
    """How many logits it gives; whatever fails on the first images is told here."""
    shown = "x".join(map(str, images.shape))
    try:
        with frozen(model), torch.no_grad():
            return int(Meter(model).exact(few).shape[1])
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{target.name}: does not take images of {shown} of {images.name}: {reason}") from error


def class_order(target: Target, images: Images, outputs: int) -> tuple[list[int] | None, list[str]]:
    """The output of each class of the images, None where they are in the same order, and what has to be said of it.

    Classes are matched by their names where both sides have them, those of ImageNet by WordNet id too.

    Raises:
        CheckpointError: the model has other classes; says how many on each side.
    """
    wanted, has = images.classes, target.classes
    if not wanted:
        return None, []
    named = any(not name.isdecimal() for name in wanted)
    order = wordnet_order(wanted) if outputs == 1000 else None
    if order is None and named and len(has) == outputs:
        table = _by_name(has)
        found = [table.get(_plain(name)) for name in wanted]
        if None not in found and len(set(found)) == len(found):
            order = [one for one in found if one is not None]
    if order is not None:
        if order == list(range(outputs)):
            return None, []
        return order, [f"{target.name}: its {outputs} outputs are matched to the {len(wanted)} classes by name"]
    if outputs != len(wanted):
        listed = ", ".join(wanted[:4]) + (", ..." if len(wanted) > 4 else "")
        raise CheckpointError(
            f"{target.name}: has {outputs} outputs; {images.name} has {len(wanted)} classes ({listed}), and their "
            "names match none of its own"
        )
    if named and len(has) == outputs:
        names = f"({has[0]}, ...) have other names than those of {images.name} ({wanted[0]}, ...)"
        return None, [f"{target.name}: its classes {names}; they are taken in order"]
    return None, []


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\-]", " ", name.lower()).split())


def _by_name(names: Sequence[str]) -> dict[str, int]:
    """The output of each name that only one has; of `tench, Tinca tinca` each part counts."""
    table: dict[str, int] = {}
    twice: set[str] = set()
    for index, name in enumerate(names):
        for part in dict.fromkeys(map(_plain, [name, *name.split(",")])):
            if part in table:
                twice.add(part)
            table[part] = index
    return {part: index for part, index in table.items() if part not in twice}


def choose_normalization(model: Prepared, images: Images, device: str) -> tuple[Preprocessing, str]:
    """The usual normalisation with the highest clean accuracy, and a line that says so.

    It is tried on CHOICE images, even over the classes, the same for every limit and seed. Less than AHEAD ahead of
    none is none.
    """
    index, sizes = _even(images.y, CHOICE), model.preprocessing
    usual = {name: value for name, value in NORMALISATIONS.items() if len(value[0]) == images.shape[0]}
    choices = {"none": sizes.with_normalization("none")}
    choices |= {name: sizes.with_normalization(name, *value) for name, value in usual.items()}
    right = {name: _right(model.otherwise(one), images, index, device) for name, one in choices.items()}
    best = max(right, key=lambda name: right[name])
    if right[best] - right["none"] < AHEAD * len(index):
        best = "none"
    counts = ", ".join(f"{name} {count}" for name, count in right.items())
    return choices[best], f"normalisation: {best} (right of {len(index)} images: {counts}); see --normalize"


def _right(model: Prepared, images: Images, index: Tensor, device: str) -> int:
    count = 0
    with frozen(model), torch.no_grad():
        meter = Meter(model)
        for chunk in torch.split(index, CHUNK):
            pred = meter.exact(images.batch(chunk, device)).argmax(1).cpu()
            count += int((pred == images.y[chunk]).sum())
    return count


def _even(y: Tensor, count: int) -> Tensor:
    """At most `count` positions, in turn from each class, each in stored order."""
    rank = torch.zeros(len(y), dtype=torch.long)
    for label in set(y.tolist()):
        own = (y == label).nonzero()[:, 0]
        rank[own] = torch.arange(len(own))
    return torch.argsort(rank * (int(y.max()) + 1 if len(y) else 1) + y, stable=True)[:count].sort().values
