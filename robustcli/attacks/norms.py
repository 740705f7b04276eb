"""Norms as values: what attacks need to know of a threat model, written once for each norm.

Every method works sample by sample on tensors of shape (n, ...), in pixels of [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from torch import Tensor

from robustcli.errors import ConfigError, lookup
from robustcli.noise import Noise


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(n,) reshaped to (n, 1, ...), to broadcast against `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Linf:
    """The largest change of any pixel."""

    name: ClassVar[str] = "linf"
    label: ClassVar[str] = "Linf"

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(n,) distances."""
        return (x_adv - x).flatten(1).abs().amax(1)

    def project(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """The point nearest to `x_adv` in the ball of radius `eps` around `x`."""
        return x + (x_adv - x).clamp(-eps, eps)

    def confine(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """The point nearest to `x_adv` in the ball and in [0, 1]."""
        return self.project(x_adv, x, eps).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 with the largest inner product with `gradient`."""
        return gradient.sign()

    def climb(self, x: Tensor, gradient: Tensor, length: float) -> Tensor:
        """`x` moved by `length` as steeply up as the norm allows; it may leave [0, 1]."""
        return x + length * self.steepest(gradient)

    def spread(self, x: Tensor, eps: float, noise: Noise) -> Tensor:
        """A point drawn uniformly from the ball of radius `eps` around `x`."""
        return x + (2 * noise.uniform(x) - 1) * eps


@dataclass(frozen=True)
class L2:
    """The Euclidean length of the change."""

    name: ClassVar[str] = "l2"
    label: ClassVar[str] = "L2"

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(n,) distances."""
        return _length(x_adv - x)

    def project(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """The point nearest to `x_adv` in the ball of radius `eps` around `x`."""
        delta = x_adv - x
        scale = (eps / _length(delta).clamp_min(1e-12)).clamp_max(1)
        return x + delta * per_sample(scale, delta)

    def confine(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """A point near `x_adv` in the ball and in [0, 1]: onto the one, then the other, as everybody does."""
        return self.project(x_adv, x, eps).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 with the largest inner product with `gradient`; 0 where that is 0."""
        # Scaled first: the squares of a saturated model's gradients (1e-30 and less) would underflow.
        largest = per_sample(gradient.flatten(1).abs().amax(1), gradient)
        scaled = gradient / largest.where(largest > 0, largest.new_ones(()))
        length = per_sample(_length(scaled), gradient)
        return scaled / length.where(length > 0, length.new_ones(()))

    def climb(self, x: Tensor, gradient: Tensor, length: float) -> Tensor:
        """`x` moved by `length` as steeply up as the norm allows; it may leave [0, 1]."""
        return x + length * self.steepest(gradient)

    def spread(self, x: Tensor, eps: float, noise: Noise) -> Tensor:
        """A point drawn uniformly from the ball of radius `eps` around `x`."""
        direction = self.steepest(noise.stream("direction").normal(x))
        return x + direction * per_sample(eps * _radius(x, noise), x)


@dataclass(frozen=True)
class L1:
    """The sum of the changes of all pixels.

    Here the box matters: a ball of radius 10 reaches ten times beyond it along each pixel, so `confine` and `climb` are
    exact on ball *and* box (Croce & Hein 2021, *Mind the box: l1-APGD for sparse adversarial attacks*).
    """

    name: ClassVar[str] = "l1"
    label: ClassVar[str] = "L1"

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(n,) distances."""
        return (x_adv - x).flatten(1).abs().sum(1)

    def project(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """The point nearest to `x_adv` in the ball of radius `eps` around `x`."""
        delta = x_adv - x
        return x + delta.sign() * _shrink(delta.abs(), delta.abs(), eps)

    def confine(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """The point nearest to `x_adv` in the ball and in [0, 1]."""
        delta = x_adv - x
        moved = x + delta.sign() * _shrink(delta.abs(), _room(x, delta), eps)
        return moved.clamp(0, 1)  # 1 - x is rounded

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 with the largest inner product with `gradient`: along its largest entry alone."""
        flat = gradient.flatten(1)
        if not flat.numel():
            return torch.zeros_like(gradient)
        largest = flat.abs().argmax(1, keepdim=True)
        step = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        return step.reshape(gradient.shape)

    def climb(self, x: Tensor, gradient: Tensor, length: float) -> Tensor:
        """`x` in [0, 1] moved by `length` as steeply up as the norm and the box allow.

        Pixels are moved to their bound in the order of their gradients until `length` is used up, or all are there.
        """
        room = _room(x, gradient)
        share = greedy(gradient.flatten(1).abs(), room.flatten(1), room.new_tensor(length))
        return x + gradient.sign() * room * share.reshape(x.shape)

    def spread(self, x: Tensor, eps: float, noise: Noise) -> Tensor:
        """A point drawn uniformly from the ball of radius `eps` around `x`."""
        lengths = -noise.stream("direction").uniform(x).neg().log1p()  # exponential: even on the simplex once scaled
        signs = (noise.stream("sign").uniform(x) < 0.5).to(x.dtype) * 2 - 1
        total = lengths.flatten(1).sum(1).clamp_min(1e-12)
        return x + signs * lengths * per_sample(eps * _radius(x, noise) / total, x)


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).square().sum(1).sqrt()


def _radius(x: Tensor, noise: Noise) -> Tensor:
    """(n,) distances from the centre of points drawn uniformly from a ball of radius 1."""
    dimensions = max(1, x[0].numel()) if len(x) else 1
    return noise.stream("radius").uniform(x.new_empty(len(x))) ** (1 / dimensions)


def _room(x: Tensor, direction: Tensor) -> Tensor:
    """How far each pixel of `x` can go in its direction before it leaves [0, 1]."""
    return torch.where(direction > 0, 1 - x, x).where(direction != 0, x.new_zeros(())).clamp_min(0)


def greedy(priority: Tensor, cost: Tensor, budget: Tensor) -> Tensor:
    """The share in [0, 1] of each of d goods, (n, d), that is bought for `budget` when the first are bought first.

    Args:
        priority: (n, d) the highest is first.
        cost: (n, d) of each good, at least 0; of one that costs nothing nothing is bought.
        budget: (n,) or ().
    """
    order = priority.argsort(stable=True, dim=1, descending=True)
    price = cost.gather(1, order)
    left = budget.reshape(-1, 1) - (price.cumsum(1) - price)
    share = torch.where(price > 0, left / price, price.new_zeros(())).clamp(0, 1)
    return torch.empty_like(share).scatter(1, order, share)


def _shrink(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """`(size - t).clip(0, room)` of the shape of `size`, with the smallest t >= 0 at which a sample's sum is <= eps.

    As t falls from the largest size, a pixel enters the sum at t = size and is full at t = size - room: between these
    2 d corners the sum is linear.
    """
    flat = size.flatten(1)
    if not flat.numel():
        return size
    limit = torch.minimum(room.flatten(1), flat)
    corners, order = torch.cat((flat, flat - limit), 1).sort(1, descending=True)
    slope = torch.where(order < flat.shape[1], 1.0, -1.0).to(flat).cumsum(1)
    total = torch.zeros_like(corners)
    total[:, 1:] = ((corners[:, :-1] - corners[:, 1:]) * slope[:, :-1]).cumsum(1)
    first = (total < eps).sum(1, keepdim=True)
    k = first.clamp_max(corners.shape[1] - 1)
    climb = slope.gather(1, (k - 1).clamp_min(0)).clamp_min(1)
    t = corners.gather(1, k) + (total.gather(1, k) - eps) / climb
    t = t.where(first < corners.shape[1], t.new_zeros(()))  # the whole sum is within eps
    return torch.minimum((flat - t).clamp_min(0), limit).reshape(size.shape)


Norm = Linf | L2 | L1
NORMS: dict[str, Norm] = {norm.name: norm for norm in (Linf(), L2(), L1())}


def norm_named(name: object) -> object:
    """`"linf"`, `"L2"` or `"2"` as the norm; anything but text is left for validation."""
    if not isinstance(name, str):
        return name
    key = name.lower()
    return lookup(NORMS, {"inf": "linf", "2": "l2", "1": "l1"}.get(key, key), "--norm")


NAMED = WithJsonSchema({"enum": list(NORMS)})

NormField = Annotated[Norm, BeforeValidator(norm_named), PlainSerializer(lambda norm: norm.name), NAMED]
"""A field of an attack that takes a norm or its name."""


def _linf_or_l2(name: object) -> object:
    norm = norm_named(name)
    if norm not in (NORMS["linf"], NORMS["l2"]):
        raise ValueError("should be linf or l2: the attack is made for these")
    return norm


LinfOrL2 = Annotated[Linf | L2, BeforeValidator(_linf_or_l2), PlainSerializer(lambda norm: norm.name)]
"""The same for an attack whose moves are made for these two."""


def _l2(name: object) -> object:
    norm = norm_named(name)
    if norm != NORMS["l2"]:
        raise ValueError("should be l2: the attack is made for it")
    return norm


OnlyL2 = Annotated[L2, BeforeValidator(_l2), PlainSerializer(lambda norm: norm.name)]
"""The same for an attack whose loss is the L2 distance."""


def check_budget(norm: Norm, eps: float, where: str) -> None:
    """Refuse an Linf budget that no image could exhaust.

    Raises:
        ConfigError: eps over 1.
    """
    if norm == NORMS["linf"] and eps > 1:
        hint = f"; did you mean {eps:g}/255?" if eps <= 255 else ""
        raise ConfigError(f"{where}: is over 1, the whole range of a pixel (allowed: 0 to 1){hint}")
