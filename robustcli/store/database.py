"""The store's file: one SQLite database that any number of processes share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCHEMA = 1
"""In `PRAGMA user_version`. A change of the tables bumps it and adds a script to `MIGRATIONS`."""

MIGRATIONS: dict[int, str] = {}
"""For each older schema, the SQL that makes the next one of it."""

APPLICATION = 0x72634442
"""In `PRAGMA application_id`: tells the store from any other program's database."""

BUSY_SECONDS = 5.0
"""How long a write waits for another process's."""

TABLES = """
CREATE TABLE runs (id INTEGER PRIMARY KEY, time TEXT NOT NULL, provenance TEXT NOT NULL);
CREATE TABLE series (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, checkpoint TEXT NOT NULL, sha256 TEXT NOT NULL, model TEXT NOT NULL,
  method TEXT NOT NULL, dataset TEXT NOT NULL, attack TEXT NOT NULL, label TEXT NOT NULL, norm TEXT NOT NULL, eps TEXT,
  ensemble TEXT, seed INTEGER NOT NULL, dtype TEXT NOT NULL, eot INTEGER NOT NULL, attack_schema INTEGER NOT NULL
);
CREATE TABLE samples (
  series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, sample INTEGER NOT NULL, digest BLOB NOT NULL,
  robust INTEGER NOT NULL, distance REAL NOT NULL, pred INTEGER NOT NULL, pred_after INTEGER NOT NULL,
  broken_at INTEGER NOT NULL, seconds REAL NOT NULL, forwards INTEGER NOT NULL, backwards INTEGER NOT NULL,
  run INTEGER NOT NULL REFERENCES runs,
  PRIMARY KEY (series, sample, digest)
) WITHOUT ROWID;
CREATE INDEX samples_by_run ON samples (run);
CREATE TABLE adversarials (
  series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, sample INTEGER NOT NULL, digest BLOB NOT NULL,
  shape TEXT NOT NULL, pixels BLOB NOT NULL, PRIMARY KEY (series, sample, digest)
);
CREATE TABLE answers (key TEXT PRIMARY KEY, time TEXT NOT NULL, content BLOB NOT NULL);
"""
"""A series is a row of results: what the samples in it have in common. A sample's digest is of its pixels and class.
`pixels` are float32 in [0, 1], in little-endian order, compressed by zlib; `content` is JSON, compressed alike."""


class StoreError(Exception):
    """Why a store cannot be used, as the end of a sentence; `passing` where that may be over in a moment."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


@contextmanager
def told() -> Iterator[None]:
    """SQLite's errors as a `StoreError` that says what it means.

    Raises:
        StoreError: any of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise StoreError("is locked by another process", passing=True) from None
        if "disk is full" in text or "disk I/O" in text:
            raise StoreError(f"cannot be written: {text}", passing=True) from None
        if "readonly" in text or "unable to open" in text:
            raise StoreError("is read-only") from None
        if "not a database" in text or "malformed" in text or "encrypted" in text:
            raise StoreError(f"is damaged ({text})") from None
        raise StoreError(f"cannot be used ({text})") from None


def connect(path: Path, *, make: bool = True, wait: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the store in a file; a new one is made with its folder, an older schema brought up to date.

    Where file or folder may not be written, the connection only reads.

    Raises:
        StoreError: the file is missing (without `make`), no store, damaged, locked, or of another schema.
    """
    try:
        if not make and not path.is_file():
            raise StoreError("is not there")
        if path.is_dir():
            raise StoreError("is a folder; should be a file")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot be made: {error.strerror or error}") from None
    with told():
        if not writable(path):
            return _read_only(path, wait)
        connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def writable(path: Path) -> bool:
    """Whether the file may be written, and its folder, where SQLite keeps its journal."""
    return os.access(path if path.exists() else path.parent, os.W_OK) and os.access(path.parent, os.W_OK)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    if _is_new(connection):
        _make(connection)
    _check(connection)
    # In this mode a commit does not wait for the disk: it survives the end of the process, and only the last ones may
    # be lost with the power. Where another process is busy, or the file system shares no memory, the mode stays.
    with suppress(sqlite3.OperationalError):
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _is_new(connection: sqlite3.Connection) -> bool:
    return _pragma(connection, "user_version") == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def _make(connection: sqlite3.Connection) -> None:
    version = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
    with transaction(connection):
        if _is_new(connection):  # else another process was faster
            for statement in _statements(TABLES + version):
                connection.execute(statement)


def _statements(script: str) -> list[str]:
    """`executescript` would commit the open transaction first."""
    return [part.strip() for part in script.split(";") if part.strip()]


def _check(connection: sqlite3.Connection) -> None:
    """Refuse what is no store or of another schema; bring an older one up to date, in one transaction."""
    if _pragma(connection, "application_id") != APPLICATION:
        raise StoreError("is a database of another program")
    found = _pragma(connection, "user_version")
    if found > SCHEMA:
        raise StoreError(f"has schema {found}, of a newer robustcli; this one reads schema {SCHEMA}")
    if found < SCHEMA and not all(version in MIGRATIONS for version in range(found, SCHEMA)):
        raise StoreError(f"has schema {found}, of an older robustcli; this one reads schema {SCHEMA}")
    if found < SCHEMA:
        with transaction(connection):
            for version in range(_pragma(connection, "user_version"), SCHEMA):
                for statement in _statements(MIGRATIONS[version]):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _read_only(path: Path, wait: float) -> sqlite3.Connection:
    """Without a journal beside it, where its folder cannot take one, the file is taken to stay as it is."""
    errors: list[Exception] = []
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", timeout=wait, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA query_only = ON")
            _check(connection)
        except (sqlite3.Error, StoreError) as error:
            connection.close()
            errors.append(error)
        else:
            return connection
    raise errors[-1]


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, also where Ctrl-C comes in between."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
