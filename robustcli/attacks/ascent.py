"""Auto-PGD's ascent: each sample steps as far as how it fared allows, until it is broken or the steps are used up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from robustcli.attacks.base import compact
from robustcli.attacks.losses import Loss, Model, input_gradient, is_right, mean_logits
from robustcli.attacks.norms import L1, Norm, per_sample
from robustcli.attacks.paces import Halving, Sparsening

Goal = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (n, classes), true classes (n,) and wanted classes (n,) to what is raised, (n,)."""


@dataclass(frozen=True)
class Climb:
    """n samples on their way up, an entry a sample.

    Attributes:
        index: place in the batch.
        x, y, target: the image, its class and the class that is wanted.
        x_adv, x_last: where it is and where it was a move ago.
        gradient: of the loss at `x_adv`.
        step: length of the next move.
        top, top_gradient, top_loss: the point of highest loss so far.
        pace: what decides on its steps.
    """

    index: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    x_last: Tensor
    gradient: Tensor
    step: Tensor
    top: Tensor
    top_gradient: Tensor
    top_loss: Tensor
    pace: Pace

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, kept: Tensor) -> Climb:
        return compact(self, kept)

    def moved(self, x_adv: Tensor, gradient: Tensor, loss: Tensor) -> Climb:
        """After a move to `x_adv`, where the loss is `loss`."""
        higher = loss > self.top_loss
        wide = per_sample(higher, x_adv)
        return replace(
            self,
            x_adv=x_adv,
            x_last=self.x_adv,
            gradient=gradient,
            top=torch.where(wide, x_adv, self.top),
            top_gradient=torch.where(wide, gradient, self.top_gradient),
            top_loss=torch.where(higher, loss, self.top_loss),
            pace=self.pace.seen(loss),
        )

    def back_to_top(self, where: Tensor) -> Climb:
        """The samples `where` go on from their highest point."""
        wide = per_sample(where, self.x_adv)
        return replace(
            self,
            x_adv=torch.where(wide, self.top, self.x_adv),
            gradient=torch.where(wide, self.top_gradient, self.gradient),
        )


class Pace(Protocol):
    """What a norm's version of the ascent remembers of each sample."""

    @staticmethod
    def checkpoints(steps: int) -> Iterator[int]:
        """The moves after which steps are adapted."""
        ...

    def __getitem__(self, kept: Tensor) -> Pace: ...

    def seen(self, loss: Tensor) -> Pace:
        """After a move that led to `loss` (n,)."""
        ...

    def candidate(self, climb: Climb, norm: Norm, eps: float, first: bool) -> Tensor:
        """Where each sample moves next, in ball and box."""
        ...

    def adapt(self, climb: Climb, longest: float) -> Climb:
        """Steps of a new length, at a checkpoint."""
        ...


@dataclass(frozen=True)
class Ascent:
    """How to climb.

    Attributes:
        goal: what is raised.
        norm, eps: the ball around each image.
        steps: moves of a sample that is not broken on the way.
        eot: passes that gradients and logits are averaged over.
        early_stop: whether a sample is left alone at its first misclassified point.
        reach: whether it is left alone only where it is taken for its target.
    """

    goal: Goal
    norm: Norm
    eps: float
    steps: int
    eot: int = 1
    early_stop: bool = True
    reach: bool = False

    def run(self, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """For each sample the first point on its way where it is done, else the one of highest loss.

        Args:
            model: images to logits.
            start: (n, c, h, w) first points, in ball and box.
            x: (n, c, h, w) images.
            y: (n,) their classes.
            target: (n,) classes that the goal wants.
        """
        found = start.clone()
        longest = self.eps if self.norm == L1() else 2 * self.eps
        climb, going_on = self._begin(model, start, x, y, target, longest)
        checkpoints = set(climb.pace.checkpoints(self.steps))
        if self.early_stop:
            climb = climb[going_on]
        for move in range(1, self.steps + 1):
            if not len(climb):
                break
            climb, going_on = self._move(model, climb, move)
            if self.early_stop and not bool(going_on.all()):
                found[climb.index[~going_on]] = climb.x_adv[~going_on]
                climb = climb[going_on]
            if move in checkpoints:
                climb = climb.pace.adapt(climb, longest)
        found[climb.index] = climb.top
        return found

    def _open(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """(n,) bool, whether a sample is not done."""
        return ~is_right(logits, target) if self.reach else is_right(logits, y)

    def _towards(self, target: Tensor) -> Loss:
        return lambda logits, y: self.goal(logits, y, target)

    def _begin(
        self, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor, longest: float
    ) -> tuple[Climb, Tensor]:
        """All samples at their first points, and (n,) bool, whether they are not done there."""
        gradient, logits = input_gradient(model, self._towards(target), start, y, self.eot)
        loss = self.goal(logits, y, target)
        index, step = torch.arange(len(x), device=x.device), torch.full_like(loss, longest)
        pace: Pace = Sparsening.begin(start, x) if self.norm == L1() else Halving.begin(loss)
        climb = Climb(index, x, y, target, start, start, gradient, step, start, gradient, loss, pace)
        return climb, self._open(logits, y, target)

    def _move(self, model: Model, climb: Climb, move: int) -> tuple[Climb, Tensor]:
        """After move number `move`, and (n,) bool, whether the samples are not done."""
        x_adv = climb.pace.candidate(climb, self.norm, self.eps, move == 1)
        if move < self.steps:
            gradient, logits = input_gradient(model, self._towards(climb.target), x_adv, climb.y, self.eot)
        else:  # No move follows, so nothing needs a gradient.
            gradient, logits = climb.gradient, mean_logits(model, x_adv, self.eot)
        loss = self.goal(logits, climb.y, climb.target)
        return climb.moved(x_adv, gradient, loss), self._open(logits, climb.y, climb.target)
