"""DeepFool."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, gradient_of, is_right, runners_up
from robustcli.attacks.norms import L2, NormField
from robustcli.attacks.projection import project_onto_hyperplane
from robustcli.fields import STRICT, NonNegative
from robustcli.noise import Noise

NEAREST_CLASSES = 9
"""How many other classes are tried, best logit first: the reference code's ten classes, less the true one."""

SLACK = 2
"""How many times the longest gradient seen of a sample one is taken to have at most that was not computed.

On 1 000 digits (`mnist-vanilla`) 1.5 misses no nearest boundary, and 1.25 that of one sample in forty.
"""

OUT_OF_REACH = 1e6
"""Added to the length of a step whose boundary the box keeps out of reach: it is the last choice."""

BEYOND = 1e-4
"""How far beyond a boundary a step aims, in pixel units, as in the authors' code.

Without it a tie of two logits never moves, and clipped steps close in on a boundary until rounding says who wins.
"""


@dataclass(frozen=True, config=STRICT)
class DeepFool:
    """Steps onto the nearest decision boundary of the linearised model, until the sample is misclassified.

    Moosavi-Dezfooli, Fawzi and Frossard 2016, *DeepFool: a simple and accurate method to fool deep neural networks*.

    Returns the first iterate that is misclassified, or the last one (not converged). It differs from the paper by
    `box`. The original ignores that pixels end at 0 and 1 (`none`), and on MNIST its images are classified right again
    once they are clipped; clipping inside the loop (`clip`, as in foolbox) needs many more iterations. `project`, the
    default, makes each step the smallest one onto the boundary *inside* the box (the projection of FAB, Croce & Hein
    2020), so that 5 iterations suffice and each image is valid; it arrives sooner than `clip`, not closer (on 85 digits
    its distances are 1.08 x those of 50 clipped iterations, in the median). A boundary that
    the box keeps out of reach gets a clipped step. As in the authors' code the steps add up and the sum is stretched by
    1 + overshoot. Classes are tried in the order of their logits, until the next boundary could be the nearest only if
    its gradient were more than twice as long as any before: the same steps on trained networks, for half the gradients.
    """

    iters: PositiveInt = 50
    overshoot: NonNegative = 0.02
    box: Literal["project", "clip", "none"] = "project"
    norm: NormField = L2()

    name: ClassVar[str] = "deepfool"
    summary: ClassVar[str] = "the nearest boundary of the linearised model (Moosavi-Dezfooli et al. 2016)"
    use: ClassVar[str] = (
        "A quick estimate of the distance to the boundary: the whole curve of accuracy over eps from a few gradients."
    )
    kind: ClassVar[Kind] = "minimal"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("margin",)
    weak: ClassVar[bool] = True  # it ends at the first boundary that it crosses
    parameter_free: ClassVar[bool] = False

    @property
    def converges(self) -> bool:
        """It has iterations enough to leave nothing standing."""
        return self.iters >= 50 and self.bounded

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        # Going forward again for the few that are left adds up to less than once more.
        return Passes(2 * self.iters, NEAREST_CLASSES * self.iters)

    @property
    def bounded(self) -> bool:
        """Whether its images stay in [0, 1]."""
        return self.box != "none"

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        last = deque(self.trace(model, x, y, noise), maxlen=1)
        return last[0] if last else x.clone()

    def trace(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Iterator[Tensor]:
        """The images (n, c, h, w) after each iteration, until all are broken; a broken sample stays as it is."""
        x_adv, total = x.clone(), torch.zeros_like(x)
        active = torch.arange(len(x), device=x.device)
        for _ in range(self.iters):
            if len(active) == 0:
                return
            tangent = _Tangent.at(model, x_adv[active], y[active])
            standing = is_right(tangent.logits, tangent.y).nonzero()[:, 0]
            active = active[standing]
            if len(active) == 0:
                return
            total[active] += self._step(model, tangent, standing)
            moved = x[active] + (1 + self.overshoot) * total[active]
            x_adv[active] = moved.clamp(0, 1) if self.bounded else moved
            yield x_adv.clone()

    def _step(self, model: Model, tangent: _Tangent, rows: Tensor) -> Tensor:
        """The steps (m, c, h, w) of the tangent's images `rows` (m,) onto their nearest boundaries."""
        x = tangent.x.detach()[rows]
        step, length, longest = torch.zeros_like(x), x.new_full((len(x),), torch.inf), x.new_zeros(len(x))
        open_ones, last = torch.arange(len(x), device=x.device), tangent.gaps.shape[1] - 1
        for rank in range(last + 1):
            if 2 * len(rows) < len(tangent.x):  # Going forward again costs less than going back for all of them.
                tangent, rows = tangent.narrowed(model, rows), torch.arange(len(rows), device=x.device)
            w, gaps = tangent.downhill(rank)[rows], tangent.gaps.detach()[rows]
            slope = (w * self.norm.steepest(w)).sum(1)
            delta, its_length = self._onto(w, gaps[:, rank] + BEYOND * slope, x[open_ones])
            closer = its_length < length[open_ones]
            step[open_ones[closer]], length[open_ones[closer]] = delta[closer], its_length[closer]
            longest[open_ones] = longest[open_ones].maximum(slope)
            within = SLACK * longest[open_ones] * length[open_ones]
            near = (gaps[:, min(rank + 1, last)] < within) | (length[open_ones] >= OUT_OF_REACH)
            rows, open_ones = rows[near], open_ones[near]
            if len(rows) == 0:
                break
        return step

    def _onto(self, w: Tensor, target: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest step with `w . step = target`, of the shape of `x`, and its length (n,)."""
        low, high = (-x.flatten(1), 1 - x.flatten(1)) if self.box == "project" else (None, None)
        step = project_onto_hyperplane(self.norm, w, target, low, high)
        delta = step.delta
        if low is not None and high is not None and not bool(step.reached.all()):
            # The corner farthest along the normal is no small step; go where `clip` would.
            clipped = project_onto_hyperplane(self.norm, w, target, None, None).delta.clamp(low, high)
            delta = torch.where(step.reached[:, None], delta, clipped)
        length = self.norm.distance(delta, torch.zeros_like(delta))
        return delta.reshape(x.shape), torch.where(step.reached, length, length + OUT_OF_REACH)


@dataclasses.dataclass(frozen=True)
class _Tangent:
    """A model linearised at images.

    Attributes:
        x: (n, c, h, w) the images.
        y: (n,) their classes.
        logits: (n, classes).
        classes: (n, k) other classes, that of the largest logit first.
        gaps: (n, k) how far each one's logit is below that of the true class.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    classes: Tensor
    gaps: Tensor

    @classmethod
    def at(cls, model: Model, x: Tensor, y: Tensor, classes: Tensor | None = None) -> _Tangent:
        """At `x`."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = model(x).to(x.dtype)
            if classes is None:
                classes = runners_up(logits.detach(), y)[:, :NEAREST_CLASSES]
            return cls(x, y, logits.detach(), classes, logits.gather(1, y[:, None]) - logits.gather(1, classes))

    def narrowed(self, model: Model, rows: Tensor) -> _Tangent:
        """Of the images `rows` alone, with the same classes."""
        return self.at(model, self.x[rows], self.y[rows], self.classes[rows])

    def downhill(self, rank: int) -> Tensor:
        """(n, c * h * w), the direction in which the gap to the classes of this rank falls, as long as the gradient."""
        return -gradient_of(self.gaps[:, rank].sum(), self.x, retain_graph=True).flatten(1)
