"""An evaluation that may stop early: cheap attacks first, samples in random order, so that a part stands for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from robustcli.attacks import label
from robustcli.attacks.base import BudgetAttack, at_budgets
from robustcli.engine.outcome import Outcome, merge
from robustcli.errors import AttackError
from robustcli.measure.evaluate import Result, run_item, to_record
from robustcli.measure.plan import Planned
from robustcli.measure.record import Record
from robustcli.measure.session import Item, Session
from robustcli.measure.stats import half_width
from robustcli.noise import Noise
from robustcli.store.cache import Cache

FIRST_SLICE = 16
"""Samples of an attack's first slice; the next ones are twice as many, up to a batch."""


@dataclass(frozen=True)
class Goal:
    """When an evaluation may stop; None where that is no reason.

    Attributes:
        seconds: when so much time is over.
        half_width: an attack, when the 95 % interval of each of its rows reaches so many points to each side at most.
    """

    seconds: float | None = None
    half_width: float | None = None

    def reached(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether the intervals of all rows are narrow enough."""
        if self.half_width is None:
            return False
        widths = [100 * half_width(int(outcome.robust.sum()), len(outcome.robust)) for outcome in outcomes]
        return all(width <= self.half_width for width in widths)


class _TimeIsUpError(CancelledError):
    """Raised within a model's forward pass; of such an error a `Meter` does not say that the model failed."""


def evaluate_towards(
    goal: Goal,
    session: Session,
    *,
    on_progress: Callable[[str, Planned, float, float], None] = lambda *_: None,
    cache: Cache | None = None,
    clock: Callable[[], float] = time.monotonic,
    on_notice: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """As `evaluate`, the cheap attacks first, each on a random part of the samples until the goal is reached.

    The order of the samples is keyed by the seed and their ids. What is left of the time is shared evenly by the
    checkpoints that are left. An attack that no sample met in time has no row.

    Raises:
        AttackError: an attack or a model broke its contract; names the checkpoint.
    """
    end = None if goal.seconds is None else clock() + goal.seconds
    for i, item in enumerate(session.items):
        deadline = None if end is None else clock() + (end - clock()) / (len(session.items) - i)
        try:
            for planned in sorted(item.plan, key=lambda planned: planned.runs * planned.attack.cost):
                progress = partial(on_progress, item.target.name)
                run = _Slices(item, session, goal, deadline, progress, cache, clock, on_notice)
                for index, outcome in run.rows(planned):
                    images = item.images.take(index)
                    yield Result(to_record(item.subject, images, outcome, session.spec.split), outcome, images)
        except AttackError as error:
            raise AttackError(f"{item.target.name}: {error}") from None


@dataclass(frozen=True)
class _Slices:
    """The slices of one checkpoint's samples, with what they are run with."""

    item: Item
    session: Session
    goal: Goal
    deadline: float | None
    on_progress: Callable[[Planned, float, float], None]
    cache: Cache | None
    clock: Callable[[], float]
    on_notice: Callable[[str], None]

    def rows(self, planned: Planned) -> list[tuple[Tensor, Outcome]]:
        """Each row of an attack on the samples that it came to: their positions, and what it did to them."""
        order, parts = sample_order(self.item, self.session.spec.seed), []
        done, size = 0, FIRST_SLICE
        while done < len(order) and not self._over():
            index, began = order[done : done + size].sort().values, self.clock()
            try:
                with _until(self.item.target.module, self._over):
                    part = replace(self.item, images=self.item.images.take(index), plan=[planned])
                    found = list(run_item(part, self.session, False, self.on_progress, self.cache, self.on_notice))
            except _TimeIsUpError:
                break
            readable = torch.isin(self.item.images.ids[index], found[0][0].ids)
            parts.append((index[readable], [outcome for _, outcome in found]))
            done += len(index)
            if self.goal.reached([outcome for _, outcome in merge_slices(parts)]):
                break
            size = self._next_size(size, (self.clock() - began) / len(index))
        return merge_slices(parts)

    def _over(self) -> bool:
        return self.deadline is not None and self.clock() >= self.deadline

    def _next_size(self, size: int, seconds: float) -> int:
        """Twice as many, up to a batch, and in half of the time that is left: what is not finished then is lost."""
        size = min(2 * size, max(FIRST_SLICE, self.session.batch_size))
        if self.deadline is None or seconds <= 0:
            return size
        return max(1, min(size, int((self.deadline - self.clock()) / 2 / seconds)))


def sample_order(item: Item, seed: int) -> Tensor:
    """(n,) positions in a random order: that of any part of the samples is the same."""
    draws = Noise(seed, item.images.ids).stream("order").uniform(torch.empty(len(item.images), 1, dtype=torch.float64))
    return draws[:, 0].argsort(stable=True)


@contextmanager
def _until(model: nn.Module, over: Callable[[], bool]) -> Iterator[None]:
    """Within it, the model's first forward pass after the end raises `_TimeIsUpError`."""

    def check(*_: object) -> None:
        if over():
            raise _TimeIsUpError

    hook = model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


def merge_slices(parts: Sequence[tuple[Tensor, Sequence[Outcome]]]) -> list[tuple[Tensor, Outcome]]:
    """The rows of several slices as those of all their samples, in stored order."""
    if not parts:
        return []
    index = torch.cat([index for index, _ in parts])
    order = index.argsort()
    return [(index[order], merge(row, order)) for row in zip(*(outcomes for _, outcomes in parts), strict=True)]


@dataclass(frozen=True)
class LeftOut:
    """An attack at a budget that did not come to all samples of a checkpoint."""

    checkpoint: str
    attack: str
    budget: str
    reached: int
    of: int

    def __str__(self) -> str:
        name = f"{self.attack} {self.budget}"
        return f"{name} not run" if not self.reached else f"{name} on {self.reached} of {self.of} samples"


def left_out(session: Session, records: Sequence[Record]) -> list[LeftOut]:
    """What a run has not come to; of an ensemble, the worst case alone."""
    reached = {(one.subject, one.label, one.norm, one.eps): one.n for one in records if one.ensemble is None}
    missing = []
    for item in session.items:
        subject, n = item.subject, len(item.images)
        for planned in item.plan:
            variants = at_budgets(planned.attack, planned.budgets)
            for attack in variants:
                eps = float(attack.eps) if isinstance(attack, BudgetAttack) else None
                count = reached.get((subject, label(attack), attack.norm.name, eps), 0)
                budget = " ".join(filter(None, (attack.norm.label, str(getattr(attack, "eps", "")))))
                if count < n:
                    missing.append(LeftOut(subject.checkpoint, label(attack), budget, count, n))
    return missing
