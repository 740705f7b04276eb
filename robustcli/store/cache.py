"""The store during a run: it recalls and keeps samples; trouble with its file is a line, and never an error."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robustcli.store.database import BUSY_SECONDS, StoreError, connect, extend, select, sqlite_errors, transaction
from robustcli.store.series import WHOLE_AND_SOUND, Chunk, Digest, Entry, Series

IMPATIENT_SECONDS = 0.2
"""How long a write waits where the one before it waited in vain: what is not written yet stays in memory."""

RECALL = f"""
SELECT {WHOLE_AND_SOUND}, sample, digest, robust, distance, pred, pred_after, broken_at, samples.seconds, forwards,
  backwards
FROM samples JOIN series ON series.id = series WHERE key = ?
"""  # noqa: S608

DROP_ROBUST = "DELETE FROM samples WHERE series = ? AND sample = ? AND digest = ? AND robust = 1"

PICTURED = "SELECT sample, digest FROM adversarials JOIN series ON series.id = series WHERE key = ?"


class Cache:
    """Recalls and keeps the samples of series in one file.

    A file that cannot be used costs no result: what could not be written is tried again with each chunk and when the
    cache is closed, and `troubles` says what went wrong, a line each.

    Args:
        path: the file; it is made when something is kept.
        provenance: gives the origin of what is kept; called once, when the first chunk is written.
        keep_all: keep the adversarial image of every broken sample, and not of the first few alone.
    """

    def __init__(
        self, path: Path, provenance: Callable[[], Mapping[str, Any]] = dict, *, keep_all: bool = False
    ) -> None:
        self.path = path
        self.keep_all = keep_all
        self.provenance = provenance
        self.connection: sqlite3.Connection | None = None
        self.pending: list[Chunk] = []
        self.unusable = False
        self.run: int | None = None
        self._known: dict[str, dict[Digest, Entry]] = {}
        self._rejected: defaultdict[str, set[Digest]] = defaultdict(set)
        self._lines: list[str] = []
        self._patient = True
        with self._report_errors("; nothing is recalled from it"):
            if os.path.lexists(path):
                self.connection = connect(path)

    def troubles(self) -> list[str]:
        """What went wrong since the last call, a line each."""
        lines, self._lines = self._lines, []
        return lines

    def recall(self, series: Series) -> dict[Digest, Entry]:
        """All samples that are known of a series."""
        if series.key in self._known:
            return self._known[series.key]
        known: dict[Digest, Entry] = {}
        with self._report_errors("; nothing is recalled from it"):
            if self.connection is not None:
                odd = []
                for sound, sample, digest, robust, *rest in select(self.connection, RECALL, series.key):
                    if sound:
                        known[sample, digest] = Entry(bool(robust), *rest)
                    else:
                        odd.append((sample, digest))
                self._known[series.key] = known
                self.reject(series, odd)
        return known

    def reject(self, series: Series, samples: Iterable[Digest]) -> None:
        """Forget what is known of these samples, as it cannot be right; a new result replaces it in the file."""
        gone = set(samples)
        if gone:
            self._rejected[series.key] |= gone
            known = self._known.get(series.key, {})
            self._known[series.key] = {sample: entry for sample, entry in known.items() if sample not in gone}
            name = " ".join(filter(None, (series.label, series.norm, series.eps)))
            odd = "holds a sample" if len(gone) == 1 else f"holds {len(gone)} samples"
            self._lines.append(
                f"--store {self.path}: {odd} of {name} whose values contradict each other or are none that robustcli "
                "writes; what is asked of them is measured anew"
            )

    def pictured(self, series: Series) -> set[Digest]:
        """The samples of a series whose adversarial images are stored."""
        with self._report_errors(""):
            if self.connection is not None:
                return {(sample, digest) for sample, digest in select(self.connection, PICTURED, series.key)}
        return set()

    def keep(self, chunks: Sequence[Chunk]) -> None:
        """Write chunks in one transaction, with those that could not be written before."""
        for chunk in chunks:
            if chunk.series.key in self._known:
                self._known[chunk.series.key].update(chunk.entries)
        if self.unusable:
            return
        self.pending += chunks
        with self._report_errors("; what is computed is kept in memory and written when it is free"):
            self._flush()

    def close(self) -> None:
        """Write what is left, with patience; Ctrl-C in the middle of it does not lose it."""
        try:
            self._write_rest()
        except KeyboardInterrupt:
            self._write_rest()
            raise
        finally:
            if self.connection is not None:
                with suppress(sqlite3.Error):
                    self.connection.close()
            self.connection = None

    def _write_rest(self) -> None:
        if self.pending:
            self._patient = True
            self._wait(BUSY_SECONDS)
            with self._report_errors(""):
                self._flush()
        if self.pending:
            n = sum(len(chunk.entries) for chunk in self.pending)
            self._lines.append(f"--store {self.path}: {n} results could not be kept")

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, seconds: float) -> None:
        """Let each write wait so long for other processes."""
        if self.connection is not None:
            self.connection.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")

    def _flush(self) -> None:
        if self.connection is None:
            self.connection = connect(self.path)
        with sqlite_errors(), transaction(self.connection):
            extend(self.connection)
            run = self._run_id(self.connection)
            for chunk in self.pending:
                _write(self.connection, chunk, run, self._rejected[chunk.series.key])
        self.run = run
        self.pending.clear()

    def _run_id(self, connection: sqlite3.Connection) -> int:
        """This run's number in the file; a new one also where `results prune` has removed it with its samples."""
        there = connection.execute("SELECT 1 FROM runs WHERE id = ?", (self.run,)).fetchone()
        if self.run is not None and there:
            return self.run
        origin = dict(self.provenance())
        time = str(origin.get("time") or datetime.now(UTC).isoformat(timespec="seconds"))
        content = json.dumps(origin, default=str)
        cursor = connection.execute("INSERT INTO runs (time, provenance) VALUES (?, ?)", (time, content))
        return int(cursor.lastrowid or 0)

    @contextmanager
    def _report_errors(self, consequence: str) -> Iterator[None]:
        """Note a `StoreError` as a line, once, and go on; one that is not temporary ends all writing."""
        try:
            yield
        except StoreError as error:
            line = f"--store {self.path}: {error}"
            if not error.temporary:
                self.unusable, self.pending = True, []
                consequence = "; it is left as it is, and nothing new is kept"
            elif self._patient:
                self._patient = False
                self._wait(IMPATIENT_SECONDS)
            if not any(earlier.startswith(line) for earlier in self._lines):
                self._lines.append(line + consequence)


def _write(connection: sqlite3.Connection, chunk: Chunk, run: int, rejected: set[Digest]) -> None:
    """Add a chunk; what is there stays, but for what was `rejected`, and what stood and is broken now."""
    number = series_id(connection, chunk.series)
    for table in ("samples", "adversarials", "confidences") if rejected else ():
        connection.executemany(
            f"DELETE FROM {table} WHERE series = ? AND sample = ? AND digest = ?",  # noqa: S608
            [(number, *sample) for sample in chunk.entries if sample in rejected],
        )
    connection.executemany(
        DROP_ROBUST,
        [(number, *sample) for sample, entry in chunk.entries.items() if not entry.robust],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(number, *sample, *entry, run) for sample, entry in chunk.entries.items()],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO adversarials VALUES (?, ?, ?, ?, ?)",
        [(number, *sample, *_packed(one.shape, one.pixels)) for sample, one in chunk.pictures.items()],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO originals VALUES (?, ?, ?, ?)",
        [(*sample, *_packed(one.shape, one.original)) for sample, one in chunk.pictures.items() if one.original],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO confidences VALUES (?, ?, ?, ?, ?)",
        [(number, *sample, *one.confidence) for sample, one in chunk.pictures.items() if one.confidence],
    )


def series_id(connection: sqlite3.Connection, series: Series) -> int:
    """The series' number in the file; it is given one where it has none."""
    values = asdict(series) | {
        "key": series.key,
        "model": str(series.model.get("name", "")),
        "attack": json.dumps(dict(series.attack), default=str),
        "ensemble": None if series.ensemble is None else str(series.ensemble["name"]),
    }
    del values["source"]  # the key has it
    return row_id(connection, values)


def row_id(connection: sqlite3.Connection, values: Mapping[str, Any]) -> int:
    """The number of the series with the key that is among these columns; it is added where there is none."""
    found = connection.execute("SELECT id FROM series WHERE key = ?", (values["key"],)).fetchone()
    if found is not None:
        return int(found[0])
    names = ", ".join(values)
    marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, str) else "?" for value in values.values())
    bound = [_as_bytes(value) if isinstance(value, str) else value for value in values.values()]
    cursor = connection.execute(f"INSERT INTO series ({names}) VALUES ({marks})", bound)  # noqa: S608
    return int(cursor.lastrowid or 0)


def _as_bytes(text: str) -> bytes:
    """A text for SQLite, which takes no name that is not UTF-8 otherwise."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _packed(shape: Sequence[int], pixels: bytes) -> tuple[str, bytes]:
    return "x".join(map(str, shape)), zlib.compress(pixels, 1)
