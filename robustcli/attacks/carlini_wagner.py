"""The attack of Carlini and Wagner."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, gradient_of, is_right, margin
from robustcli.attacks.minimal import Closest
from robustcli.attacks.norms import L2, OnlyL2
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, NonNegative, Positive
from robustcli.noise import Noise

NEARLY = 0.999999
"""Pixels 0 and 1 lie at infinity in the space of arctanh: this much of the way is taken, as in the authors' code."""

PROGRESS = 0.9999
CHECKS = 10
"""With `abort_early`, a sample goes on while its loss falls below this share of its last, compared so many times."""

FIRST, SECOND, SMALL = 0.9, 0.999, 1e-8
"""Adam's two decays and its epsilon (Kingma & Ba 2014)."""


@dataclass(frozen=True, config=STRICT)
class CarliniWagner:
    """Adam on the squared distance plus `const` times the margin, in arctanh space, with a search for the least const.

    Carlini and Wagner 2017, *Towards Evaluating the Robustness of Neural Networks*: the L2 attack, with their loss f6.

    Returns the closest adversarial of all iterates, or the sample itself. The change of variables keeps pixels in the
    box without clipping. Each sample has its own const, its own search and, with `abort_early`, its own end: in the
    authors' code the mean loss of the batch ends it for all. `steps` are 1 000 and not their 10 000, which on MNIST
    moves no distance by more than a few in a thousand. With a `target` an image counts once it is taken for that class.
    """

    steps: PositiveInt = 1000
    binary_search_steps: PositiveInt = 9
    lr: Positive = 0.01
    initial_const: Positive = 1e-3
    confidence: NonNegative = 0.0
    abort_early: bool = True
    norm: OnlyL2 = L2()
    target: Target | None = None

    name: ClassVar[str] = "cw"
    summary: ClassVar[str] = "distance and margin, minimised together by Adam (Carlini & Wagner 2017)"
    use: ClassVar[str] = (
        "Slow and classic: small L2 distances, to compare with older papers; `confidence` for images that transfer."
    )
    bounded: ClassVar[bool] = True
    kind: ClassVar[Kind] = "minimal"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("margin",)
    parameter_free: ClassVar[bool] = False
    converges: ClassVar[bool] = False

    @property
    def weak(self) -> bool:
        """A single step proves little."""
        return self.steps == 1

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        steps = self.steps * self.binary_search_steps
        return Passes(1 + (self.target is not None) + steps, steps, exact=not self.abort_early)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        closest = Closest(self.norm, x)
        aim = y if self.target is None else target_classes(self.target, model, x, y, noise)
        with torch.no_grad():
            attacked = is_right(model(x), y).nonzero()[:, 0]
        const = x.new_full((len(attacked),), self.initial_const)
        low, high = torch.zeros_like(const), torch.full_like(const, torch.inf)
        for _ in range(self.binary_search_steps if len(attacked) else 0):
            broken = self._minimise(model, closest, attacked, aim[attacked], const)
            high, low = torch.where(broken, const, high), torch.where(broken, low, const)
            const = torch.where(high.isinf(), 10 * const, (low + high) / 2)
        return closest.x_adv

    def _minimise(self, model: Model, closest: Closest, index: Tensor, aim: Tensor, const: Tensor) -> Tensor:
        """Offer `closest` the iterates of the samples `index` (n,), and say which of them (n,) this const broke."""
        ever_broken = torch.zeros_like(const, dtype=torch.bool)
        here = torch.arange(len(index), device=index.device)
        origin = torch.atanh((2 * closest.x[index] - 1) * NEARLY)
        x = (origin.tanh() + 1) / 2
        z, mean, square = origin, torch.zeros_like(origin), torch.zeros_like(origin)
        last = torch.full_like(const, torch.inf)
        for step in range(self.steps):
            gradient, loss, x_adv, broken = self._evaluate(model, z, x, aim, const)
            closest.offer(index, x_adv, broken)
            ever_broken[here] |= broken
            mean = torch.lerp(gradient, mean, FIRST)
            square = torch.lerp(gradient.square(), square, SECOND)
            unbiased = mean / (1 - FIRST ** (step + 1))
            z = z - self.lr * unbiased / ((square / (1 - SECOND ** (step + 1))).sqrt() + SMALL)
            if self.abort_early and step % math.ceil(self.steps / CHECKS) == 0:
                going_on = loss <= PROGRESS * last
                last = loss
                if not bool(going_on.all()):
                    here, index, x, aim, const = (part[going_on] for part in (here, index, x, aim, const))
                    z, mean, square, last = (part[going_on] for part in (z, mean, square, last))
                    if len(here) == 0:
                        break
        return ever_broken

    def _evaluate(
        self, model: Model, z: Tensor, x: Tensor, aim: Tensor, const: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss's gradient at `z` (n, c, h, w), the loss (n,), the image there, and whether it is adversarial."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x_adv = (z.tanh() + 1) / 2
            logits = model(x_adv)
            lead = margin(logits, aim)
            gap = (lead if self.target is None else -lead) + self.confidence
            loss = (x_adv - x).flatten(1).square().sum(1) + const * gap.clamp_min(0)
            gradient = gradient_of(loss.sum(), z)
        broken = (gap <= 0) & (is_right(logits, aim) == (self.target is not None))
        return gradient, loss.detach(), x_adv.detach(), broken
