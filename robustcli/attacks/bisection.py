"""A budget attack as a minimal-norm attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robustcli.attacks.base import BudgetAttack, Kind, Losses, Needs, at_budget, passes_of
from robustcli.attacks.losses import Model, is_right, mean_logits
from robustcli.attacks.minimal import Closest, largest_distance
from robustcli.attacks.norms import Norm
from robustcli.noise import Noise

SEARCHES = 12
"""About how many budgets a search tries."""

MOST_HALVINGS = 10
"""The search for a budget too small ends at this many halvings of the first: a sample that is broken there is next to
the boundary."""


@dataclass(frozen=True)
class Bisection:
    """The least budget at which another attack breaks a sample, searched for each sample on its own.

    Returns the closest adversarial that `attack` made at any of the budgets tried, or the sample itself. The search
    starts at the attack's eps, doubles or halves it until one budget breaks the sample and another does not, and then
    halves the gap `steps` times, to within 2^-steps of the lower end. Samples that are at the same budget are attacked
    together; budgets that an adversarial found before already breaks are not tried. That the attack is no weaker at a
    larger budget is taken for granted: where it is, the distance is too large, never too small.
    """

    attack: BudgetAttack
    steps: int = 6

    name: ClassVar[str] = "bisect"
    summary: ClassVar[str] = "the least budget at which another attack succeeds"
    bounded: ClassVar[bool] = True
    kind: ClassVar[Kind] = "minimal"
    converges: ClassVar[bool] = False

    @property
    def members(self) -> tuple[BudgetAttack]:
        """The attack."""
        return (self.attack,)

    @property
    def losses(self) -> Losses:
        """The attack's."""
        return self.attack.losses

    @property
    def weak(self) -> bool:
        """As the attack is."""
        return self.attack.weak

    @property
    def parameter_free(self) -> bool:
        """As the attack is."""
        return self.attack.parameter_free

    @property
    def cost(self) -> int:
        """Passes of an image, about."""
        return SEARCHES * self.attack.cost

    @property
    def norm(self) -> Norm:
        """The attack's."""
        return self.attack.norm

    @property
    def needs(self) -> Needs:
        """What the attack asks of a model."""
        return self.attack.needs

    @property
    def eot(self) -> int:
        """Passes of a randomised model that the attack judges a sample by."""
        return passes_of(self.attack)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        closest = Closest(self.norm, x)
        index = is_right(mean_logits(model, x, self.eot), y).nonzero()[:, 0]
        largest = largest_distance(self.norm, x)
        low = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        high = torch.full_like(low, torch.inf)
        while len(index):
            eps = self._next(low[index], high[index])
            broken = closest.distance[index] <= eps
            untried = ~broken
            broken[untried] = self._try(model, closest, index[untried], eps[untried], y, noise)
            high[index] = torch.where(broken, eps, high[index])
            low[index] = torch.where(broken, low[index], eps)
            index = index[self._open(low[index], high[index], largest[index])]
        return closest.x_adv

    def _next(self, low: Tensor, high: Tensor) -> Tensor:
        """(n,) the budgets to try between one that did not break a sample (or 0) and one that did (or infinity)."""
        upwards = torch.where(low > 0, 2 * low, torch.full_like(low, self.attack.eps))
        downwards = torch.where(low > 0, (low + high) / 2, high / 2)
        return torch.where(high.isinf(), upwards, downwards)

    def _open(self, low: Tensor, high: Tensor, largest: Tensor) -> Tensor:
        """(n,) bool, whether to try another budget: none that reaches past the box or is far below the first."""
        wide = high - low > low * 2**-self.steps
        halving = high > self.attack.eps * 2**-MOST_HALVINGS
        return torch.where(high.isinf(), low < largest, torch.where(low > 0, wide, halving))

    def _try(self, model: Model, closest: Closest, index: Tensor, eps: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Offer `closest` the images of the samples `index` (n,) at budgets `eps` (n,), and say which are broken."""
        broken = torch.zeros_like(index, dtype=torch.bool)
        for budget in sorted(set(eps.tolist())):
            same = eps == budget
            here = index[same]
            attack = at_budget(self.attack, budget)
            x_adv = attack.perturb(model, closest.x[here], y[here], noise[here])
            broken[same] = ~is_right(mean_logits(model, x_adv, self.eot), y[here])
            closest.offer(here, x_adv, broken[same])
        return broken
