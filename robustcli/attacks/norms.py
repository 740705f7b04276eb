"""Norms as values: what FGSM, PGD and DeepFool need to know of a threat model, written once for each norm.

Every method works sample by sample on tensors of shape (n, ...), in pixels of [0, 1].
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, PlainSerializer
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

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 with the largest inner product with `gradient`."""
        return gradient.sign()

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

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of length 1 with the largest inner product with `gradient`; 0 where that is 0."""
        # Scaled first: the squares of a saturated model's gradients (1e-30 and less) would underflow.
        largest = per_sample(gradient.flatten(1).abs().amax(1), gradient)
        scaled = gradient / largest.where(largest > 0, largest.new_ones(()))
        length = per_sample(_length(scaled), gradient)
        return scaled / length.where(length > 0, length.new_ones(()))

    def spread(self, x: Tensor, eps: float, noise: Noise) -> Tensor:
        """A point drawn uniformly from the ball of radius `eps` around `x`."""
        direction = self.steepest(noise.stream("direction").normal(x))
        dimensions = max(1, x[0].numel()) if len(x) else 1
        radius = noise.stream("radius").uniform(x.new_empty(len(x))) ** (1 / dimensions)
        return x + direction * per_sample(eps * radius, x)


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).square().sum(1).sqrt()


Norm = Linf | L2
NORMS: dict[str, Norm] = {norm.name: norm for norm in (Linf(), L2())}


def norm_named(name: object, allowed: Collection[str] = NORMS.keys()) -> object:
    """`"linf"`, `"L2"` or `"2"` as the norm, if it is allowed; anything but text is left for validation."""
    if not isinstance(name, str):
        return name
    key = name.lower()
    known = {norm: NORMS[norm] for norm in allowed}
    return lookup(known, {"inf": "linf", "2": "l2"}.get(key, key), "--norm")


NormField = Annotated[Norm, BeforeValidator(norm_named), PlainSerializer(lambda norm: norm.name)]
"""A field of an attack that takes a norm or its name."""

LinfOrL2 = Annotated[
    Linf | L2,
    BeforeValidator(lambda name: norm_named(name, ("linf", "l2"))),
    PlainSerializer(lambda norm: norm.name),
]
"""The same for an attack that is made for these two."""


def check_budget(norm: Norm, eps: float, where: str) -> None:
    """Refuse an Linf budget that no image could exhaust.

    Raises:
        ConfigError: eps over 1.
    """
    if norm == NORMS["linf"] and eps > 1:
        hint = f"; did you mean {eps:g}/255?" if eps <= 255 else ""
        raise ConfigError(f"{where}: is over 1, the whole range of a pixel (allowed: 0 to 1){hint}")
