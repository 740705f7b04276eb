"""`robustcli replay`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.completion import complete_kept
from robustcli.cli.console import out
from robustcli.cli.measurement import foreign_code
from robustcli.cli.options import OUTPUT, option
from robustcli.cli.request import STORE, given_flags
from robustcli.cli.results import Style, check_style, open_store, select_rows
from robustcli.errors import CheckpointError, ConfigError, DataError, listed

if TYPE_CHECKING:
    from robustcli.report.table import Table

Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="An .npz or .pt that `attack --save` wrote, and the model; or a store's rows by id (all with images if "
        "left out), and perhaps another model than theirs.",
        show_default=False,
        autocompletion=complete_kept,
    ),
]
Store = Annotated[
    Path | None,
    option("--store", OUTPUT, "The store whose rows are judged (results/robustcli.db if no file is named)."),
]

LISTS = {
    "no_longer": "no longer fool",
    "changed": "are taken for another class than was kept",
    "outside_box": "have pixels outside [0, 1]",
    "outside_ball": "lie outside the ball",
    "wrong_before": "are wrong without the attack too",
}
LEGEND = "kept: fooled the model that they were made on; fool: are wrong on this one. After a colon stand samples' ids."


def replay(
    context: typer.Context,
    names: Names = None,
    store: Store = None,
    weights: options.Weights = None,
    normalize: options.Normalize = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    style: Style = "table",
) -> None:
    """Judge adversarials that were kept again, on their own model or on another one, and say what no longer holds.

    Example: `robustcli replay adversarials.npz zoo:mnist-batchout`
    """
    check_style(style)
    given, rest = given_flags(context.params), list(names or ())
    given = {key: value for key, value in given.items() if key not in ("names", "store", "style")}
    of_file = store is None and rest != [] and (not rest[0].isdecimal() or Path(rest[0]).exists())
    rows = [] if of_file else [int(name) for name in rest if name.isdecimal()]
    models = [Path(name) for name in (rest[1:] if of_file else rest) if of_file or not name.isdecimal()]
    if len(models) > 1:
        raise ConfigError(f"replay: takes one model, and {', '.join(map(str, models))} are named")
    model = models[0] if models else None
    with foreign_code():
        found = list(
            _of_file(Path(rest[0]), model, given) if of_file else _of_store(store or STORE, rows, model, given)
        )
    if style == "json":
        out().file.write(json.dumps({"schema": 1, "replays": found}, allow_nan=False) + "\n")
        return
    from robustcli.report.formats import print_tables

    print_tables([_table(list(group)) for _, group in groupby(found, lambda one: one["checkpoint"])], style, out())


def _of_file(path: Path, model: Path | None, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from robustcli.config import EvalSpec, validated
    from robustcli.device import pick_device
    from robustcli.measure.replay import judge, of_file, open_model

    spec = validated(EvalSpec, given, "", flags=frozenset(given))
    kept, device = of_file(path), pick_device(spec.device)
    if model is None:
        raise ConfigError(f"replay {path}: a file names no model; write replay {path} MODEL")
    yield judge(kept, open_model(model, spec, device, STORE.with_suffix(".images"), kept)[0], spec, device)


def _of_store(store: Path, rows: list[int], model: Path | None, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from robustcli.device import pick_device
    from robustcli.measure.replay import judge, of_row, open_model, spec_for
    from robustcli.models.sources import PROGRAM, split_source

    device, opened = pick_device(given.get("device", "auto")), cache(open_model)  # once for rows of one model
    with open_store(store) as (connection, contents):
        lines = select_rows(contents, rows, store) if rows else contents.lines
        kept = {line.id: found for line in lines if (found := of_row(connection, line))}
        empty = [line.id for line in lines if line.id not in kept]
        if not kept or (rows and empty):
            raise DataError(f"--store {store}: {f'row {empty[0]} ' if rows else ''}keeps no images of broken samples")
        for line in (line for line in lines if line.id in kept):
            program = PROGRAM.fullmatch(split_source(line.checkpoint).body)
            if model is None and program:  # anyone may have made the store
                raise ConfigError(f"row {line.id}: was made on {line.checkpoint}, a program; name it to run it")
            spec = spec_for(connection, line, given, same_model=model is None)
            try:
                target, images, why = opened(model or Path(line.checkpoint), spec, device, store.with_suffix(".images"))
            except CheckpointError as error:
                raise CheckpointError(f"row {line.id}: {error}; another MODEL may be named") from None
            if why and "dataset" in given:
                raise DataError(why)
            own = kept[line.id] if images is None else kept[line.id].with_originals(images)
            if lost := len(own.ids) - len(own.where):
                why = why or f"{lost} of {len(own.ids)} originals are not in {target.name}'s data set as it is here"
            yield judge(own, target, spec, device) | {"missing": why or None}


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    """What one model says of the adversarials of a file, or of a store's rows; the notes say what no longer holds."""
    from robustcli.report.table import Table

    keys = {"of": "source", "attack": "attack", "budget": "budget", "kept": "kept", "fool": "fooling"}
    keys |= {"out of box": "outside_box", "out of ball": "outside_ball"}
    values = [[one[key] for key in keys.values()] for one in found]
    cells = [
        tuple("-" if cell is None else str(len(cell) if isinstance(cell, list) else cell) for cell in row)
        for row in values
    ]
    notes = [f"{one['source']}: {line}" for one in found for line in _notes(one)]
    return Table(f"Adversarials on {found[0]['checkpoint']}", tuple(keys), tuple(cells), (*notes, LEGEND), left=3)


def _notes(one: Mapping[str, Any]) -> Iterator[str]:
    if one["same_model"] is False:
        was, here = one["made_on"], one["checkpoint_sha256"][:8]
        yield f"made on {was['checkpoint']} ({was['checkpoint_sha256'][:8]}), another model ({here})"
    yield from (f"{len(ids)} {what}: {listed(map(str, ids), 8)}" for key, what in LISTS.items() if (ids := one[key]))
    if one.get("missing"):
        yield f"what is told of originals and of the ball is so far incomplete: {one['missing']}"
    if one["budget"] is None and (far := one["largest_distance"]):
        distances = ", ".join(f"{norm.capitalize()} {distance:.4g}" for norm, distance in far.items())
        yield f"no budget is kept; the farthest from its original is at {distances}"
