"""The errors a user can cause, each with the exit code the command line ends with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

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


class ModelError(AttackError, RuntimeError):
    """A model whose forward pass failed (exit 3); a RuntimeError too, as torch raises one."""


class OutOfMemoryError(RobustCliError):
    """More memory was needed than there is (exit 3)."""

    exit_code = 3


class ProcessError(RobustCliError):
    """Another process of the same run that failed or is gone (exit 3)."""

    exit_code = 3


class TrainingError(RobustCliError):
    """A training run that cannot go on (exit 3)."""

    exit_code = 3


OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|cannot allocate memory|bad_alloc|ALLOC_FAILED"
    r"|failed to allocate|could not create a primitive(?! descriptor)|can't start new thread"
    r"|DataLoader worker .* (killed by signal|exited)|terminated abruptly",
    re.IGNORECASE,
)
"""What torch, CUDA and its libraries, oneDNN, C++ and the kernel say, most of it as a plain RuntimeError.

Of a worker process that was killed too: it is what the kernel does where memory runs out.
"""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: this error says so, or one that it was raised from or after."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, MemoryError | OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError | OSError | ImportError) and OUT_OF_MEMORY.search(str(error)):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def memory_error(error: BaseException) -> OutOfMemoryError | None:
    """The one line for an error that says that memory ran out; None for any other."""
    if isinstance(error, OutOfMemoryError):
        return error
    if not is_out_of_memory(error):
        return None
    return OutOfMemoryError("out of memory: a smaller --batch-size takes less, and so do fewer images (--limit)")


@contextmanager
def memory_guard() -> Iterator[None]:
    """Whatever says that memory ran out becomes an `OutOfMemoryError`, though another error may have replaced it."""
    try:
        yield
    except Exception as error:
        out_of_memory = memory_error(error)
        if out_of_memory is None or out_of_memory is error:
            raise
        raise out_of_memory from error


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`"; did you mean 'fgsm'?"`, or nothing where no allowed name is close.

    The same letters in another case or with other dashes come first (`X_train`, `auto-attack`), then a slip of the
    keys, the longest name that this one begins with (`apgd` of `apgd-ce`), what is alike, and the one that begins so.
    """
    plain = {_letters(other): other for other in sorted(allowed, reverse=True)}  # of two that are alike, the first
    letters = _letters(name)
    shorter = sorted((other for other in plain if len(other) > 2 and letters.startswith(other)), key=len)
    longer = [other for other in plain if len(letters) > 2 and other.startswith(letters)]
    close = difflib.get_close_matches(letters, plain, n=1, cutoff=0.85) or shorter[-1:]
    close = close or difflib.get_close_matches(letters, plain, n=1, cutoff=0.6) or (longer if len(longer) == 1 else [])
    return f"; did you mean '{plain[close[0]]}'?" if letters and close else ""


def _letters(name: str) -> str:
    """A name without what people mix up: capitals, dashes, underscores."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def one_line(error: BaseException) -> str:
    """An exception's text, or its name where it has none, without line breaks and not endless."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and `...` where there are more."""
    found = list(names)
    return ", ".join(found[:most]) + ", ..." * (len(found) > most)


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


def require_extra(module: str, extra: str, where: str) -> Any:
    """The module of an optional dependency, or a `ConfigError` that names the extra that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{where}: needs {module} ({error}); pip install 'robustcli[{extra}]'") from error
