"""How long auto-PGD's moves are: halved when the loss stops rising, or in L1 along fewer and fewer pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustcli.attacks.base import compact
from robustcli.attacks.norms import Norm, per_sample

if TYPE_CHECKING:
    from robustcli.attacks.ascent import Climb

MOMENTUM = 0.75
"""The new step's share of a move; the rest is the last move (Croce & Hein 2020, eq. 2)."""

RISING = 0.75
"""A step is halved where no larger share of the moves since the last checkpoint raised the loss (rho in the paper)."""

SPARSER = 0.95
"""In L1, the share of the support at the last checkpoint below which the highest point counts as sparser."""


@dataclass(frozen=True)
class Halving:
    """Moves with momentum; a step is halved where the loss rose too rarely, or not at all since the last halving.

    Attributes:
        loss: (n,) after the last move. It begins with 0, as in the authors' code, not with that of the start.
        rises: (n,) moves since the checkpoint that raised the loss.
        moves: (n,) moves since the checkpoint.
        top_loss: (n,) the highest loss at the checkpoint.
        halved: (n,) bool, whether the step was halved there.
    """

    loss: Tensor
    rises: Tensor
    moves: Tensor
    top_loss: Tensor
    halved: Tensor

    @staticmethod
    def begin(top_loss: Tensor) -> Halving:
        """Before the first move."""
        none = torch.zeros_like(top_loss)
        return Halving(none, none, none, top_loss, torch.ones_like(top_loss, dtype=torch.bool))

    @staticmethod
    def checkpoints(steps: int) -> Iterator[int]:
        """The moves after which steps are adapted: ever closer together."""
        interval, at = max(int(0.22 * steps), 1), 0
        while at < steps:
            at += interval
            yield at
            interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))

    def __getitem__(self, kept: Tensor) -> Halving:
        return compact(self, kept)

    def seen(self, loss: Tensor) -> Halving:
        """After a move that led to `loss` (n,)."""
        return replace(self, loss=loss, rises=self.rises + (loss > self.loss), moves=self.moves + 1)

    def candidate(self, climb: Climb, norm: Norm, eps: float, first: bool) -> Tensor:
        """A step up the gradient, then a part of the way there and a part of the last move."""
        x_adv = climb.x_adv
        step = per_sample(climb.step, x_adv)
        ahead = norm.confine(x_adv + step * norm.steepest(climb.gradient), climb.x, eps)
        share = 1.0 if first else MOMENTUM
        return norm.confine(x_adv + (ahead - x_adv) * share + (x_adv - climb.x_last) * (1 - share), climb.x, eps)

    def adapt(self, climb: Climb, longest: float) -> Climb:
        """Half the step, from the highest point on, where the loss does not rise enough."""
        stuck = ~self.halved & (self.top_loss >= climb.top_loss)
        halve = (self.rises <= RISING * self.moves) | stuck
        none = torch.zeros_like(self.rises)
        pace = replace(self, rises=none, moves=none, top_loss=climb.top_loss, halved=halve)
        return replace(climb.back_to_top(halve), step=torch.where(halve, climb.step / 2, climb.step), pace=pace)


@dataclass(frozen=True)
class Sparsening:
    """L1: moves along the steepest pixels only, fewer the sparser the highest point is (Croce & Hein 2021, alg. 1).

    Attributes:
        share: (n,) of the pixels that the next move takes.
        support: (n,) pixels that differed from the image at the checkpoint.
    """

    share: Tensor
    support: Tensor

    @staticmethod
    def begin(start: Tensor, x: Tensor) -> Sparsening:
        """Before the first move."""
        support = _support(start, x)
        return Sparsening(support / 1.5 / x.shape[1:].numel(), support)

    @staticmethod
    def checkpoints(steps: int) -> Iterator[int]:
        """The moves after which steps are adapted: evenly spaced."""
        interval = max(int(0.04 * steps), 1)
        yield from range(interval, steps + 1, interval)

    def __getitem__(self, kept: Tensor) -> Sparsening:
        return compact(self, kept)

    def seen(self, loss: Tensor) -> Sparsening:
        """It does not look at the loss."""
        return self

    def candidate(self, climb: Climb, norm: Norm, eps: float, first: bool) -> Tensor:
        """An equal step along each of the steepest pixels."""
        size = climb.gradient.flatten(1).abs()
        rank = ((1 - self.share) * size.shape[1]).clamp(0, size.shape[1] - 1).long()
        least = size.sort(1).values.gather(1, rank[:, None])
        signs = climb.gradient.flatten(1).sign().where(size >= least, size.new_zeros(()))
        move = signs * (climb.step / (signs.abs().sum(1) + 1e-10))[:, None]
        return norm.confine(climb.x_adv + move.reshape(climb.x.shape), climb.x, eps)

    def adapt(self, climb: Climb, longest: float) -> Climb:
        """The longest step, from the highest point on, where that became sparser; elsewhere a shorter one."""
        support = _support(climb.top, climb.x)
        sparser = support / self.support < SPARSER
        step = torch.where(sparser, longest, climb.step / 1.5).clamp(longest / 10, longest)
        pace = Sparsening(support / 1.5 / climb.x.shape[1:].numel(), support)
        return replace(climb.back_to_top(sparser), step=step, pace=pace)


def _support(x_adv: Tensor, x: Tensor) -> Tensor:
    """(n,) pixels that differ, as a float."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)
