"""Projected gradient descent."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes, survivors
from robustcli.attacks.losses import Model, cross_entropy, input_gradient, is_right, likeness
from robustcli.attacks.norms import Linf, NormField
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, Budget
from robustcli.noise import Noise


@dataclass(frozen=True, config=STRICT)
class PGD:
    """Steps up the cross-entropy, projected back onto the ball after each.

    Madry et al. 2017, *Towards Deep Learning Models Resistant to Adversarial Attacks*.

    Returns images in the ball and in [0, 1]: the first iterate that is misclassified, or the last one. Stopping there
    (`early_stop`) costs no accuracy of the measurement and saves the rest of the steps; adversarial training turns it
    off, for it wants the loss as high as it gets. The start is drawn uniformly from the ball; a step is
    2.5 eps / steps unless given, so that any point of the ball can be reached. In L1 a step is sparse, the steepest one
    inside the box, and the projection is the exact one onto ball and box (Croce & Hein 2021).
    With a `target` the steps go down the cross-entropy of that class, until the sample is taken for it.
    """

    eps: Budget
    steps: PositiveInt = 20
    step_size: Budget | None = None
    restarts: PositiveInt = 1
    norm: NormField = Linf()
    random_start: bool = True
    early_stop: bool = True
    eot: PositiveInt = 1
    target: Target | None = None

    name: ClassVar[str] = "pgd"
    summary: ClassVar[str] = "projected gradient descent from random starts (Madry et al. 2017)"
    use: ClassVar[str] = (
        "The baseline that every defence is measured by; a number to report has 40 steps or more, and restarts."
    )
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("cross-entropy",)
    parameter_free: ClassVar[bool] = False

    @property
    def weak(self) -> bool:
        """A single step proves little."""
        return self.steps == 1

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        each, again = self.eot * self.steps, self.restarts - 1
        forwards = self.restarts * (each + (self.target is not None)) + again * self.eot
        return Passes(forwards, self.restarts * each, exact=not self.early_stop and not again)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        return survivors([self._attempt] * self.restarts, model, x, y, noise, self.eot)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        start = self.norm.spread(x, self.eps, noise).clamp(0, 1) if self.random_start else x
        aim = y if self.target is None else target_classes(self.target, model, x, y, noise)
        return self._ascend(model, start, x, aim)

    def _ascend(self, model: Model, start: Tensor, x: Tensor, aim: Tensor) -> Tensor:
        """From the points `start`, away from the classes `aim` (n,), or towards them."""
        targeted = self.target is not None
        loss = likeness if targeted else cross_entropy
        step_size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        x_adv = start.clone()
        active = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            gradient, logits = input_gradient(model, loss, x_adv[active], aim[active], self.eot)
            if self.early_stop:
                open_ones = is_right(logits, aim[active]) != targeted
                active, gradient = active[open_ones], gradient[open_ones]
                if len(active) == 0:
                    break
            stepped = self.norm.climb(x_adv[active], gradient, step_size)
            x_adv[active] = self.norm.confine(stepped, x[active], self.eps)
        return x_adv
