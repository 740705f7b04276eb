"""The fast adaptive boundary attack, targeted: as a minimal-norm attack, and within a budget."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, input_gradient, is_right, lead, runners_up
from robustcli.attacks.minimal import Closest, largest_distance
from robustcli.attacks.norms import Linf, NormField, per_sample
from robustcli.attacks.projection import project_onto_hyperplane
from robustcli.fields import STRICT, Budget, Fraction, Positive
from robustcli.noise import Noise

SHORTEST = 1e-8
"""What a step counts for at least where the two of an iteration are weighed against each other."""


@dataclass(frozen=True, config=STRICT)
class FAB:
    """Steps onto the linearised boundary with one class, drawn to the boundary's point nearest to the sample.

    Croce and Hein 2020, *Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack*: its targeted
    form FAB-T, class by class of the `targets` best wrong ones, which costs one backward pass an iteration however many
    classes there are.

    Returns the closest adversarial found, of any class, or the sample itself. An iteration projects both the iterate
    and the sample onto the hyperplane inside the box, goes `eta` times that far, and mixes the two by at most
    `alpha_max`; an iterate that is adversarial is drawn back to `beta` of its way. It differs from the authors' code in
    its restarts, which begin at half the distance found so far, as the paper has it (there: half of eps, whatever was
    found).
    """

    iters: PositiveInt = 100
    restarts: PositiveInt = 1
    targets: PositiveInt = 9
    alpha_max: Fraction = 0.1
    eta: Positive = 1.05
    beta: Fraction = 0.9
    norm: NormField = Linf()

    name: ClassVar[str] = "fab"
    summary: ClassVar[str] = "the closest adversarial, along the boundary with each class (Croce & Hein 2020)"
    use: ClassVar[str] = "Distances class by class, beside FMN, at nine times its price; `targets=1` for a first look."
    bounded: ClassVar[bool] = True
    kind: ClassVar[Kind] = "minimal"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("margin",)
    weak: ClassVar[bool] = False
    parameter_free: ClassVar[bool] = True
    converges: ClassVar[bool] = False

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        steps = self.iters * self.restarts * self.targets
        return Passes(1 + 2 * steps, steps)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        return self.search(model, x, y, noise).x_adv

    def search(self, model: Model, x: Tensor, y: Tensor, noise: Noise, enough: float = 0.0) -> Closest:
        """The closest adversarials; a sample is left alone once it has one within `enough`."""
        closest = Closest(self.norm, x)
        with torch.no_grad():
            logits = model(x)
        wrong = runners_up(logits, y)
        open_ones = is_right(logits, y).nonzero()[:, 0]
        for rank in range(min(self.targets, wrong.shape[1])):
            for restart in range(self.restarts):
                open_ones = open_ones[closest.distance[open_ones] > enough]
                if len(open_ones) == 0:
                    return closest
                target = wrong[open_ones, rank]
                start = x[open_ones]
                if restart:
                    source = noise[open_ones].stream(f"target {rank}").stream(f"restart {restart}")
                    start = self._random_start(closest, open_ones, source, enough)
                self._approach(model, closest, open_ones, start, y[open_ones], target, enough)
        return closest

    def _random_start(self, closest: Closest, index: Tensor, noise: Noise, enough: float) -> Tensor:
        """Points at half the distance found so far, or of `enough` where that is less."""
        x = closest.x[index]
        distance = torch.minimum(closest.distance[index], largest_distance(self.norm, x))
        if enough:
            distance = distance.clamp_max(enough)
        origin = torch.zeros_like(x)
        direction = self.norm.spread(origin, 1.0, noise)
        length = self.norm.distance(direction, origin).clamp_min(torch.finfo(x.dtype).tiny)
        return (x + direction * per_sample(distance / 2 / length, x)).clamp(0, 1)

    def _approach(
        self, model: Model, closest: Closest, index: Tensor, start: Tensor, y: Tensor, target: Tensor, enough: float
    ) -> None:
        """Offer `closest` the iterates towards the classes `target` (n,) of its samples `index` (n,)."""
        x, x_adv = closest.x[index], start
        for _ in range(self.iters):
            x_adv = self._step(model, x_adv, x, y, target)
            with torch.no_grad():
                broken = ~is_right(model(x_adv), y)
            closest.offer(index, x_adv, broken)
            drawn_back = x + self.beta * (x_adv - x)
            x_adv = torch.where(per_sample(broken, x), drawn_back, x_adv)
            going_on = closest.distance[index] > enough
            if not bool(going_on.all()):
                index, x, x_adv, y, target = (part[going_on] for part in (index, x, x_adv, y, target))
                if len(index) == 0:
                    return

    def _step(self, model: Model, x_adv: Tensor, x: Tensor, y: Tensor, target: Tensor) -> Tensor:
        """The next iterates."""
        gradient, logits = input_gradient(model, partial(lead, target=target), x_adv, y)
        w, points = gradient.flatten(1), torch.stack([x_adv, x]).flatten(2)
        # How far w . delta must go from the iterate, and from the sample, to the hyperplane.
        gap = -lead(logits, y, target) + torch.stack([torch.zeros_like(w), points[0] - points[1]]).mul(w).sum(2)
        side = torch.where(gap < 0, -1.0, 1.0).to(w.dtype)
        normals = (side[:, :, None] * w).flatten(0, 1)
        delta = project_onto_hyperplane(
            self.norm, normals, gap.abs().flatten(), -points.flatten(0, 1), 1 - points.flatten(0, 1)
        ).delta
        length = self.norm.distance(delta, torch.zeros_like(delta)).clamp_min(SHORTEST).reshape(gap.shape)
        alpha = (length[0] / length.sum(0)).clamp_max(self.alpha_max)[:, None]
        ends = points + self.eta * delta.reshape(points.shape)
        return torch.lerp(ends[0], ends[1], alpha).clamp(0, 1).reshape(x.shape)


@dataclass(frozen=True, config=STRICT)
class FABT:
    """FAB-T in the ball of radius eps, as AutoAttack runs it.

    Croce and Hein 2020, *Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks*.

    Returns images in the ball and in [0, 1]: an adversarial within eps, or the sample itself. A sample is finished with
    the first iterate that is such an adversarial; the authors' code finishes it with the class being tried.
    """

    eps: Budget
    iters: PositiveInt = 100
    restarts: PositiveInt = 1
    targets: PositiveInt = 9
    norm: NormField = Linf()

    name: ClassVar[str] = "fab-t"
    summary: ClassVar[str] = "the same within a budget, as in AutoAttack (Croce & Hein 2020)"
    use: ClassVar[str] = "A member of AutoAttack; on its own, where the gradients of a loss lead nowhere."
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("margin",)
    weak: ClassVar[bool] = False
    parameter_free: ClassVar[bool] = True

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        steps = self.iters * self.restarts * self.targets
        return Passes(1 + 2 * steps, steps)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        search = FAB(iters=self.iters, restarts=self.restarts, targets=self.targets, norm=self.norm)
        closest = search.search(model, x, y, noise, enough=self.eps)
        return torch.where(per_sample(closest.distance <= self.eps, x), closest.x_adv, x)
