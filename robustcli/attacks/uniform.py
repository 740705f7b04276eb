"""Uniform noise, the baseline that any attack must beat."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes, survivors
from robustcli.attacks.losses import Model
from robustcli.attacks.norms import Linf, NormField
from robustcli.fields import STRICT, Budget
from robustcli.noise import Noise


@dataclass(frozen=True, config=STRICT)
class UniformNoise:
    """Points drawn uniformly from the ball, until one is misclassified.

    Carlini et al. 2019, *On Evaluating Adversarial Robustness*, section 4 (a defence that noise breaks where a
    gradient attack does not is masking its gradients).

    Returns images in the ball, clipped to [0, 1].
    """

    eps: Budget
    draws: PositiveInt = 1
    norm: NormField = Linf()

    name: ClassVar[str] = "noise"
    summary: ClassVar[str] = "uniform random noise, a baseline (Carlini et al. 2019)"
    needs: ClassVar[Needs] = "decisions"
    use: ClassVar[str] = "A sanity check: what noise breaks and a gradient attack does not is a masked gradient."
    kind: ClassVar[Kind] = "budget"
    losses: ClassVar[Losses] = ()
    weak: ClassVar[bool] = True  # it searches nothing
    parameter_free: ClassVar[bool] = False

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        return Passes(self.draws, 0)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        return survivors([self._draw] * self.draws, model, x, y, noise)

    def _draw(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return self.norm.spread(x, self.eps, noise).clamp(0, 1)
