"""A store in use: it recalls and keeps, and whatever happens to its file is a line and no error."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustcli.store.database import BUSY_SECONDS, StoreError, connect, told, transaction
from robustcli.store.series import Chunk, Digest, Entry, Picture, Series

IMPATIENT_SECONDS = 0.2
"""How long a write waits where the one before it waited in vain: what is not written yet stays in memory."""

RECALL = """
SELECT sample, digest, robust, distance, pred, pred_after, broken_at, seconds, forwards, backwards
FROM samples JOIN series ON series.id = series WHERE key = ?
"""


class Keeper:
    """Recalls and keeps the samples of series in one file.

    A file that cannot be used costs no result: what could not be written is tried again with each chunk and when the
    keeper is closed, and `troubles` says what went wrong, a line each.

    Args:
        path: the file; it is made when something is kept.
        provenance: tells where what is kept comes from; asked for once, when the first chunk is written.
    """

    def __init__(self, path: Path, provenance: Callable[[], Mapping[str, Any]] = dict) -> None:
        self.path = path
        self.provenance = provenance
        self.connection: sqlite3.Connection | None = None
        self.pending: list[Chunk] = []
        self.lost = ""
        self.run: int | None = None
        self._known: dict[str, dict[Digest, Entry]] = {}
        self._told: list[str] = []
        self._patient = True
        with self._minding("; nothing is recalled from it"):
            if path.exists():
                self._open()

    def troubles(self) -> list[str]:
        """What went wrong since the last call, a line each."""
        found, self._told = self._told, []
        return found

    def recall(self, series: Series) -> dict[Digest, Entry]:
        """All samples that are known of a series."""
        if series.key in self._known:
            return self._known[series.key]
        known = {}
        with self._minding("; nothing is recalled from it"):
            if self.connection is not None:
                with told():
                    rows = self.connection.execute(RECALL, (series.key,))
                    known = {(row[0], row[1]): Entry(bool(row[2]), *row[3:]) for row in rows}
                self._known[series.key] = known
        return known

    def pictured(self, series: Series) -> set[Digest]:
        """The samples of a series whose adversarial images are kept."""
        found: set[Digest] = set()
        with self._minding(""):
            if self.connection is not None:
                with told():
                    found = set(
                        self.connection.execute(
                            "SELECT sample, digest FROM adversarials JOIN series ON series.id = series WHERE key = ?",
                            (series.key,),
                        )
                    )
        return found

    def keep(self, chunks: Sequence[Chunk]) -> None:
        """Write chunks in one transaction, with those that could not be written before."""
        for chunk in chunks:
            if chunk.series.key in self._known:
                self._known[chunk.series.key].update(chunk.entries)
        if self.lost:
            return
        self.pending += chunks
        with self._minding("; what is computed is kept in memory and written when it is free"):
            self._flush()

    def close(self) -> None:
        """Write what is left, with patience."""
        if self.pending and not self.lost:
            self._patient = True
            with self._minding(""):
                self._wait(BUSY_SECONDS)
                self._flush()
        if self.pending and not self.lost:
            n = sum(len(chunk.entries) for chunk in self.pending)
            self._told.append(f"--store {self.path}: {n} results could not be kept")
        if self.connection is not None:
            with suppress(sqlite3.Error):
                self.connection.close()
        self.connection = None

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if self.connection is None:
            self.connection = connect(self.path)

    def _wait(self, seconds: float) -> None:
        if self.connection is not None:
            with told():
                self.connection.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")

    def _flush(self) -> None:
        self._open()
        assert self.connection is not None
        with told(), transaction(self.connection):
            run = self._run_id()
            for chunk in self.pending:
                _write(self.connection, chunk, run)
        self.run = run
        self.pending.clear()

    def _run_id(self) -> int:
        """This run's number in the file; a new one also where `results prune` has removed it with its samples."""
        assert self.connection is not None
        there = self.connection.execute("SELECT 1 FROM runs WHERE id = ?", (self.run,)).fetchone()
        if self.run is not None and there:
            return self.run
        origin = dict(self.provenance())
        time = str(origin.get("time") or datetime.now(UTC).isoformat(timespec="seconds"))
        content = json.dumps(origin, default=str)
        cursor = self.connection.execute("INSERT INTO runs (time, provenance) VALUES (?, ?)", (time, content))
        return int(cursor.lastrowid or 0)

    @contextmanager
    def _minding(self, so: str) -> Iterator[None]:
        """A `StoreError` within is told, ending in `so`, and goes no further."""
        try:
            yield
        except StoreError as error:
            self._mind(error, so)

    def _mind(self, error: StoreError, so: str) -> None:
        """What will not pass ends all writing; a line that was told is not told again."""
        line = f"--store {self.path}: {error}"
        if not error.passing:
            self.lost, self.pending = str(error), []
            so = "; it is left as it is, and nothing new is kept"
        elif self._patient:
            self._patient = False
            with suppress(StoreError):
                self._wait(IMPATIENT_SECONDS)
        if not any(said.startswith(line) for said in self._told):
            self._told.append(line + so)


def _write(connection: sqlite3.Connection, chunk: Chunk, run: int) -> None:
    """What another process has kept in the meantime stays."""
    number = series_id(connection, chunk.series)
    connection.executemany(
        "INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(number, *sample, *entry, run) for sample, entry in chunk.entries.items()],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO adversarials VALUES (?, ?, ?, ?, ?)",
        [(number, *sample, *_packed(picture)) for sample, picture in chunk.pictures.items()],
    )


def series_id(connection: sqlite3.Connection, series: Series) -> int:
    """The series' number in the file; it is given one where it has none."""
    found = connection.execute("SELECT id FROM series WHERE key = ?", (series.key,)).fetchone()
    if found is None:
        values = {
            "key": series.key,
            "checkpoint": series.checkpoint,
            "sha256": series.sha256,
            "model": str(series.model.get("name", "")),
            "method": series.method,
            "dataset": series.dataset,
            "attack": json.dumps(dict(series.attack), default=str),
            "label": series.label,
            "norm": series.norm,
            "eps": series.eps,
            "ensemble": None if series.ensemble is None else str(series.ensemble["name"]),
            "seed": series.seed,
            "dtype": series.dtype,
            "eot": series.eot,
            "attack_schema": series.attack_schema,
        }
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = connection.execute(f"INSERT INTO series ({names}) VALUES ({marks})", tuple(values.values()))  # noqa: S608
        return int(cursor.lastrowid or 0)
    return int(found[0])


def _packed(picture: Picture) -> tuple[str, bytes]:
    return "x".join(map(str, picture.shape)), zlib.compress(picture.pixels, 1)
