"""Several stores in one: all shards of a run, or samples of any runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from robustcli.errors import DataError
from robustcli.store.browse import confidence, origin_of, picture, read
from robustcli.store.cache import DROP_ROBUST, row_id
from robustcli.store.database import StoreError, connect, extend, select, sqlite_errors, transaction
from robustcli.store.series import WHOLE_AND_SOUND, Digest

COLUMNS = (
    "key, checkpoint, sha256, model, method, dataset, attack, label, norm, eps, ensemble, seed, dtype, eot, "
    "attack_schema"
)
SERIES = f"SELECT id, {COLUMNS} FROM series"  # noqa: S608
SAMPLES = f"""
SELECT sample, digest, robust, distance, pred, pred_after, broken_at, samples.seconds, forwards, backwards, run
FROM samples WHERE series = ? AND {WHOLE_AND_SOUND}
"""  # noqa: S608
INSERT = f"INSERT OR IGNORE INTO samples VALUES ({'?, ' * 11}?)"  # noqa: S608
PICTURED = "SELECT sample, digest FROM adversarials WHERE series = ?"
PICTURE = "SELECT shape, pixels FROM adversarials WHERE series = ? AND sample = ? AND digest = ?"
ORIGINAL = "SELECT shape, pixels FROM originals WHERE sample = ? AND digest = ?"
CONFIDENCE = "SELECT before, after FROM confidences WHERE series = ? AND sample = ? AND digest = ?"


@pydantic.dataclasses.dataclass(frozen=True)
class Shard:
    """What a run says of its shard: what all of the run share, and each row's name and samples; see `measure.shard`."""

    number: Annotated[int, Field(ge=1)]
    of: int
    run: dict[str, Any]
    rows: dict[str, tuple[str, int]]

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"


@dataclass(frozen=True)
class Row:
    """A row of a store, with its sound samples; the last of a sample's values is its run."""

    id: int
    columns: Mapping[str, Any]
    samples: Mapping[Digest, tuple[Any, ...]]


@dataclass(frozen=True)
class Part:
    """What can be read of a store: its rows by key, and the runs of their samples as time and provenance."""

    path: Path
    rows: Mapping[str, Row]
    runs: Mapping[int, tuple[str, dict[str, Any]]]
    shard: Shard | None


def merge(paths: Sequence[Path], target: Path) -> tuple[int, list[str]]:
    """Write what stores hold into another one, and leave what that holds.

    Returns:
        How many samples are new there, and a line for whatever could not be read.

    Raises:
        DataError: a store cannot be read, two contradict each other, or they are shards and no whole run; names which,
            and nothing is written.
    """
    lines: list[str] = []
    parts = [_read(path, lines) for path in paths]
    _check_shards(parts)
    _check_samples([*([_read(target, [], shards=False)] if target.exists() else []), *parts])
    try:
        with closing(connect(target)) as out, sqlite_errors(), transaction(out):
            extend(out)
            return sum(_write(out, part) for part in parts), lines
    except StoreError as error:
        raise DataError(f"--store {target}: {error}") from None


def _read(path: Path, lines: list[str], *, shards: bool = True) -> Part:
    try:
        with closing(connect(path, make=False)) as connection:
            contents = read(connection)
            sound, rows = {line.id for line in contents.lines}, {}
            for number, *values in select(connection, SERIES):
                if number in sound:
                    samples = {(one[0], one[1]): one[2:] for one in select(connection, SAMPLES, number)}
                    rows[values[0]] = Row(number, dict(zip(COLUMNS.split(", "), values, strict=True)), samples)
            found = select(connection, "SELECT id, time, provenance FROM runs")
    except StoreError as error:
        raise DataError(f"{path}: {error}") from None
    lines += [f"{path}: {line}" for line in contents.troubles]
    used = {sample[-1] for row in rows.values() for sample in row.samples.values()}
    runs = {number: (ascii(time)[1:-1], origin_of(text) or {}) for number, time, text in found if number in used}
    kinds = [origin.get("shard") for _, origin in runs.values()] if shards else []
    if any(kind != kinds[0] for kind in kinds):
        raise DataError(f"{path}: holds samples of several runs, and one of them is a shard; give each its own store")
    try:
        shard = Shard(**kinds[0]) if kinds and kinds[0] is not None else None
    except (pydantic.ValidationError, TypeError):
        raise DataError(f"{path}: what it says of its shard cannot be read") from None
    return Part(path, rows, runs, shard)


def _check_shards(parts: Sequence[Part]) -> None:
    """Refuse shards unless they are all those of one run, and finished."""
    shards = [(part, part.shard) for part in parts if part.shard is not None]
    if not shards:
        return
    if len(shards) < len(parts):
        plain = next(part for part in parts if part.shard is None)
        raise DataError(f"{plain.path}: is no shard, and another store here is one")
    (start, first), known = shards[0], dict[int, Path]()
    for part, one in shards:
        changed = [f": by its {key}" for key in sorted(one.run | first.run) if one.run.get(key) != first.run.get(key)]
        if changed or (one.of, one.rows.keys()) != (first.of, first.rows.keys()):
            raise DataError(f"{part.path}: {one} is of another run than {start.path}{''.join(changed[:1])}")
        if one.number in known:
            raise DataError(f"{part.path}: {one} is there already, in {known[one.number]}")
        known[one.number] = part.path
        for key, (name, n) in one.rows.items():
            if (done := len(part.rows[key].samples) if key in part.rows else 0) != n:
                files = "; of files that cannot be decoded, `robustcli data verify` tells" if done else ""
                raise DataError(f"{part.path}: {one} is not finished: {name} on {done} of {n} samples{files}")
    if missing := list(islice((number for number in range(1, first.of + 1) if number not in known), 20)):
        raise DataError(f"results merge: shard {', '.join(map(str, missing))} of {first.of} is missing")


def _check_samples(parts: Sequence[Part]) -> None:
    """Refuse a sample that two stores have, unless both say the same of it; shards share none."""
    known: dict[tuple[str, Digest], tuple[Part, tuple[Any, ...]]] = {}
    for part in parts:
        for key, row in part.rows.items():
            for at, values in () if is_sampled(row) else row.samples.items():
                other, same = known.setdefault((key, at), (part, values))
                differs = ", with another result" if values[:5] != same[:5] else ""
                if other is not part and (differs or (part.shard and other.shard)):
                    what = f"sample {at[0]} of {row.columns['label']}, as has {other.path}{differs}"
                    raise DataError(f"{part.path}: has {what}")


def is_sampled(row: Row) -> bool:
    """Whether it is of `fast`, whose last members meet a sample of a run: another run may break what one leaves."""
    return row.columns["ensemble"] is None and '"version": "fast"' in str(row.columns["attack"])


def _write(out: Any, part: Part) -> int:
    """Add a store's samples and images that are not there yet; how many samples that are."""
    runs, added = {}, 0
    for number, (time, origin) in part.runs.items():
        if origin.pop("shard", None):
            origin["merged"] = str(part.shard)
        run = (time, json.dumps(origin))
        runs[number] = out.execute("INSERT INTO runs (time, provenance) VALUES (?, ?)", run).lastrowid
    with closing(connect(part.path, make=False)) as connection:
        for row in part.rows.values():
            own = row_id(out, row.columns)
            found = [(own, *at, *one[:-1], runs[one[-1]]) for at, one in row.samples.items() if one[-1] in runs]
            out.executemany(
                DROP_ROBUST, [(own, *at) for at, one in row.samples.items() if is_sampled(row) and not one[0]]
            )
            added += out.executemany(INSERT, found).rowcount
            for at in select(connection, PICTURED, row.id):
                for kept in select(connection, PICTURE, row.id, *at):
                    with suppress(ValueError):
                        picture(*kept)
                        out.execute("INSERT OR IGNORE INTO adversarials VALUES (?, ?, ?, ?, ?)", (own, *at, *kept))
                        _write_original(out, connection, own, row.id, at)
    return added


def _write_original(out: Any, connection: Any, own: int, number: int, at: Digest) -> None:
    """Add what goes with an adversarial image, as far as it can be read."""
    for pair in select(connection, CONFIDENCE, number, *at):
        if confidence(*pair):
            out.execute("INSERT OR IGNORE INTO confidences VALUES (?, ?, ?, ?, ?)", (own, *at, *pair))
    for shape, pixels in select(connection, ORIGINAL, *at):
        picture(shape, pixels, 1)
        out.execute("INSERT OR IGNORE INTO originals VALUES (?, ?, ?, ?)", (*at, shape, pixels))
