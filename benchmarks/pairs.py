"""What `autoattack.py` runs: the ensemble or a member, ours and the reference's, on the same network and images.

Each part gives a result a side: plain values, `robust` (or `distance`) having an entry for each of the n images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import official
import torch
from official import Clock
from torch import Tensor, nn

from robustcli.attacks import APGD, APGDT, FAB, AutoAttack, Square
from robustcli.attacks.norms import L1, Norm, ball_edge
from robustcli.engine.run import Samples, predict, run_attack
from robustcli.fields import Eps

OURS, REFERENCE = "ours", "reference"
HALVED, UNTARGETED, UNSCALED = "ours, bfloat16", "reference, untargeted", "reference, schedule of 10 000"
QUERIES = (200, 1000, 5000)
TARGETS = 9
STEPS = 100

Result = dict[str, Any]


@dataclass(frozen=True)
class Duel:
    """Where both sides meet.

    Attributes:
        model: in eval mode, its parameters frozen.
        samples: the images, some of which the network may get wrong; these count as broken.
        norm, eps: the ball; None where distances are asked for.
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


def ensemble_of_ours(duel: Duel, dtype: torch.dtype = torch.float32) -> Result:
    """`robustcli evaluate --attack autoattack --dtype DTYPE`, its checks included."""
    attack = AutoAttack(duel.budget, norm=duel.norm)
    clock = Clock()
    outcomes = run_attack(duel.model, attack, duel.samples, seed=duel.seed, batch_size=duel.batch_size, dtype=dtype)
    cost = clock.cost()
    members = [
        {"name": one.attack.name, "seconds": one.seconds, "standing": int(one.robust.sum())} for one in outcomes[:-1]
    ]
    return {"robust": outcomes[-1].robust.int().tolist(), "members": members, **cost}


def ensemble_of_reference(duel: Duel) -> Result:
    """`run_standard_evaluation` on all images."""
    x, y = duel.samples.x, duel.samples.y
    whole = official.ensemble(duel.model, duel.norm, duel.budget, x, y, duel.seed, duel.their_batch_size)
    return {"robust": duel.flags(whole.x_adv), "members": whole.members, **whole.cost}


def apgd_ce(duel: Duel) -> dict[str, Result]:
    """A run each on the cross-entropy, from the starts that the reference drew."""
    climber = official.Climber(duel.model, duel.norm, duel.budget, STEPS, targeted=False)
    attack = APGD(duel.budget, STEPS, norm=duel.norm)
    return _from_the_same_starts(
        duel, climber, 1, lambda start, part, _: attack.ascend(duel.model, start, part.x, part.y)
    )


def apgd_t(duel: Duel) -> dict[str, Result]:
    """A run each towards each of nine wrong classes, all from the starts that the reference drew."""
    climber = official.Climber(duel.model, duel.norm, duel.budget, STEPS, targeted=True)
    attack = APGDT(duel.budget, STEPS, norm=duel.norm)
    return _from_the_same_starts(
        duel, climber, TARGETS, lambda start, part, rank: attack.ascend(duel.model, start, part.x, part.y, rank)
    )


def _from_the_same_starts(
    duel: Duel, climber: official.Climber, ranks: int, ours: Callable[[Tensor, Samples, int], Tensor]
) -> dict[str, Result]:
    """A sample is attacked until both sides have broken it, so that each run has the same starts."""
    right = duel.right()
    standing = {OURS: right.clone(), REFERENCE: right.clone()}
    for rank in range(ranks):
        index = (standing[OURS] | standing[REFERENCE]).nonzero()[:, 0]
        if not len(index):
            break
        part, there = duel.samples[index], replace(duel, samples=duel.samples[index])
        start, found = climber.climb(part.x, part.y, duel.seed * TARGETS + rank, rank)
        mine = ours(start, part, rank)
        for side, x_adv in ((OURS, mine), (REFERENCE, found)):
            standing[side][index] &= torch.tensor(there.flags(x_adv), device=index.device) == 1
    return {side: {"robust": left.int().tolist()} for side, left in standing.items()}


def fab_of_ours(duel: Duel) -> Result:
    """FAB towards nine classes: distances."""
    return _distances(duel, lambda part: [run_attack_images(duel, FAB(STEPS, norm=duel.norm), part)])


def run_attack_images(duel: Duel, attack: FAB, part: Samples) -> Tensor:
    """What the driver makes of `part`."""
    x_adv = run_attack(duel.model, attack, part, seed=duel.seed, batch_size=duel.batch_size, keep_images=True)[0].x_adv
    assert x_adv is not None
    return x_adv.to(part.x)


def fab_of_reference(duel: Duel) -> Result:
    """FAB towards nine classes in turn, the closest of any."""
    return _distances(
        duel,
        lambda part: [official.fab(duel.model, duel.norm, part.x, part.y, rank, STEPS) for rank in range(TARGETS)],
    )


def fab_untargeted(duel: Duel) -> Result:
    """FAB towards the nearest of all linearised boundaries."""
    return _distances(duel, lambda part: [official.fab(duel.model, duel.norm, part.x, part.y, None, STEPS)])


def _distances(duel: Duel, images: Callable[[Samples], list[Tensor]]) -> Result:
    """The least distance of an adversarial; 0 for an image that was wrong before, None where none was found."""
    right = duel.right()
    part = duel.samples[right]
    clock = Clock()
    found = images(part)
    cost = clock.cost()
    least = torch.full_like(part.x[:, 0, 0, 0], torch.inf)
    for x_adv in found:
        broken = predict(duel.model, x_adv, 128) != part.y
        least = torch.where(broken, torch.minimum(least, duel.norm.distance(x_adv, part.x)), least)
    distance = torch.zeros(len(right), device=right.device).masked_scatter(right, least)
    return {"distance": [None if d == torch.inf else d for d in distance.tolist()], **cost}


def square_of_ours(duel: Duel, queries: int) -> Result:
    """Square on its own."""
    assert not isinstance(duel.norm, L1)
    attack = Square(duel.budget, queries, norm=duel.norm)
    clock = Clock()
    outcome = run_attack(duel.model, attack, duel.samples, seed=duel.seed, batch_size=duel.batch_size)[0]
    return {"robust": outcome.robust.int().tolist(), **clock.cost()}


def square_of_reference(duel: Duel, queries: int, scaled: bool = True) -> Result:
    """Square on its own, its windows' schedule scaled to the number of queries or not, as in their ensemble."""
    x, y = duel.samples.x, duel.samples.y
    clock = Clock()
    x_adv = official.square(duel.model, duel.norm, duel.budget, x, y, duel.seed, queries, scaled)
    cost = clock.cost()
    return {"robust": duel.flags(x_adv), **cost}
