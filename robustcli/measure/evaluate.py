"""From checkpoints and a spec to rows: the library call behind attack, evaluate and compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks import describe
from robustcli.attacks.base import passes_of
from robustcli.config import DataSpec, EvalSpec, ModelSpec, validated
from robustcli.data.images import Images, overlap, repeats
from robustcli.data.load import DATASETS, load
from robustcli.device import pick_device
from robustcli.engine.outcome import Work
from robustcli.engine.run import Outcome, Samples, stream_attack
from robustcli.errors import AttackError, CheckpointError, ConfigError, DataError
from robustcli.measure.clean import predict_clean
from robustcli.measure.eightbit import correct_8bit
from robustcli.measure.plan import Planned, budget_warnings, make_plan
from robustcli.measure.record import Row, Subject, to_row
from robustcli.measure.shelf import Memory
from robustcli.models import checkpoint
from robustcli.models.checkpoint import Checkpoint
from robustcli.models.sources import load_model
from robustcli.text import short_paths


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that is ready to be measured."""

    subject: Subject
    model: nn.Module
    saved: Checkpoint


@dataclass(frozen=True)
class Result:
    """A row and what it was made of."""

    row: Row
    outcome: Outcome


def open_checkpoint(path: Path) -> Candidate:
    """A checkpoint's model and what it says of itself.

    Raises:
        CheckpointError: the file is missing, unreadable or lacks something, or its weights do not fit its network.
    """
    saved = checkpoint.load(path)
    try:
        spec = validated(ModelSpec, saved.model, "its model")
        model = load_model(spec, saved.state_dict, path)
        method = str(dict(saved.spec["method"])["name"])
        validated(DataSpec, {"dataset": saved.spec["dataset"]}, "its spec")
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: is unusable: {reason}") from None
    return Candidate(Subject(str(path), checkpoint.sha256(path), spec.name, method), model, saved)


def images_for(candidate: Candidate, spec: EvalSpec) -> DataSpec:
    """The images to measure on: those that `spec` names, or else the held-out ones of the checkpoint's data set.

    A model trained on MNIST asks for MNIST itself: the bundled sample is a part of what it was trained on.
    """
    return DataSpec(
        dataset=spec.dataset or candidate.saved.spec["dataset"],
        data_dir=spec.data_dir,
        split=spec.split,
        limit=spec.limit,
        allow_sample=spec.allow_sample and candidate.saved.data["name"] != "mnist",
    )


def check_fit(candidate: Candidate, images: Images, split: str) -> None:
    """Refuse images of other classes or another shape, and test images that the model was trained on.

    Raises:
        CheckpointError: the model does not fit the images.
        DataError: the images overlap its training set, by their ids or by their content.
    """
    saved, path = candidate.saved, candidate.subject.checkpoint
    shape = tuple(saved.model[key] for key in ("channels", "height", "width"))
    if shape != tuple(images.shape):
        raise CheckpointError(f"{path}: made for images of shape {shape}; {images.name} has {tuple(images.shape)}")
    if tuple(saved.data["classes"]) != images.classes:
        raise CheckpointError(
            f"{path}: made for the {len(saved.data['classes'])} classes of {saved.data['name']}; "
            f"{images.name} has {len(images.classes)} others"
        )
    seen = overlap(saved.data["source"], saved.train_ids, images) if split == "test" else 0
    if seen:
        raise DataError(f"{path}: was trained on {seen} of the {len(images)} test images of {images.name}")
    equal = repeats(saved.train_hashes, images) if split == "test" else 0
    if equal == len(images) or equal > _few(len(images)):
        digest, now = (source.rpartition("/")[0] for source in (saved.data["source"], images.source))
        same_file = saved.spec["dataset"].lower().endswith(".npz") and digest == now
        why = "it holds them in both splits" if same_file else "was the data set divided anew since?"
        raise DataError(
            f"{path}: was trained on {equal} of the {len(images)} test images of {images.name}, pixel for pixel; {why}"
        )


def _few(n: int) -> int:
    """How many of `n` test images may be training images, pixel for pixel: real data sets repeat some by mistake.

    Up to 1 %, or 3 where that is less, but never more than a tenth. So many are told; more are refused.
    """
    return min(max(3, n // 100), max(1, n // 10))


def data_warnings(candidate: Candidate, images: Images, split: str) -> list[str]:
    """What speaks against these images without forbidding them, a line each."""
    saved, path = candidate.saved, candidate.subject.checkpoint
    lines = []
    digest, now = (source.rpartition("/")[0] for source in (saved.data["source"], images.source))
    # Of a folder, the digest is that of one split's files; a data set with a name has none.
    trained_on = saved.spec["dataset"]
    known = trained_on.lower().endswith(".npz") or (split == "train" and trained_on not in DATASETS)
    if known and saved.data["name"] == images.name and digest != now:
        lines.append(f"{images.name}: is not the data that {path} was trained on, or it has changed since")
    if equal := repeats(saved.train_hashes, images) if split == "test" else 0:
        lines.append(f"{path}: was trained on {equal} of the {len(images)} test images, pixel for pixel; so few pass")
    return lines


@dataclass(frozen=True)
class Item:
    """One checkpoint, the images to measure it on and the attacks to run."""

    candidate: Candidate
    images: Images
    plan: list[Planned]

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        return sum(planned.rows for planned in self.plan)


@dataclass(frozen=True)
class Session:
    """An evaluation that is ready to run: everything was opened and checked."""

    items: tuple[Item, ...]
    spec: EvalSpec
    device: str

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
            f"{item.candidate.subject.checkpoint}: its training was interrupted after epoch "
            f"{len(item.candidate.saved.history)} of {item.candidate.saved.spec.get('epochs', '?')}"
            for item in self.items
            if not item.candidate.saved.complete
        ]
        data = [line for item in self.items for line in data_warnings(item.candidate, item.images, self.spec.split)]
        budgets = [line for item in self.items for line in budget_warnings(item.plan, item.images.shape)]
        return list(dict.fromkeys(unfinished + data + budgets))

    def resolved(self) -> dict[str, Any]:
        """The spec with every open option decided, and for each checkpoint what it is measured on and under."""
        runs = [
            {
                "checkpoint": item.candidate.subject.checkpoint,
                "dataset": item.images.name,
                "n": len(item.images),
                "attacks": [
                    describe(planned.attack)
                    | ({"eps": [str(eps) for eps in planned.budgets]} if planned.budgets else {})
                    for planned in item.plan
                ],
            }
            for item in self.items
        ]
        return self.spec.as_dict() | {"device": self.device, "runs": runs}


def open_session(paths: Sequence[Path], spec: EvalSpec) -> Session:
    """Open the checkpoints and their images, and plan the attacks; nothing is computed yet.

    Raises:
        RobustCliError: something is missing or does not fit.
    """
    device = pick_device(spec.device)
    loaded: dict[DataSpec, Images] = {}
    opened = []
    for path in paths:
        candidate = open_checkpoint(path)
        wanted = images_for(candidate, spec)
        if wanted not in loaded:
            loaded[wanted] = load(wanted)
        check_fit(candidate, loaded[wanted], spec.split)
        opened.append((candidate, wanted))
    loaded = _told_apart(loaded)
    items = [Item(one, loaded[wanted], make_plan(spec, loaded[wanted].shape)) for one, wanted in opened]
    return Session(tuple(items), spec, device)


def _told_apart(loaded: dict[DataSpec, Images]) -> dict[DataSpec, Images]:
    """The images; where two data sets share a name, such as a/bars.npz and b/bars.npz, as `a/bars` and `b/bars`."""
    sources = {(images.name, images.source) for images in loaded.values()}
    shared = [name for name, count in Counter(name for name, _ in sources).items() if count > 1]
    ends = short_paths([wanted.dataset for wanted in loaded])
    return {
        wanted: replace(images, name=ends[wanted.dataset])
        if images.name in shared and wanted.dataset not in DATASETS
        else images
        for wanted, images in loaded.items()
    }


def evaluate(
    session: Session,
    *,
    keep_images: bool = False,
    on_progress: Callable[[str, Planned, float, float], None] = lambda *_: None,
    memory: Memory | None = None,
) -> Iterator[Result]:
    """Measure each checkpoint under each attack of its plan, row by row as they are finished.

    The clean predictions of a checkpoint are made once, and their cost is shared evenly by its rows; of attacks that
    average over passes, once for each number of passes. Where images are kept, or the spec says `eight_bit`, rows tell
    what rounding does to them; that is no part of their cost.

    Args:
        session: what `open_session` made.
        keep_images: keep the adversarial images in each result's outcome.
        on_progress: told the checkpoint and the attack, how many more samples were worked off, and how many turned out
            to need no work: see `run_attack`.
        memory: what was measured before. Where images are needed all is measured: not every sample's image is kept.

    Raises:
        AttackError: an attack or a model broke its contract; names the checkpoint.
    """
    keep = keep_images or session.spec.eight_bit
    for item in session.items:
        subject = item.candidate.subject
        try:
            for outcome in run_item(item, session, keep, partial(on_progress, subject.checkpoint), memory):
                row = to_row(subject, item.images.name, item.images.ids.tolist(), outcome, session.spec.split)
                rounded = correct_8bit(item.candidate.model, item.images, outcome, session.spec.batch_size)
                kept = outcome if keep_images else replace(outcome, x_adv=None)
                yield Result(replace(row, correct_8bit=rounded), kept)
        except AttackError as error:
            raise AttackError(f"{subject.checkpoint}: {error}") from None


def run_item(
    item: Item,
    session: Session,
    keep_images: bool,
    on_progress: Callable[[Planned, float, float], None],
    memory: Memory | None,
) -> Iterator[Outcome]:
    """What each attack of an item's plan does to its images, with its share of the clean predictions' cost."""
    spec, images, candidate = session.spec, item.images, item.candidate
    shelf = None
    if memory is not None:
        shelf = memory.shelf(candidate.subject, candidate.saved, images, spec, recalls=not keep_images)
    model = candidate.model.to(session.device)
    samples = Samples(
        images.pixels(slice(None), session.device), images.y.to(session.device), images.ids.to(session.device)
    )
    passes = [max(spec.eot or 1, passes_of(planned.attack)) for planned in item.plan]
    clean: dict[int, tuple[Tensor, Iterator[Work]]] = {}
    for planned, eot in zip(item.plan, passes, strict=True):
        if eot not in clean:
            pred, spent = predict_clean(model, samples, spec, shelf, eot)
            rows = sum(one.rows for one, its in zip(item.plan, passes, strict=True) if its == eot)
            clean[eot] = pred, iter(spent.split(rows))
        pred, shares = clean[eot]
        found = stream_attack(
            model,
            planned.attack,
            samples,
            budgets=planned.budgets,
            seed=spec.seed,
            batch_size=spec.batch_size,
            pred=pred,
            keep_images=keep_images,
            dtype=getattr(torch, spec.dtype),
            on_progress=partial(on_progress, planned),
            journal=shelf,
            eot=eot,
        )
        for outcome in found:
            share = next(shares)
            yield replace(outcome, seconds=outcome.seconds + share.seconds, forwards=outcome.forwards + share.forwards)
