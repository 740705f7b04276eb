"""The attacks, by the name that `--attack` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from robustcli.attacks.base import Attack, BudgetAttack, MinimalAttack
from robustcli.attacks.deepfool import DeepFool
from robustcli.attacks.fgsm import FGSM
from robustcli.attacks.pgd import PGD
from robustcli.attacks.random import UniformNoise
from robustcli.config import field_names, validated
from robustcli.errors import ConfigError, lookup

__all__ = ["ATTACKS", "FGSM", "PGD", "Attack", "BudgetAttack", "DeepFool", "MinimalAttack", "UniformNoise"]

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "deepfool": DeepFool,
    "noise": UniformNoise,
}


def parse_attack(text: str, defaults: Mapping[str, Any] | None = None) -> Attack:
    """The attack a SPEC such as `pgd:eps=8/255,steps=50` means.

    Args:
        text: a name, then options after a colon.
        defaults: values for options that the SPEC leaves out; those that the attack does not have are ignored.

    Raises:
        ConfigError: an unknown attack or key, or a value out of range.
    """
    name, _, options = text.partition(":")
    build = lookup(ATTACKS, name.strip(), "--attack")
    given: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--attack {text}: '{part}' should be KEY=VALUE, such as eps=0.1")
        given[key.strip()] = value.strip()
    keys = field_names(build)
    filled = {key: value for key, value in (defaults or {}).items() if key in keys and value is not None}
    return validated(build, filled | given, f"--attack {text}")


def describe(attack: Attack) -> dict[str, Any]:
    """The attack's name and parameters, as plain values: what JSON and checkpoints hold."""
    parameters: dict[str, Any] = TypeAdapter(type(attack)).dump_python(attack, mode="json")
    return {"name": attack.name} | parameters
