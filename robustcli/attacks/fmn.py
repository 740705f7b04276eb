"""The fast minimum-norm attack."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, input_gradient, is_right, margin
from robustcli.attacks.minimal import Closest, largest_distance
from robustcli.attacks.norms import L2, Linf, NormField, per_sample
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, Fraction, Positive
from robustcli.noise import Noise

LAST_GAMMA = 1e-3
LAST_STEP = 1e-2
"""What is left of gamma, and which share of step_size, at the end of their cosines: the authors' values."""


@dataclass(frozen=True, config=STRICT)
class FMN:
    """Steps down the margin in a ball that shrinks while the sample is broken and grows while it is not.

    Pintor, Roli, Brendel and Biggio 2021, *Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints*.

    Returns the closest adversarial of all iterates, the last one among them (the authors' code and foolbox do not look
    at it), or the sample itself. The ball's radius changes by the factor 1 +- gamma, gamma falling along a cosine from
    its value to 0.001. Before the first success it is the linearised distance to the boundary and gamma more, and never
    shrinks: as the paper has it, an iterate can end on the boundary and not cross it, and where the box cuts steps off
    it may never get there. A step has the L2 length `step_size` in every norm, which falls along the same cosine to a
    hundredth. With a `target` an image counts once it is taken for that class.
    """

    iters: PositiveInt = 100
    step_size: Positive = 1.0
    gamma: Fraction = 0.05
    norm: NormField = Linf()
    target: Target | None = None

    name: ClassVar[str] = "fmn"
    summary: ClassVar[str] = "the closest adversarial, in a ball that adapts (Pintor et al. 2021)"
    use: ClassVar[str] = (
        "The cheapest good distances, in any norm: the first look at a curve. It can settle for the second nearest "
        "class: FAB beside it finds what it misses, and the other way round."
    )
    bounded: ClassVar[bool] = True
    kind: ClassVar[Kind] = "minimal"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("margin",)
    weak: ClassVar[bool] = False
    parameter_free: ClassVar[bool] = False
    converges: ClassVar[bool] = False  # of a good network it leaves 27 %

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        return Passes(self.iters + 1 + (self.target is not None), self.iters, exact=True)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        closest, everyone = Closest(self.norm, x), torch.arange(len(x), device=x.device)
        targeted = self.target is not None
        aim = y if self.target is None else target_classes(self.target, model, x, y, noise)
        largest = largest_distance(self.norm, x)
        x_adv, radius = x, torch.zeros_like(largest)
        for i in range(self.iters):
            gradient, logits = input_gradient(model, margin if targeted else _best_lead, x_adv, aim)
            broken = is_right(logits, aim) == targeted
            closest.offer(everyone, x_adv, broken)
            cosine = (1 + math.cos(math.pi * i / self.iters)) / 2
            gamma = LAST_GAMMA + (self.gamma - LAST_GAMMA) * cosine
            inside = torch.minimum(radius * (1 - gamma), closest.distance)
            unseen = self.norm.distance(x_adv, x) + self._to_boundary(gradient, margin(logits, aim))
            outside = torch.where(closest.distance.isinf(), unseen.maximum(radius), radius) * (1 + gamma)
            radius = torch.minimum(torch.where(broken, inside, outside), largest)
            length = self.step_size * (LAST_STEP + (1 - LAST_STEP) * cosine)
            moved = x_adv + length * L2().steepest(gradient)
            x_adv = self._project(moved, x, radius).clamp(0, 1)
        with torch.no_grad():
            closest.offer(everyone, x_adv, is_right(model(x_adv), aim) == targeted)
        return closest.x_adv

    def _to_boundary(self, gradient: Tensor, gap: Tensor) -> Tensor:
        """(n,) the linearised distance over which a `gap` closes along its gradient."""
        slope = (gradient * self.norm.steepest(gradient)).flatten(1).sum(1)
        return gap.abs() / slope.clamp_min(torch.finfo(slope.dtype).tiny)

    def _project(self, x_adv: Tensor, x: Tensor, radius: Tensor) -> Tensor:
        """The points nearest to `x_adv` in balls with a radius a sample, (n,): unit balls, scaled."""
        scale = per_sample(radius.clamp_min(1e-12), x)
        return x + scale * self.norm.project((x_adv - x) / scale, torch.zeros_like(x), 1.0)


def _best_lead(logits: Tensor, y: Tensor) -> Tensor:
    """(n,) by how much the best other logit leads."""
    return -margin(logits, y)
