"""An evaluation that is ready to run: targets and their images are opened and fit each other, attacks are planned."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from robustcli.attacks import ATTACKS, describe
from robustcli.config import DataSpec, EvalSpec, Fit
from robustcli.data.folders import Files
from robustcli.data.images import Images, overlap, repeats
from robustcli.data.load import load
from robustcli.data.named import known_name
from robustcli.data.prefetch import Part, default_workers, read_ahead
from robustcli.device import pick_device
from robustcli.engine.memory import ChunkSize, samples_that_fit
from robustcli.engine.samples import Samples
from robustcli.errors import CheckpointError, ConfigError, DataError
from robustcli.measure.fitting import fit_target, read_edge
from robustcli.measure.plan import Planned, budget_warnings, make_plan
from robustcli.measure.record import Subject, finite
from robustcli.models.sources import open_target
from robustcli.models.target import Origin, Target
from robustcli.provenance import provenance
from robustcli.text import short_paths


class ImageSamples:
    """Images as an attack takes them, on a device, read when they are indexed.

    `broken` has those that were expected and cannot be decoded, by position, with the reason: they are black.

    Args:
        images: in memory, or read from files.
        device: where samples are wanted.
        workers: processes that decode what is expected.
    """

    def __init__(self, images: Images, device: str | torch.device = "cpu", workers: int = 0) -> None:
        self.images, self.device, self.workers = images, device, workers
        self.y, self.ids = images.y.to(device), images.ids.to(device)
        self._lock = Lock()
        self.broken: dict[int, str] = {}
        self._expected: deque[tuple[bytes, list[int]]] = deque()
        self._ahead: Iterator[Part] = iter(())
        self._recent: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> Samples:
        """The chosen samples, with their pixels."""
        place = index if isinstance(index, slice) else index.cpu()
        found = None if isinstance(place, slice) else self._find(place)
        x = self.images.batch(place, self.device) if found is None else found.to(self.device).float() / 255
        return Samples(x, self.y[index], self.ids[index])

    def expect(self, parts: Sequence[Tensor]) -> None:
        """Say which samples will be asked for, in turn: files are decoded ahead."""
        if isinstance(self.images.x, Files):
            places = [part.cpu() for part in parts if len(part)]
            with self._lock:
                self._expected = deque((place.numpy().tobytes(), place.tolist()) for place in places)
                self._ahead, self._recent = read_ahead(self.images.x, places, self.workers), {}

    def _find(self, place: Tensor) -> Tensor | None:
        """The pixels of samples that are expected, or that were asked for a moment ago."""
        key = place.numpy().tobytes()
        with self._lock:
            while any(key == other for other, _ in self._expected):
                (other, positions), (x, broken) = self._expected.popleft(), next(self._ahead)
                self._recent[other] = x
                self.broken |= {positions[i]: reason for i, reason in broken.items()}
                for old in list(self._recent)[:-RECENT]:
                    del self._recent[old]
            return self._recent.get(key)


@dataclass(frozen=True)
class Item:
    """One target, the images to measure it on and the attacks to run."""

    target: Target
    images: Images
    plan: list[Planned]

    @property
    def subject(self) -> Subject:
        """The target as records name it."""
        target = self.target
        before = target.input.as_dict() if target.input else {}
        return Subject(target.name, target.key, target.model, target.method, before)

    @property
    def pixels(self) -> int:
        """H x w of an image, or of what comes to the network where that is more."""
        before = self.target.input
        resized = before.size if before else None
        return max(math.prod(self.images.shape[1:]), math.prod(resized or ()))

    @property
    def rows(self) -> int:
        """How many rows of a document its plan makes."""
        return sum(planned.rows for planned in self.plan)


OTHERS = "name images that fit: --dataset"
UNSEEN = "name images that it has not seen: --dataset"

RECENT = 8
"""Chunks of files that are kept once they are decoded: each is looked at again when its images are judged."""

BATCH = 128
PIXELS = BATCH * 64 * 64
"""Of a chunk, at most: 56 images of 96 x 96 and 10 of 224 x 224. A layer of 32 filters keeps 67 MB of them."""

ON_A_GPU = 8
"""So many times PIXELS fill a GPU better."""


@dataclass(frozen=True)
class Session:
    """An evaluation that is ready to run: everything was opened and checked."""

    items: tuple[Item, ...]
    spec: EvalSpec
    device: str
    shard: Mapping[str, Any] | None = None

    @property
    def batch_size(self) -> int:
        """Samples a chunk, as they are now."""
        return self.chunk.samples

    @cached_property
    def chunk(self) -> ChunkSize:
        """As asked for, else BATCH, and fewer where images are large; once memory has run out, fewer for all."""
        size = self.spec.batch_size
        if size == "auto":
            first = [item.images.sample(torch.arange(len(item.images))[:2]) for item in self.items]
            size = min(
                samples_that_fit(item.target.module.to(self.device), few.batch(slice(None), self.device))
                for item, few in zip(self.items, first, strict=True)
            )
        if size is None:
            pixels = max((item.pixels for item in self.items), default=1)
            size = max(1, min(BATCH, PIXELS * (1 if self.device == "cpu" else ON_A_GPU) // pixels))
        return ChunkSize(size)

    @property
    def workers(self) -> int:
        """Processes that decode files ahead, where images are not in memory."""
        return default_workers() if self.spec.workers is None else self.spec.workers

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        return sum(item.rows for item in self.items)

    @property
    def total(self) -> int:
        """How many samples are attacked, counted once a row: the unit of progress."""
        return sum(item.rows * len(item.images) for item in self.items)

    def weights(self) -> dict[Planned, float]:
        """How much a sample of an attack counts in a bar over all, by the passes that it may need; 1 in the mean."""
        works = {one: one.attack.cost * one.runs / one.rows for item in self.items for one in item.plan}
        whole = sum(works[one] * one.rows * len(item.images) for item in self.items for one in item.plan)
        return {one: work * self.total / (whole or 1) for one, work in works.items()}

    def warnings(self) -> list[str]:
        """What may be a mistake, a line each."""
        unfinished = [
            f"{item.target.name}: its training was interrupted after epoch {origin.epochs} of "
            f"{origin.recipe.get('epochs', '?')}"
            for item in self.items
            if (origin := item.target.origin) is not None and not origin.complete
        ]
        data = [line for item in self.items for line in data_warnings(item.target, item.images, self.spec.split)]
        budgets = [line for item in self.items for line in budget_warnings(item.plan, item.images.shape)]
        return list(dict.fromkeys(unfinished + data + budgets))

    def notices(self) -> list[str]:
        """What was decided for the targets, a line each."""
        found = [line for item in self.items for line in item.target.notices]
        if self.spec.batch_size == "auto":
            found.append(f"--batch-size auto: {self.batch_size} samples a chunk")
        return list(dict.fromkeys(found))

    def resolved(self) -> dict[str, Any]:
        """The spec with every open option decided, and for each target what it is measured on and under."""
        runs = [
            {
                "checkpoint": item.target.name,
                "dataset": item.images.name,
                "n": len(item.images),
                "classes": list(item.images.classes),
                "attacks": [
                    describe(planned.attack)
                    | ({"eps": [str(eps) for eps in planned.budgets]} if planned.budgets else {})
                    for planned in item.plan
                ],
            }
            for item in self.items
        ]
        return self.spec.as_dict() | {"device": self.device, "runs": runs}

    def training(self) -> list[dict[str, Any]]:
        """Of each target that has one, the numbers of its training's epochs, null where they are not finite."""
        return [
            {
                "checkpoint": item.target.name,
                "checkpoint_sha256": item.target.key,
                "history": [dict(zip(epoch, finite(list(epoch.values())), strict=True)) for epoch in origin.history],
            }
            for item in self.items
            if (origin := item.target.origin) is not None and origin.history
        ]

    def provenance(self) -> dict[str, Any]:
        """Where its numbers come from."""
        fingerprint = ",".join(dict.fromkeys(item.images.fingerprint for item in self.items))
        spec = self.resolved()
        found = provenance(seed=self.spec.seed, device=self.device, data_fingerprint=fingerprint, spec=spec)
        return found | ({"shard": dict(self.shard)} if self.shard else {})


def open_session(paths: Sequence[Path], spec: EvalSpec, index: Path | None = None) -> Session:
    """Open the targets and their images, and plan the attacks; nothing is computed yet.

    Args:
        paths: the targets.
        spec: of the evaluation.
        index: the folder where what is known of image files is kept, as `load` takes it.

    Raises:
        RobustCliError: something is missing or does not fit.
    """
    loaded: dict[DataSpec, Images] = {}
    opened = []
    for path in paths:
        target = open_target(path, spec.weights)
        wanted = images_for(target, spec)
        as_they_are = wanted.model_copy(update={"fit": None})
        if as_they_are in loaded:  # of one size: the same for each target
            wanted = as_they_are
        elif wanted not in loaded:
            images = load(wanted, index)
            wanted = wanted if images.fit else as_they_are
            loaded[wanted] = images
        opened.append((target, wanted))
    named = _with_unique_names(loaded)
    whole = {wanted: partial(load, wanted.model_copy(update={"limit": None}), index) for wanted in loaded}
    return make_session([(target, named[wanted], whole[wanted]) for target, wanted in opened], spec)


def make_session(
    opened: Sequence[tuple[Target, Images, Callable[[], Images]]], spec: EvalSpec, own: Sequence[Planned] = ()
) -> Session:
    """Fit targets to their images, and plan the attacks.

    Args:
        opened: each target, its images, and what gives all images of their split, whatever the limit is.
        spec: of the evaluation.
        own: attacks beside those that the spec names; where it names none, they are all.

    Raises:
        RobustCliError: a target does not fit its images, or the spec does not fit them.
    """
    check_flags([target for target, _, _ in opened], spec)
    device = pick_device(spec.device)
    items = []
    for opened_target, images, whole in opened:
        target = fit_target(opened_target, images, whole, spec, device)
        images = images if images.classes else replace(images, classes=target.classes)
        check_fit(target, images, spec.split)
        plan = [] if own and not (spec.attacks or spec.preset) else make_plan(spec, images.shape)
        item = Item(target, images, [*plan, *own])
        check_gradients(item)
        items.append(item)
    session = Session(tuple(items), spec, device)
    _ = session.chunk  # `auto` calls the models
    return session


def check_flags(targets: Sequence[Target], spec: EvalSpec) -> None:
    """Refuse a flag of what goes before a network where every target has its own first layers.

    Raises:
        ConfigError: names the flag.
    """
    flags = ("normalize", "resize", "crop")
    chosen = [f"--{key} {value}" for key in flags if (value := getattr(spec, key)) not in (None, "auto")]
    if chosen and all(target.input is None for target in targets):
        raise ConfigError(f"{chosen[0]}: goes before a network from elsewhere; a checkpoint has its own first layers")


def _with_unique_names(images_by_spec: dict[DataSpec, Images]) -> dict[DataSpec, Images]:
    """The images; where two data sets share a name, such as a/bars.npz and b/bars.npz, as `a/bars` and `b/bars`."""
    sources = {(images.name, images.source) for images in images_by_spec.values()}
    repeated = [name for name, count in Counter(name for name, _ in sources).items() if count > 1]
    ends = short_paths([data.dataset for data in images_by_spec])
    return {
        data: replace(images, name=ends[data.dataset])
        if images.name in repeated and not known_name(data.dataset)
        else images
        for data, images in images_by_spec.items()
    }


def check_gradients(item: Item) -> None:
    """Refuse attacks that need gradients on a model that has none.

    Raises:
        ConfigError: names them, and those that need none.
    """
    if not item.target.without_gradients:
        return
    needing = [one.attack.name for one in item.plan if one.attack.needs == "gradients"]
    if needing:
        others = ", ".join(name for name, kind in ATTACKS.items() if str(kind.needs) in ("scores", "decisions"))
        raise ConfigError(
            f"--attack {', '.join(needing)}: needs gradients, and {item.target.name} has none "
            f"({item.target.without_gradients}); allowed: {others}"
        )


def images_for(target: Target, spec: EvalSpec) -> DataSpec:
    """The images to measure on: those that `spec` names, or else the held-out ones of what the target was trained on.

    A model trained on MNIST asks for MNIST itself: the bundled sample is a part of what it was trained on.

    Raises:
        DataError: nobody says which.
    """
    origin = target.origin
    dataset = spec.dataset or (origin.dataset if origin else None)
    if dataset is None:
        raise DataError(
            f"{target.name}: does not say what it was trained on; give the images to measure it on: --dataset"
        )
    return DataSpec(
        dataset=dataset,
        data_dir=spec.data_dir,
        split=spec.split,
        limit=spec.limit,
        allow_sample=spec.allow_sample and (origin is None or origin.name != "mnist"),
        fit=fit_for(target, spec),
    )


def fit_for(target: Target, spec: EvalSpec) -> Fit | None:
    """How images of different sizes become one: what the target takes, else what flags say, else the weights, else 224.

    None where the flags say that they stay as they are.
    """
    if target.shape is not None:
        return Fit(crop=target.shape[1:])
    if spec.resize is not None or spec.crop is not None:
        resize, crop = read_edge(spec.resize, "--resize"), read_edge(spec.crop, "--crop")
        edge = crop or resize
        return None if edge is None else Fit(crop=(edge, edge), resize=resize)
    before = target.input
    if before is None or before.size is None:
        return Fit(resize=256)
    return Fit(crop=before.size, resize=before.resize, interpolation=before.interpolation)


def check_fit(target: Target, images: Images, split: str) -> None:
    """Refuse images of other classes or another shape, and test images that the model was trained on.

    Raises:
        CheckpointError: the model does not fit the images.
        DataError: the images overlap its training set, by their ids or by their content.
    """
    origin, name = target.origin, target.name
    if target.shape != tuple(images.shape):
        raise CheckpointError(
            f"{name}: made for images of shape {target.shape}; {images.name} has {tuple(images.shape)}; {OTHERS}"
        )
    if target.classes != images.classes:
        known = f" of {origin.name}" if origin else ""
        raise CheckpointError(
            f"{name}: made for the {len(target.classes)} classes{known}; {images.name} has {len(images.classes)} others"
            f"; {OTHERS}"
        )
    if origin is None or split != "test":
        return
    if same_ids := overlap(origin.source, origin.ids, images):
        raise DataError(
            f"{name}: was trained on {same_ids} of the {len(images)} test images of {images.name}; {UNSEEN}"
        )
    equal = repeats(origin.hashes, images)
    if equal == len(images) or equal > _most_repeats(len(images)):
        same_file = origin.dataset.lower().endswith(".npz") and not _changed(origin, images)
        why = "it holds them in both splits;" if same_file else "was the data set divided anew since?"
        raise DataError(
            f"{name}: was trained on {equal} of the {len(images)} test images of {images.name}, pixel for pixel; {why} "
            f"{UNSEEN}"
        )


def _changed(origin: Origin, images: Images) -> bool:
    """Whether the images are of another file, by its digest, than the training set."""
    return origin.source.rpartition("/")[0] != images.source.rpartition("/")[0]


def _most_repeats(n: int) -> int:
    """How many of `n` test images may be training images, pixel for pixel: real data sets repeat some by mistake.

    Up to 1 %, or 3 where that is less, but never more than a tenth. So many are a warning; more are refused.
    """
    return min(max(3, n // 100), max(1, n // 10))


def data_warnings(target: Target, images: Images, split: str) -> list[str]:
    """What speaks against these images without forbidding them, a line each."""
    origin, name = target.origin, target.name
    if origin is None:
        return []
    lines = []
    # Of a folder, the digest is that of one split's files; a data set with a name has none.
    known = origin.dataset.lower().endswith(".npz") or (split == "train" and not known_name(origin.dataset))
    if known and origin.name == images.name and _changed(origin, images):
        lines.append(f"{images.name}: is not the data that {name} was trained on, or it has changed since")
    if equal := repeats(origin.hashes, images) if split == "test" else 0:
        lines.append(f"{name}: was trained on {equal} of the {len(images)} test images, pixel for pixel; so few pass")
    return lines
