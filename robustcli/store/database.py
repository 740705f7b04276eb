"""The store's file: one SQLite database that any number of processes share."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from robustcli.disk import open_regular

SCHEMA = 2
"""In `PRAGMA user_version`. A file with a 1 lacks `ADDED` and is read; `extend` adds it; other numbers are refused."""

APPLICATION = 0x72634442
"""In `PRAGMA application_id`: no other program's database has it."""

BUSY_SECONDS = 5.0
"""How long a write waits for another process's."""

MOST_BYTES = 2**28
"""Of a value in a store: no image, and no answer, is as large."""

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, at the end of its name."""

MOST_OF_A_PATH = 504
"""How many bytes of a file's whole path SQLite takes, with room for the names of `BESIDE`."""

STEPS = 1_000_000
"""After so many of SQLite's steps a query's progress is checked."""

LEAST_ROW = 20
"""How many bytes of a file a row takes at least, besides its texts and blobs."""

MAGIC = b"SQLite format 3\0"

Kind = Literal["busy", "full", "other", "altered", "unusable"]
"""Of a `StoreError`: locked by another process; no room; another kind of file; a store with foreign parts; the rest."""

OTHER_FILE = "; give --store another file"
WHAT_TO_DO = "; give --store another file, or delete this one"
ENDLESS = f"is damaged (reading it does not end){WHAT_TO_DO}"

TABLES = """
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, time TEXT NOT NULL, provenance TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, checkpoint TEXT NOT NULL, sha256 TEXT NOT NULL, model TEXT NOT NULL,
  method TEXT NOT NULL, dataset TEXT NOT NULL, attack TEXT NOT NULL, label TEXT NOT NULL, norm TEXT NOT NULL, eps TEXT,
  ensemble TEXT, seed INTEGER NOT NULL, dtype TEXT NOT NULL, eot INTEGER NOT NULL, attack_schema INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS samples (
  series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, sample INTEGER NOT NULL, digest BLOB NOT NULL,
  robust INTEGER NOT NULL, distance REAL NOT NULL, pred INTEGER NOT NULL, pred_after INTEGER NOT NULL,
  broken_at INTEGER NOT NULL, seconds REAL NOT NULL, forwards INTEGER NOT NULL, backwards INTEGER NOT NULL,
  run INTEGER NOT NULL REFERENCES runs,
  PRIMARY KEY (series, sample, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS samples_by_run ON samples (run);
CREATE TABLE IF NOT EXISTS adversarials (
  series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, sample INTEGER NOT NULL, digest BLOB NOT NULL,
  shape TEXT NOT NULL, pixels BLOB NOT NULL, PRIMARY KEY (series, sample, digest)
);
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, time TEXT NOT NULL, content BLOB NOT NULL);
"""
"""A series is a row of results: what the samples in it have in common. A sample's digest is of its pixels and class.
`pixels` are float32 in [0, 1], in little-endian order, compressed by zlib; `content` is JSON, compressed alike."""

ADDED = """
CREATE TABLE IF NOT EXISTS originals (
  sample INTEGER NOT NULL, digest BLOB NOT NULL, shape TEXT NOT NULL, pixels BLOB NOT NULL, PRIMARY KEY (sample, digest)
);
CREATE TABLE IF NOT EXISTS confidences (
  series INTEGER NOT NULL REFERENCES series ON DELETE CASCADE, sample INTEGER NOT NULL, digest BLOB NOT NULL,
  before REAL NOT NULL, after REAL NOT NULL, PRIMARY KEY (series, sample, digest)
);
"""
"""What goes with the adversarials since schema 2: the original images, in 8 bits, once for all rows, and the softmax
probability of the class that was predicted before and after the attack."""


class StoreError(Exception):
    """Why a store cannot be used, as the end of a sentence."""

    def __init__(self, reason: str, kind: Kind = "unusable") -> None:
        super().__init__(reason)
        self.kind = kind

    @property
    def temporary(self) -> bool:
        """Whether it may be over in a moment."""
        return self.kind in ("busy", "full")


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """SQLite's errors as a `StoreError` that says what it means.

    Raises:
        StoreError: any of them.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error) from None
    except UnicodeDecodeError:  # an error of SQLite's that quotes what is damaged
        raise StoreError(f"is damaged{WHAT_TO_DO}") from None


def _explain(error: sqlite3.Error) -> StoreError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return StoreError("is locked by another process", "busy")
    if getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
        return StoreError("cannot be used: the disk is full, without room for the file -shm beside it", "full")
    if "disk is full" in text or "disk I/O" in text:
        return StoreError(f"cannot be {'written' if 'full' in text else 'read or written'}: {text}", "full")
    if "readonly" in text:
        return StoreError("is read-only")
    if "unable to open" in text:
        reasons = "no permission, its path is too long, or too many files are open"
        return StoreError(f"cannot be opened: neither it nor the files beside it can be opened or made ({reasons})")
    if "not a database" in text or "malformed" in text or "encrypted" in text:
        return StoreError(f"is damaged ({text}){WHAT_TO_DO}")
    if "interrupted" in text:
        return StoreError(ENDLESS)
    return StoreError(f"cannot be used ({text})")


def connect(path: Path, *, make: bool = True, wait: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open the store in a file; a new one is made with its folder.

    Where file or folder may not be written, the connection only reads.

    Raises:
        StoreError: the file is missing (without `make`), no store, damaged, locked, of another schema, or holds what
            robustcli does not make, such as a trigger.
    """
    check_file(path, make)
    with sqlite_errors():
        return _open(path, wait) if writable(path) else _open_read_only(path, wait)


def connect_alone(path: Path, *, writes: bool = False) -> sqlite3.Connection:
    """Open a store on a full disk: no file is made beside it, and no other process can use it meanwhile.

    Args:
        path: the file.
        writes: removing from it takes no room either. A process that is killed while it does so leaves a damaged file.

    Raises:
        StoreError: as `connect` does.
    """
    check_file(path, make=False)
    with sqlite_errors():
        connection = _open(path, BUSY_SECONDS, alone=True)
        try:
            if writes:
                connection.execute("PRAGMA journal_mode = MEMORY")
        except BaseException:
            connection.close()
            raise
        return connection


def check_file(path: Path, make: bool) -> None:
    """Refuse what is no store before SQLite touches it: it would wait for a pipe, and tidy up another program's file.

    Args:
        path: the file.
        make: make its folder where there is none.

    Raises:
        StoreError: the file is missing (without `make`), cannot be opened, or is none that robustcli has made.
    """
    try:
        if not _is_store(path):
            _check_folder(path)
            if not make:
                raise StoreError("is not there; `robustcli evaluate` makes one")
            real_path(path).parent.mkdir(parents=True, exist_ok=True)
        for file in _beside(path):
            found = _lstat(file)
            if found is not None and not stat.S_ISREG(found.st_mode):
                raise StoreError(f"has a {file.name} beside it that is no regular file; remove that", "altered")
    except OSError as error:
        raise _explain_os(error) from None


def _is_store(path: Path) -> bool:
    """Whether the file is there; one of another kind is a `StoreError`."""
    for _ in range(2):
        try:
            with open_regular(path) as file:
                head = file.read(72)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not head or (head.startswith(MAGIC) and head[68:] == APPLICATION.to_bytes(4, "big")):
            return True
        if real_path(path).with_name(real_path(path).name + "-journal").exists():
            return True  # another process is about to make it, and it is not whole yet; when it is, we read it again
    if head.startswith(MAGIC) and len(head) == 72:
        raise StoreError(f"is a database of another program{OTHER_FILE}", "other")
    raise StoreError(f"is no store (no SQLite file){OTHER_FILE}", "other")


def _check_folder(path: Path) -> None:
    """Refuse a path on which no file can be made."""
    target = real_path(path)
    if len(os.fsencode(target)) > MOST_OF_A_PATH:
        raise StoreError(f"cannot be made: its whole path is longer than {MOST_OF_A_PATH} bytes", "other")
    nearest = next(folder for folder in target.parents if os.path.lexists(folder))
    if not nearest.is_dir():
        raise StoreError(f"cannot be made: {nearest} is no folder", "other")


def _explain_os(error: OSError) -> StoreError:
    if error.errno == errno.EISDIR:
        return StoreError("is a folder; should be a file", "other")
    if error.errno == errno.EINVAL:
        return StoreError(f"{error.strerror}{OTHER_FILE}", "other")
    misnamed = error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
    kind: Kind = "other" if misnamed else "unusable"
    return StoreError(f"cannot be made or opened: {error.strerror or error}", kind)


def real_path(path: Path) -> Path:
    """Where a path leads to: links are followed, since SQLite keeps its own files beside the target."""
    return Path(os.path.realpath(path))


def _beside(path: Path) -> list[Path]:
    target = real_path(path)
    return [target.with_name(target.name + end) for end in BESIDE]


def size(path: Path) -> int:
    """Of the file and what SQLite keeps beside it, in bytes."""
    return sum(found.st_size for file in (real_path(path), *_beside(path)) if (found := _lstat(file)))


def _lstat(file: Path) -> os.stat_result | None:
    """None where nothing is there: another process may just have removed it."""
    try:
        return file.lstat()
    except OSError:
        return None


def writable(path: Path) -> bool:
    """Whether the file may be written, and its folder, where SQLite keeps its journal."""
    target = real_path(path)
    return os.access(target if target.exists() else target.parent, os.W_OK) and os.access(target.parent, os.W_OK)


def select(connection: sqlite3.Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query.

    Raises:
        StoreError: it fails, or takes more than twenty steps a byte of the file, or gives more bytes than the file
            has, as where the pages of a damaged file refer to each other in circles.
    """
    with sqlite_errors():
        room = 2**20 + _pragma(connection, "page_count") * _pragma(connection, "page_size")
        left, rows = 20 * room // STEPS, []

        def is_over() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        connection.set_progress_handler(is_over, STEPS)
        try:
            for row in connection.execute(query, values):
                room -= LEAST_ROW + sum(len(value) for value in row if isinstance(value, str | bytes))
                if room < 0:
                    raise StoreError(ENDLESS)
                rows.append(row)
        finally:
            connection.set_progress_handler(None, 0)
    return rows


def _open_read_only(path: Path, wait: float) -> sqlite3.Connection:
    """Open a store in a folder that can take no journal: the file is assumed to stay as it is."""
    try:
        return _open(path, wait, "ro")
    except sqlite3.Error:
        for file in _beside(path):
            found = _lstat(file)
            if found is not None and found.st_size and not file.name.endswith("-shm"):
                raise StoreError(
                    f"cannot be read where it may not be written, while {file.name} is there; copy both"
                ) from None
    return _open(path, wait, "ro&immutable=1")


def _open(path: Path, wait: float, mode: str = "rwc", *, alone: bool = False) -> sqlite3.Connection:
    """Open a file of which `check_file` says that it is a store, or that there is none yet.

    Args:
        path: the file.
        wait: how long to wait for other processes, in seconds.
        mode: SQLite's, as a URI has it.
        alone: make no file beside it, and lock it for others.
    """
    uri = f"{real_path(path).as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, timeout=wait, isolation_level=None, uri=True)
    try:
        _harden(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        if alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA temp_store = MEMORY")
        if mode == "rwc":
            _make_tables(connection)
        _check(connection)
        if _pragma(connection, "user_version") == 1:  # empty ones stand in, so that all is read alike
            bare = ADDED.replace("REFERENCES series ON DELETE CASCADE", "")
            connection.executescript(bare.replace("TABLE IF NOT EXISTS", "TEMP TABLE"))
        if mode == "rwc" and not alone:
            _share(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _harden(connection: sqlite3.Connection) -> None:
    """A store may come from someone else: nothing in it is run, and what is odd in it is an error where it is read."""
    connection.text_factory = _text
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")


def _text(raw: bytes) -> str:
    """A name of a file need not be UTF-8, and keeps its bytes; `cache.series_id` writes it so."""
    return raw.decode("utf-8", "surrogateescape")


def _share(connection: sqlite3.Connection) -> None:
    """Let others read while one writes.

    In this mode a commit does not wait for the disk: it survives the end of the process, and only the last ones may be
    lost with the power. Where another process is busy, or the file system shares no memory, the mode stays as it is.
    """
    with suppress(sqlite3.OperationalError):
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make those of a new store; another process may do so at the same time."""
    if _pragma(connection, "user_version") == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        version = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
        connection.executescript(f"BEGIN IMMEDIATE; {TABLES} {ADDED} {version} COMMIT;")


def _check(connection: sqlite3.Connection) -> None:
    """Refuse what is no store, of another schema, or altered.

    A trigger, a default, a collation or an index from elsewhere would change what is written, or found.
    """
    if _pragma(connection, "application_id") != APPLICATION:
        raise StoreError(f"is a database of another program{OTHER_FILE}", "other")
    version = _pragma(connection, "user_version")
    if version not in (1, SCHEMA):
        whose = "a newer" if version > SCHEMA else "an older"
        raise StoreError(f"has schema {version}, of {whose} robustcli; this one reads schema {SCHEMA}{OTHER_FILE}")
    found, own = _parts_of(connection), _own_parts(version)
    for kind, name, *_ in sorted(found - own, key=str):
        what = "is not as robustcli makes it" if (kind, name) in {part[:2] for part in own} else "is not robustcli's"
        raise StoreError(f"was altered: its {kind} {name!a} {what}{WHAT_TO_DO}", "altered")
    for kind, name, *_ in sorted(own - found, key=str):
        raise StoreError(f"is damaged: its {kind} {name!a} is missing{WHAT_TO_DO}")


def _parts_of(connection: sqlite3.Connection) -> frozenset[tuple[Any, ...]]:
    """Tables, indexes, views and triggers, each with its SQL in one line."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 100").fetchall()
    return frozenset((*row[:3], " ".join(row[3].split()) if isinstance(row[3], str) else row[3]) for row in rows)


@cache
def _own_parts(version: int) -> frozenset[tuple[Any, ...]]:
    """Those of an empty store of this schema."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES if version == 1 else TABLES + ADDED)
        return _parts_of(connection)


def extend(connection: sqlite3.Connection) -> None:
    """Add what a store of schema 1 lacks; within a transaction."""
    for name in ("originals", "confidences"):  # which another process may have brought meanwhile
        connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
    if _pragma(connection, "user_version") < SCHEMA:
        for statement in ADDED.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, also where Ctrl-C comes in between."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield
