"""The document: one plain dict, the JSON of a result (schema 1), and all that is below a run reads.

It is made once, from records and what was made of them; whatever prints, draws, exports, gates or is kept for a second
call takes it from here. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustcli.disk import open_regular
from robustcli.errors import DataError
from robustcli.fields import Eps
from robustcli.measure.curve import Curve
from robustcli.measure.record import Record, first_error

SCHEMA = 1

Note = tuple[str, str]
"""What was said beside the result: its kind (`notice`, `bold`, `warning` or `error`), and the line."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Setting(_Part):
    label: str
    norm: str
    budget: str | None


class _Compared(_Setting):
    difference: float
    p_holm: float
    separable: bool


class _Pair(_Compared):
    kind: Literal["samples"]
    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    ci95: Annotated[list[float], Field(min_length=2, max_length=2)]
    samples_needed: int | None


class _Contest(_Compared):
    kind: Literal["seeds"]
    method_a: str
    method_b: str


class _Family(_Part):
    method: str
    checkpoints: list[str]


class _Training(_Part):
    checkpoint: str
    checkpoint_sha256: str
    history: list[dict[str, float | None]]


class _Cell(_Setting):
    source: str
    target: str
    n: int
    correct: int
    broken_beyond: list[int]


class _Verdict(_Part):
    word: str


class _Document(_Part):
    """What tables and formats take for granted; rows and curves are read one by one."""

    command: Literal["attack", "evaluate", "compare"]
    pairs: list[Annotated[_Pair | _Contest, Field(discriminator="kind")]]
    families: list[_Family] = []
    transfer: list[_Cell] = []
    training: list[_Training] = []
    verdict: _Verdict | None
    notes: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    provenance: dict[str, Any]


def make_document(
    command: str,
    records: Sequence[Record],
    provenance: Mapping[str, Any],
    *,
    pairs: Sequence[Mapping[str, Any]] = (),
    families: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    transfer: Sequence[Mapping[str, Any]] = (),
    verdict: Mapping[str, Any] | None = None,
    anytime: Mapping[str, Any] | None = None,
    training: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[Note] = (),
) -> dict[str, Any]:
    """The document of a run, from its records and what was made of them, which are dictionaries already.

    `command`, one of `attack`, `evaluate` and `compare`, decides how its tables are laid out; `anytime` is what a run
    that may stop early has left out, `training` the history of each checkpoint that has one, `notes` the messages
    beside the result.
    """
    optional = {"families": families, "curves": curves, "transfer": transfer, "training": training}
    return {
        "schema": SCHEMA,
        "command": command,
        "rows": [record.as_dict() for record in records],
        **{key: list(value) for key, value in optional.items() if value},
        "pairs": list(pairs),
        "verdict": verdict,
        **({"anytime": anytime} if anytime else {}),
        "notes": [list(note) for note in notes],
        "provenance": dict(provenance),
    }


def records_of(document: Mapping[str, Any]) -> list[Record]:
    """The records of a document.

    Raises:
        DataError: a row is none; names it and the key.
    """
    return _read_each("rows", document["rows"], Record.from_dict)


def curves_of(document: Mapping[str, Any]) -> list[tuple[Curve, list[Eps]]]:
    """The curves of a document, each with the budgets that it is shown at.

    Raises:
        DataError: a curve is none; names it and the key.
    """
    found = document.get("curves", [])
    if not isinstance(found, list):
        raise DataError("curves: should be a list")
    return _read_each("curves", found, Curve.from_dict)


T = TypeVar("T")


def _read_each(key: str, values: Sequence[Any], read: Callable[[Any], T]) -> list[T]:
    found = []
    for i, value in enumerate(values):
        try:
            found.append(read(value))
        except DataError as error:
            raise DataError(f"{key}[{i}]: {error}") from None
    return found


def read_document(path: Path) -> dict[str, Any]:
    """A document from a file.

    Raises:
        DataError: it cannot be read, is none, or is of another version; names the key, where one is wrong.
    """
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(), parse_constant=_refuse)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: is no JSON; should be what --json or --format json wrote") from None
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise DataError(f"{path}: is no result; should be what --json or --format json wrote")
    if found.get("schema") != SCHEMA:
        raise DataError(f"{path}: is of schema {found.get('schema')!a}; this version reads {SCHEMA}")
    if "command" not in found:
        raise DataError(f"{path}: was written by an earlier version; make it again, as its provenance.command says")
    try:
        check_document(found)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return found


def check_document(document: Mapping[str, Any]) -> None:
    """Read all that tables and formats are made of.

    Raises:
        DataError: something is of another kind; names the key.
    """
    try:
        _Document.model_validate(document)
    except ValidationError as error:
        raise DataError(first_error(error)) from None
    records_of(document)
    curves_of(document)


def is_document(document: Any) -> bool:
    """Whether `check_document` has nothing against it."""
    try:
        check_document(document)
    except (DataError, LookupError, TypeError):
        return False
    return True


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
