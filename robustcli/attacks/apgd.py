"""Auto-PGD, on the true class or towards one wrong class after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.ascent import Ascent
from robustcli.attacks.base import Kind, Losses, Needs, survivors
from robustcli.attacks.losses import Model, cross_entropy, dlr, lead, likeness, margin, runners_up, targeted_dlr
from robustcli.attacks.norms import L1, Linf, Norm, NormField
from robustcli.attacks.targets import Target, wanted
from robustcli.fields import STRICT, Budget
from robustcli.noise import Noise

L1_STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))
"""In L1: radii in units of eps, and each one's share of the steps (Croce & Hein 2021, section 4.2)."""


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
    def cost(self) -> int:
        """Passes of an image at most."""
        return 2 * self.eot * self.steps * self.restarts

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        return survivors([self._attempt] * self.restarts, model, x, y, noise, self.eot)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        aim = None if self.target is None else wanted(self.target, model, x, y, noise)
        return self.ascend(model, random_start(self.norm, self.eps, x, noise), x, y, aim)

    def ascend(self, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """One run from the points `start` (n, c, h, w), moved into ball and box; in L1 into the ball of 3 eps first.

        With classes `target` (n,), towards them.
        """
        goals = (_cross_entropy, _dlr) if target is None else (_likeness, _targeted)
        ascent = Ascent(goals[self.loss == "dlr"], self.norm, self.eps, self.steps, self.eot, reach=target is not None)
        return _climb(ascent, model, start, x, y, y if target is None else target)


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
    def cost(self) -> int:
        """Passes of an image at most."""
        return 2 * self.eot * self.steps * self.restarts * self.targets

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
        return _climb(ascent, model, start, x, y, wrong[:, rank])


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


def _climb(ascent: Ascent, model: Model, start: Tensor, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Through the stages of an ascent, each entered at the highest point of the one before."""
    point = start
    for stage in _stages(ascent):
        point = stage.run(model, stage.norm.confine(point, x, stage.eps), x, y, target)
    return point


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
