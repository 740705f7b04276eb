"""What an attack did to each sample: recorded while it runs, and handed out when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, TracingAttack
from robustcli.attacks.losses import mean_logits
from robustcli.engine.guard import Meter, check_result
from robustcli.engine.memory import ChunkSize
from robustcli.engine.samples import Samples, SampleSource


@dataclass(frozen=True)
class Outcome:
    """What one attack at one budget did to n samples, in their order.

    Attributes:
        attack: with the budget it ran at.
        clean: (n,) bool, classified right before.
        robust: (n,) bool, classified right before and after.
        distance: (n,) float, in the attack's norm: 0 where wrong before, infinite where robust.
        pred, pred_after: (n,) int64, the predicted class before and after the attack.
        by_iter: (iters,) counts of robust samples after each iteration of an attack with a trace; else empty.
        x_adv: (n, c, h, w) float32, or None unless kept.
        seconds, forwards, backwards: this row's share of the work; forwards and backwards are counted in samples.
        ensemble: of a member of an ensemble, that one's name: it met what the members before it left standing, and
            what they broke counts as broken.
        recalled: how many of the samples were known already; the work is what was spent on them when they were not.
        sampled: of an ensemble whose last `members` met a sample first, and of these: how many `survivors` there were
            before, how many were `probed`, how many of these `broken`, and how many were `unmet` in the end.
    """

    attack: Attack
    clean: Tensor
    robust: Tensor
    distance: Tensor
    pred: Tensor
    pred_after: Tensor
    by_iter: tuple[int, ...]
    x_adv: Tensor | None
    seconds: float
    forwards: int
    backwards: int
    ensemble: str | None = None
    recalled: int = 0
    sampled: Mapping[str, Any] | None = None


def merge(parts: Sequence[Outcome], order: Tensor | None = None) -> Outcome:
    """What one attack did to the samples of several parts, in their order or by the positions `order` (n,) of it."""
    columns = ("clean", "robust", "distance", "pred", "pred_after", *(("x_adv",) if parts[0].x_adv is not None else ()))
    costs = ("seconds", "forwards", "backwards", "recalled")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in columns}
    changes: dict[str, Any] = {name: column if order is None else column[order] for name, column in joined.items()}
    changes |= {name: sum(getattr(part, name) for part in parts) for name in costs}
    if samples := [part.sampled for part in parts if part.sampled is not None]:
        sums = {name: sum(one[name] for one in samples) for name in ("survivors", "probed", "broken", "unmet")}
        changes["sampled"] = {"members": samples[0]["members"]} | sums
    return replace(parts[0], by_iter=tuple(map(sum, zip(*(part.by_iter for part in parts), strict=True))), **changes)


def predict(model: Callable[[Tensor], Tensor], x: Tensor, batch_size: int, eot: int = 1) -> Tensor:
    """(n,) predicted classes; of a randomised model by the mean logits of `eot` passes."""
    model = Meter(model) if isinstance(model, nn.Module) else model
    parts = [mean_logits(model, chunk, eot).argmax(1) for chunk in torch.split(x, batch_size) if len(chunk)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=x.device)


def predict_samples(
    model: Callable[[Tensor], Tensor],
    samples: Samples | SampleSource,
    batch_size: int | ChunkSize,
    eot: int = 1,
    index: Tensor | None = None,
) -> Tensor:
    """(k,) predicted classes of the samples `index` (k,), or of all; no more than a batch is read at once."""
    index = torch.arange(len(samples), device=samples.y.device) if index is None else index
    size = ChunkSize(batch_size) if isinstance(batch_size, int) else batch_size
    pred = torch.empty_like(index)
    done = 0
    while done < len(index):
        parts = torch.split(index[done:], size.samples)
        samples.expect(parts)
        for part in parts:
            try:
                pred[done : done + len(part)] = predict(model, samples[part].x, len(part), eot)
            except Exception as error:
                if not size.halve(error, len(part)):
                    raise
                break
            done += len(part)
    return pred


@dataclass(frozen=True)
class Work:
    """Seconds, and samples that passed the model forwards and backwards."""

    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0

    @staticmethod
    def until_now(meter: Meter) -> Work:
        """All that the meter has counted, and the clock; the difference of two is the work between them."""
        return Work(time.perf_counter(), meter.forwards, meter.backwards)

    def __sub__(self, earlier: Work) -> Work:
        return Work(
            self.seconds - earlier.seconds, self.forwards - earlier.forwards, self.backwards - earlier.backwards
        )

    def __add__(self, other: Work) -> Work:
        return Work(self.seconds + other.seconds, self.forwards + other.forwards, self.backwards + other.backwards)

    def split(self, rows: int) -> list[Work]:
        """Even shares that add up to the whole."""
        counts = zip(split_evenly(self.forwards, rows), split_evenly(self.backwards, rows), strict=True)
        return [Work(self.seconds / rows, forwards, backwards) for forwards, backwards in counts]


def split_evenly(total: int, parts: int) -> list[int]:
    """`parts` integers that add up to `total` and differ by at most 1."""
    return [total // parts + (i < total % parts) for i in range(parts)]


class Stopwatch:
    """Measures the work of an attack, chunk by chunk.

    Args:
        meter: counts the passes.
        started: where the work began, if not now.
    """

    def __init__(self, meter: Meter, started: Work | None = None) -> None:
        self._meter = meter
        self._started = started or Work.until_now(meter)
        self._shares: Sequence[Work] = ()

    def lap(self, rows: int = 1) -> list[Work]:
        """What was done since the last lap, or since the start: each row's share; all laps together split evenly."""
        before = self._shares or Work().split(rows)
        self._shares = (Work.until_now(self._meter) - self._started).split(rows)
        return [now - earlier for now, earlier in zip(self._shares, before, strict=True)]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time spent inside."""
        began = time.perf_counter()
        yield
        self._started += Work(time.perf_counter() - began)


class OutcomeBuilder:
    """The per-sample results of one attack at one budget, while they come in.

    Args:
        samples: the n samples.
        pred: (n,) the model's clean predictions.
        attack: with its budget.
        keep_images: keep all images.
        most_pictures: of so many samples, the first that are broken, the image is kept in `pictures`, by position.
        eot: passes that a prediction is averaged over.
    """

    def __init__(
        self,
        samples: Samples | SampleSource,
        pred: Tensor,
        attack: Attack,
        keep_images: bool,
        most_pictures: int,
        eot: int,
    ) -> None:
        self.attack = attack
        self.eot = eot
        self.clean = pred == samples.y
        self.robust = self.clean.clone()
        self.pred = pred
        self.pred_after = pred.clone()
        self.distance = torch.where(self.clean, torch.inf, 0.0)
        self.x_adv = samples[slice(None)].x.clone() if keep_images else None
        self.iters = attack.iters if isinstance(attack, TracingAttack) else 0
        self.broken_at = torch.full_like(pred, self.iters)
        self.pictures: dict[int, Tensor] = {}
        self.most_pictures = most_pictures
        self.spent = Work()
        self.computed = torch.zeros_like(self.clean)
        """(n,) bool, which samples are not recalled."""
        self.judged = ~self.clean
        """(n,) bool, which samples are known to stand or not."""
        self.sampled: Mapping[str, Any] | None = None

    def restore(self, index: Tensor, robust: Tensor, distance: Tensor, pred_after: Tensor, broken_at: Tensor) -> None:
        """Set what is known already of the samples `index` (k,); a sample that was wrong before stays wrong."""
        self.robust[index] = robust & self.clean[index]
        self.distance[index] = distance.to(self.distance)
        self.pred_after[index] = pred_after
        self.broken_at[index] = broken_at
        self.judged[index] = True

    def adopt(self, other: OutcomeBuilder, index: Tensor) -> None:
        """Take over the results that a copy has got for the samples `index` (k,), and the work spent on them."""
        for name in ("robust", "distance", "pred_after", "computed", "x_adv"):
            if (own := getattr(self, name)) is not None:
                own[index] = getattr(other, name)[index]
        self.pictures |= other.pictures
        self.spent += other.spent

    def record(self, meter: Meter, chunk: Samples, index: Tensor, x_adv: Tensor, by: Attack | None = None) -> None:
        """Judge the images `x_adv` of the samples `index`: a fresh forward pass says what is broken.

        Of a randomised model, as many passes as the clean prediction: one lucky pass breaks nothing.
        """
        attack = self.attack if by is None else by
        x_adv = x_adv.detach()
        check_result(attack, chunk.x, x_adv)
        pred = predict(meter.exact, x_adv, len(x_adv), self.eot)
        distance = attack.norm.distance(x_adv, chunk.x).to(self.distance.dtype)
        broken = (pred != chunk.y) & (distance < self.distance[index])
        found = index[broken]
        self.robust[found] = False
        self.distance[found] = distance[broken]
        show = broken | self.robust[index]
        self.pred_after[index[show]] = pred[show]
        if self.x_adv is not None:
            self.x_adv[index[show]] = x_adv[show]
        if self.most_pictures:
            self._keep_pictures(found, x_adv[broken])

    def _keep_pictures(self, index: Tensor, x_adv: Tensor) -> None:
        """Keep the images of the samples `index` that are among the first, or that are closer than before."""
        for i, image in zip(index.tolist(), x_adv, strict=True):
            if i in self.pictures or len(self.pictures) < self.most_pictures:
                self.pictures[i] = _on_cpu(image.float())

    def record_trace(self, meter: Meter, chunk: Samples, index: Tensor, iterates: Iterable[Tensor]) -> None:
        """Judge a minimal-norm attack's images after each iteration, those that moved; after an early end none does."""
        before = chunk.x
        for i, x_adv in enumerate(iterates):
            standing = self.robust[index]
            moved = (x_adv != before).flatten(1).any(1).nonzero()[:, 0]
            if len(moved):
                self.record(meter, chunk[moved], index[moved], x_adv[moved])
            self.broken_at[index[standing & ~self.robust[index]]] = i
            before = x_adv.clone()

    @property
    def by_iter(self) -> tuple[int, ...]:
        """(iters,) how many samples stand after each iteration."""
        return tuple(int((self.clean & (self.broken_at > i)).sum()) for i in range(self.iters))

    def outcome(self, member: Attack | None = None) -> Outcome:
        """What there is so far; of an ensemble, up to and with a member."""
        return Outcome(
            attack=self.attack if member is None else member,
            clean=_on_cpu(self.clean),
            robust=_on_cpu(self.robust),
            distance=_on_cpu(self.distance),
            pred=_on_cpu(self.pred),
            pred_after=_on_cpu(self.pred_after),
            by_iter=self.by_iter,
            x_adv=None if self.x_adv is None else _on_cpu(self.x_adv.float()),
            seconds=self.spent.seconds,
            forwards=self.spent.forwards,
            backwards=self.spent.backwards,
            ensemble=None if member is None else self.attack.name,
            recalled=int((~self.computed).sum()),
            sampled=self.sampled,
        )


class Journal(Protocol):
    """What remembers samples from one run to the next. `member` is the place of an ensemble's member."""

    @property
    def pictures(self) -> int:
        """Of how many broken samples a row the images are wanted."""
        ...

    def recall(self, row: OutcomeBuilder, member: int | None, index: Tensor, /) -> Tensor:
        """Restore what is known of a row's samples `index` (k,); (n,) bool, which samples that is."""
        ...

    def keep(
        self, rows: Sequence[OutcomeBuilder], index: Tensor, shares: Sequence[Work], member: int | None, /
    ) -> None:
        """Remember the samples `index` (k,) of rows that are finished, and what each row has spent on them."""
        ...


def _on_cpu(values: Tensor) -> Tensor:
    """A copy, not changed by what comes after."""
    return values.to("cpu", copy=True)
