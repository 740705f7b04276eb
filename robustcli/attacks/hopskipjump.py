"""HopSkipJump."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes
from robustcli.attacks.losses import Model, is_right
from robustcli.attacks.norms import L2, LinfOrL2, per_sample
from robustcli.fields import STRICT
from robustcli.noise import Noise

ROWS = 512
"""Images a model call: several samples' directions are classified at once, in memory that does not grow with them."""

PART = 64
"""Directions of one sample that are drawn at once; part of what keys them."""

MOST_DIRECTIONS = 10_000
FIRST_REACH = 0.1
"""How far the first estimate looks, in pixel units, as in the authors' code: the start is far from the sample."""

SIDES = (1, 2, 4, 8)
"""A try is noise in blocks of so many pixels a side, by turns: four of grey blocks, four of black and white ones."""

MOST_BISECTIONS = 17
MOST_HALVINGS = 25
"""Finer than 2^-17 of a distance float32 cannot tell, and a step of 2^-25 of it moves nothing."""


@dataclass(frozen=True, config=STRICT)
class HopSkipJump:
    """Walks along the decision boundary towards the sample, knowing nothing but predicted classes.

    Chen, Jordan and Wainwright 2020, *HopSkipJumpAttack: A Query-Efficient Decision-Based Attack*.

    Returns the closest misclassified image that was found, in [0, 1]. An iteration classifies `directions` x sqrt(t)
    images near the boundary to estimate its normal, steps along that, and bisects back to the boundary. It
    starts from noise that is misclassified. It differs from the authors' code in where that comes from: fine noise is
    an 8 to many a digit network, whatever is drawn, so after the first try there is coarser and starker noise too. A
    sample for which none of `tries` images is misclassified has no start: it is left as it is and counts as robust,
    which says little of it.
    """

    iters: PositiveInt = 50
    directions: PositiveInt = 100
    tries: PositiveInt = 100
    norm: LinfOrL2 = L2()

    name: ClassVar[str] = "hopskipjump"
    summary: ClassVar[str] = "along the boundary, by predicted classes alone (Chen et al. 2020)"
    needs: ClassVar[Needs] = "decisions"
    use: ClassVar[str] = (
        "A network that tells its predicted class and no more. It pays in thousands of queries a sample."
    )
    bounded: ClassVar[bool] = True
    kind: ClassVar[Kind] = "minimal"
    losses: ClassVar[Losses] = ()
    weak: ClassVar[bool] = False
    parameter_free: ClassVar[bool] = False
    converges: ClassVar[bool] = False

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        directions = sum(min(int(self.directions * math.sqrt(t)), MOST_DIRECTIONS) for t in range(1, self.iters + 1))
        return Passes(1 + self.tries + directions + (self.iters + 1) * (MOST_BISECTIONS + MOST_HALVINGS), 0)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        last = deque(self.trace(model, x, y, noise), maxlen=1)
        return last[0] if last else x.clone()

    def trace(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Iterator[Tensor]:
        """The closest images (n, c, h, w) so far after each iteration; a sample without a start stays as it is."""
        best = x.clone()
        index, start = self._start(model, x, y, noise.stream("start"))
        if len(index) == 0:
            return
        x, y, noise = x[index], y[index], noise[index]
        x_adv = self._onto_boundary(model, x, y, start)
        distance = self.norm.distance(x_adv, x)
        best[index], least = x_adv, distance
        for t in range(1, self.iters + 1):
            reach = distance / x[0].numel() if t > 1 else torch.full_like(distance, FIRST_REACH)
            count = min(int(self.directions * math.sqrt(t)), MOST_DIRECTIONS)
            normal = self._normal(model, x_adv, y, reach, count, noise.stream(f"iteration {t}"))
            far = self._step(model, x_adv, y, normal, distance / math.sqrt(t))
            x_adv = self._onto_boundary(model, x, y, far)
            distance = self.norm.distance(x_adv, x)
            closer = distance < least
            best[index[closer]], least = x_adv[closer], distance.minimum(least)
            yield best.clone()

    def _start(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """The samples that are right and for which a try is misclassified, and those images."""
        start = x.clone()
        missing = torch.arange(len(x), device=x.device)
        missing = missing[~_wrong(model, x, y)]
        found = []
        for number in range(self.tries):
            if len(missing) == 0:
                break
            image = _blocks(x[missing], SIDES[number % len(SIDES)], noise[missing].stream(f"try {number}"))
            image = image.round() if number // len(SIDES) % 2 else image
            wrong = _wrong(model, image, y[missing])
            start[missing[wrong]] = image[wrong]
            found.append(missing[wrong])
            missing = missing[~wrong]
        index = torch.cat(found).sort().values if found else missing[:0]
        return index, start[index]

    def _onto_boundary(self, model: Model, x: Tensor, y: Tensor, far: Tensor) -> Tensor:
        """The misclassified image next to the boundary on the way from `x` to the misclassified `far`."""
        dimensions = x[0].numel()
        finest = 1.5 if self.norm == L2() else 2.0
        low, high = x.new_zeros(len(x)), x.new_ones(len(x))
        for _ in range(min(MOST_BISECTIONS, math.ceil(finest * math.log2(max(2, dimensions))))):
            middle = (low + high) / 2
            wrong = _wrong(model, self._between(x, far, middle), y)
            low, high = low.where(wrong, middle), middle.where(wrong, high)
        # Where no image on the way was misclassified, `far` itself, whose class is known, not a rounded copy.
        return torch.where(per_sample(high < 1, x), self._between(x, far, high), far)

    def _between(self, x: Tensor, far: Tensor, share: Tensor) -> Tensor:
        """The image at a share (n,) of the way from `x` to `far`: on the line in L2, in the smaller cube in Linf."""
        if self.norm == L2():
            return torch.lerp(x, far, per_sample(share, x)).clamp(0, 1)
        radius = per_sample(share * self.norm.distance(far, x), x)
        return (x + (far - x).clamp(-radius, radius)).clamp(0, 1)

    def _step(self, model: Model, x_adv: Tensor, y: Tensor, normal: Tensor, length: Tensor) -> Tensor:
        """`x_adv` moved along the boundary's normal, by as much of `length` (n,) as leaves it misclassified."""
        far = x_adv.clone()
        active = torch.arange(len(x_adv), device=x_adv.device)
        direction = self.norm.steepest(normal)
        for halvings in range(MOST_HALVINGS):
            step = per_sample(length[active] / 2**halvings, x_adv)
            candidate = (x_adv[active] + step * direction[active]).clamp(0, 1)
            wrong = _wrong(model, candidate, y[active])
            far[active[wrong]] = candidate[wrong]
            active = active[~wrong]
            if len(active) == 0:
                break
        return far

    def _normal(self, model: Model, x_adv: Tensor, y: Tensor, reach: Tensor, count: int, noise: Noise) -> Tensor:
        """The boundary's normal (n, c, h, w) at `x_adv`, from the classes of `count` images at a distance `reach`."""
        groups = torch.split(torch.arange(len(x_adv), device=x_adv.device), max(1, ROWS // PART))
        return torch.cat([self._normal_of(model, x_adv[g], y[g], reach[g], count, noise[g]) for g in groups])

    def _normal_of(self, model: Model, x_adv: Tensor, y: Tensor, reach: Tensor, count: int, noise: Noise) -> Tensor:
        n, shape = len(x_adv), x_adv.shape[1:]
        flat, reach = x_adv.reshape(n, 1, -1), reach[:, None, None]
        hits, moved, pushed = x_adv.new_zeros(n), torch.zeros_like(flat[:, 0]), torch.zeros_like(flat[:, 0])
        for first in range(0, count, PART):
            size = min(PART, count - first)
            source, like = noise.stream(f"direction {first}"), flat.expand(n, size, flat.shape[2])
            drawn = source.normal(like) if self.norm == L2() else 2 * source.uniform(like) - 1
            near = (flat + reach * drawn / drawn.norm(dim=2, keepdim=True)).clamp(0, 1)
            wrong = _wrong(model, near.reshape(n * size, *shape), y.repeat_interleave(size)).reshape(n, size)
            direction = (near - flat) / reach
            hits += wrong.sum(1)
            moved += direction.sum(1)
            pushed += (wrong[:, :, None] * direction).sum(1)
        share = (hits / count)[:, None]
        # The mean is taken off (the paper's equation 16); where all are on one side, it is all there is.
        normal = torch.where(share == 1, moved, torch.where(share == 0, -moved, pushed - share * moved))
        return normal.reshape(n, *shape)


def _wrong(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """(n,) bool: misclassified. All that the attack needs of a model."""
    parts = zip(torch.split(x, ROWS), torch.split(y, ROWS), strict=True)
    with torch.no_grad():
        found = [~is_right(model(part), labels) for part, labels in parts if len(part)]
    return torch.cat(found) if found else y.new_zeros(0, dtype=torch.bool)


def _blocks(like: Tensor, side: int, noise: Noise) -> Tensor:
    """Uniform noise of the shape of `like` (n, c, h, w), in blocks of side x side pixels of one value."""
    height, width = like.shape[2:]
    coarse = noise.uniform(like[:, :, : -(-height // side), : -(-width // side)])
    return coarse.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width].clone()
