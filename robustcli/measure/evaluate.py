"""From a session to records: the library call behind attack, evaluate and compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby

import torch
from torch import Tensor, nn

from robustcli.attacks import describe, label
from robustcli.attacks.base import BudgetAttack, Ensemble, MinimalAttack, at_budgets, passes_of
from robustcli.data.images import Images
from robustcli.data.prefetch import blocks_of, fits_a_block
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.outcome import Work, merge, predict_samples
from robustcli.engine.run import Outcome, stream_attack
from robustcli.engine.samples import Samples, SampleSource
from robustcli.errors import AttackError, DataError, RobustCliError, listed
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
    on_notice: Callable[[str], None] = lambda _: None,
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
        on_notice: takes a line on what could not be measured.

    Raises:
        AttackError: an attack or a model broke its contract; names the checkpoint.
    """
    keep = keep_images or session.spec.eight_bit
    for item in session.items:
        try:
            for images, outcome in run_item(
                item, session, keep, partial(on_progress, item.target.name), cache, on_notice
            ):
                record = to_record(item.subject, images, outcome, session.spec.split)
                rounded = correct_8bit(item.target.module, images, outcome, session.batch_size)
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
    on_notice: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Images, Outcome]]:
    """What each attack of an item's plan does to its images, with its share of the clean predictions' cost.

    Images that memory does not hold are read block by block, each once for all attacks that follow each other and meet
    every sample alone; an ensemble, whose members meet what is left of all, reads what it needs. What cannot be decoded
    is in no row, and a notice says so. A stop leaves rows on the blocks that are finished.
    """
    return _ItemRun(item, session, keep_images, on_progress, cache, on_notice).rows()


@dataclass(frozen=True)
class _ItemRun:
    """See `run_item`. By passes: `spent` is the cost of the clean predictions, `shares` what no row has got yet."""

    item: Item
    session: Session
    keep_images: bool
    on_progress: Callable[[Planned, float, float], None]
    cache: Cache | None
    on_notice: Callable[[str], None]
    spent: dict[int, Work] = field(default_factory=dict)
    shares: dict[int, Iterator[Work]] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[Images, Outcome]]:
        images, plan = self.item.images, self.item.plan
        clean: dict[int, Tensor] = {}
        if not isinstance(images.x, Tensor) and fits_a_block(images) and self._is_missing(images, plan).any():
            (images,) = self._read(images)
        if isinstance(images.x, Tensor) or not self._is_missing(images, plan).any():
            yield from self._whole(images, plan, clean)
            return
        for is_ensemble, found in groupby(plan, lambda one: isinstance(one.attack, Ensemble)):
            group = list(found)
            if not is_ensemble or not clean:
                images, clean = yield from self._in_blocks(images, () if is_ensemble else group, clean)
            if is_ensemble:
                yield from self._whole(images, group, clean)

    def _whole(
        self, images: Images, group: Sequence[Planned], clean: dict[int, Tensor]
    ) -> Iterator[tuple[Images, Outcome]]:
        """Attack all images at once, with the clean predictions that are missing."""
        for planned in group:
            eot = self._passes(planned)
            if eot not in clean:
                clean[eot] = self._predict(images, eot)
            for outcome in self._attack(images, planned, clean[eot]):
                yield images, self._charge(outcome, eot)

    def _in_blocks(
        self, images: Images, group: Sequence[Planned], clean: dict[int, Tensor]
    ) -> Generator[tuple[Images, Outcome], None, tuple[Images, dict[int, Tensor]]]:
        """Attack block by block; returns the images that can be decoded, with all their clean predictions."""
        parts: list[list[Outcome]] = []
        places, pred = [], {self._passes(one): list[Tensor]() for one in self.item.plan}
        missing, stopped = self._is_missing(images, group), None
        known = [images.take((~missing).nonzero()[:, 0])] if not missing.all() else []
        try:
            for block in chain(known, self._read(images.take(missing.nonzero()[:, 0]))):
                place = torch.isin(images.ids, block.ids).nonzero()[:, 0]
                own = {eot: clean[eot][place] if clean else self._predict(block, eot) for eot in pred}
                attacked = [self._attack(block, planned, own[self._passes(planned)]) for planned in group]
                parts.append([outcome for outcomes in attacked for outcome in outcomes])
                places.append(place)
                for eot, values in own.items():
                    pred[eot].append(values)
        except (KeyboardInterrupt, RobustCliError) as reason:
            stopped = reason
        order = torch.cat(places).argsort() if places else torch.arange(0)
        read = images.take(torch.cat(places)[order]) if places else images
        passes = [self._passes(planned) for planned in group for _ in range(planned.rows)]
        for eot, row in zip(passes, zip(*parts, strict=True), strict=False):
            yield read, self._charge(merge(row, order), eot)
        if stopped is not None:
            raise stopped
        return read, {eot: torch.cat(values)[order] for eot, values in pred.items()}

    def _read(self, images: Images) -> Iterator[Images]:
        """Blocks in memory; a notice says what cannot be decoded, and is in none of them."""
        broken: dict[str, str] = {}
        with closing(blocks_of(images, self.session.workers)) as blocks:
            for block, unreadable in blocks:
                for planned in self.item.plan if unreadable else ():
                    self.on_progress(planned, 0.0, float(planned.rows * len(unreadable)))
                broken |= unreadable
                yield block
        if broken:
            reasons = listed(f"{file} ({reason})" for file, reason in broken.items())
            some = f"{images.name}: {len(broken)} of {len(self.item.images)} images cannot be decoded"
            if len(broken) == len(self.item.images):
                raise DataError(f"{some}: {reasons}")
            self.on_notice(f"{some} and are left out: {reasons}")

    def _is_missing(self, images: Images, group: Sequence[Planned]) -> Tensor:
        """(n,) bool, which samples have to be looked at: something of them is not in the store."""
        journal, missing = self._journal(images), torch.zeros(len(images)).bool()
        if journal is None:
            return ~missing
        for planned in group or self.item.plan:
            eot = self._passes(planned)
            attacks = at_budgets(planned.attack, planned.budgets) if group else []
            for attack in (None, *attacks):
                missing |= ~journal.knows(attack, eot)
        return missing

    def _passes(self, planned: Planned) -> int:
        return max(self.session.spec.eot or 1, passes_of(planned.attack))

    def _charge(self, outcome: Outcome, eot: int) -> Outcome:
        """A row with its share of the clean predictions' cost."""
        if eot not in self.shares:
            rows = sum(one.rows for one in self.item.plan if self._passes(one) == eot)
            self.shares[eot] = iter(self.spent[eot].split(rows))
        share = next(self.shares[eot])
        return replace(outcome, seconds=outcome.seconds + share.seconds, forwards=outcome.forwards + share.forwards)

    def _journal(self, images: Images) -> CacheJournal | None:
        if self.cache is None:
            return None
        return CacheJournal(self.cache, self.item.target, images, self.session.spec, recalls=not self.keep_images)

    def _predict(self, images: Images, eot: int) -> Tensor:
        session, model = self.session, self.item.target.module.to(self.session.device)
        samples = ImageSamples(images, session.device)
        pred, spent = predict_clean(model, samples, session.batch_size, self._journal(images), eot)
        self.spent[eot] = self.spent.get(eot, Work()) + spent
        return pred

    def _attack(self, images: Images, planned: Planned, pred: Tensor) -> Iterator[Outcome]:
        session = self.session
        return stream_attack(
            self.item.target.module.to(session.device),
            planned.attack,
            ImageSamples(images, session.device, session.workers),
            budgets=planned.budgets,
            seed=session.spec.seed,
            batch_size=session.batch_size,
            pred=pred,
            keep_images=self.keep_images,
            dtype=getattr(torch, session.spec.dtype),
            on_progress=partial(self.on_progress, planned),
            journal=self._journal(images),
            eot=self._passes(planned),
        )


def predict_clean(
    model: nn.Module, samples: Samples | SampleSource, batch_size: int, journal: CacheJournal | None, eot: int = 1
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
