"""The Square attack."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, Passes, compact, survivors
from robustcli.attacks.losses import Model, cross_entropy, is_right, margin
from robustcli.attacks.norms import L2, Linf, LinfOrL2, per_sample
from robustcli.attacks.targets import Target, target_classes
from robustcli.fields import STRICT, Budget, Number
from robustcli.noise import Noise

HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10 000 queries the square's area is halved (AutoAttack's schedule; the paper has no 500)."""

BLOCK = 64
"""Queries whose draws are made at once: one such call costs as much as the forward pass of a few small images."""

TIE = 16
"""Roundings of a logit within which a loss counts as unchanged: see `_Search.after`."""

CANCELLED = 1e-6
"""The energy, of 4 at most, below which an L2 pattern and what the square holds have cancelled each other."""


@dataclass(frozen=True, config=STRICT)
class Square:
    """Random search: recolours a random square, and keeps what lowers the margin.

    Andriushchenko, Croce, Flammarion and Hein 2020, *Square Attack: a query-efficient black-box adversarial attack via
    random search*.

    Returns images in the ball and in [0, 1]: the first that is misclassified, or the one of least margin. It differs
    from AutoAttack's code in four ways. A sample draws squares of its own, keyed by its id, where that code draws one
    for the whole batch. A square may lie at the last row and column. An Linf square that would change nothing takes the
    other colour (the authors' first code drew again): on grey images half of the single-pixel queries were lost. And
    the squares always shrink to the smallest by the last query, as in that code's default; its ensemble keeps to the
    schedule of 10 000 queries, of which it asks the first 5 000. As there, the starting image comes before the
    `queries` and is none of them. With a `target` it lowers the cross-entropy of that class, as the paper does, until
    the sample is taken for it.
    """

    eps: Budget
    queries: PositiveInt = 5000
    p_init: Annotated[Number, Field(gt=0, le=1)] = 0.8
    restarts: PositiveInt = 1
    norm: LinfOrL2 = Linf()
    target: Target | None = None

    name: ClassVar[str] = "square"
    summary: ClassVar[str] = "random search with squares (Andriushchenko et al. 2020)"
    needs: ClassVar[Needs] = "scores"
    use: ClassVar[str] = (
        "A network whose gradients are masked, broken or out of reach. Where it breaks what PGD does "
        "not, they are masked."
    )
    kind: ClassVar[Kind] = "budget"
    losses: ClassVar[Losses] = ()
    weak: ClassVar[bool] = False
    parameter_free: ClassVar[bool] = True

    @property
    def cost(self) -> Passes:
        """Passes of an image at most."""
        return Passes(self.restarts * (self.queries + 2 + (self.target is not None)) - 1, 0)

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        with torch.no_grad():
            return survivors([self._attempt] * self.restarts, model, x, y, noise)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        moves = moves_in(self.norm, self.eps)
        label = y if self.target is None else target_classes(self.target, model, x, y, noise)
        x_adv = moves.start(x, noise.stream("start"))
        if not len(x):
            return x_adv
        search, done = _Search.begin(x, label).after(model(x_adv), x_adv, self.target is not None)
        search = compact(search, ~done)
        for number, (side, queries) in enumerate(self._blocks(moves, x)):
            pattern = moves.pattern(side, x)
            draws = _draws(noise[search.index].stream(f"block {number}"), queries, moves.numbers(x.shape[1]), x.device)
            for query in range(queries):
                if not len(search.index):
                    return x_adv
                candidate = moves.candidate(search.x, search.x_adv, pattern, draws[:, query])
                search, done = search.after(model(candidate), candidate, self.target is not None)
                if bool(done.any()):
                    x_adv[search.index] = search.x_adv
                    search, draws = compact(search, ~done), draws[~done]
        x_adv[search.index] = search.x_adv
        return x_adv

    def _blocks(self, moves: Moves, x: Tensor) -> Iterator[tuple[int, int]]:
        """The squares' side and how many queries have it, at most BLOCK, for each block after the start."""
        height, width = x.shape[2:]
        sides = []
        # The first query has the largest square, as in AutoAttack's code: of 200 queries, it alone is worth 1 point.
        for query in range(self.queries):
            halvings = bisect_left(HALVED_AT, query * 10_000 // self.queries)
            area = self.p_init / 2**halvings * height * width
            sides.append(min(moves.side(area), height, width))
        for side, group in groupby(sides):
            count = len(list(group))
            for first in range(0, count, BLOCK):
                yield side, min(BLOCK, count - first)


def _draws(noise: Noise, queries: int, numbers: int, device: torch.device) -> Tensor:
    """(n, queries, numbers) of U[0, 1)."""
    # float32 whatever the images are: half precision would round a draw up to 1, outside the image.
    return noise.uniform(torch.empty(len(noise.ids), queries, numbers, dtype=torch.float32, device=device))


@dataclasses.dataclass(frozen=True)
class _Search:
    """The samples that are still attacked: their index in the batch, and for each the image of least loss so far."""

    index: Tensor
    x: Tensor
    label: Tensor
    x_adv: Tensor
    loss: Tensor

    @classmethod
    def begin(cls, x: Tensor, label: Tensor) -> _Search:
        """Before the first query."""
        return cls(torch.arange(len(x), device=x.device), x, label, x, x.new_full((len(x),), torch.inf))

    def after(self, logits: Tensor, candidate: Tensor, targeted: bool) -> tuple[_Search, Tensor]:
        """The search once the logits of `candidate` (n, c, h, w) are known, and (n,) bool, which samples are done.

        A change within rounding is no improvement: an image's logits differ in the last bits with the images beside it,
        and a square that no unit of the network sees would be taken or not as these say, that is, by the batch.
        """
        done = is_right(logits, self.label) == targeted
        loss = cross_entropy(logits, self.label) if targeted else margin(logits, self.label)
        rounding = TIE * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
        better = (loss < self.loss - rounding) | done
        x_adv = torch.where(per_sample(better, candidate), candidate, self.x_adv)
        return dataclasses.replace(self, x_adv=x_adv, loss=torch.where(better, loss, self.loss)), done


@dataclasses.dataclass(frozen=True)
class LinfMoves:
    """Each pixel is moved by eps, up or down, as far as the box allows: vertical stripes first, then squares."""

    eps: float

    def numbers(self, channels: int) -> int:
        """How many draws from U[0, 1) a candidate takes: row, column, and a colour a channel."""
        return 2 + channels

    def side(self, area: float) -> int:
        """The side of a square that should have so many pixels: at least one."""
        return max(1, round(math.sqrt(area)))

    def pattern(self, side: int, like: Tensor) -> Tensor:
        """(side, side), what is written into a square, but for sign and length: the same everywhere."""
        return like.new_ones(side, side)

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """The first images (n, c, h, w), in ball and box: stripes one pixel wide, a colour a channel."""
        return (x + self.eps * _sign(noise.uniform(x[:, :, :1]), x)).clamp(0, 1)

    def candidate(self, x: Tensor, x_adv: Tensor, pattern: Tensor, draws: Tensor) -> Tensor:
        """The images to try after `x_adv`, from draws (n, numbers): a square of one colour a channel.

        Of the opposite colours where it would change nothing.
        """
        pixels = _pixels(draws[:, :2], len(pattern), x)
        origin, old = (image.flatten(2).gather(2, pixels) for image in (x, x_adv))
        step = self.eps * _sign(draws[:, 2:, None], x) * pattern.flatten()
        new = (origin + step).clamp(0, 1)
        idle = (new == old).flatten(1).all(1)
        new = torch.where(per_sample(idle, new), (origin - step).clamp(0, 1), new)
        return x_adv.flatten(2).scatter(2, pixels, new).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class L2Moves:
    """The whole of eps is spent, on patterns of two opposite bumps; a step moves what one square has to another."""

    eps: float

    def numbers(self, channels: int) -> int:
        """Row and column of two squares, whether the pattern is turned, and its sign a channel."""
        return 5 + channels

    def side(self, area: float) -> int:
        """Odd, and at least 3: smaller ones have no room for two bumps."""
        return max(3, round(math.sqrt(area))) | 1

    def pattern(self, side: int, like: Tensor) -> Tensor:
        """(side, side), of length 1: a bump in the upper half, its negative in the lower half."""
        upper, lower = _bump(side // 2, side, like), _bump(side - side // 2, side, like)
        both = torch.cat([_unit(upper.reshape(1, 1, -1)), -_unit(lower.reshape(1, 1, -1))], dim=2)
        return _unit(both).reshape(side, side)

    def start(self, x: Tensor, noise: Noise) -> Tensor:
        """Patterns side by side, five to a side of the image."""
        n, channels, height, width = x.shape
        side = min(max(3, min(height, width) // 5), height, width)
        pattern, delta = self.pattern(side, x), torch.zeros_like(x)
        tops, lefts = (range(length % side // 2, length - side + 1, side) for length in (height, width))
        tiles = [(top, left) for top in tops for left in lefts]
        like = torch.empty(n, len(tiles), 1 + channels, dtype=torch.float32, device=x.device)
        for (top, left), draws in zip(tiles, noise.uniform(like).unbind(1), strict=True):
            tile = _turned(pattern, draws).reshape(n, channels, side, side)
            delta[:, :, top : top + side, left : left + side] = tile
        return (x + self.eps * L2().steepest(delta)).clamp(0, 1)

    def candidate(self, x: Tensor, x_adv: Tensor, pattern: Tensor, draws: Tensor) -> Tensor:
        """A square gets a pattern on top of what it has, with the length that it, a second square and eps have left.

        What clipping took of eps before is spent as well: before it is clipped the whole is as long as eps.
        """
        delta = (x_adv - x).flatten(2)
        first, second = (_pixels(place, len(pattern), x) for place in (draws[:, :2], draws[:, 2:4]))
        unspent = (self.eps**2 - delta.square().sum((1, 2)))[:, None, None] / x.shape[1]
        old = delta.gather(2, first)
        given_up = delta.scatter(2, first, 0.0).gather(2, second)
        length = (unspent + _energy(old) + _energy(given_up)).clamp_min(0).sqrt()
        added = _turned(pattern, draws[:, 4:])
        both = added + _unit(old)
        new = _unit(both.where(_energy(both) > CANCELLED, added)) * length
        origin = x.flatten(2)
        emptied = x_adv.flatten(2).scatter(2, second, origin.gather(2, second))
        filled = emptied.scatter(2, first, (origin.gather(2, first) + new).clamp(0, 1))
        return filled.reshape(x.shape)


Moves = LinfMoves | L2Moves
"""How the search starts and what it tries next in a norm, as the paper's algorithms 2 and 3 have it."""


def moves_in(norm: Linf | L2, eps: float) -> Moves:
    """The moves in a ball of radius eps."""
    return L2Moves(eps) if norm == L2() else LinfMoves(eps)


def _integers(draws: Tensor, last: int) -> Tensor:
    """(n,) draws from U[0, 1) as integers from 0 to `last`."""
    return (draws * (last + 1)).long()


def _sign(draws: Tensor, like: Tensor) -> Tensor:
    """Draws from U[0, 1) as -1 or 1, of the type of `like`."""
    return (draws < 0.5).to(like.dtype) * 2 - 1


def _pixels(draws: Tensor, side: int, x: Tensor) -> Tensor:
    """(n, c, side * side), the flat indices of the pixels in a square at the row and column of draws (n, 2)."""
    n, channels, height, width = x.shape
    reach = torch.arange(side, device=x.device)
    rows = _integers(draws[:, 0], height - side)[:, None] + reach
    columns = _integers(draws[:, 1], width - side)[:, None] + reach
    flat = (rows[:, :, None] * width + columns[:, None, :]).reshape(n, 1, side * side)
    return flat.expand(n, channels, side * side)


def _turned(pattern: Tensor, draws: Tensor) -> Tensor:
    """(n, c, side * side): the pattern upright or on its side, with a sign a channel, by draws (n, 1 + c)."""
    both = torch.stack((pattern, pattern.T)).flatten(1)
    return both[_integers(draws[:, 0], 1)][:, None] * _sign(draws[:, 1:, None], pattern)


def _energy(delta: Tensor) -> Tensor:
    return delta.square().sum(2, keepdim=True)


def _unit(delta: Tensor) -> Tensor:
    return delta / _energy(delta).sqrt().clamp_min(1e-12)


def _bump(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width): at distance d from the middle (in Linf) the sum of 1/k^2 for k from d + 1 up to the edge."""
    rows, columns = (torch.arange(length, device=like.device) - length // 2 for length in (height, width))
    away = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    last = max(height, width) // 2 + 1
    terms = 1 / torch.arange(1, last + 1, device=like.device).square().to(like.dtype)
    sums = terms.flip(0).cumsum(0).flip(0)
    return sums[away]
