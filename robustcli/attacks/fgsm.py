"""The fast gradient sign method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, cross_entropy, input_gradient, likeness
from robustcli.attacks.norms import Linf, NormField
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, Budget
from robustcli.noise import Noise


@dataclass(frozen=True, config=STRICT)
class FGSM:
    """One step of length eps up the cross-entropy of the true class.

    Goodfellow, Shlens and Szegedy 2014, *Explaining and Harnessing Adversarial Examples*; BatchOut's equation 4.

    Returns images in the ball and in [0, 1]. The step is the norm's steepest one, so for L2 it is the fast gradient
    method, and for L1 it moves the pixels of largest gradient to their bounds. The gradient does not depend on eps:
    `sweep` takes one for any number of budgets. With a `target` the step goes down the cross-entropy of that class.
    """

    eps: Budget
    norm: NormField = Linf()
    eot: PositiveInt = 1
    target: Target | None = None

    name: ClassVar[str] = "fgsm"
    summary: ClassVar[str] = "one step along the sign of the gradient (Goodfellow et al. 2014)"
    use: ClassVar[str] = (
        "A first look, for one gradient. Never the last word: a defence may only have bent the surface "
        "at the image itself."
    )
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("cross-entropy",)
    weak: ClassVar[bool] = True
    parameter_free: ClassVar[bool] = False

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        return Passes(self.eot + (self.target is not None), self.eot, exact=True)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        return next(self.sweep(model, x, y, noise, [self.eps]))

    def sweep(self, model: Model, x: Tensor, y: Tensor, noise: Noise, budgets: Sequence[float]) -> Iterator[Tensor]:
        """Adversarial images (n, c, h, w) for each budget."""
        if self.target is None:
            gradient, _ = input_gradient(model, cross_entropy, x, y, self.eot)
        else:
            gradient, _ = input_gradient(model, likeness, x, target_classes(self.target, model, x, y, noise), self.eot)
        for eps in budgets:
            yield self.norm.climb(x, gradient, eps).clamp(0, 1)
