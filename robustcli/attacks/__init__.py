"""The attacks, by the name that `--attack` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

from robustcli.attacks.apgd import APGD, APGDT
from robustcli.attacks.autoattack import AutoAttack
from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, MinimalAttack, TracingAttack
from robustcli.attacks.bisection import Bisection
from robustcli.attacks.carlini_wagner import CarliniWagner
from robustcli.attacks.deepfool import DeepFool
from robustcli.attacks.fab import FAB, FABT
from robustcli.attacks.fgsm import FGSM
from robustcli.attacks.fmn import FMN
from robustcli.attacks.hopskipjump import HopSkipJump
from robustcli.attacks.mifgsm import MIFGSM
from robustcli.attacks.pgd import PGD
from robustcli.attacks.square import Square
from robustcli.attacks.uniform import UniformNoise
from robustcli.config import field_names, validated
from robustcli.errors import ConfigError, lookup

__all__ = [
    "APGD",
    "APGDT",
    "ATTACKS",
    "ATTACK_SCHEMA",
    "FAB",
    "FABT",
    "FGSM",
    "FMN",
    "MIFGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "Bisection",
    "BudgetAttack",
    "CarliniWagner",
    "DeepFool",
    "Ensemble",
    "HopSkipJump",
    "MinimalAttack",
    "Square",
    "TracingAttack",
    "UniformNoise",
]

ATTACK_SCHEMA = 2
"""Of the numbers that the attacks give: a change that moves any of them bumps it, so that no store answers with old
ones, and is listed in CHANGELOG under *Numbers*."""

QUIET = ("eot", "target")
"""Options that are shown only where they are not the default."""

EFFORT = ("steps", "iters", "draws", "queries")

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "mifgsm": MIFGSM,
    "pgd": PGD,
    "apgd": APGD,
    "apgd-t": APGDT,
    "deepfool": DeepFool,
    "fmn": FMN,
    "fab": FAB,
    "fab-t": FABT,
    "cw": CarliniWagner,
    "square": Square,
    "autoattack": AutoAttack,
    "hopskipjump": HopSkipJump,
    "noise": UniformNoise,
}


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """The name and the options of a SPEC such as `pgd:eps=8/255,steps=50`.

    Raises:
        ConfigError: an option that is not KEY=VALUE, or is given twice.
    """
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise ConfigError(f"--attack {text}: '{part}' should be KEY=VALUE, such as eps=0.1")
        if key in options:
            raise ConfigError(f"--attack {text}: '{key}' is given twice")
        options[key] = value
    return name.strip(), options


def parse_attack(text: str, defaults: Mapping[str, Any] | None = None) -> Attack:
    """The attack that a SPEC means.

    Args:
        text: a name, then options after a colon.
        defaults: values for options that the SPEC leaves out; those that the attack does not have are ignored.

    Raises:
        ConfigError: an unknown attack or key, or a value out of range.
    """
    name, options = split_spec(text)
    build = lookup(ATTACKS, name, "--attack")
    keys = field_names(build)
    filled = {key: value for key, value in (defaults or {}).items() if key in keys and value is not None}
    return validated(build, filled | options, f"--attack {text}")


def describe(attack: Attack) -> dict[str, Any]:
    """The attack's name and parameters, as plain values: what JSON and checkpoints hold."""
    if isinstance(attack, Bisection):
        return {"name": attack.name, "attack": describe(attack.attack), "steps": attack.steps}
    parameters: dict[str, Any] = TypeAdapter(type(attack)).dump_python(attack, mode="json")
    defaults = _defaults(attack)
    shown = {key: value for key, value in parameters.items() if key not in QUIET or value != defaults[key]}
    return {"name": attack.name} | shown


def attack_from(description: Mapping[str, Any], budget: str | None = None) -> Attack:
    """The attack of a description that `describe` made.

    Args:
        description: its name and parameters.
        budget: eps, where the description has none.

    Raises:
        ConfigError: there is no such attack, or it has other parameters.
    """
    name, parameters = str(description.get("name")), {key: description[key] for key in description if key != "name"}
    if name == Bisection.name:
        inner, steps = parameters.get("attack"), parameters.get("steps")
        attack = attack_from(inner) if isinstance(inner, Mapping) else None
        if not isinstance(attack, BudgetAttack) or not isinstance(steps, int):
            raise ConfigError(f"attack {name}: should name an attack with a budget, and steps")
        return Bisection(attack, steps)
    given = {} if budget is None else {"eps": budget}
    return validated(lookup(ATTACKS, name, "attack"), parameters | given, f"attack {name}")


def _defaults(attack: Attack) -> dict[str, Any]:
    return {field.name: field.default for field in fields(attack)}  # type: ignore[arg-type]


def label(attack: Attack) -> str:
    """The attack as a SPEC without norm and budget: its effort, and whatever is not the default.

    Of an ensemble, whose effort is its definition, only what is not the default.
    """
    if isinstance(attack, Bisection):
        return f"{attack.name}:{label(attack.attack)}"
    effort = () if isinstance(attack, Ensemble) else EFFORT
    defaults = _defaults(attack)
    shown = [
        f"{key}={value}"
        for key, value in describe(attack).items()
        if key not in ("name", "eps", "norm") and (key in effort or value != defaults[key])
    ]
    return ":".join(filter(None, (attack.name, ",".join(shown))))
