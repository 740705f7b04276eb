"""Auto-PGD, on the true class or towards one wrong class after the other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes, compact, survivors
from robustcli.attacks.losses import (
    Loss,
    Model,
    cross_entropy,
    dlr,
    input_gradient,
    is_right,
    lead,
    likeness,
    margin,
    mean_logits,
    runners_up,
    targeted_dlr,
)
from robustcli.attacks.norms import L1, Linf, Norm, NormField, per_sample
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, Budget
from robustcli.noise import Noise

MOMENTUM = 0.75
"""The new step's share of a move; the rest is the last move (Croce & Hein 2020, eq. 2)."""

RISING = 0.75
"""A step is halved where no larger share of the moves since the last checkpoint raised the loss (rho in the paper)."""

SPARSER = 0.95
"""In L1, the share of the support at the last checkpoint below which the best point counts as sparser."""

L1_STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""In L1: radii in units of eps, and each one's share of the steps (Croce & Hein 2021, section 4.2)."""

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (n, classes), true classes (n,) and target classes (n,) to what is raised, (n,)."""


@dataclass(frozen=True, config=STRICT)
class APGD:
    """Gradient ascent with momentum whose step is halved, sample by sample, where the loss stops rising.

    Croce and Hein 2020, *Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks*; for L1, 2021, *Mind the box: l1-APGD for sparse adversarial attacks*: sparse steps, in balls of 3, 2 and 1
    times eps.

    Returns images in the ball and in [0, 1]: the first iterate that is misclassified, or the one of highest loss. From
    the same starts it takes the steps of the authors' code, but a broken sample takes no more of them. Starts are drawn
    in the ball, there on its surface. With two classes, where the ratio of `dlr` is constant, the margin takes its
    place. With a `target` the loss is that class's, and a sample goes on until it is taken for it.
    """

    eps: Budget
    steps: PositiveInt = 100
    restarts: PositiveInt = 1
    loss: Literal["ce", "dlr"] = "ce"
    eot: PositiveInt = 1
    norm: NormField = Linf()
    target: Target | None = None

    name: ClassVar[str] = "apgd"
    summary: ClassVar[str] = "projected gradient descent that chooses its own steps (Croce & Hein 2020)"
    use: ClassVar[str] = (
        "In place of PGD: there is no step size to choose. `loss=dlr` does not mind how large a model's logits are."
    )
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "gradients"
    parameter_free: ClassVar[bool] = True

    @property
    def losses(self) -> Losses:
        """As `loss` says: the difference-of-logits ratio is a margin."""
        return ("cross-entropy",) if self.loss == "ce" else ("margin",)

    @property
    def weak(self) -> bool:
        """A single step proves little."""
        return self.steps == 1

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        runs, between = self.restarts, (self.restarts - 1) * self.eot
        each = self.eot * (self.steps + _most_stages(self.norm)) + (self.target is not None)
        return Passes(runs * each + between, runs * self.eot * self.steps)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        return survivors([self._attempt] * self.restarts, model, x, y, noise, self.eot)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        target = None if self.target is None else target_classes(self.target, model, x, y, noise)
        return self.ascend(model, random_start(self.norm, self.eps, x, noise), x, y, target)

    def ascend(self, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """One run from the points `start` (n, c, h, w), moved into ball and box; in L1 into the ball of 3 eps first.

        With classes `target` (n,), towards them.
        """
        objectives = (_cross_entropy, _dlr) if target is None else (_likeness, _targeted)
        objective, targeted = objectives[self.loss == "dlr"], target is not None
        ascent = Ascent(objective, self.norm, self.eps, self.steps, self.eot, targeted=targeted)
        return _ascend(ascent, model, start, x, y, y if target is None else target)


@dataclass(frozen=True, config=STRICT)
class APGDT:
    """APGD towards each of the `targets` best wrong classes in turn, by the targeted difference-of-logits ratio.

    Croce and Hein 2020, *Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks*.

    Returns images in the ball and in [0, 1]: the first iterate that is misclassified, as whatever class, or the one of
    highest loss of the last run. Classes are ranked by the logits of the clean image. A model of K classes has K - 1
    targets at most, and with fewer than four there is no such ratio: then the difference of the two logits is raised.
    """

    eps: Budget
    steps: PositiveInt = 100
    restarts: PositiveInt = 1
    targets: PositiveInt = 9
    eot: PositiveInt = 1
    norm: NormField = Linf()

    name: ClassVar[str] = "apgd-t"
    summary: ClassVar[str] = "auto-PGD towards one wrong class after the other (Croce & Hein 2020)"
    use: ClassVar[str] = "For what APGD leaves standing: it tries each wrong class, at up to nine times the cost."
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("margin",)
    parameter_free: ClassVar[bool] = True

    @property
    def weak(self) -> bool:
        """A single step proves little."""
        return self.steps == 1

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        runs = self.restarts * self.targets
        each = self.eot * (self.steps + _most_stages(self.norm)) + 1
        return Passes(1 + runs * each + (runs - 1) * self.eot, runs * self.eot * self.steps)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        with torch.no_grad():
            classes = model(x[:1]).shape[1] if len(x) else 2
        attempts = [
            partial(self._attempt, rank=rank)
            for rank in range(min(self.targets, classes - 1))
            for _ in range(self.restarts)
        ]
        return survivors(attempts, model, x, y, noise, self.eot)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise, rank: int) -> Tensor:
        return self.ascend(model, random_start(self.norm, self.eps, x, noise), x, y, rank)

    def ascend(self, model: Model, start: Tensor, x: Tensor, y: Tensor, rank: int = 0) -> Tensor:
        """One run towards the wrong class number `rank` from the points `start` (n, c, h, w), as in `APGD`."""
        with torch.no_grad():
            wrong = runners_up(model(x), y)
        ascent = Ascent(_targeted, self.norm, self.eps, self.steps, self.eot)
        return _ascend(ascent, model, start, x, y, wrong[:, rank])


def _cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits, y)


def _dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return dlr(logits, y) if logits.shape[1] > 2 else -margin(logits, y)


def _likeness(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return likeness(logits, target)


def _targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    return targeted_dlr(logits, y, target) if logits.shape[1] > 3 else lead(logits, y, target)


def random_start(norm: Norm, eps: float, x: Tensor, noise: Noise) -> Tensor:
    """Points (n, c, h, w) of ball and box; in L1 normal noise, projected onto the ball of radius 3 eps."""
    if norm == L1():
        return norm.confine(x + noise.normal(x), x, L1_STAGES[0][0] * eps)
    return norm.spread(x, eps, noise).clamp(0, 1)


def _ascend(ascent: Ascent, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Through the stages of an ascent, each from the best point of the one before."""
    point = start
    for stage in _stages(ascent):
        point = stage.run(model, stage.norm.confine(point, x, stage.eps), x, y, target)
    return point


def _most_stages(norm: Norm) -> int:
    return len(L1_STAGES) if norm == L1() else 1


def _stages(ascent: Ascent) -> Iterator[Ascent]:
    """The ascent itself; in L1, in balls that shrink to eps. What is broken in a larger ball is not broken yet."""
    if ascent.norm == L1():
        counts = [math.ceil(share * ascent.steps) for _, share in L1_STAGES]
        last = ascent.steps - sum(counts[:-1])
        if last > 0:
            for (radius, _), steps in zip(L1_STAGES[:-1], counts[:-1], strict=True):
                yield replace(ascent, eps=radius * ascent.eps, steps=steps, early_stop=False)
            yield replace(ascent, steps=last)
            return
    yield ascent


@dataclasses.dataclass(frozen=True)
class Ascent:
    """Auto-PGD in one ball (Croce & Hein 2020, algorithm 1).

    Attributes:
        objective: what is raised.
        norm, eps: the ball around each image.
        steps: moves of a sample that is not broken on the way.
        eot: passes that gradients and logits are averaged over.
        early_stop: whether a sample is left alone at its first misclassified point.
        targeted: whether it is left alone only where it is taken for its target.
    """

    objective: Objective
    norm: Norm
    eps: float
    steps: int
    eot: int = 1
    early_stop: bool = True
    targeted: bool = False

    def run(self, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """For each sample the first point on its way where it is done, else the best: that of highest loss.

        Args:
            model: images to logits.
            start: (n, c, h, w) first points, in ball and box.
            x: (n, c, h, w) images.
            y: (n,) their classes.
            target: (n,) classes that the objective wants.
        """
        found = start.clone()
        longest = self.eps if self.norm == L1() else 2 * self.eps
        state, standing = self._begin(model, start, x, y, target, longest)
        checkpoints = set(state.rule.checkpoints(self.steps))
        if self.early_stop:
            state = compact(state, standing)
        for move in range(1, self.steps + 1):
            if not len(state.index):
                break
            state, standing = self._move(model, state, move)
            if self.early_stop and not bool(standing.all()):
                found[state.index[~standing]] = state.x_adv[~standing]
                state = compact(state, standing)
            if move in checkpoints:
                state = state.rule.adapt(state, longest)
        found[state.index] = state.best
        return found

    def _stands(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """(n,) bool, whether a sample is not done."""
        return ~is_right(logits, target) if self.targeted else is_right(logits, y)

    def _towards(self, target: Tensor) -> Loss:
        return lambda logits, y: self.objective(logits, y, target)

    def _begin(
        self, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor, longest: float
    ) -> tuple[State, Tensor]:
        """All samples at their first points, and (n,) bool, whether they stand there."""
        gradient, logits = input_gradient(model, self._towards(target), start, y, self.eot)
        loss = self.objective(logits, y, target)
        index, step = torch.arange(len(x), device=x.device), torch.full_like(loss, longest)
        rule = SparseSteps.begin(start, x) if self.norm == L1() else StepHalving.begin(loss)
        state = State(index, x, y, target, start, start, gradient, step, start, gradient, loss, rule)
        return state, self._stands(logits, y, target)

    def _move(self, model: Model, state: State, move: int) -> tuple[State, Tensor]:
        """After move number `move`, and (n,) bool, whether the samples stand."""
        x_adv = state.rule.next_point(state, self.norm, self.eps, move == 1)
        if move < self.steps:
            gradient, logits = input_gradient(model, self._towards(state.target), x_adv, state.y, self.eot)
        else:  # No move follows, so nothing needs a gradient.
            gradient, logits = state.gradient, mean_logits(model, x_adv, self.eot)
        loss = self.objective(logits, state.y, state.target)
        return state.after(x_adv, gradient, loss), self._stands(logits, state.y, state.target)


@dataclasses.dataclass(frozen=True)
class State:
    """The samples that are still attacked, an entry a sample.

    Attributes:
        index: place in the batch.
        x, y, target: the image, its class and the class that is wanted.
        x_adv, x_last: where it is and where it was a move ago.
        gradient: of the loss at `x_adv`.
        step: length of the next move.
        best, best_gradient, best_loss: the point of highest loss so far.
        rule: how it moves, and how its step changes.
    """

    index: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    x_last: Tensor
    gradient: Tensor
    step: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    rule: StepHalving | SparseSteps

    def after(self, x_adv: Tensor, gradient: Tensor, loss: Tensor) -> State:
        """After a move to `x_adv`, where the loss is `loss`."""
        higher = loss > self.best_loss
        wide = per_sample(higher, x_adv)
        return replace(
            self,
            x_adv=x_adv,
            x_last=self.x_adv,
            gradient=gradient,
            best=torch.where(wide, x_adv, self.best),
            best_gradient=torch.where(wide, gradient, self.best_gradient),
            best_loss=torch.where(higher, loss, self.best_loss),
            rule=self.rule.after(loss),
        )

    def back_to_best(self, where: Tensor) -> State:
        """The samples `where` (n,) go on from their best point."""
        wide = per_sample(where, self.x_adv)
        return replace(
            self,
            x_adv=torch.where(wide, self.best, self.x_adv),
            gradient=torch.where(wide, self.best_gradient, self.gradient),
        )


@dataclasses.dataclass(frozen=True)
class StepHalving:
    """Moves with momentum; a step is halved where the loss rose too rarely, or not at all since the last halving.

    Attributes:
        loss: (n,) after the last move. It begins with 0, as in the authors' code, not with that of the start.
        rises: (n,) moves since the checkpoint that raised the loss.
        moves: (n,) moves since the checkpoint.
        best_loss: (n,) the highest loss at the checkpoint.
        shorter: (n,) bool, whether the step was halved there.
    """

    loss: Tensor
    rises: Tensor
    moves: Tensor
    best_loss: Tensor
    shorter: Tensor

    @classmethod
    def begin(cls, loss: Tensor) -> StepHalving:
        """Before the first move, from points of this loss (n,)."""
        none = torch.zeros_like(loss)
        return cls(none, none, none, loss, torch.ones_like(loss, dtype=torch.bool))

    @staticmethod
    def checkpoints(steps: int) -> Iterator[int]:
        """The moves after which steps are adapted: ever closer together."""
        interval, at = max(int(0.22 * steps), 1), 0
        while at < steps:
            at += interval
            yield at
            interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))

    def after(self, loss: Tensor) -> StepHalving:
        """After a move that led to `loss` (n,)."""
        return replace(self, loss=loss, rises=self.rises + (loss > self.loss), moves=self.moves + 1)

    def next_point(self, state: State, norm: Norm, eps: float, first: bool) -> Tensor:
        """A step up the gradient, then a part of the way there and a part of the last move, in ball and box."""
        x_adv = state.x_adv
        step = per_sample(state.step, x_adv)
        ahead = norm.confine(x_adv + step * norm.steepest(state.gradient), state.x, eps)
        share = 1.0 if first else MOMENTUM
        return norm.confine(x_adv + (ahead - x_adv) * share + (x_adv - state.x_last) * (1 - share), state.x, eps)

    def adapt(self, state: State, longest: float) -> State:
        """At a checkpoint: half the step, from the best point on, where the loss does not rise enough."""
        stuck = ~self.shorter & (self.best_loss >= state.best_loss)
        halve = (self.rises <= RISING * self.moves) | stuck
        none = torch.zeros_like(self.rises)
        rule = replace(self, rises=none, moves=none, best_loss=state.best_loss, shorter=halve)
        return replace(state.back_to_best(halve), step=torch.where(halve, state.step / 2, state.step), rule=rule)


@dataclasses.dataclass(frozen=True)
class SparseSteps:
    """L1: moves along the steepest pixels only, fewer the sparser the best point is (Croce & Hein 2021, algorithm 1).

    Attributes:
        share: (n,) of the pixels that the next move takes.
        support: (n,) pixels that differed from the image at the checkpoint.
    """

    share: Tensor
    support: Tensor

    @classmethod
    def begin(cls, x_adv: Tensor, x: Tensor) -> SparseSteps:
        """From the points `x_adv`, at the start or a checkpoint."""
        support = (x_adv != x).flatten(1).sum(1).to(x.dtype)
        return cls(support / 1.5 / x.shape[1:].numel(), support)

    @staticmethod
    def checkpoints(steps: int) -> Iterator[int]:
        """The moves after which steps are adapted: evenly spaced."""
        interval = max(int(0.04 * steps), 1)
        yield from range(interval, steps + 1, interval)

    def after(self, loss: Tensor) -> SparseSteps:
        """It does not look at the loss."""
        return self

    def next_point(self, state: State, norm: Norm, eps: float, first: bool) -> Tensor:
        """An equal step along each of the steepest pixels, in ball and box."""
        size = state.gradient.flatten(1).abs()
        rank = ((1 - self.share) * size.shape[1]).clamp(0, size.shape[1] - 1).long()
        least = size.sort(1).values.gather(1, rank[:, None])
        signs = state.gradient.flatten(1).sign().where(size >= least, size.new_zeros(()))
        move = signs * (state.step / (signs.abs().sum(1) + 1e-10))[:, None]
        return norm.confine(state.x_adv + move.reshape(state.x.shape), state.x, eps)

    def adapt(self, state: State, longest: float) -> State:
        """At a checkpoint: the longest step, from the best point on, where that is sparser; else a shorter one."""
        rule = SparseSteps.begin(state.best, state.x)
        sparser = rule.support / self.support < SPARSER
        step = torch.where(sparser, longest, state.step / 1.5).clamp(longest / 10, longest)
        return replace(state.back_to_best(sparser), step=step, rule=rule)
