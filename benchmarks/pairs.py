"""What `autoattack.py` runs: the ensemble or a member, ours and the reference's, on the same network and images.

Each part gives a result a side: plain values, `robust` (or `distance`) having an entry for each of the n images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import official
import torch
from official import Clock
from torch import Tensor, nn

from robustcli.attacks import APGD, APGDT, FAB, AutoAttack, Square
from robustcli.attacks.norms import L1, Norm
from robustcli.engine.run import Samples, predict, run_attack
from robustcli.fields import Eps, ball_edge

OURS, REFERENCE, FAST = "ours", "reference", "ours, fast"
HALVED, UNTARGETED, UNSCALED = "ours, bfloat16", "reference, untargeted", "reference, schedule of 10 000"
QUERIES = (200, 1000, 5000)
TARGETS = 9
STEPS = 100

Result = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """What both sides are given.

    Attributes:
        model: in eval mode, its parameters frozen.
        samples: the images, some of which the network may get wrong; these count as broken.
        norm, eps: the ball; None where distances are measured.
        seed: of both.
        batch_size, their_batch_size: ours, and the reference's.
    """

    model: nn.Module
    samples: Samples
    norm: Norm
    eps: Eps | None
    seed: int
    batch_size: int
    their_batch_size: int

    @property
    def budget(self) -> Eps:
        """The ball's radius."""
        assert self.eps is not None
        return self.eps

    def right(self) -> Tensor:
        """(n,) bool, classified right."""
        return predict(self.model, self.samples.x, 128) == self.samples.y

    def flags(self, x_adv: Tensor) -> list[int]:
        """1 for each image that is still classified right; what lies outside ball or box breaks nothing."""
        x = self.samples.x
        far = self.norm.distance(x_adv, x) > ball_edge(self.budget)
        outside = (x_adv < 0).flatten(1).any(1) | (x_adv > 1).flatten(1).any(1)
        standing = (predict(self.model, x_adv, 128) == self.samples.y) | far | outside
        return (standing & self.right()).int().tolist()


def ensemble_of_ours(
    pair: Pair, dtype: torch.dtype = torch.float32, version: Literal["standard", "fast"] = "standard"
) -> Result:
    """`robustcli evaluate --preset VERSION --dtype DTYPE`, its checks included; of `fast`, what was sampled."""
    attack = AutoAttack(pair.budget, version, norm=pair.norm)
    clock = Clock()
    outcomes = run_attack(pair.model, attack, pair.samples, seed=pair.seed, batch_size=pair.batch_size, dtype=dtype)
    cost = clock.cost()
    members = [
        {"name": one.attack.name, "seconds": one.seconds, "standing": int(one.robust.sum())} for one in outcomes[:-1]
    ]
    sampled = {} if outcomes[-1].sampled is None else {"sampled": dict(outcomes[-1].sampled)}
    return {"robust": outcomes[-1].robust.int().tolist(), "members": members, **sampled, **cost}


def ensemble_of_reference(pair: Pair) -> Result:
    """`run_standard_evaluation` on all images."""
    x, y = pair.samples.x, pair.samples.y
    whole = official.ensemble(pair.model, pair.norm, pair.budget, x, y, pair.seed, pair.their_batch_size)
    return {"robust": pair.flags(whole.x_adv), "members": whole.members, **whole.cost}


def apgd_ce(pair: Pair) -> dict[str, Result]:
    """A run each on the cross-entropy, from the starts that the reference drew."""
    climber = official.Climber(pair.model, pair.norm, pair.budget, STEPS, targeted=False)
    attack = APGD(pair.budget, STEPS, norm=pair.norm)
    return _from_the_same_starts(
        pair, climber, 1, lambda start, part, _: attack.ascend(pair.model, start, part.x, part.y)
    )


def apgd_t(pair: Pair) -> dict[str, Result]:
    """A run each towards each of nine wrong classes, all from the starts that the reference drew."""
    climber = official.Climber(pair.model, pair.norm, pair.budget, STEPS, targeted=True)
    attack = APGDT(pair.budget, STEPS, norm=pair.norm)
    return _from_the_same_starts(
        pair, climber, TARGETS, lambda start, part, rank: attack.ascend(pair.model, start, part.x, part.y, rank)
    )


def _from_the_same_starts(
    pair: Pair, climber: official.Climber, ranks: int, ours: Callable[[Tensor, Samples, int], Tensor]
) -> dict[str, Result]:
    """A sample is attacked until both sides have broken it, so that each run has the same starts."""
    right = pair.right()
    standing = {OURS: right.clone(), REFERENCE: right.clone()}
    for rank in range(ranks):
        index = (standing[OURS] | standing[REFERENCE]).nonzero()[:, 0]
        if not len(index):
            break
        part, there = pair.samples[index], replace(pair, samples=pair.samples[index])
        start, found = climber.climb(part.x, part.y, pair.seed * TARGETS + rank, rank)
        mine = ours(start, part, rank)
        for side, x_adv in ((OURS, mine), (REFERENCE, found)):
            standing[side][index] &= torch.tensor(there.flags(x_adv), device=index.device) == 1
    return {side: {"robust": left.int().tolist()} for side, left in standing.items()}


def fab_of_ours(pair: Pair) -> Result:
    """FAB towards nine classes: distances."""
    return _distances(pair, lambda part: [run_attack_images(pair, FAB(STEPS, norm=pair.norm), part)])


def run_attack_images(pair: Pair, attack: FAB, part: Samples) -> Tensor:
    """What the driver makes of `part`."""
    x_adv = run_attack(pair.model, attack, part, seed=pair.seed, batch_size=pair.batch_size, keep_images=True)[0].x_adv
    assert x_adv is not None
    return x_adv.to(part.x)


def fab_of_reference(pair: Pair) -> Result:
    """FAB towards nine classes in turn, the closest of any."""
    return _distances(
        pair,
        lambda part: [official.fab(pair.model, pair.norm, part.x, part.y, rank, STEPS) for rank in range(TARGETS)],
    )


def fab_untargeted(pair: Pair) -> Result:
    """FAB towards the nearest of all linearised boundaries."""
    return _distances(pair, lambda part: [official.fab(pair.model, pair.norm, part.x, part.y, None, STEPS)])


def _distances(pair: Pair, images: Callable[[Samples], list[Tensor]]) -> Result:
    """The least distance of an adversarial; 0 for an image that was wrong before, None where none was found."""
    right = pair.right()
    part = pair.samples[right]
    clock = Clock()
    found = images(part)
    cost = clock.cost()
    least = torch.full_like(part.x[:, 0, 0, 0], torch.inf)
    for x_adv in found:
        broken = predict(pair.model, x_adv, 128) != part.y
        least = torch.where(broken, torch.minimum(least, pair.norm.distance(x_adv, part.x)), least)
    distance = torch.zeros(len(right), device=right.device).masked_scatter(right, least)
    return {"distance": [None if d == torch.inf else d for d in distance.tolist()], **cost}


def square_of_ours(pair: Pair, queries: int) -> Result:
    """Square on its own."""
    assert not isinstance(pair.norm, L1)
    attack = Square(pair.budget, queries, norm=pair.norm)
    clock = Clock()
    outcome = run_attack(pair.model, attack, pair.samples, seed=pair.seed, batch_size=pair.batch_size)[0]
    return {"robust": outcome.robust.int().tolist(), **clock.cost()}


def square_of_reference(pair: Pair, queries: int, scaled: bool = True) -> Result:
    """Square on its own, its squares' schedule scaled to the number of queries or not, as in their ensemble."""
    x, y = pair.samples.x, pair.samples.y
    clock = Clock()
    x_adv = official.square(pair.model, pair.norm, pair.budget, x, y, pair.seed, queries, scaled)
    cost = clock.cost()
    return {"robust": pair.flags(x_adv), **cost}
