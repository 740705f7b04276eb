"""Which attacks run at which budgets: an `EvalSpec` and the images' shape to a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from robustcli.attacks import ATTACKS, Bisection, parse_attack, split_spec
from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, MinimalAttack, at_budget
from robustcli.attacks.norms import NORMS, Norm, check_budget
from robustcli.config import EvalSpec, default_budgets, field_names, paper_budgets, shown
from robustcli.errors import ConfigError, lookup
from robustcli.fields import Eps

DEFAULT_ATTACKS = ("fgsm", "pgd", "deepfool")
CURVE_ATTACKS = ("fmn", "pgd")
"""Where no attack was named for a curve: a minimal-norm attack, and a budget attack for where that one is stuck."""

PRESETS = {
    "quick": ("fgsm", "pgd:steps=20", "deepfool:iters=5"),
    "paper": ("fgsm", "deepfool:iters=5,box=none"),
    "standard": ("autoattack",),
    "fast": ("autoattack:version=fast",),
}
"""What `--preset` runs: seconds; what the BatchOut paper shows; what the field trusts; its answer in less time."""

FLAGS = ("eps", "norm", "steps", "iters", "eot")
"""Flags that fill in what a SPEC leaves open."""

DEFAULT_ITERS = 5
"""DeepFool's iterations where no attack was named: the most that the paper takes."""


@dataclass(frozen=True)
class Planned:
    """One attack and the budgets it runs at; none for a minimal-norm attack."""

    attack: Attack
    budgets: tuple[float, ...]

    @property
    def runs(self) -> int:
        """How many budgets it runs at, 1 where it takes none."""
        return max(1, len(self.budgets))

    @property
    def rows(self) -> int:
        """How many rows it gives: of an ensemble, those of its members too."""
        members = len(self.attack.members) if isinstance(self.attack, Ensemble) else 0
        return self.runs * (members + 1)


def make_plan(spec: EvalSpec, shape: tuple[int, ...]) -> list[Planned]:
    """The attacks of an evaluation of images of a shape (c, h, w).

    A preset's attacks come before those that were named. Budgets that neither a SPEC nor `--eps` names are the data's
    usual two, or the paper's for the preset of that name.

    Raises:
        ConfigError: an unknown attack, key or norm, a value out of range, or a flag that no attack takes.
    """
    preset = PRESETS[spec.preset] if spec.preset else ()
    named = tuple(text for text in dict.fromkeys(spec.attacks) if text not in preset)
    specs = preset + named or (CURVE_ATTACKS if spec.curve else DEFAULT_ATTACKS)
    _refuse_unused(spec, specs)
    if spec.curve:
        return [_plan_curve(text, spec, shape) for text in specs]
    if specs == DEFAULT_ATTACKS and not named and spec.iters is None:
        spec = spec.model_copy(update={"iters": DEFAULT_ITERS})
    usual = default_budgets(shape)
    swept = paper_budgets(shape) if spec.preset == "paper" else usual
    return [_plan_one(text, spec, swept if text in preset else usual) for text in specs]


def _plan_one(text: str, spec: EvalSpec, usual: Sequence[Eps]) -> Planned:
    _, options = split_spec(text)
    budgets = tuple(dict.fromkeys(spec.eps)) or tuple(usual)
    defaults = {key: getattr(spec, key) for key in FLAGS} | {"eps": budgets[0]}
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
    return Planned(attack, budgets)


def _plan_curve(text: str, spec: EvalSpec, shape: tuple[int, ...]) -> Planned:
    """The attack as one that measures distances."""
    _, options = split_spec(text)
    usual = default_budgets(shape)[0]
    defaults = {key: getattr(spec, key) for key in FLAGS} | {"eps": usual}
    attack = parse_attack(text, defaults)
    for eps in spec.eps:
        check_budget(attack.norm, eps, f"--eps {eps}")
    if isinstance(attack, MinimalAttack):
        if not attack.bounded:
            raise ConfigError(
                f"--attack {text}: leaves the pixels' range [0, 1], so its distances are no curve's; take box=project"
            )
        return Planned(attack, ())
    assert isinstance(attack, BudgetAttack)
    if "eps" not in options:
        attack = at_budget(attack, _reach(attack.norm, usual, shape))
    check_budget(attack.norm, attack.eps, f"--attack {text}: eps={attack.eps}")
    if attack.eps == 0:
        raise ConfigError(f"--attack {text}: eps=0: should be above 0: the search starts there")
    return Planned(Bisection(attack), ())


def _reach(norm: Norm, eps: float, shape: tuple[int, ...]) -> float:
    """How far a norm says that an image is whose every pixel moved by `eps`, to two digits."""
    moved = torch.full((1, *shape), eps)
    return float(f"{float(norm.distance(moved, torch.zeros_like(moved))):.2g}")


def _refuse_unused(spec: EvalSpec, specs: Sequence[str]) -> None:
    """A flag that fills in nothing is a mistake that should not pass in silence."""
    open_keys = {"eps"} if spec.curve else set()
    for text in specs:
        name, options = split_spec(text)
        open_keys |= set(field_names(lookup(ATTACKS, name, "--attack"))) - options.keys()
    budgets = any("eps" in field_names(ATTACKS[split_spec(text)[0]]) for text in specs)
    if spec.eight_bit and (spec.curve or not budgets):
        raise ConfigError(f"--eight-bit: is of attacks with a budget; none is run here ({', '.join(specs)})")
    for key in FLAGS:
        value = getattr(spec, key)
        if value and key not in open_keys:
            raise ConfigError(f"--{key} {shown(value)}: none of the attacks leaves it open ({', '.join(specs)})")


def budget_warnings(plan: Sequence[Planned], shape: tuple[int, ...]) -> list[str]:
    """A line for each L2 or L1 budget no larger than the data's usual Linf one: their distances add up over pixels."""
    usual, pixels = default_budgets(shape)[1], math.prod(shape)
    reach = {"l2": usual * math.sqrt(pixels), "l1": usual * pixels}
    return [
        f"{planned.attack.name}: eps={eps} is an Linf-sized budget for {norm.label}; on {pixels} pixel values the "
        f"ball of Linf {usual} reaches to {norm.label} {reach[norm.name]:.2g}"
        for planned in plan
        for norm in [planned.attack.norm]
        for eps in planned.budgets
        if norm.name in reach and 0 < eps <= usual
    ]
