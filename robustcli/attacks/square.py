"""The Square attack."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks.base import Needs, compact, survivors
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
    query reach (`Incremental`): for each size of them it runs once or twice more, on images asked about before. With a
    `target` it lowers the cross-entropy of that class, as the paper does, until the sample is taken for it.
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

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        with torch.no_grad():
            return survivors([self._attempt] * self.restarts, model, x, y, noise)

    def _attempt(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        moves = moves_in(self.norm, self.eps)
        aim = y if self.target is None else wanted(self.target, model, x, y, noise)
        x_adv = moves.start(x, noise.stream("start"))
        search = _Search(torch.arange(len(x), device=x.device), x, aim, x_adv, x.new_full((len(x),), torch.inf))
        search, standing, _ = search.told(model(x_adv), x_adv, self.target is not None)
        x_adv, search = search.x_adv.clone(), search[standing]
        asked = None
        for number, (side, count) in enumerate(self._blocks(moves, x)):
            if not len(search):
                break
            shape = (len(search), count, moves.numbers(x.shape[1]))
            # float32 whatever the images are: half precision would round a draw up to 1, outside the image.
            like = torch.empty(shape, dtype=torch.float32, device=x.device)
            draws = noise[search.index].stream(f"block {number}").uniform(like)
            window = moves.window(side, x)
            if asked is None or asked.side != side:
                asked = Incremental.at(model, search.x_adv, side, moves.count)
            for i in range(count):
                candidate, corners = moves.candidate(search.x, search.x_adv, window, draws[:, i])
                logits = asked.ask(candidate, corners)
                search, standing, better = search.told(logits, candidate, self.target is not None)
                asked.keep(better)
                if not bool(standing.all()):
                    x_adv[search.index] = search.x_adv
                    search, draws, asked = search[standing], draws[standing], asked[standing]
                    if not len(search):
                        break
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


@dataclasses.dataclass(frozen=True)
class _Search:
    """The samples that still stand: their index in the batch, and for each the image of least loss so far."""

    index: Tensor
    x: Tensor
    aim: Tensor
    x_adv: Tensor
    loss: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, kept: Tensor) -> _Search:
        return compact(self, kept)

    def told(self, logits: Tensor, candidate: Tensor, targeted: bool) -> tuple[_Search, Tensor, Tensor]:
        """The search after one query a sample, and two (n,) bool.

        The first is of the samples not away from their class yet, or not in the wanted one, the second of those whose
        candidate was taken. A change within rounding is no improvement. Without that rule a square that no unit of the
        network sees would be taken or not as the last bit of its logits says, which depends on the images beside it.
        """
        standing = is_right(logits, self.aim) != targeted
        value = cross_entropy(logits, self.aim) if targeted else margin(logits, self.aim)
        rounding = TIE * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
        better = (value < self.loss - rounding) | ~standing
        x_adv = torch.where(per_sample(better, candidate), candidate, self.x_adv)
        return dataclasses.replace(self, x_adv=x_adv, loss=value.where(better, self.loss)), standing, better
