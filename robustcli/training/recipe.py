"""What a training method is asked, and what it answers: the recipe of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from torch import nn

from robustcli.attacks.base import BudgetAttack
from robustcli.fields import Eta
from robustcli.training.objectives import Objective, standard


@dataclass(frozen=True)
class Recipe:
    """What a method does to a run.

    Attributes:
        objective: the loss to minimise.
        filling: layers for the network's slots, by name.
        attack: what it trains against, if anything.
        fraction: the share of each batch that is attacked. The best epoch is chosen by validation accuracy, this share
            of it under `attack`.
    """

    objective: Objective = standard
    filling: Mapping[str, nn.Module] = field(default_factory=dict)
    attack: BudgetAttack | None = None
    fraction: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What a method's open options depend on: the network's slots, the paper's eta for each, the data's budget."""

    slots: Sequence[str]
    paper_eta: Sequence[Eta]
    eps: float


class Method(Protocol):
    """A training method. `summary` is its line in `robustcli list methods`."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def resolved(self, setting: Setting) -> Self:
        """The same method with every open option decided; ConfigError where one does not fit the network."""
        ...

    def recipe(self) -> Recipe:
        """What a resolved method does to a run."""
        ...
