"""What a training method is, and the recipe of a run that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from torch import nn

from robustcli.attacks.base import BudgetAttack
from robustcli.models.nets import Network
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


class Method(Protocol):
    """A training method. `summary` is its line in `robustcli list methods`."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def resolve(self, network: type[Network], eps: float) -> Self:
        """The same method with every open option decided: by the network, and by the data's usual Linf budget.

        Raises:
            ConfigError: an option does not fit the network.
        """
        ...

    def recipe(self) -> Recipe:
        """What a resolved method does to a run."""
        ...
