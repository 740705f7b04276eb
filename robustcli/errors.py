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
    """`"; did you mean 'fgsm'?"`, or nothing where no allowed name is close.

    The same letters in another case or with other dashes come first (`X_train`, `auto-attack`), then a slip of the
    keys, the longest name that this one begins with (`apgd` of `apgd-ce`), what is alike, and the one that begins so.
    """
    plain = {_letters(other): other for other in sorted(allowed, reverse=True)}  # of two that are alike, the first
    wanted = _letters(name)
    shorter = sorted((other for other in plain if len(other) > 2 and wanted.startswith(other)), key=len)
    longer = [other for other in plain if len(wanted) > 2 and other.startswith(wanted)]
    close = difflib.get_close_matches(wanted, plain, n=1, cutoff=0.85) or shorter[-1:]
    close = close or difflib.get_close_matches(wanted, plain, n=1, cutoff=0.6) or (longer if len(longer) == 1 else [])
    return f"; did you mean '{plain[close[0]]}'?" if wanted and close else ""


def _letters(name: str) -> str:
    """A name without what people mix up: capitals, dashes, underscores."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


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
