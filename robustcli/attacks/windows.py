"""The moves of the Square attack: how it starts and what it tries next, in Linf and in L2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustcli.attacks.incremental import Corner
from robustcli.attacks.norms import L2, Norm, per_sample
from robustcli.noise import Noise

CANCELLED = 1e-6
"""The energy, of 4 at most, below which a pattern and what the window has have cancelled each other."""


@dataclass(frozen=True)
class Window:
    """A square of side `side`, and what L2 writes into it: (2, side * side), a pattern upright and on its side."""

    side: int
    patterns: Tensor


class Moves(Protocol):
    """What the search needs of a norm."""

    def numbers(self, channels: int) -> int:
        """How many draws from U[0, 1) a candidate takes."""
        ...

    def side(self, area: float) -> int:
        """The side of a window that should have so many pixels."""
        ...

    def window(self, side: int, like: Tensor) -> Window:
        """The window of a side, of the type of `like`."""
        ...

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """The first images (n, c, h, w), in ball and box."""
        ...

    @property
    def count(self) -> int:
        """In how many windows a candidate differs from the image before it."""
        ...

    def candidate(self, x: Tensor, x_adv: Tensor, window: Window, draws: Tensor) -> tuple[Tensor, list[Corner]]:
        """The images to try after `x_adv`, from draws (n, numbers), and where they differ from it."""
        ...


def moves_in(norm: Norm, eps: float) -> Moves:
    """The moves in a ball of radius eps."""
    return L2Moves(eps) if norm == L2() else LinfMoves(eps)


def _place(draw: Tensor, last: int) -> Tensor:
    """(n,) draws from U[0, 1) as integers from 0 to `last`."""
    return (draw * (last + 1)).long()


def _sign(draws: Tensor, like: Tensor) -> Tensor:
    """Draws from U[0, 1) as -1 or 1, of the type of `like`."""
    return (draws < 0.5).to(like.dtype) * 2 - 1


@dataclass(frozen=True)
class LinfMoves:
    """Each pixel is moved by eps, up or down, as far as the box allows: vertical stripes first, then squares."""

    eps: float
    count: int = 1

    def numbers(self, channels: int) -> int:
        """Row, column, and a colour a channel."""
        return 2 + channels

    def side(self, area: float) -> int:
        """At least one pixel."""
        return max(1, round(math.sqrt(area)))

    def window(self, side: int, like: Tensor) -> Window:
        """No pattern is needed."""
        return Window(side, like.new_empty(2, 0))

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """Stripes one pixel wide, a colour a channel."""
        return (x + self.eps * _sign(noise.uniform(x[:, :, :1]), x)).clamp(0, 1)

    def candidate(self, x: Tensor, x_adv: Tensor, window: Window, draws: Tensor) -> tuple[Tensor, list[Corner]]:
        """A square of one colour a channel; of the opposite ones where it would change nothing."""
        corner = _corner(draws[:, :2], window.side, x)
        cells = _cells(corner, window.side, x)
        origin, old = (image.flatten(2).gather(2, cells) for image in (x, x_adv))
        step = self.eps * _sign(draws[:, 2:, None], x)
        new = (origin + step).clamp(0, 1)
        idle = (new == old).flatten(1).all(1)
        new = torch.where(per_sample(idle, new), (origin - step).clamp(0, 1), new)
        return x_adv.flatten(2).scatter(2, cells, new).reshape(x.shape), [corner]


@dataclass(frozen=True)
class L2Moves:
    """The whole of eps is spent, on patterns of two opposite bumps; a step moves what one window has to another."""

    eps: float
    count: int = 2

    def numbers(self, channels: int) -> int:
        """Row and column of two windows, the pattern, and its sign a channel."""
        return 5 + channels

    def side(self, area: float) -> int:
        """Odd, and at least 3: smaller ones have no room for two bumps."""
        return max(3, round(math.sqrt(area))) | 1

    def window(self, side: int, like: Tensor) -> Window:
        """With the pattern of this side."""
        upright = _two_bumps(side, like)
        return Window(side, torch.stack((upright, upright.T)).flatten(1))

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """Patterns side by side, five to a side of the image."""
        n, channels, height, width = x.shape
        side = min(max(3, min(height, width) // 5), height, width)
        window, delta = self.window(side, x), torch.zeros_like(x)
        tops, lefts = (range(length % side // 2, length - side + 1, side) for length in (height, width))
        tiles = [(top, left) for top in tops for left in lefts]
        like = torch.empty(n, len(tiles), 1 + channels, dtype=torch.float32, device=x.device)
        for (top, left), draws in zip(tiles, noise.uniform(like).unbind(1), strict=True):
            tile = self._signed(window, draws, x).reshape(n, channels, side, side)
            delta[:, :, top : top + side, left : left + side] = tile
        return self._spent(x, delta)

    def candidate(self, x: Tensor, x_adv: Tensor, window: Window, draws: Tensor) -> tuple[Tensor, list[Corner]]:
        """A window gets a pattern on top of what it has, with the length that it, a second window and eps have left.

        What clipping took of eps before is spent as well: before it is clipped the whole is as long as eps.
        """
        channels = x.shape[1]
        delta = (x_adv - x).flatten(2)
        corners = [_corner(place, window.side, x) for place in (draws[:, :2], draws[:, 2:4])]
        first, second = (_cells(corner, window.side, x) for corner in corners)
        spare = (self.eps**2 - delta.square().sum((1, 2)))[:, None, None] / channels
        old = delta.gather(2, first)
        given_up = delta.scatter(2, first, 0.0).gather(2, second)
        length = (spare + _energy(old) + _energy(given_up)).clamp_min(0).sqrt()
        pattern = self._signed(window, draws[:, 4:], x)
        both = pattern + _unit(old)
        new = _unit(both.where(_energy(both) > CANCELLED, pattern)) * length
        origin = x.flatten(2)
        emptied = x_adv.flatten(2).scatter(2, second, origin.gather(2, second))
        filled = emptied.scatter(2, first, (origin.gather(2, first) + new).clamp(0, 1))
        return filled.reshape(x.shape), corners

    def _signed(self, window: Window, draws: Tensor, like: Tensor) -> Tensor:
        """(n, c, side * side): a pattern upright or on its side, with a sign a channel, by draws (n, 1 + c)."""
        return window.patterns[_place(draws[:, 0], 1)][:, None] * _sign(draws[:, 1:, None], like)

    def _spent(self, x: Tensor, delta: Tensor) -> Tensor:
        """`x` moved by eps along `delta`, then clipped."""
        return (x + self.eps * L2().steepest(delta)).clamp(0, 1)


def _energy(delta: Tensor) -> Tensor:
    return delta.square().sum(2, keepdim=True)


def _unit(delta: Tensor) -> Tensor:
    return delta / _energy(delta).sqrt().clamp_min(1e-12)


def _corner(draws: Tensor, side: int, x: Tensor) -> Corner:
    """Where the window begins that draws (n, 2) mean."""
    height, width = x.shape[2:]
    return _place(draws[:, 0], height - side), _place(draws[:, 1], width - side)


def _cells(corner: Corner, side: int, x: Tensor) -> Tensor:
    """(n, c, side * side), the flat indices of the window that begins there."""
    n, channels, _, width = x.shape
    reach = torch.arange(side, device=x.device)
    rows, columns = (edge[:, None] + reach for edge in corner)
    flat = (rows[:, :, None] * width + columns[:, None, :]).reshape(n, 1, side * side)
    return flat.expand(n, channels, side * side)


def _two_bumps(side: int, like: Tensor) -> Tensor:
    """(side, side), of length 1: a bump in the upper half, its negative in the lower half."""
    upper, lower = _bump(side // 2, side, like), _bump(side - side // 2, side, like)
    both = torch.cat([_unit(upper.reshape(1, 1, -1)), -_unit(lower.reshape(1, 1, -1))], dim=2)
    return _unit(both).reshape(side, side)


def _bump(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width): at distance d from the middle (in Linf) the sum of 1/k^2 for k from d + 1 up to the edge."""
    rows, columns = (torch.arange(length, device=like.device) - length // 2 for length in (height, width))
    away = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    last = max(height, width) // 2 + 1
    terms = 1 / torch.arange(1, last + 1, device=like.device).square().to(like.dtype)
    sums = terms.flip(0).cumsum(0).flip(0)
    return sums[away]
