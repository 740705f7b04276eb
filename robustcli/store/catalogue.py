"""What a store holds: its rows listed, shown and removed."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from robustcli.store.database import told, transaction

LISTED = """
SELECT series.id, series.checkpoint, sha256, model, method, dataset, attack, label, norm, eps, ensemble, seed, dtype,
  eot, attack_schema, max(runs.time), count(*), sum(robust), sum(distance > 0), sum(samples.seconds), sum(forwards),
  sum(backwards)
FROM series JOIN samples ON samples.series = series.id JOIN runs ON runs.id = samples.run
GROUP BY series.id ORDER BY series.id
"""

SAMPLES = """
SELECT sample, robust, distance, pred, pred_after, broken_at FROM samples WHERE series = ? ORDER BY sample, digest
"""

ORPHANS = (
    "DELETE FROM series WHERE id NOT IN (SELECT series FROM samples)",
    "DELETE FROM runs WHERE id NOT IN (SELECT run FROM samples)",
    "DELETE FROM answers",
)
"""What nothing refers to any more; an answer may rest on what is gone."""


@dataclass(frozen=True)
class Line:
    """A row of results in the store.

    Attributes:
        id: its number there.
        checkpoint, sha256, model, method, dataset: what was measured on what.
        attack, label, norm, eps, ensemble: under what.
        seed, dtype, eot, attack_schema: how.
        time: of the last sample, ISO 8601.
        n, correct, clean_correct: samples, right after the attack, right before.
        seconds, forwards, backwards: spent on them.
    """

    id: int
    checkpoint: str
    sha256: str
    model: str
    method: str
    dataset: str
    attack: dict[str, Any]
    label: str
    norm: str
    eps: str | None
    ensemble: str | None
    seed: int
    dtype: str
    eot: int
    attack_schema: int
    time: str
    n: int
    correct: int
    clean_correct: int
    seconds: float
    forwards: int
    backwards: int

    @property
    def name(self) -> str:
        """The attack; a member of an ensemble behind that one's name."""
        return f"{self.ensemble}/{self.label}" if self.ensemble else self.label

    @property
    def budget(self) -> str:
        """`Linf 0.3`, `L2` alone for a minimal-norm attack, and nothing for clean accuracy."""
        return " ".join(filter(None, (self.norm, self.eps)))


@dataclass(frozen=True)
class Wanted:
    """Which rows to remove: those that all of these say of.

    Attributes:
        before: whose last sample is older than this, ISO 8601.
        sha256: of this checkpoint, or of one whose hash begins so.
        checkpoint: of this file's name.
        attack: of the attack of this name.
    """

    before: str | None = None
    sha256: str | None = None
    checkpoint: str | None = None
    attack: str | None = None

    def takes(self, line: Line) -> bool:
        """Whether a row is among them."""
        of_file = line.checkpoint == self.checkpoint or (
            self.sha256 is not None and line.sha256.startswith(self.sha256)
        )
        return (
            (self.before is None or line.time < self.before)
            and (of_file or (self.sha256 is None and self.checkpoint is None))
            and self.attack in (None, line.attack.get("name"), line.ensemble)
        )


def ago(age: timedelta) -> str:
    """The time that long ago, as rows hold it."""
    return (datetime.now(UTC) - age).isoformat(timespec="seconds")


def lines(connection: sqlite3.Connection) -> list[Line]:
    """All rows, in the order in which they came."""
    with told():
        found = connection.execute(LISTED).fetchall()
    names = [field.name for field in fields(Line)]
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return [Line(**(row | {"attack": json.loads(row["attack"])})) for row in rows]


def samples(connection: sqlite3.Connection, line: Line) -> dict[str, list[Any]]:
    """A row's samples, a list a column; a distance is None where there is no adversarial."""
    with told():
        rows = connection.execute(SAMPLES, (line.id,)).fetchall()
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(6)]
    columns[2] = [None if distance == float("inf") else distance for distance in columns[2]]
    names = ("ids", "robust", "distances", "pred", "pred_after", "broken_at")
    return dict(zip(names, columns, strict=True))


def provenances(connection: sqlite3.Connection, line: Line) -> list[dict[str, Any]]:
    """Where a row's samples come from: the runs, with how many of the samples each gave."""
    query = (
        "SELECT provenance, count(*) FROM samples JOIN runs ON runs.id = samples.run WHERE series = ? "
        "GROUP BY runs.id ORDER BY runs.id"
    )
    with told():
        return [json.loads(text) | {"samples": n} for text, n in connection.execute(query, (line.id,))]


def pictures(connection: sqlite3.Connection, line: Line) -> Iterator[tuple[int, tuple[int, ...], bytes]]:
    """A row's adversarial images: the sample's id, the shape (c, h, w), float32 pixels in little-endian order."""
    query = "SELECT sample, shape, pixels FROM adversarials WHERE series = ? ORDER BY sample"
    with told():
        for number, shape, pixels in connection.execute(query, (line.id,)):
            yield number, tuple(map(int, shape.split("x"))), zlib.decompress(pixels)


def remove(connection: sqlite3.Connection, gone: Sequence[Line]) -> None:
    """Remove rows with their samples and images, and give their room back to the disk."""
    with told():
        with transaction(connection):
            connection.executemany("DELETE FROM series WHERE id = ?", [(line.id,) for line in gone])
            for statement in ORPHANS:
                connection.execute(statement)
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
