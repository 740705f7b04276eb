"""What a store holds, as `robustcli results` lists, shows, exports and removes it."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any, NamedTuple

import pydantic
from pydantic import Field, ValidationError

from robustcli.store.content import parse, unpack
from robustcli.store.database import StoreError, select, sqlite_errors, transaction
from robustcli.store.series import WHOLE_AND_SOUND, Picture

LISTED = f"""
SELECT series.id, series.checkpoint, sha256, model, method, dataset, attack, label, norm, eps, ensemble, seed, dtype,
  eot, attack_schema, max(runs.time), count(*), sum(robust), sum(distance > 0), sum(samples.seconds), sum(forwards),
  sum(backwards)
FROM series JOIN samples ON samples.series = series.id LEFT JOIN runs ON runs.id = samples.run
WHERE {WHOLE_AND_SOUND} GROUP BY series.id ORDER BY series.id
"""  # noqa: S608

SAMPLES = f"""
SELECT sample, robust, distance, pred, pred_after, broken_at FROM samples WHERE series = ? AND {WHOLE_AND_SOUND}
ORDER BY sample, digest
"""  # noqa: S608

RUNS = f"""
SELECT runs.id, provenance, count(*) FROM samples JOIN runs ON runs.id = samples.run
WHERE series = ? AND {WHOLE_AND_SOUND} GROUP BY runs.id ORDER BY runs.id
"""  # noqa: S608

KEPT = f"""
SELECT samples.sample, pred, pred_after, distance, adversarials.shape, adversarials.pixels, originals.shape,
  originals.pixels, before, after
FROM samples JOIN adversarials USING (series, sample, digest) LEFT JOIN originals USING (sample, digest)
  LEFT JOIN confidences USING (series, sample, digest)
WHERE samples.series = ? AND {WHOLE_AND_SOUND} AND distance > 0 AND pred <> pred_after
ORDER BY samples.sample LIMIT ?
"""  # noqa: S608

PICTURED = """
SELECT series, count(*), count(originals.sample) FROM adversarials LEFT JOIN originals USING (sample, digest)
GROUP BY series
"""

PICTURES = "SELECT sample, shape, pixels FROM adversarials WHERE series = ? ORDER BY sample"

MOST_PIXELS = 2**26
"""Of an image, all channels together."""

ORPHANS = (
    f"DELETE FROM samples WHERE NOT {WHOLE_AND_SOUND}",  # noqa: S608
    "DELETE FROM adversarials WHERE NOT (typeof(shape) = 'text' AND typeof(pixels) = 'blob') IS TRUE",
    "DELETE FROM series WHERE id NOT IN (SELECT series FROM samples)",
    "DELETE FROM originals WHERE (sample, digest) NOT IN (SELECT sample, digest FROM adversarials)",
    "DELETE FROM confidences WHERE (series, sample, digest) NOT IN (SELECT series, sample, digest FROM adversarials)",
    "DELETE FROM runs WHERE id NOT IN (SELECT run FROM samples)",
    "DELETE FROM answers",
)
"""What cannot be read, or nothing refers to any more; an answer may rest on what is gone."""

Count = Annotated[int, Field(ge=0)]


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(strict=True, allow_inf_nan=False))
class Line:
    """A row of results in the store: a `Series`, and what its samples add up to.

    Attributes:
        id: its number in the store.
        time: of the last sample, ISO 8601.
        n, correct, clean_correct: samples, right after the attack, right before.
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
    n: Count
    correct: Count
    clean_correct: Count
    seconds: float
    forwards: Count
    backwards: Count

    @property
    def name(self) -> str:
        """The attack; a member of an ensemble behind that one's name."""
        return f"{self.ensemble}/{self.label}" if self.ensemble else self.label

    @property
    def budget(self) -> str:
        """`Linf 0.3`, `L2` alone for a minimal-norm attack, and nothing for clean accuracy."""
        return " ".join(filter(None, (self.norm, self.eps)))


def matches(line: Line, before: str | None, checkpoint: str | None, sha256: str | None, attack: str | None) -> bool:
    """Whether a row meets all conditions, of which None is none.

    Args:
        line: the row.
        before: its last sample is older than this, ISO 8601.
        checkpoint: its checkpoint has this name,
        sha256: or a hash that begins so.
        attack: its attack or ensemble has this name.
    """
    same_hash = sha256 is not None and line.sha256.startswith(sha256)
    return (
        (before is None or line.time < before)
        and (checkpoint in (None, line.checkpoint) or same_hash)
        and attack in (None, line.attack.get("name"), line.ensemble)
    )


@dataclass(frozen=True)
class Contents:
    """All rows in the order in which they came.

    Attributes:
        lines: those that can be read.
        unreadable: the ids of the others, which hold what robustcli does not write.
        troubles: a line for whatever could not be read.
    """

    lines: tuple[Line, ...]
    unreadable: tuple[int, ...]
    troubles: tuple[str, ...]


def read(connection: sqlite3.Connection) -> Contents:
    """All rows of a store; a file of someone else's may hold anything.

    Raises:
        StoreError: nothing can be read of it.
    """
    lines, unreadable, troubles = [], {}, []
    for values in select(connection, LISTED):
        try:
            lines.append(_line(values))
        except ValueError as error:
            unreadable[values[0]] = str(error)
    if unreadable:
        number, reason = next(iter(unreadable.items()))
        others = {1: "", 2: ", and so is 1 more"}.get(len(unreadable), f", and so are {len(unreadable) - 1} more")
        troubles.append(f"row {number} is left out{others}: {reason}")
    ((odd,),) = select(connection, f"SELECT count(*) FROM samples WHERE NOT {WHOLE_AND_SOUND}")  # noqa: S608
    if odd:
        what = "1 sample is" if odd == 1 else f"{odd} samples are"
        troubles.append(f"{what} left out, with values that contradict each other or are none that robustcli writes")
    lost = [number for number, text in select(connection, "SELECT id, provenance FROM runs") if origin_of(text) is None]
    if lost:
        troubles.append(f"where samples come from cannot be read for {len(lost)} of its runs")
    return Contents(tuple(lines), tuple(unreadable), tuple(troubles))


def _line(values: Sequence[Any]) -> Line:
    row = dict(zip((field.name for field in fields(Line)), values, strict=True))
    try:
        return Line(**(row | {"attack": parse(row["attack"])}))
    except ValidationError as error:
        raise ValueError(f"its {error.errors()[0]['loc'][0]} cannot be read") from None
    except ValueError as error:
        raise ValueError(f"its attack cannot be read ({error})") from None


def samples(connection: sqlite3.Connection, line: Line) -> dict[str, list[Any]]:
    """A row's samples, a list a column; a distance is None where there is no adversarial."""
    rows = select(connection, SAMPLES, line.id)
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(6)]
    columns[2] = [None if distance == math.inf else distance for distance in columns[2]]
    names = ("ids", "robust", "distances", "pred", "pred_after", "broken_at")
    return dict(zip(names, columns, strict=True))


def provenances(connection: sqlite3.Connection, line: Line) -> list[dict[str, Any]]:
    """Where a row's samples come from: the runs, with how many of the samples each gave."""
    return [(origin_of(text) or {}) | {"samples": n} for _, text, n in select(connection, RUNS, line.id)]


def origin_of(text: Any) -> dict[str, Any] | None:
    """A run's provenance; None where it cannot be read."""
    try:
        found = parse(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def count_pictures(connection: sqlite3.Connection, line: Line) -> int:
    """How many adversarial images of a row are stored."""
    ((count,),) = select(connection, "SELECT count(*) FROM adversarials WHERE series = ?", line.id)
    return int(count)


def pictures(connection: sqlite3.Connection, line: Line) -> Iterator[tuple[int, tuple[int, ...], bytes]]:
    """A row's adversarial images: the sample's id, the shape (c, h, w), float32 pixels in little-endian order.

    Raises:
        StoreError: one of them cannot be read, or has another shape than the first.
    """
    first: tuple[int, ...] | None = None
    for number, shape, packed in select(connection, PICTURES, line.id):
        try:
            sides, pixels = picture(shape, packed)
            if not isinstance(number, int) or sides != (first := first or sides):
                raise ValueError("is not like the first")
        except ValueError as error:
            raise StoreError(
                f"row {line.id}: the image of sample {number!a} cannot be read ({error}); export to .json or .csv, or "
                "remove the row with `robustcli results prune`"
            ) from None
        yield number, sides, pixels


def picture(shape: Any, packed: Any, width: int = 4) -> tuple[tuple[int, ...], bytes]:
    """An image's shape (c, h, w) and pixels, float32 or of a single byte; a ValueError says what is wrong with it."""
    match = re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){2}", str(shape))
    sides = tuple(map(int, shape.split("x"))) if match else ()
    if not sides or math.prod(sides) > MOST_PIXELS:
        raise ValueError("its shape is none")
    pixels = unpack(packed, width * math.prod(sides))
    if len(pixels) != width * math.prod(sides):
        raise ValueError("its pixels are not as many as its shape says")
    import numpy as np

    if width == 4 and not np.isfinite(np.frombuffer(pixels, "<f4")).all():
        raise ValueError("its pixels are no numbers")
    return sides, pixels


def confidence(before: Any, after: Any) -> tuple[float, float] | None:
    """Two probabilities; None where they are none."""
    found = isinstance(before, float) and isinstance(after, float) and 0 <= before <= 1 and 0 <= after <= 1
    return (before, after) if found else None


class Broken(NamedTuple):
    """A sample that an attack broke: its id, the class before (the right one) and after, and its image."""

    sample: int
    pred: int
    pred_after: int
    distance: float
    picture: Picture


def broken(connection: sqlite3.Connection, line: Line, most: int) -> list[Broken]:
    """The first samples of a row whose adversarial images are kept and can be read."""
    found = []
    for sample, pred, pred_after, distance, shape, packed, shape_before, packed_before, before, after in select(
        connection, KEPT, line.id, most
    ):
        with suppress(ValueError):
            kept = Picture(*picture(shape, packed), confidence=confidence(before, after))
            with suppress(ValueError):
                sides, pixels = picture(shape_before, packed_before, 1)
                kept = kept._replace(original=pixels) if sides == kept.shape else kept
            found.append(Broken(sample, pred, pred_after, distance, kept))
    return found


def pictured(connection: sqlite3.Connection) -> dict[int, list[int]]:
    """By row, how many adversarial images are kept, and of how many of these the originals."""
    return {number: counts for number, *counts in select(connection, PICTURED)}


def origins(connection: sqlite3.Connection) -> dict[int, list[dict[str, Any]]]:
    """By row, where its samples come from: the provenance of each run."""
    runs = {number: origin_of(text) or {} for number, text in select(connection, "SELECT id, provenance FROM runs")}
    found: dict[int, list[dict[str, Any]]] = {}
    for number, run in select(connection, "SELECT DISTINCT series, run FROM samples ORDER BY run"):
        found.setdefault(number, []).append(runs.get(run, {}))
    return found


def remove(connection: sqlite3.Connection, gone: Sequence[Line], unreadable: Sequence[int] = ()) -> None:
    """Remove rows with their samples and images, and what cannot be read; give their room back to the disk."""
    with sqlite_errors():
        with transaction(connection):
            ids = [*(line.id for line in gone), *unreadable]
            connection.executemany("DELETE FROM series WHERE id = ?", [(number,) for number in ids])
            for statement in ORPHANS:
                connection.execute(statement)
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
