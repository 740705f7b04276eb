"""What can be told of an attack without running it: for `robustcli list attacks` and docs/attacks.md.

An attack says what it `needs` of a model, unless that is gradients, and its summary ends in its source, in brackets.
All else follows from the fields and methods that it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args, get_type_hints

from robustcli.attacks.base import Attack, Needs
from robustcli.config import field_names

FACTORS = ("steps", "iters", "restarts", "targets", "binary_search_steps", "draws", "queries", "directions", "eot")
"""Options that multiply an attack's work."""

SEARCHES = 12
"""About how many budgets a bisection tries."""


@dataclass(frozen=True)
class Facts:
    """An attack in a line of a table.

    Attributes:
        kind: `budget`, `minimal-norm` or `ensemble`.
        needs: what it asks of a model.
        norms: the names of its norms.
        what: what it does.
        source: author and year of the paper.
        use: when to use it.
    """

    kind: str
    needs: Needs
    norms: tuple[str, ...]
    what: str
    source: str
    use: str


def facts(attack: type[Attack]) -> Facts:
    """What an attack is."""
    what, _, source = attack.summary.rpartition(" (")
    return Facts(
        kind=_kind(attack),
        needs=needs(attack),
        norms=norms(attack),
        what=what,
        source=source.removesuffix(")"),
        use=getattr(attack, "use", ""),
    )


def _kind(attack: type[Attack]) -> str:
    if hasattr(attack, "members"):
        return "ensemble"
    return "budget" if "eps" in field_names(attack) else "minimal-norm"


def needs(attack: type[Attack] | Attack) -> Needs:
    """What an attack asks of a model: gradients, where it does not say otherwise."""
    found: Needs = getattr(attack, "needs", "gradients")
    return found


def effort(attack: Attack) -> int:
    """About how many passes of the model an image costs at most, to tell the cheap ones; docs/attacks.md has counts."""
    if hasattr(attack, "members"):
        return sum(map(effort, attack.members))
    if hasattr(attack, "attack"):  # a search over its budgets
        return SEARCHES * effort(attack.attack)
    factors = [getattr(attack, name, None) or 1 for name in FACTORS]
    return getattr(attack, "passes", 2 if needs(attack) == "gradients" else 1) * math.prod(factors)


def norms(attack: type[Attack]) -> tuple[str, ...]:
    """The norms that its field `norm` may be, as the field's type says."""
    annotation = get_type_hints(attack)["norm"]
    return tuple(norm.name for norm in get_args(annotation) or (annotation,))
