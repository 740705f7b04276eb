"""Stored rows as tables and files. No torch here: `robustcli results` answers without it."""

from __future__ import annotations

import csv
import io
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from robustcli.fields import parse_number
from robustcli.measure.document import is_document, make_document, records_of
from robustcli.measure.record import Record, Subject
from robustcli.measure.stats import wilson
from robustcli.report.table import Table, data_name, interval, percent
from robustcli.store.browse import Line, count_pictures, origins, pictures, provenances, samples
from robustcli.store.documents import every
from robustcli.text import csv_cells, visible

MOST_ITERATIONS = 1000
"""Of an attack with a trace, so many are told."""

PROVENANCE = ("time", "device", "hardware", "commit", "command")


def split_of(connection: sqlite3.Connection, line: Line) -> str:
    """The split that a row's samples are of, by the runs that measured them: `test`, `train` or both."""
    specs = [origin.get("spec") for origin in provenances(connection, line)]
    found = {str(spec.get("split") or "test") for spec in specs if isinstance(spec, dict)}
    return " and ".join(sorted(found)) or "test"


def list_table(connection: sqlite3.Connection, found: Sequence[Line], title: str) -> Table:
    """A stored row a row; checkpoints that have one name are followed by the beginnings of their hashes."""
    versions = Counter(checkpoint for checkpoint, _ in {(line.checkpoint, line.sha256) for line in found})
    cells = [
        (
            str(line.id),
            line.time[:10],
            visible(line.checkpoint) + (f" {line.sha256[:8]}" if versions[line.checkpoint] > 1 else ""),
            visible(data_name(line.dataset, split_of(connection, line))),
            visible(f"{line.name} {line.budget}".rstrip()),
            str(line.n),
            f"{percent(line.correct, line.n)} {interval(line.correct, line.n)}",
            f"{line.seconds:.1f}",
        )
        for line in found
    ]
    headers = ("id", "when", "checkpoint", "data", "attack", "n", "acc. % [95 % CI]", "sec")
    return Table(title, headers, tuple(cells), left=5)


def show_table(connection: sqlite3.Connection, line: Line) -> Table:
    """One stored row with all that is known of it."""
    cells = [
        ("checkpoint", line.checkpoint),
        ("sha256", line.sha256),
        ("model", f"{line.model}, {line.method}"),
        ("data", data_name(line.dataset, split_of(connection, line))),
        ("attack", json.dumps(line.attack)),
        *([("member of", line.ensemble)] if line.ensemble else []),
        ("seed, dtype, eot", f"{line.seed}, {line.dtype}, {line.eot}"),
        ("attack schema", str(line.attack_schema)),
        (
            "right after",
            f"{line.correct} of {line.n}: {percent(line.correct, line.n)} % {interval(line.correct, line.n)}",
        ),
        ("right before", f"{line.clean_correct}: {percent(line.clean_correct, line.n)} %"),
        ("spent", f"{line.seconds:.1f} s, {line.forwards} forwards, {line.backwards} backwards"),
        ("images kept", str(count_pictures(connection, line))),
    ]
    for origin in provenances(connection, line):
        known = "; ".join(str(origin[key]) for key in PROVENANCE if origin.get(key))
        cells.append((f"{origin['samples']} samples", known or "-"))
    shown = tuple((what, visible(value)) for what, value in cells)
    return Table(f"{line.id}: {line.name} {line.budget}".rstrip(), ("what", "value"), shown, left=2)


def as_dict(connection: sqlite3.Connection, line: Line) -> dict[str, Any]:
    """One stored row as JSON holds it: the keys of a result's rows, and those of its samples."""
    return {
        "id": line.id,
        "checkpoint": line.checkpoint,
        "checkpoint_sha256": line.sha256,
        "dataset": line.dataset,
        "split": split_of(connection, line),
        "model": line.model,
        "method": line.method,
        "attack": {key: value for key, value in line.attack.items() if key != "eps"},
        "label": line.label,
        "norm": line.norm.lower() or None,
        "budget": line.eps,
        "eps": None if line.eps is None else parse_number(line.eps),
        "ensemble": line.ensemble,
        "seed": line.seed,
        "dtype": line.dtype,
        "eot": line.eot,
        "attack_schema": line.attack_schema,
        "n": line.n,
        "clean_correct": line.clean_correct,
        "correct": line.correct,
        "accuracy": line.correct / line.n,
        "ci95": list(wilson(line.correct, line.n)),
        "seconds": line.seconds,
        "forwards": line.forwards,
        "backwards": line.backwards,
        "provenance": provenances(connection, line),
        **samples(connection, line),
    }


def to_json(connection: sqlite3.Connection, found: Sequence[Line]) -> bytes:
    """All rows with their samples."""
    content = {"schema": 1, "rows": [as_dict(connection, line) for line in found]}
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def to_csv(connection: sqlite3.Connection, found: Sequence[Line]) -> bytes:
    """A line a sample; an infinite distance is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ("sample", "robust", "distance", "pred", "pred_after", "broken_at")
    writer.writerow(("row", "checkpoint", "sha256", "dataset", "split", "attack", "norm", "eps", "seed", *columns))
    for line in found:
        data = (line.dataset, split_of(connection, line))
        start = (line.id, line.checkpoint, line.sha256, *data, line.name, line.norm, line.eps, line.seed)
        for values in zip(*samples(connection, line).values(), strict=True):
            writer.writerow((*csv_cells(start), *values))
    return out.getvalue().encode()


def to_npz(connection: sqlite3.Connection, found: Sequence[Line]) -> bytes:
    """Arrays `ID_ids`, `ID_robust`, `ID_distances` and so on; `ID_x_adv` with `ID_x_adv_ids`: the stored images."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for line in found:
        for name, values in samples(connection, line).items():
            numbers = [np.inf if value is None else value for value in values]
            arrays[f"{line.id}_{name}"] = np.array(numbers, dtype=np.float64 if name == "distances" else np.int64)
        images = list(pictures(connection, line))
        if images:
            arrays[f"{line.id}_x_adv_ids"] = np.array([number for number, _, _ in images])
            arrays[f"{line.id}_x_adv"] = np.stack(
                [np.frombuffer(raw, "<f4").reshape(shape) for _, shape, raw in images]
            )
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def to_pt(connection: sqlite3.Connection, found: Sequence[Line]) -> bytes:
    """The same as tensors, which `torch.load(FILE, weights_only=True)` reads."""
    import numpy as np
    import torch

    out, arrays = io.BytesIO(), np.load(io.BytesIO(to_npz(connection, found)))
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, out)
    return out.getvalue()


FORMATS = {".json": to_json, ".csv": to_csv, ".npz": to_npz, ".pt": to_pt}
"""What `results export` writes, by the file's suffix."""


def documents(connection: sqlite3.Connection, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The documents of a store, and before them, as documents too, the rows that none of these has.

    Of such rows nobody knows the class of a sample that was wrong before: it is -1.
    """
    found = [document for document in every(connection) if is_document(document)]
    known = {_key(record, document["provenance"].get("seed")) for document in found for record in records_of(document)}
    origin_by_row, records = origins(connection), list[tuple[dict[str, Any], Record]]()
    for line in lines:
        with suppress(ValueError):
            if line.attack.get("name") != "clean":
                origin = origin_by_row.get(line.id, [{}])[-1]
                spec = origin.get("spec")
                split = str(spec.get("split") or "test") if isinstance(spec, dict) else "test"
                if _key(record := _record(connection, line, split), line.seed) not in known:
                    records.append((origin, record))
    runs = {id(origin): origin for origin, _ in records}
    made = [make_document("evaluate", [one for of, one in records if of is origin], origin) for origin in runs.values()]
    return [*filter(is_document, made), *found]


def _key(record: Record, seed: Any) -> tuple[Any, ...]:
    return record.subject.sha256, record.dataset, record.setting, frozenset(record.ids), seed


def _record(connection: sqlite3.Connection, line: Line, split: str) -> Record:
    columns = samples(connection, line)
    by_iter: tuple[int, ...] = ()
    if any(columns["broken_at"]) and line.eps is None and isinstance(iters := line.attack.get("iters"), int):
        standing = [at for at, far in zip(columns["broken_at"], columns["distances"], strict=True) if far != 0]
        by_iter = tuple(sum(at > i for at in standing) for i in range(min(iters, MOST_ITERATIONS)))
    wrong = [far == 0 for far in columns["distances"]]
    return Record(
        subject=Subject(line.checkpoint, line.sha256, line.model or None, line.method or None),
        dataset=line.dataset,
        split=split,
        kind="minimal" if line.eps is None else "budget",
        attack={key: value for key, value in line.attack.items() if key != "eps"},
        label=line.label,
        norm=line.norm.lower(),
        budget=line.eps,
        ids=tuple(columns["ids"]),
        y=tuple(-1 if bad else pred for bad, pred in zip(wrong, columns["pred"], strict=True)),
        pred=tuple(columns["pred"]),
        pred_after=tuple(columns["pred_after"]),
        robust=tuple(columns["robust"]),
        distance=tuple(math.inf if far is None else far for far in columns["distances"]),
        by_iter=by_iter,
        seconds=line.seconds,
        forwards=line.forwards,
        backwards=line.backwards,
        ensemble=line.ensemble,
        cached=line.n,
    )
