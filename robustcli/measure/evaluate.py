"""From a session to records: the library call behind attack, evaluate and compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby

import torch
from torch import Tensor, nn

from robustcli.attacks import describe, label
from robustcli.attacks.base import BudgetAttack, Ensemble, MinimalAttack, at_budgets, passes_of
from robustcli.data.folders import Files
from robustcli.data.images import Images, describe_broken
from robustcli.data.prefetch import blocks_of, fits_a_block
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import ChunkSize
from robustcli.engine.outcome import Work, merge, predict_samples
from robustcli.engine.ranks import Ranks, SharedJournal
from robustcli.engine.run import Outcome, stream_attack
from robustcli.engine.samples import Samples, SampleSource
from robustcli.errors import AttackError, DataError, RobustCliError
from robustcli.measure.eightbit import correct_8bit
from robustcli.measure.journal import CacheJournal
from robustcli.measure.plan import Planned
from robustcli.measure.record import Kind, Record, Sampled, Subject
from robustcli.measure.session import ImageSamples, Item, Session
from robustcli.store.cache import Cache


@dataclass(frozen=True)
class Result:
    """A record and what it was made of: the images are those that could be read."""

    record: Record
    outcome: Outcome
    images: Images


def evaluate(
    session: Session,
    *,
    keep_images: bool = False,
    on_progress: Callable[[str, Planned, float, float], None] = lambda *_: None,
    cache: Cache | None = None,
    on_notice: Callable[[str], None] = lambda _: None,
    ranks: Ranks | None = None,
    on_judged: Callable[[str, Sequence[tuple[int, int]]], None] = lambda *_: None,
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
        ranks: the processes that share the work, each of which makes this call; rank 0 alone has a cache.
        on_judged: takes an attack's name, and what `stream_attack` says of its samples.

    Raises:
        AttackError: an attack or a model broke its contract; names the checkpoint.
        ProcessError: another process failed.
    """
    keep = keep_images or session.spec.eight_bit
    for item in session.items:
        try:
            progress = partial(on_progress, item.target.name)
            for images, outcome in run_item(item, session, keep, progress, cache, on_notice, ranks, on_judged):
                record = to_record(item.subject, images, outcome, session.spec.split)
                rounded = correct_8bit(item.target.module, images, outcome, session.batch_size)
                kept = outcome if keep_images else replace(outcome, x_adv=None)
                yield Result(replace(record, correct_8bit=rounded), kept, images)
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
    ranks: Ranks | None = None,
    on_judged: Callable[[str, Sequence[tuple[int, int]]], None] = lambda *_: None,
) -> Iterator[tuple[Images, Outcome]]:
    """What each attack of an item's plan does to its images, with its share of the clean predictions' cost.

    Images that memory does not hold are read block by block, each once for all attacks that follow each other and meet
    every sample alone; an ensemble, whose members meet what is left of all, reads what it needs. What cannot be decoded
    is in no row, and a notice says so. A stop leaves rows on the blocks that are finished.
    """
    return _ItemRun(item, session, keep_images, on_progress, cache, on_notice, ranks, on_judged).rows()


@dataclass(frozen=True)
class _ItemRun:
    """See `run_item`. By passes: `spent` is the cost of the clean predictions, `shares` what no row has got yet."""

    item: Item
    session: Session
    keep_images: bool
    on_progress: Callable[[Planned, float, float], None]
    cache: Cache | None
    on_notice: Callable[[str], None]
    ranks: Ranks | None
    on_judged: Callable[[str, Sequence[tuple[int, int]]], None]
    spent: dict[int, Work] = field(default_factory=dict)
    shares: dict[int, Iterator[Work]] = field(default_factory=dict)
    journals: dict[int, CacheJournal] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[Images, Outcome]]:
        images, plan = self.item.images, self.item.plan
        clean: dict[int, Tensor] = {}
        if not isinstance(images.x, Tensor) and fits_a_block(images) and self._is_missing(images, plan).any():
            (images,) = self._read(images)
        if isinstance(images.x, Tensor) or not self._is_missing(images, plan).any():
            yield from self._whole(images, plan, clean)
            return
        if self.ranks is not None:  # each reads its own part of whatever is attacked
            images, clean = self._predict_readable(images)
            yield from self._whole(images, plan, clean)
            return
        for is_ensemble, found in groupby(plan, lambda one: isinstance(one.attack, Ensemble)):
            if is_ensemble:
                images, clean = (images, clean) if clean else self._predict_readable(images)
                yield from self._whole(images, list(found), clean)
            else:
                images, clean = yield from self._in_blocks(images, list(found), clean)

    def _whole(
        self, images: Images, group: Sequence[Planned], clean: dict[int, Tensor]
    ) -> Iterator[tuple[Images, Outcome]]:
        """Attack all images at once, with the clean predictions that are missing."""
        for planned in group:
            eot = self._passes(planned)
            if eot not in clean:
                clean[eot] = self._predict(ImageSamples(images, self.session.device), eot)
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
                samples = ImageSamples(block, self.session.device)
                own = {eot: clean[eot][place] if clean else self._predict(samples, eot) for eot in pred}
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

    def _predict_readable(self, images: Images) -> tuple[Images, dict[int, Tensor]]:
        """The images that can be decoded, and all their clean predictions."""
        clean: dict[int, Tensor] = {}
        for eot in dict.fromkeys(map(self._passes, self.item.plan)):
            samples = ImageSamples(images, self.session.device, self.session.workers)
            clean[eot] = self._predict(samples, eot)
            readable = (clean[eot] >= 0).cpu()
            assert isinstance(images.x, Files)
            unread = (~readable).nonzero()[:, 0]
            reasons = images.x.read(unread[:3])[1]  # of those that a line names: other ranks may have read them
            self._leave_out({images.x.files[i]: reasons.get(k, "") for k, i in enumerate(unread.tolist())})
            images = images.take(readable.nonzero()[:, 0])
            clean = {passes: pred[readable.to(pred.device)] for passes, pred in clean.items()}
        return images, clean

    def _read(self, images: Images) -> Iterator[Images]:
        """Blocks in memory, without what cannot be decoded."""
        broken: dict[str, str] = {}
        with closing(blocks_of(images, self.session.workers)) as blocks:
            for block, unreadable in blocks:
                broken |= unreadable
                yield block
        self._leave_out(broken)

    def _leave_out(self, broken: Mapping[str, str]) -> None:
        """Say that files cannot be decoded, and why.

        Raises:
            DataError: none can.
        """
        if not broken:
            return
        line = describe_broken(self.item.images.name, broken, len(self.item.images))
        if len(broken) == len(self.item.images):
            raise DataError(line)
        for planned in self.item.plan:
            self.on_progress(planned, 0.0, float(planned.rows * len(broken)))
        self.on_notice(line)

    def _is_missing(self, images: Images, group: Sequence[Planned]) -> Tensor:
        """(n,) bool, which samples have to be looked at: something of them is not in the store, which rank 0 has."""
        journal = self._journal(images)
        missing = torch.full((len(images),), journal is None and (self.ranks is None or self.ranks.rank == 0))
        if journal is not None:
            for planned in group:
                for attack in (None, *at_budgets(planned.attack, planned.budgets)):
                    missing |= ~journal.knows(attack, self._passes(planned))
        return missing if self.ranks is None else self.ranks.sum(missing.long()).bool()

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
        if self.cache is not None and id(images) not in self.journals:  # one at a time: it has the images' digests
            self.journals.clear()
            journal = CacheJournal(
                self.cache, self.item.target, images, self.session.spec, recalls=not self.keep_images
            )
            self.journals[id(images)] = journal
        return self.journals.get(id(images))

    def _predict(self, samples: ImageSamples, eot: int) -> Tensor:
        session, model = self.session, self.item.target.module.to(self.session.device)
        journal = self._journal(samples.images)
        pred, spent = predict_clean(model, samples, session.chunk, journal, eot, self.ranks)
        self.spent[eot] = self.spent.get(eot, Work()) + spent
        return pred

    def _attack(self, images: Images, planned: Planned, pred: Tensor) -> Iterator[Outcome]:
        session, journal = self.session, self._journal(images)
        shared = None if self.ranks is None else SharedJournal(self.ranks, journal)
        return stream_attack(
            self.item.target.module.to(session.device),
            planned.attack,
            ImageSamples(images, session.device, session.workers),
            budgets=planned.budgets,
            seed=session.spec.seed,
            batch_size=session.chunk,
            pred=pred,
            keep_images=self.keep_images,
            dtype=getattr(torch, session.spec.dtype),
            on_progress=partial(self.on_progress, planned),
            journal=shared if shared is not None and shared.pictures else journal,
            eot=self._passes(planned),
            shared=shared,
            on_judged=partial(self.on_judged, planned.attack.name),
        )


def predict_clean(
    model: nn.Module,
    samples: Samples | SampleSource,
    batch_size: int | ChunkSize,
    journal: CacheJournal | None,
    eot: int = 1,
    ranks: Ranks | None = None,
) -> tuple[Tensor, Work]:
    """The clean predictions (n,), and what was spent on them; those that are known are not made again.

    A sample that cannot be read has -1. Of a randomised model they are those of the mean logits of `eot` passes, as
    those after the attack are.
    """
    n = len(samples)
    pred, known, spent = torch.zeros(n).long(), torch.zeros(n).bool(), Work()
    if journal is not None:
        pred, known, spent = journal.predictions(eot)
    if ranks is not None:  # what rank 0 knows
        pred, known = ranks.sum(pred), ranks.sum(known.long()).bool()
    missing = (~known).nonzero()[:, 0]
    if len(missing):
        mine = missing if ranks is None else ranks.part(missing)
        started = time.perf_counter()
        with frozen(model):
            meter = Meter(model, largest=int(samples.y.max()))
            pred[mine] = predict_samples(meter, samples, batch_size, eot, mine.to(samples.y.device)).cpu()
            pred[list(samples.broken)] = -1
        work = Work(time.perf_counter() - started, meter.forwards)
        if ranks is not None:
            pred[missing], work = ranks.sum(pred[missing]), ranks.total(work)
        spent += work
        if journal is not None:
            read = missing[pred[missing] >= 0]
            journal.keep_predictions(read, pred[read], samples.y.cpu()[read], work, eot)
    return pred.to(samples.y.device), spent
