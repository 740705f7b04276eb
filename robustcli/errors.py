"""The errors a user can cause, each with the exit code the command line ends with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class RobustCliError(Exception):
    """A mistake that one line can explain; `exit_code` is what the command ends with."""

    exit_code = 2


class ConfigError(RobustCliError):
    """A flag, key or value that is not allowed (exit 2)."""


class DataError(RobustCliError):
    """A data set that is missing or unusable (exit 3)."""

    exit_code = 3


class CheckpointError(RobustCliError):
    """A checkpoint that is missing, unreadable or made for something else (exit 3)."""

    exit_code = 3


class AttackError(RobustCliError):
    """An attack or a model that broke its contract while it ran (exit 3)."""

    exit_code = 3


class TrainingError(RobustCliError):
    """A training run that cannot go on (exit 3)."""

    exit_code = 3


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`"; did you mean 'fgsm'?"`, or nothing where no allowed name is close."""
    bare = {other.lstrip("-"): other for other in allowed}  # the dashes of options would make any two look alike
    close = difflib.get_close_matches(name.lstrip("-").lower(), bare, n=1, cutoff=0.5)
    return f"; did you mean '{bare[close[0]]}'?" if close else ""


def unknown(what: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that is none of the allowed ones."""
    names = sorted(allowed)
    listed = ", ".join(names) or "none"
    return ConfigError(f"{what} '{name}' is unknown (allowed: {listed}){nearest(name, names)}")


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """`table[name]`, or the error that names what is allowed."""
    if name not in table:
        raise unknown(what, name, table)
    return table[name]
