"""The one driver: it owns what every attack would otherwise do badly.

Eval mode and frozen parameters, chunks, the active set, counting, progress, and the check of each result.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack, MinimalAttack, SweepingAttack
from robustcli.attacks.convolutions import quick_convolutions
from robustcli.attacks.guards import Meter, check_result, frozen
from robustcli.errors import AttackError
from robustcli.noise import Noise

Progress = Callable[[int], None]
"""Told how many more samples are finished."""


@dataclass(frozen=True)
class Outcome:
    """What one attack at one budget did to n samples, in their order.

    Attributes:
        attack: with the budget it ran at.
        clean: (n,) bool, classified right before.
        robust: (n,) bool, classified right before and after.
        distance: (n,) float, in the attack's norm: 0 where wrong before, infinite where robust.
        pred, pred_after: (n,) int64, the predicted class before and after the attack.
        by_iter: (iters,) counts of robust samples after each iteration of a minimal-norm attack; else empty.
        x_adv: (n, c, h, w) float32, or None unless kept.
        seconds, forwards, backwards: this row's share of the work; forwards and backwards are counted in samples.
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


@dataclass(frozen=True)
class Samples:
    """What is attacked: images `x` (n, c, h, w) in [0, 1], classes `y` (n,) and ids `ids` (n,), all on one device."""

    x: Tensor
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> Samples:
        return Samples(self.x[index], self.y[index], self.ids[index])


def predict(model: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    """(n,) predicted classes."""
    with torch.no_grad():
        parts = [model(chunk).argmax(1) for chunk in torch.split(x, batch_size) if len(chunk)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=x.device)


def run_attack(
    model: nn.Module,
    attack: Attack,
    samples: Samples,
    *,
    budgets: Sequence[float] = (),
    seed: int = 0,
    batch_size: int = 128,
    pred: Tensor | None = None,
    keep_images: bool = False,
    on_progress: Progress = lambda _: None,
) -> list[Outcome]:
    """Attack the samples that the model gets right, and measure what is left.

    A sample that was wrong before is not attacked and stays wrong. Draws are keyed by the samples' ids, so the result
    does not depend on `batch_size` or on what is attacked beside a sample.

    Args:
        model: returns logits; measured in eval mode, and handed back as it was.
        attack: any attack.
        samples: what to attack.
        budgets: for a budget attack, one outcome each; without any, its own eps.
        seed: of the attack's draws.
        batch_size: samples a chunk; it changes speed and memory only.
        pred: (n,) the model's clean predictions, where they are known already.
        keep_images: keep `Outcome.x_adv`.
        on_progress: called with the number of samples that are finished, n for each budget in all.

    Raises:
        AttackError: the attack left its ball or the box, or the model returned no usable logits.
    """
    variants = _variants(attack, budgets)
    if any(module.training for module in model.modules()):
        warnings.warn("the model is in train mode; it is measured in eval mode", stacklevel=2)
    with frozen(model), quick_convolutions(model):
        meter = Meter(model)
        started = time.perf_counter()
        if pred is None:
            pred = predict(meter, samples.x, batch_size)
        boards = [_Board(samples, pred, variant, keep_images) for variant in variants]
        active = (pred == samples.y).nonzero()[:, 0]
        on_progress((len(samples) - len(active)) * len(variants))
        for index in torch.split(active, batch_size):
            noise = Noise(seed, samples.ids[index]).stream(attack.name)
            _attack_chunk(meter, boards, samples[index], index, noise, on_progress)
        share = _Share(time.perf_counter() - started, meter.forwards, meter.backwards, len(variants))
    return [board.outcome(share, i) for i, board in enumerate(boards)]


def _variants(attack: Attack, budgets: Sequence[float]) -> list[Attack]:
    if budgets and not isinstance(attack, BudgetAttack):
        raise AttackError(f"{attack.name} takes no budget")
    return [replace(attack, eps=eps) for eps in budgets] if budgets else [attack]  # type: ignore[type-var]


def _attack_chunk(
    meter: Meter, boards: list[_Board], chunk: Samples, index: Tensor, noise: Noise, on_progress: Progress
) -> None:
    """Fill the boards' rows `index` with what the attack does to `chunk`."""
    attack = boards[0].attack
    if isinstance(attack, MinimalAttack):
        boards[0].follow(meter, chunk, index, attack.trace(meter, chunk.x, chunk.y, noise), attack.iters)
        on_progress(len(chunk))
        return
    if not len(chunk):  # Nothing was right before; many models cannot flatten an empty batch.
        return
    if isinstance(attack, SweepingAttack):
        budgets = [board.attack.eps for board in boards if isinstance(board.attack, BudgetAttack)]
        images = attack.sweep(meter, chunk.x, chunk.y, noise, budgets)
    else:
        images = (board.attack.perturb(meter, chunk.x, chunk.y, noise) for board in boards)
    for board, x_adv in zip(boards, images, strict=True):
        board.record(meter, chunk, index, x_adv)
        on_progress(len(chunk))


class _Share:
    """A run's work, split evenly over its rows, so that the rows add up to the run."""

    def __init__(self, seconds: float, forwards: int, backwards: int, rows: int) -> None:
        self.seconds = seconds / rows
        self.forwards = split_evenly(forwards, rows)
        self.backwards = split_evenly(backwards, rows)


def split_evenly(total: int, parts: int) -> list[int]:
    """`parts` integers that add up to `total` and differ by at most 1."""
    return [total // parts + (i < total % parts) for i in range(parts)]


class _Board:
    """The per-sample results of one attack at one budget, while they come in."""

    def __init__(self, samples: Samples, pred: Tensor, attack: Attack, keep_images: bool) -> None:
        self.attack = attack
        self.clean = pred == samples.y
        self.robust = self.clean.clone()
        self.pred = pred
        self.pred_after = pred.clone()
        self.distance = torch.where(self.clean, torch.inf, 0.0)
        self.x_adv = samples.x.clone() if keep_images else None
        self.by_iter = [0] * (attack.iters if isinstance(attack, MinimalAttack) else 0)

    def follow(self, meter: Meter, chunk: Samples, index: Tensor, iterates: Iterable[Tensor], iters: int) -> None:
        """Judge a minimal-norm attack's images after each of `iters` iterations; after an early end nothing changes."""
        counts = []
        for x_adv in iterates:
            self.record(meter, chunk, index, x_adv)
            counts.append(int(self.robust[index].sum()))
        counts += [int(self.robust[index].sum())] * (iters - len(counts))
        self.by_iter = [total + count for total, count in zip(self.by_iter, counts, strict=True)]

    def record(self, meter: Meter, chunk: Samples, index: Tensor, x_adv: Tensor) -> None:
        """Judge the images `x_adv` of the samples `index`: a fresh forward pass says what is broken."""
        x_adv = x_adv.detach()
        check_result(self.attack, chunk.x, x_adv)
        pred = predict(meter, x_adv, len(x_adv))
        distance = self.attack.norm.distance(x_adv, chunk.x).to(self.distance.dtype)
        broken = (pred != chunk.y) & (distance < self.distance[index])
        found = index[broken]
        self.robust[found] = False
        self.distance[found] = distance[broken]
        show = broken | self.robust[index]
        self.pred_after[index[show]] = pred[show]
        if self.x_adv is not None:
            self.x_adv[index[show]] = x_adv[show]

    def outcome(self, share: _Share, row: int) -> Outcome:
        return Outcome(
            attack=self.attack,
            clean=self.clean.cpu(),
            robust=self.robust.cpu(),
            distance=self.distance.cpu(),
            pred=self.pred.cpu(),
            pred_after=self.pred_after.cpu(),
            by_iter=tuple(self.by_iter),
            x_adv=None if self.x_adv is None else self.x_adv.float().cpu(),
            seconds=share.seconds,
            forwards=share.forwards[row],
            backwards=share.backwards[row],
        )
