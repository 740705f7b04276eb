"""What a probe attacks: the survivors of a budget, and the attack whose work it goes on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks import PGD
from robustcli.attacks.base import Attack, BudgetAttack, passes_of
from robustcli.attacks.norms import Norm
from robustcli.engine.guard import Meter
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import AttackError, OutOfMemoryError
from robustcli.measure.record import Row
from robustcli.verdict.effort import is_reference
from robustcli.verdict.findings import Finding
from robustcli.verdict.look import spread_over
from robustcli.verdict.runs import worst_case


@dataclass(frozen=True)
class Case:
    """One budget of one model.

    Attributes:
        model: what is attacked.
        name: of the budget, such as `Linf 0.3`.
        norm, eps: the budget.
        standing: the survivors that are probed.
        survivors: how many stand.
        total: of how many samples.
        attacks: that ran at this budget.
        seed, batch_size: of the run.
        randomised: whether the model answers the same image differently.
    """

    model: nn.Module
    name: str
    norm: Norm
    eps: float
    standing: Samples
    survivors: int
    total: int
    attacks: tuple[Attack, ...]
    seed: int
    batch_size: int
    randomised: bool = False

    @property
    def reference(self) -> Any:
        """The iterative attack that ran with the most steps, or PGD-20: what the probes make stronger."""
        stepping = [one for one in self.attacks if one.name in ("pgd", "mifgsm", "apgd")]
        if stepping:
            return max(stepping, key=lambda one: int(getattr(one, "steps", 0)))
        return PGD(self.eps, steps=20, norm=self.norm, eot=self.passes)

    @property
    def passes(self) -> int:
        """The passes that the attacks of the budget average a gradient over."""
        return max(map(passes_of, self.attacks))

    @property
    def has_reference(self) -> bool:
        """Whether an ensemble of AutoAttack's grade ran on all samples: then its own number is judged."""
        return any(is_reference(attack, self.randomised) for attack in self.attacks)

    @property
    def share(self) -> float:
        """Of all samples, those that stand."""
        return self.survivors / max(1, self.total)

    def breaks(self, attack: Attack) -> int:
        """How many of the survivors an attack breaks."""
        return len(self.standing) - len(self.left_by(attack, self.standing))

    def left_by(self, attack: Attack, samples: Samples) -> Samples:
        """What an attack leaves of samples."""
        outcome = run_attack(self.model, attack, samples, seed=self.seed, batch_size=self.batch_size, eot=self.passes)[
            -1
        ]
        return samples[outcome.robust.nonzero()[:, 0].to(samples.x.device)]

    def points(self, broken: int) -> float:
        """By what share of all samples accuracy would fall, if so many of the probed survivors are broken."""
        return broken * self.survivors / max(1, len(self.standing) * self.total)


def make_case(
    model: nn.Module,
    samples: Samples,
    rows: Sequence[Row],
    group: Sequence[Row],
    *,
    limit: int = 100,
    seed: int = 0,
    batch_size: int = 128,
    randomised: bool = False,
) -> Case:
    """The case of a budget's rows.

    Args:
        model: what was attacked.
        samples: all n that were.
        rows: all of the model.
        group: those of one norm and budget.
        limit: how many survivors are probed, evenly spread.
        seed: of the run.
        batch_size: of the run.
        randomised: whether the model answers the same image differently.
    """
    flags = torch.tensor(worst_case(rows, group), dtype=torch.bool)
    index = flags.nonzero()[:, 0]
    first = group[0].attack
    assert isinstance(first, BudgetAttack)
    return Case(
        model=model,
        name=f"{first.norm.label} {first.eps}",
        norm=first.norm,
        eps=first.eps,
        standing=samples[index[spread_over(len(index), limit)].to(samples.x.device)],
        survivors=len(index),
        total=len(flags),
        attacks=tuple(row.attack for row in group),
        seed=seed,
        batch_size=batch_size,
        randomised=randomised,
    )


class Recorder:
    """A model that keeps the loss of every call: (calls, n) after an attack that asks about all n each time.

    Args:
        model: what is asked.
        y: (n,) the classes.
        loss: logits and classes to one loss a sample.
    """

    def __init__(self, model: nn.Module, y: Tensor, loss: Any) -> None:
        self.model = Meter(model)
        self.y = y
        self.loss = loss
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits = self.model(x)
        if len(x) == len(self.y):
            self.seen.append(self.loss(logits.detach(), self.y))
        return logits


class Witness:
    """A model that notes whether it was asked about a misclassified image inside the ball and the box.

    Args:
        model: what is asked.
        x, y: one image (1, c, h, w) and its class (1,).
        norm, edge: the ball.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, edge: float) -> None:
        self.model = Meter(model)
        self.x = x
        self.y = y
        self.norm = norm
        self.edge = edge
        self.saw_it = False

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (m, classes)."""
        logits = self.model(x)
        at = x.detach()
        inside = self.norm.distance(at, self.x.expand_as(at)) <= self.edge
        inside &= ((at >= 0) & (at <= 1)).flatten(1).all(1)
        self.saw_it |= bool((inside & (logits.detach().argmax(1) != self.y)).any())
        return logits


def tried(check: Callable[..., list[Finding]], *arguments: Any) -> list[Finding]:
    """What a check finds; nothing where the model gives it nothing to work with: then it counts as not run."""
    try:
        return check(*arguments)
    except (AttackError, OutOfMemoryError):
        return []


def stronger(attack: Any, **changes: Any) -> Attack:
    """The attack with other parameters, where it has them."""
    known = {key: value for key, value in changes.items() if hasattr(attack, key)}
    made: Attack = replace(attack, **known)
    return made
