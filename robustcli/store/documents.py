"""Documents by request: what a command found, while its checkpoints, images and this code are unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic
from pydantic import StrictInt, StrictStr

import robustcli
from robustcli.data.named import DATASETS, expand
from robustcli.store.content import parse, unpack
from robustcli.store.database import StoreError, connect, select, told, transaction

SHORT_SECONDS = 3600.0
"""How long a document holds that stood in for another one, such as the bundled digits for MNIST without a network."""

MOST_BYTES = 2**25
"""Of a document, decompressed: a longer one is not kept; its samples are."""

Stamp = tuple[StrictStr, StrictInt | None, StrictInt | None]
"""A path with size and time of change, None where nothing is there."""


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(allow_inf_nan=False))
class Kept:
    """A document, and what it rests on.

    Attributes:
        document: the JSON document.
        evidence: the files that it rests on, as they were; where one is no longer as it was, it does not hold.
        until: when it ends to hold, in seconds since 1970; None where it does not.
    """

    document: dict[str, Any]
    evidence: Sequence[Stamp]
    until: float | None = None

    @property
    def holds(self) -> bool:
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
    """Where the images of a data set are looked for: what is there, and what might come.

    Args:
        dataset: a name, or a path.
        folder: where data sets with a name lie.
    """
    known = DATASETS.get(dataset)
    if known is None:
        return [expand(Path(dataset), "--dataset")]
    layout = known.torchvision
    return [] if layout is None else [*(folder / file for file in layout.files), folder / f"{dataset}.npz"]


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
        checkpoints: the files, each with what tells it from others.
    """
    surroundings = [str(Path.cwd()), os.environ.get("ROBUSTCLI_DATA"), code_stamp()]
    content = [command, sorted(flags.items()), list(checkpoints), surroundings]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def find(path: Path, key: str) -> dict[str, Any] | None:
    """The document that is kept and still holds; None also where the file cannot be read: then it is made again.

    Raises:
        ValueError: what is kept is no document.
    """
    try:
        connection = connect(path, make=False, wait=0.5)
        try:
            rows = select(connection, "SELECT content FROM answers WHERE key = ?", key)
        finally:
            connection.close()
    except StoreError:  # the cache will tell
        return None
    if not rows:
        return None
    content = parse(unpack(rows[0][0], MOST_BYTES))
    if not isinstance(content, dict):
        raise ValueError("is no object")
    try:
        kept = Kept(**content)
    except (pydantic.ValidationError, TypeError):
        raise ValueError("has parts of other types") from None
    return kept.document if kept.holds else None


def remember(path: Path, key: str, document: Mapping[str, Any], evidence: Sequence[Stamp], until: float | None) -> None:
    """Keep a document; a file that cannot take it has been told of by then."""
    content = json.dumps({"document": document, "evidence": evidence, "until": until}, allow_nan=False).encode()
    if len(content) > MOST_BYTES:
        return
    try:
        connection = connect(path, wait=0.5)
        try:
            with told(), transaction(connection):
                _insert(connection, key, zlib.compress(content, 1))
        finally:
            connection.close()
    except StoreError:
        return


def _insert(connection: sqlite3.Connection, key: str, content: bytes) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, now, content))
