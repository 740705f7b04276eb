"""Which attacks run at which budgets: an `EvalSpec` and the images' shape to a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robustcli.attacks import ATTACKS, parse_attack, split_spec
from robustcli.attacks.base import Attack, BudgetAttack
from robustcli.attacks.norms import NORMS, Norm
from robustcli.config import EvalSpec, default_budgets, field_names, shown
from robustcli.errors import ConfigError, lookup

DEFAULT_ATTACKS = ("fgsm", "pgd:steps=20", "deepfool:iters=5")


@dataclass(frozen=True)
class Planned:
    """One attack and the budgets it runs at; none for a minimal-norm attack."""

    attack: Attack
    budgets: tuple[float, ...]

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        return max(1, len(self.budgets))


def make_plan(spec: EvalSpec, shape: tuple[int, ...]) -> list[Planned]:
    """The attacks of an evaluation of images of a shape (c, h, w).

    Budgets that neither a SPEC nor `--eps` names are the data's usual two.

    Raises:
        ConfigError: an unknown attack, key or norm, a value out of range, or a flag that no attack takes.
    """
    specs = spec.attacks or DEFAULT_ATTACKS
    _refuse_unused(spec, specs)
    return [_plan_one(text, spec, shape) for text in specs]


def _plan_one(text: str, spec: EvalSpec, shape: tuple[int, ...]) -> Planned:
    _, options = split_spec(text)
    budgets = spec.eps or default_budgets(shape)
    defaults = {"norm": spec.norm, "steps": spec.steps, "iters": spec.iters, "eps": budgets[0]}
    attack = parse_attack(text, defaults)
    if not isinstance(attack, BudgetAttack):
        return Planned(attack, ())
    if "eps" in options:
        check_budget(attack.norm, attack.eps, f"--attack {text}: eps={attack.eps}")
        return Planned(attack, (attack.eps,))
    if not spec.eps and attack.norm != NORMS["linf"]:
        raise ConfigError(f"--attack {text}: {attack.norm.label} has no usual budget; give one, such as --eps 1.0")
    for eps in budgets:
        check_budget(attack.norm, eps, f"--eps {eps}")
    return Planned(attack, tuple(budgets))


def _refuse_unused(spec: EvalSpec, specs: Sequence[str]) -> None:
    """A flag that fills in nothing is a mistake that should not pass in silence."""
    taken = {key for text in specs for key in field_names(lookup(ATTACKS, split_spec(text)[0], "--attack"))}
    for key in ("eps", "steps", "iters", "norm"):
        value = getattr(spec, key)
        if value and key not in taken:
            raise ConfigError(f"--{key} {shown(value)}: no attack here takes it ({', '.join(specs)})")


def check_budget(norm: Norm, eps: float, where: str) -> None:
    """Refuse an Linf budget that no image could exhaust.

    Raises:
        ConfigError: eps over 1.
    """
    if norm == NORMS["linf"] and eps > 1:
        hint = f"; did you mean {eps:g}/255?" if eps <= 255 else ""
        raise ConfigError(f"{where}: is over 1, the whole range of a pixel (allowed: 0 to 1){hint}")


def budget_warnings(plan: Sequence[Planned], shape: tuple[int, ...]) -> list[str]:
    """A line for each budget that looks like one of another norm: L2 distances grow with the number of pixels."""
    dimensions = math.prod(shape)
    small = 0.05 * math.sqrt(dimensions) / 28
    return [
        f"{planned.attack.name}: eps={eps} is an Linf-sized budget for L2 "
        f"(on {dimensions} pixel values at least {small:.2g} would be usual)"
        for planned in plan
        for eps in planned.budgets
        if planned.attack.norm == NORMS["l2"] and 0 < eps < small
    ]
