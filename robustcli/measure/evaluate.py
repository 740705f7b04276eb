"""From a session to records: the library call behind attack, evaluate and compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from robustcli.attacks import describe, label
from robustcli.attacks.base import BudgetAttack, Ensemble, MinimalAttack, passes_of
from robustcli.data.images import Images
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import ChunkSize
from robustcli.engine.outcome import Work, predict_samples
from robustcli.engine.run import Outcome, stream_attack
from robustcli.engine.samples import Samples, SampleSource
from robustcli.errors import AttackError
from robustcli.measure.eightbit import correct_8bit
from robustcli.measure.journal import CacheJournal
from robustcli.measure.plan import Planned
from robustcli.measure.record import Kind, Record, Sampled, Subject
from robustcli.measure.session import ImageSamples, Item, Session
from robustcli.store.cache import Cache


@dataclass(frozen=True)
class Result:
    """A record and what it was made of."""

    record: Record
    outcome: Outcome


def evaluate(
    session: Session,
    *,
    keep_images: bool = False,
    on_progress: Callable[[str, Planned, float, float], None] = lambda *_: None,
    cache: Cache | None = None,
) -> Iterator[Result]:
    """Measure each checkpoint under each attack of its plan, row by row as they are finished.

    The clean predictions of a checkpoint are made once, and their cost is shared evenly by its rows; of attacks that
    average over passes, once for each number of passes. Where images are kept, or the spec says `eight_bit`, rows tell
    what rounding does to them; that is no part of their cost.

    Args:
        session: what `open_session` made.
        keep_images: keep the adversarial images in each result's outcome.
        on_progress: takes the checkpoint and the attack, how many more samples were worked off, and how many turned out
            to need no work: see `run_attack`.
        cache: what was measured before. Where images are needed all is measured: not every sample's image is kept.

    Raises:
        AttackError: an attack or a model broke its contract; names the checkpoint.
    """
    keep = keep_images or session.spec.eight_bit
    for item in session.items:
        try:
            for outcome in run_item(item, session, keep, partial(on_progress, item.target.name), cache):
                record = to_record(item.subject, item.images, outcome, session.spec.split)
                rounded = correct_8bit(item.target.module, item.images, outcome, session.batch_size)
                kept = outcome if keep_images else replace(outcome, x_adv=None)
                yield Result(replace(record, correct_8bit=rounded), kept)
        except AttackError as error:
            raise AttackError(f"{item.target.name}: {error}") from None


def to_record(subject: Subject, images: Images, outcome: Outcome, split: str = "test") -> Record:
    """What an attack did to a model's images, in their order."""
    attack = outcome.attack
    kind: Kind = "budget"
    if isinstance(attack, Ensemble):
        kind = "ensemble"
    elif isinstance(attack, MinimalAttack):
        kind = "minimal"
    return Record(
        subject=subject,
        dataset=images.name,
        split=split,
        kind=kind,
        attack={key: value for key, value in describe(attack).items() if key != "eps"},
        label=label(attack),
        norm=attack.norm.name,
        budget=str(attack.eps) if isinstance(attack, BudgetAttack) else None,
        ids=tuple(images.ids.tolist()),
        y=tuple(images.y.tolist()),
        pred=tuple(outcome.pred.tolist()),
        pred_after=tuple(outcome.pred_after.tolist()),
        robust=tuple(map(int, outcome.robust.tolist())),
        distance=tuple(outcome.distance.tolist()),
        by_iter=outcome.by_iter,
        seconds=outcome.seconds,
        forwards=outcome.forwards,
        backwards=outcome.backwards,
        ensemble=outcome.ensemble,
        cached=outcome.recalled,
        sampled=None if outcome.sampled is None else Sampled(**outcome.sampled),
    )


def run_item(
    item: Item,
    session: Session,
    keep_images: bool,
    on_progress: Callable[[Planned, float, float], None],
    cache: Cache | None,
) -> Iterator[Outcome]:
    """What each attack of an item's plan does to its images, with its share of the clean predictions' cost."""
    spec, images = session.spec, item.images
    journal = None
    if cache is not None:
        journal = CacheJournal(cache, item.target, images, spec, recalls=not keep_images)
    model = item.target.module.to(session.device)
    samples = ImageSamples(images, session.device)
    passes = [max(spec.eot or 1, passes_of(planned.attack)) for planned in item.plan]
    clean: dict[int, tuple[Tensor, Iterator[Work]]] = {}
    for planned, eot in zip(item.plan, passes, strict=True):
        if eot not in clean:
            pred, spent = predict_clean(model, samples, session.chunk, journal, eot)
            rows = sum(one.rows for one, its in zip(item.plan, passes, strict=True) if its == eot)
            clean[eot] = pred, iter(spent.split(rows))
        pred, shares = clean[eot]
        found = stream_attack(
            model,
            planned.attack,
            samples,
            budgets=planned.budgets,
            seed=spec.seed,
            batch_size=session.chunk,
            pred=pred,
            keep_images=keep_images,
            dtype=getattr(torch, spec.dtype),
            on_progress=partial(on_progress, planned),
            journal=journal,
            eot=eot,
        )
        for outcome in found:
            share = next(shares)
            yield replace(outcome, seconds=outcome.seconds + share.seconds, forwards=outcome.forwards + share.forwards)


def predict_clean(
    model: nn.Module,
    samples: Samples | SampleSource,
    batch_size: int | ChunkSize,
    journal: CacheJournal | None,
    eot: int = 1,
) -> tuple[Tensor, Work]:
    """The clean predictions (n,), and what was spent on them; those that are known are not made again.

    Of a randomised model they are those of the mean logits of `eot` passes, as those after the attack are.
    """
    n = len(samples)
    pred, known, spent = torch.zeros(n).long(), torch.zeros(n).bool(), Work()
    if journal is not None:
        pred, known, spent = journal.predictions(eot)
    missing = (~known).nonzero()[:, 0]
    if len(missing):
        index = missing.to(samples.y.device)
        started = time.perf_counter()
        with frozen(model):
            meter = Meter(model, largest=int(samples.y.max()))
            pred[missing] = predict_samples(meter, samples, batch_size, eot, index).cpu()
        work = Work(time.perf_counter() - started, meter.forwards)
        spent += work
        if journal is not None:
            journal.keep_predictions(missing, pred[missing], samples.y[index].cpu(), work, eot)
    return pred.to(samples.y.device), spent
