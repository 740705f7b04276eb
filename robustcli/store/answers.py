"""Whole answers: what a command printed, found again while its checkpoints, images and this code are unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import robustcli
from robustcli.datasets import DATASETS
from robustcli.store.database import StoreError, connect, told, transaction

SHORT_SECONDS = 3600.0
"""How long an answer holds that stood in for another one, such as the bundled digits for MNIST without a network."""

Stamp = tuple[str, int | None, int | None]
"""A path with size and time of change, None where nothing is there."""


@dataclass(frozen=True)
class Answer:
    """What a command found, ready to be printed in any format.

    Attributes:
        document: the JSON document.
        sheets: the tables, each a `reporting.sheets.Sheet` as a dict.
        csv: the rows as CSV.
        said: what the command told on stderr besides, as (kind, text): `notice`, `bold`, `warning` or
            `error`.
        code: the exit code.
        evidence: the files that it rests on, as they were; where one is no longer as it was, it does not hold.
        until: when it ends to hold, in seconds since 1970; None where it does not.
    """

    document: dict[str, Any]
    sheets: Sequence[Mapping[str, Any]]
    csv: str
    said: Sequence[tuple[str, str]]
    code: int
    evidence: Sequence[Stamp]
    until: float | None = None

    @property
    def holds(self) -> bool:
        """Whether all that it rests on is as it was."""
        fresh = self.until is None or time.time() < self.until
        return fresh and all(list(stamp(Path(path))) == [path, size, when] for path, size, when in self.evidence)


def stamp(path: Path) -> Stamp:
    """A file as it is now."""
    try:
        found = path.stat()
    except OSError:
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
        return [Path(dataset).expanduser()]
    layout = known.torchvision
    return [] if layout is None else [*(folder / file for file in layout.files), folder / f"{dataset}.npz"]


def code_stamp() -> str:
    """A hash of this package's files as they are: an answer of other code, networks or bundled images is none."""
    package = Path(robustcli.__file__).parent
    files = [stamp(path) for path in sorted(package.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return hashlib.sha256(json.dumps([robustcli.__version__, files]).encode()).hexdigest()


def request_key(command: str, flags: Mapping[str, Any], checkpoints: Sequence[Any]) -> str:
    """What an answer is found by.

    Args:
        command: its name.
        flags: all that decide the answer.
        checkpoints: the files, each with what tells it from others.
    """
    surroundings = [str(Path.cwd()), os.environ.get("ROBUSTCLI_DATA"), code_stamp()]
    content = [command, sorted(flags.items()), list(checkpoints), surroundings]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def find(path: Path, key: str) -> Answer | None:
    """The answer that is kept and still holds; None also where the file cannot be read: then it is made again."""
    if not path.is_file():
        return None
    try:
        connection = connect(path, make=False, wait=0.5)
        try:
            with told():
                row = connection.execute("SELECT content FROM answers WHERE key = ?", (key,)).fetchone()
        finally:
            connection.close()
        answer = None if row is None else Answer(**json.loads(zlib.decompress(row[0])))
    except (StoreError, zlib.error, ValueError, TypeError):
        return None
    return answer if answer is not None and answer.holds else None


def remember(path: Path, key: str, answer: Answer) -> None:
    """Keep an answer; a file that cannot take it has been told of by then."""
    content = zlib.compress(json.dumps(asdict(answer), allow_nan=False).encode(), 1)
    try:
        connection = connect(path, wait=0.5)
        try:
            with told(), transaction(connection):
                _insert(connection, key, content)
        finally:
            connection.close()
    except StoreError:
        return


def _insert(connection: sqlite3.Connection, key: str, content: bytes) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, now, content))
