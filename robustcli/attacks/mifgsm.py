"""The momentum iterative fast gradient sign method."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, cross_entropy, input_gradient, is_right, likeness
from robustcli.attacks.norms import Linf, NormField, per_sample
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, Budget, NonNegative
from robustcli.noise import Noise


@dataclass(frozen=True, config=STRICT)
class MIFGSM:
    """Steps up the cross-entropy along a decaying sum of the gradients so far, each of length 1 in L1.

    Dong, Liao, Pang, Su, Zhu, Hu and Li 2018, *Boosting Adversarial Attacks with Momentum*.

    Returns images in the ball and in [0, 1]: the first iterate that is misclassified, or the last one (`early_stop`, as
    in PGD; turn it off for images that should transfer to other models). A step is eps / steps unless given, so that
    the start, which is the image itself, can just reach the edge of the ball. It differs from the paper where a
    gradient is 0: that adds nothing, where the formula divides by 0. With a `target` the steps go down the
    cross-entropy of that class, until the sample is taken for it.
    """

    eps: Budget
    steps: PositiveInt = 10
    step_size: Budget | None = None
    decay: NonNegative = 1.0
    norm: NormField = Linf()
    early_stop: bool = True
    eot: PositiveInt = 1
    target: Target | None = None

    name: ClassVar[str] = "mifgsm"
    summary: ClassVar[str] = "iterated FGSM with momentum (Dong et al. 2018)"
    use: ClassVar[str] = (
        "Images that should fool other networks too, with early_stop=false: momentum forgets one network's quirks."
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
        each = self.eot * self.steps
        return Passes(each + (self.target is not None), each, exact=not self.early_stop)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        targeted = self.target is not None
        loss = likeness if targeted else cross_entropy
        aim = y if self.target is None else target_classes(self.target, model, x, y, noise)
        step_size = self.eps / self.steps if self.step_size is None else self.step_size
        x_adv, momentum = x.clone(), torch.zeros_like(x)
        active = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            gradient, logits = input_gradient(model, loss, x_adv[active], aim[active], self.eot)
            if self.early_stop:
                open_ones = is_right(logits, aim[active]) != targeted
                active, gradient = active[open_ones], gradient[open_ones]
                if len(active) == 0:
                    break
            momentum[active] = self.decay * momentum[active] + _scaled(gradient)
            stepped = self.norm.climb(x_adv[active], momentum[active], step_size)
            x_adv[active] = self.norm.confine(stepped, x[active], self.eps)
        return x_adv


def _scaled(gradient: Tensor) -> Tensor:
    """Of length 1 in L1, sample by sample; 0 stays 0."""
    # Scaled by the largest entry first: the sum of a saturated model's gradients (1e-40) has few digits left.
    largest = per_sample(gradient.flatten(1).abs().amax(1), gradient)
    scaled = gradient / largest.where(largest > 0, largest.new_ones(()))
    length = per_sample(scaled.flatten(1).abs().sum(1), gradient)
    return scaled / length.where(length > 0, length.new_ones(()))
