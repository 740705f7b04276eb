"""Between the engine and the store: which samples of a row are known, and what is kept of a chunk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks import ATTACK_SCHEMA, describe, label
from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, passes_of
from robustcli.config import EvalSpec
from robustcli.data.images import CHUNK, Images
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.outcome import OutcomeBuilder, Work, split_evenly
from robustcli.models.target import Target
from robustcli.store.cache import Cache
from robustcli.store.series import Chunk, Digest, Entry, Picture, Series

FIRST = 16
"""Of so many broken samples a row the adversarial images are kept, with what they were made of."""

CLEAN = {"name": "clean"}


class CacheJournal:
    """A `Journal` of one target on one set of images, in a store.

    A sample is found by its id and a digest of its content, a row by the target's key, the attack, and the seed, the
    dtype and the passes of `spec`. Without `recalls`, what is known is not used.
    """

    def __init__(
        self,
        cache: Cache,
        target: Target,
        images: Images,
        spec: EvalSpec,
        *,
        recalls: bool = True,
    ) -> None:
        self.cache, self.target, self.images, self.spec = cache, target, images, spec
        self.samples = digests(images)
        self.keep_all, self.recalls = cache.keep_all, recalls
        self._pictured: dict[str, set[Digest]] = {}
        self._series: dict[tuple[Attack | None, int | None, int], Series] = {}

    @property
    def pictures(self) -> int:
        """All, or the first few."""
        return len(self.images) if self.keep_all else FIRST

    def predictions(self, eot: int) -> tuple[Tensor, Tensor, Work]:
        """The clean predictions (n,) of `eot` passes, which of them are known (n,), and what was spent on those."""
        known, entries = self._look_up(self.series(None, eot=eot))
        pred = torch.zeros(len(self.samples), dtype=torch.int64)
        pred[known] = torch.tensor([entry.pred for entry in entries], dtype=torch.int64)
        return pred, known, _spent(entries)

    def knows(self, attack: Attack | None, eot: int, member: int | None = None) -> Tensor:
        """(n,) bool, the samples of which a row is known, or without an attack the clean predictions."""
        pictured = self.series(attack) if self.keep_all and attack is not None else None
        return self._look_up(self.series(attack, member, eot), pictured)[0]

    def keep_predictions(self, index: Tensor, pred: Tensor, y: Tensor, spent: Work, eot: int) -> None:
        """Keep the clean predictions (k,), of `eot` passes, of the samples `index`, of the classes `y` (k,)."""
        right = (pred == y).tolist()
        costs = _costs([True] * len(index), spent)
        entries = {
            self.samples[i]: Entry(fine, torch.inf if fine else 0.0, seen, seen, 0, *cost)
            for i, seen, fine, cost in zip(index.tolist(), pred.tolist(), right, costs, strict=True)
        }
        self.cache.keep([Chunk(self.series(None, eot=eot), entries, {})])

    def recall(self, board: OutcomeBuilder, member: int | None, index: Tensor) -> Tensor:
        """Restore on a board what is known of its row's samples `index` (k,); (n,) bool, which samples that is."""
        pictured = self.series(board.attack) if self.keep_all else None
        known, found = self._look_up(self.series(board.attack, member), pictured, board.pred.tolist())
        wanted = torch.zeros_like(known).index_fill(0, index.cpu(), True)
        entries = [entry for entry, here in zip(found, wanted[known].tolist(), strict=True) if here]
        known &= wanted
        device = board.robust.device
        columns = [torch.tensor(column, device=device) for column in zip(*entries, strict=True)][:5]
        if entries:
            robust, distance, _, pred_after, broken_at = columns
            board.restore(known.to(device).nonzero()[:, 0], robust, distance, pred_after, broken_at)
        board.spent += _spent(entries)
        return known.to(device)

    def keep(self, boards: Sequence[OutcomeBuilder], span: Tensor, shares: Sequence[Work], member: int | None) -> None:
        """Keep the samples `span` of boards that are finished, in one transaction."""
        chunks = []
        for board, share in zip(boards, shares, strict=True):
            entries = self._entries(board, span.tolist(), share)
            series = self.series(board.attack, member)
            pictures = self._pictures(board, self.series(board.attack))
            if isinstance(board.attack, Ensemble) and member is not None:
                whole: dict[Digest, Entry] = {}
                last = member + 1 == len(board.attack.members) and not getattr(board.attack, "sampled", 0)
                if last:  # the worst case has done no work of its own
                    whole = {
                        sample: entry._replace(seconds=0, forwards=0, backwards=0) for sample, entry in entries.items()
                    }
                chunks += [Chunk(series, entries, {}), Chunk(self.series(board.attack), whole, pictures)]
            else:
                if isinstance(board.attack, Ensemble):  # its whole, where that is not known, or was better
                    known = self.cache.recall(series)
                    entries = {
                        at: one for at, one in entries.items() if at not in known or known[at].robust > one.robust
                    }
                chunks.append(Chunk(series, entries, pictures))
        if chunks := [chunk for chunk in chunks if chunk.entries or chunk.pictures]:
            self.cache.keep(chunks)

    def series(self, attack: Attack | None, member: int | None = None, eot: int = 1) -> Series:
        """A row, judged by as many passes as `run_item` says; without an attack, that of the clean predictions."""
        if attack is not None:
            eot = max(self.spec.eot or 1, passes_of(attack))
        key = (attack, member, eot)
        if key not in self._series:
            self._series[key] = series_of(self.target, self.images, self.spec, attack, member, eot)
        return self._series[key]

    def _look_up(
        self, series: Series, pictured: Series | None = None, pred: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Entry]]:
        """(n,) bool, which samples are known, and what is, in their order.

        Of a broken sample that should be `pictured`, nothing is known where its image is not; nor of one that does not
        fit its class, the network's classes, or the clean predictions `pred`.
        """
        found = self.cache.recall(series) if self.recalls else {}
        y, classes = self.images.y.tolist(), len(self.target.classes)
        odd = [
            sample
            for i, sample in enumerate(self.samples)
            if (entry := found.get(sample)) is not None
            and not (entry.fits(y[i], classes) and (pred is None or entry.pred == pred[i]))
        ]
        if odd:
            self.cache.reject(series, odd)
            found = self.cache.recall(series)
        if found and pictured is not None:
            kept = self.cache.pictured(pictured)
            found = {at: entry for at, entry in found.items() if entry.robust or not entry.distance or at in kept}
        known = torch.tensor([sample in found for sample in self.samples], dtype=torch.bool)
        return known, [found[sample] for sample in self.samples if sample in found]

    def _entries(self, board: OutcomeBuilder, span: Sequence[int], share: Work) -> dict[Digest, Entry]:
        columns: list[list[Any]] = [
            values[span].tolist()
            for values in (board.robust, board.distance, board.pred, board.pred_after, board.broken_at)
        ]
        costs = _costs(board.clean[span].tolist(), share)
        rows = zip(*columns, costs, strict=True)
        return {self.samples[i]: Entry(*values[:-1], *values[-1]) for i, values in zip(span, rows, strict=True)}

    def _pictures(self, board: OutcomeBuilder, series: Series) -> dict[Digest, Picture]:
        """The images of a board that are not kept yet, as far as there is room for them."""
        kept = self._pictured.get(series.key)
        if kept is None:
            kept = self._pictured[series.key] = self.cache.pictured(series)
        new = [i for i in board.pictures if self.samples[i] not in kept][: max(0, self.pictures - len(kept))]
        first = new[: max(0, FIRST - len(kept))]
        kept |= {self.samples[i] for i in new}
        before = dict(zip(first, self._before(board, first), strict=True))
        images = {i: board.pictures[i].contiguous() for i in new}
        return {
            self.samples[i]: Picture(tuple(image.shape), image.numpy().astype("<f4").tobytes(), *before.get(i, ()))
            for i, image in images.items()
        }

    def _before(self, board: OutcomeBuilder, places: Sequence[int]) -> list[tuple[bytes, tuple[float, float] | None]]:
        """Of the samples `places`, which have pictures, the original, and the confidence before and after."""
        if not places:
            return []
        index, device = torch.tensor(places), board.robust.device
        x, x_adv = self.images.batch(index), torch.stack([board.pictures[i] for i in places])
        classes = torch.cat([board.pred[index.to(device)], board.pred_after[index.to(device)]])
        found = _confidences(self.target.module, torch.cat([x, x_adv]).to(device), classes)
        bytewise = (255 * x).round().to(torch.uint8).numpy()
        return [(image.tobytes(), pair) for image, pair in zip(bytewise, found, strict=True)]


def _confidences(model: nn.Module, x: Tensor, classes: Tensor) -> list[tuple[float, float] | None]:
    """The softmax probability of `classes` (2k,) of the images `x` (2k, c, h, w), the second half beside the first.

    The pass leaves no trace, neither in the model nor in the draws after it; where it fails, nothing is known.
    """
    found: list[tuple[float, float] | None] = [None] * (len(x) // 2)
    with suppress(Exception), torch.random.fork_rng([x.device] if x.is_cuda else []), frozen(model), torch.no_grad():
        logits = torch.cat([Meter(model).exact(part) for part in torch.split(x, FIRST)])
        values = logits.softmax(1).gather(1, classes[:, None]).view(2, -1).T.tolist()
        found = [(before, after) if math.isfinite(before + after) else None for before, after in values]
    return found


def series_of(
    target: Target, images: Images, spec: EvalSpec, attack: Attack | None, member: int | None = None, eot: int = 1
) -> Series:
    """A row of a target on images, judged by so many passes; without an attack, that of the clean predictions."""
    whole, ensemble = attack, None
    if isinstance(whole, Ensemble) and member is not None:
        attack, ensemble = whole.members[member], describe(whole) | {"member": member}
    return Series(
        checkpoint=target.name,
        sha256=target.key,
        model=dict(target.architecture),
        method=target.method or "",
        dataset=images.name,
        source=images.source,
        attack=CLEAN if attack is None else describe(attack),
        label="clean" if attack is None else label(attack),
        norm="" if attack is None else attack.norm.label,
        eps=str(attack.eps) if isinstance(attack, BudgetAttack) else None,
        ensemble=ensemble,
        seed=spec.seed,
        dtype=spec.dtype,
        eot=eot,
        attack_schema=ATTACK_SCHEMA,
    )


def digests(images: Images) -> list[Digest]:
    """Each sample's id, and a digest of its pixels, or its file, and class: the same in any part, in any order."""
    shape, found = str(images.shape).encode(), []
    if images.content is not None:
        for number, content, y in zip(images.ids.tolist(), images.content.tolist(), images.y.tolist(), strict=True):
            digest = hashlib.blake2b(f"file {content};{y}".encode() + shape, digest_size=8)
            found.append((number, digest.digest()))
        return found
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        x = images.x[part].flatten(1).contiguous().numpy()
        for number, pixels, y in zip(images.ids[part].tolist(), x, images.y[part].tolist(), strict=True):
            digest = hashlib.blake2b(pixels.tobytes() + f";{y}".encode() + shape, digest_size=8)
            found.append((number, digest.digest()))
    return found


def _spent(entries: Sequence[Entry]) -> Work:
    return sum((Work(entry.seconds, entry.forwards, entry.backwards) for entry in entries), Work())


def _costs(attacked: Sequence[bool], share: Work) -> list[tuple[float, int, int]]:
    """The work by sample, evenly over those that were attacked; by all where none was."""
    busy = [i for i, yes in enumerate(attacked) if yes] or list(range(len(attacked)))
    forwards, backwards = split_evenly(share.forwards, len(busy)), split_evenly(share.backwards, len(busy))
    costs = [(0.0, 0, 0)] * len(attacked)
    for place, (some, others) in zip(busy, zip(forwards, backwards, strict=True), strict=True):
        costs[place] = (share.seconds / len(busy), some, others)
    return costs
