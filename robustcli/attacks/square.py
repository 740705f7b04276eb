"""The Square attack."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Kind, Losses, Needs, compact, survivors
from robustcli.attacks.incremental import Incremental
from robustcli.attacks.losses import Model, cross_entropy, is_right, margin
from robustcli.attacks.norms import Linf, LinfOrL2, per_sample
from robustcli.attacks.targets import Target, wanted
from robustcli.attacks.windows import Moves, moves_in
from robustcli.fields import STRICT, Budget, Number
from robustcli.noise import Noise

HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10 000 queries the window's area is halved (AutoAttack's schedule; the paper has no 500)."""

BLOCK = 64
"""Queries whose draws are made at once: one such call costs as much as the forward pass of a few small images."""

STRETCH = 16
"""Blocks at whose end samples wait for each other: of 13 CIFAR-10 images 8 % of the time, 14 % with one block."""

TIE = 16
"""Roundings of a logit within which a margin counts as unchanged: see `_Search.told`."""


@dataclass(frozen=True, config=STRICT)
class Square:
    """Random search: recolours a random square, and keeps what lowers the margin.

    Andriushchenko, Croce, Flammarion and Hein 2020, *Square Attack: a query-efficient black-box adversarial attack via
    random search*.

    Returns images in the ball and in [0, 1]: the first that is misclassified, or the one of least margin. It differs
    from AutoAttack's code in four ways. A sample draws squares of its own, keyed by its id, where that code draws one
    for the whole batch. A square may lie at the last row and column. An Linf square that would change nothing takes the
    other colour (the authors' first code drew again): on grey images half of the single-pixel queries were lost. And
    the windows always shrink to the smallest by the last query, as in that code's default; its ensemble keeps to the
    schedule of 10 000 queries, of which it asks the first 5 000. As there, the starting image comes before the
    `queries` and is none of them. Where the network allows it, logits are computed only as far as the windows of a
    query reach (`Incremental`): for each size of them it runs once or twice more, on images asked about before. Of few
    images, in windows or of a small network on a GPU, it is asked up to four queries each at once, as if none were
    taken; those behind one that is taken are asked again, from the new image. So more `forwards` are counted than
    `queries`; the images are the same up to rounding. With a `target` it lowers the cross-entropy of that class, as the
    paper does, until the sample is taken for it.
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
    def cost(self) -> int:
        """Passes of an image at most."""
        return self.queries * self.restarts

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        with torch.no_grad():
            return survivors([self._attempt] * self.restarts, model, x, y, noise)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        moves = moves_in(self.norm, self.eps)
        aim = y if self.target is None else wanted(self.target, model, x, y, noise)
        x_adv = moves.start(x, noise.stream("start"))
        if not len(x):
            return x_adv
        search = _Search.begin(x, aim, x_adv)
        search, standing, _ = search.told(model(x_adv), x_adv, 1, self.target is not None)
        x_adv, search = search.x_adv.clone(), search[standing]
        asked = None
        for side, blocks in _stretches(self._blocks(moves, x)):
            if not len(search):
                break
            search, window = search.from_the_first(), moves.window(side, x)
            draws = _draws(moves.numbers(x.shape[1]), blocks, noise[search.index], x.device)
            if asked is None or asked.side != side:
                asked = Incremental.at(model, search.x_adv, side, moves.count)
            while bool((search.query < draws.shape[1]).any()):
                now, numbers = search.next_ones(asked.at_once, draws)
                candidate, corners = moves.candidate(now.x, now.x_adv, window, numbers)
                logits = asked.ask(candidate, corners)
                search, standing, taken = search.told(logits, candidate, draws.shape[1], self.target is not None)
                asked.keep(taken)
                if not bool(standing.all()):
                    x_adv[search.index] = search.x_adv
                    search, draws, asked = search[standing], draws[standing], asked[standing]
        x_adv[search.index] = search.x_adv
        return x_adv

    def _blocks(self, moves: Moves, x: Tensor) -> Iterator[tuple[int, int]]:
        """The windows' side and how many queries have it, at most BLOCK, for each block after the start."""
        height, width = x.shape[2:]
        sides = []
        # The first of them has the largest window, as in AutoAttack's code: of 200 queries, it alone is worth 1 point.
        for query in range(self.queries):
            halvings = bisect_left(HALVED_AT, query * 10_000 // self.queries)
            area = self.p_init / 2**halvings * height * width
            sides.append(min(moves.side(area), height, width))
        for side, group in groupby(sides):
            count = len(list(group))
            for first in range(0, count, BLOCK):
                yield side, min(BLOCK, count - first)


def _stretches(blocks: Iterator[tuple[int, int]]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The windows' side, and up to STRETCH blocks of that side: the number of each, and how many queries it has."""
    for side, group in groupby(enumerate(blocks), key=lambda block: block[1][0]):
        while some := [(number, count) for number, (_, count) in islice(group, STRETCH)]:
            yield side, some


def _draws(numbers: int, blocks: list[tuple[int, int]], noise: Noise, device: torch.device) -> Tensor:
    """(n, queries, numbers), what the queries of these blocks take of U[0, 1)."""
    parts = []
    for number, count in blocks:
        # float32 whatever the images are: half precision would round a draw up to 1, outside the image.
        like = torch.empty(len(noise.ids), count, numbers, dtype=torch.float32, device=device)
        parts.append(noise.stream(f"block {number}").uniform(like))
    return torch.cat(parts, dim=1)


@dataclasses.dataclass(frozen=True)
class _Search:
    """The samples that still stand: their index in the batch, and for each the image of least loss so far.

    `query` (n,) is the number of each one's next query; they need not be at the same one.
    """

    index: Tensor
    x: Tensor
    aim: Tensor
    x_adv: Tensor
    loss: Tensor
    query: Tensor

    @classmethod
    def begin(cls, x: Tensor, aim: Tensor, x_adv: Tensor) -> _Search:
        """Before the starts `x_adv` are asked about."""
        index = torch.arange(len(x), device=x.device)
        return cls(index, x, aim, x_adv, x.new_full((len(x),), torch.inf), torch.zeros_like(index))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, kept: Tensor) -> _Search:
        return compact(self, kept)

    def from_the_first(self) -> _Search:
        """All with query number 0 before them."""
        return dataclasses.replace(self, query=torch.zeros_like(self.query))

    def next_ones(self, count: int, draws: Tensor) -> tuple[_Search, Tensor]:
        """The next `count` queries of each sample, beside each other: the samples, and (n * count, numbers).

        All are asked from where the search is now, as if none before them were taken. Behind the last of `draws`
        (n, queries, numbers) there is that one again.
        """
        query = (self.query[:, None] + torch.arange(count, device=draws.device)).clamp_max(draws.shape[1] - 1)
        numbers = draws.gather(1, query[:, :, None].expand(-1, -1, draws.shape[2])).flatten(0, 1)
        index = torch.arange(len(self), device=draws.device)
        return self if count == 1 else self[index.repeat_interleave(count)], numbers

    def told(self, logits: Tensor, candidate: Tensor, queries: int, targeted: bool) -> tuple[_Search, Tensor, Tensor]:
        """The search after some queries of each sample, of the `queries` that it has; and two (n,) tensors.

        The first is bool, of the samples not away from their class yet, or not in the wanted one. The second says which
        of its candidates was taken, the first that is better, or -1; those behind it are forgotten. A change within
        rounding is no improvement. Without that rule a square that no unit of the network sees would be taken or not as
        the last bit of its logits says, which depends on the images beside it.
        """
        n = len(self)
        count = len(logits) // n
        aim, loss = (own.repeat_interleave(count) for own in (self.aim, self.loss))
        standing = is_right(logits, aim) != targeted
        value = cross_entropy(logits, aim) if targeted else margin(logits, aim)
        rounding = TIE * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
        better = ((value < loss - rounding) | ~standing).view(n, count)
        better &= self.query[:, None] + torch.arange(count, device=logits.device) < queries
        found, first = better.any(1), better.int().argmax(1)
        chosen = slice(None) if count == 1 else first + torch.arange(0, n * count, count, device=logits.device)
        search = dataclasses.replace(
            self,
            x_adv=torch.where(per_sample(found, candidate), candidate[chosen], self.x_adv),
            loss=torch.where(found, value[chosen], self.loss),
            query=(self.query + torch.where(found, first + 1, count)).clamp_max(queries),
        )
        return search, standing[chosen] | ~found, torch.where(found, first, -1)
