"""Documents by request: a command's result, as long as its checkpoints, images and this code are unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic
from pydantic import StrictInt, StrictStr

import robustcli
from robustcli.data.named import LISTS, expand, known, known_name
from robustcli.store.content import parse, unpack
from robustcli.store.database import StoreError, connect, select, sqlite_errors, transaction

SHORT_SECONDS = 3600.0
"""How long a result on images that replace others is valid, such as the bundled digits for MNIST without a network."""

MOST_BYTES = 2**25
"""Of a document, decompressed: a longer one is not kept; its samples are."""

Stamp = tuple[StrictStr, StrictInt | None, StrictInt | None]
"""A path with size and time of change, None where nothing is there."""


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(allow_inf_nan=False))
class Answer:
    """A document, and what it rests on.

    Attributes:
        document: the JSON document.
        evidence: the files that it rests on, as they were; where one has changed, the document is not valid.
        until: when it ceases to be valid, in seconds since 1970; None where time does not matter.
    """

    document: dict[str, Any]
    evidence: Sequence[Stamp]
    until: float | None = None

    @property
    def valid(self) -> bool:
        """Whether all that it rests on is as it was; a clock that was set back does not make it young again."""
        fresh = self.until is None or 0 < self.until - time.time() <= SHORT_SECONDS
        return fresh and all(stamp(Path(path)) == (path, size, when) for path, size, when in self.evidence)


def stamp(path: Path) -> Stamp:
    """A file as it is now."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a name with a NUL is none
        return str(path), None, None
    return str(path), found.st_size, found.st_mtime_ns


def stamps(paths: Iterable[Path]) -> list[Stamp]:
    """Files, and all that is in folders, as they are now."""
    found: list[Path] = []
    for path in paths:
        found.append(path.absolute())
        if path.is_dir():
            found += sorted(path.absolute().rglob("*"))
    return [stamp(path) for path in found]


def data_files(dataset: str, folder: Path) -> list[Path]:
    """The files that a data set is read from, those included that are not there yet.

    Args:
        dataset: a name, or a path.
        folder: where data sets with a name lie.
    """
    name = known_name(dataset)
    if name is None:
        path = expand(Path(dataset), "--dataset")
        if path.suffix.lower() not in LISTS or path.is_dir():
            return [path]
        from robustcli.data.lists import read_rows  # which brings torch

        return [path, *(path.parent / name for name, *_ in read_rows(path))]
    layout = known(name).torchvision
    return [] if layout is None else [*(folder / file for file in layout.files), folder / f"{name}.npz"]


def code_stamp() -> str:
    """A hash of this package's files as they are: a document of other code, networks or bundled images is none."""
    package = Path(robustcli.__file__).parent
    files = [stamp(path) for path in sorted(package.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return hashlib.sha256(json.dumps([robustcli.__version__, files]).encode()).hexdigest()


def request_key(command: str, flags: Mapping[str, Any], checkpoints: Sequence[Any]) -> str:
    """What a document is found by.

    Args:
        command: its name.
        flags: all that decide the document.
        checkpoints: the files, each with its hash or stamp.
    """
    surroundings = [str(Path.cwd()), os.environ.get("ROBUSTCLI_DATA"), code_stamp()]
    content = [command, sorted(flags.items()), list(checkpoints), surroundings]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def find(path: Path, key: str) -> dict[str, Any] | None:
    """The document of a request, where one is stored and valid; None also where the file cannot be read.

    Raises:
        ValueError: what is stored is no document.
    """
    try:
        with closing(connect(path, make=False, wait=0.5)) as connection:
            rows = select(connection, "SELECT content FROM answers WHERE key = ?", key)
    except StoreError:  # the cache reports it
        return None
    if not rows:
        return None
    content = parse(unpack(rows[0][0], MOST_BYTES))
    try:
        answer = pydantic.TypeAdapter(Answer).validate_python(content)
    except pydantic.ValidationError:
        raise ValueError("has parts of other types") from None
    return answer.document if answer.valid else None


def every(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """The documents in a store that can be read, the oldest first, whatever became of what they rest on."""
    found = []
    for (packed,) in select(connection, "SELECT content FROM answers ORDER BY time, key"):
        with suppress(ValueError):
            found.append(pydantic.TypeAdapter(Answer).validate_python(parse(unpack(packed, MOST_BYTES))).document)
    return found


def remember(path: Path, key: str, document: Mapping[str, Any], evidence: Sequence[Stamp], until: float | None) -> None:
    """Keep a document; where the file cannot take it, the cache has reported that."""
    content = json.dumps({"document": document, "evidence": evidence, "until": until}, allow_nan=False).encode()
    if len(content) > MOST_BYTES:
        return
    row = (key, datetime.now(UTC).isoformat(timespec="seconds"), zlib.compress(content, 1))
    with suppress(StoreError), closing(connect(path, wait=0.5)) as connection, sqlite_errors(), transaction(connection):
        connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
