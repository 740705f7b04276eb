"""`robustcli replay`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.completion import complete_kept
from robustcli.cli.console import notice, out, warn
from robustcli.cli.measurement import foreign_code
from robustcli.cli.options import OUTPUT, option
from robustcli.cli.request import STORE, given_flags
from robustcli.cli.results import Style, check_style, open_store, select_rows
from robustcli.config import EvalSpec, validated
from robustcli.errors import CheckpointError, ConfigError, DataError, listed

if TYPE_CHECKING:
    from robustcli.measure.replay import Kept
    from robustcli.models.target import Target
    from robustcli.report.table import Table
    from robustcli.store.browse import Line

    Ready = tuple[Kept, Target, EvalSpec, dict[str, Any]]

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
    from robustcli.device import pick_device
    from robustcli.measure.replay import judge
    from robustcli.measure.session import check_flags

    check_style(style)
    given, rest = given_flags(context.params), list(names or ())
    given = {key: value for key, value in given.items() if key not in ("names", "store", "style")}
    flags = validated(EvalSpec, given, "", flags=frozenset(given))
    of_file = _begins_with_file(rest)
    if of_file and store is not None:
        raise ConfigError(f"replay {rest[0]}: takes a file or --store, not both")
    rows = [] if of_file else list(dict.fromkeys(int(name) for name in rest if name.isdecimal()))
    models = [Path(name) for name in (rest[1:] if of_file else rest) if of_file or not name.isdecimal()]
    if len(models) > 1:
        way = "" if of_file else "; a file of adversarials is an .npz or .pt that is there"
        raise ConfigError(f"replay: takes one model, and {', '.join(map(str, models))} are named{way}")
    model = models[0] if models else None
    with foreign_code():
        device = pick_device(flags.device)
        if of_file:
            ready = [_of_file(Path(rest[0]), model, flags, device)]
        else:
            ready = list(_of_store(store or STORE, rows, model, given, device))
        targets = [target for _, target, _, _ in ready]
        check_flags(targets, flags)
        for line in dict.fromkeys(line for target in targets for line in target.notices):
            notice(line)
        found = [judge(kept, target, spec, device) | more for kept, target, spec, more in ready]
    if style == "json":
        out().file.write(json.dumps({"schema": 1, "replays": found}, allow_nan=False) + "\n")
        return
    from robustcli.report.formats import print_tables

    print_tables([_table(list(group)) for _, group in groupby(found, lambda one: one["checkpoint"])], style, out())


def _begins_with_file(names: Sequence[str]) -> bool:
    """Whether the first name is of a file, or of what is taken for one, and not of a row or of the model.

    A .pt may be either: it is a file before a model, and alone where it holds adversarials.
    """
    from robustcli.measure.replay import of_file

    if not names or names[0].isdecimal():
        return False
    path = Path(names[0])
    if path.suffix in (".npz", ".json", ".db") or path.is_dir():
        return True
    if not all(name.isdecimal() for name in names[1:]):
        return path.suffix == ".pt" or path.exists()
    with suppress(DataError):
        return path.suffix == ".pt" and len(of_file(path).ids) > 0
    return False


def _of_file(path: Path, model: Path | None, flags: EvalSpec, device: str) -> Ready:
    from robustcli.measure.replay import of_file, open_model

    kept = of_file(path)
    if model is None:
        raise ConfigError(f"replay {path}: a file names no model; write replay {path} MODEL")
    return kept, open_model(model, flags, device, STORE.with_suffix(".images"), kept)[0], flags, {}


def _of_store(
    store: Path, rows: list[int], model: Path | None, given: Mapping[str, Any], device: str
) -> Iterator[Ready]:
    from robustcli.measure.replay import of_row, open_model, spec_for

    opened, index = cache(open_model), store.with_suffix(".images")  # once for rows of one model
    with open_store(store) as (connection, contents):
        lines = select_rows(contents, rows, store) if rows else contents.lines
        kept = {line.id: found for line in lines if (found := of_row(connection, line))}
        empty = [line.id for line in lines if line.id not in kept]
        if not kept or (rows and empty):
            raise DataError(f"--store {store}: {f'row {empty[0]} ' if rows else ''}keeps no images of broken samples")
        lines = [line for line in lines if line.id in kept]
        lines = lines if model else _without_programs(lines, store, strict=rows != [])
        needs_images = "dataset" in given or any(kept[line.id].lacking for line in lines)
        for line in lines:
            spec, name = spec_for(connection, line, given, model), model or Path(line.checkpoint)
            try:
                target, images, why = opened(name, spec, device, index, needs_images=needs_images)
            except CheckpointError as error:
                way = "" if model or "dataset" in given else "; another MODEL may be named"
                raise CheckpointError(f"row {line.id}: {error}{way}") from None
            if why and "dataset" in given:
                raise DataError(why)
            own = kept[line.id] if images is None else kept[line.id].with_originals(images)
            why = why or f"{own.lacking} of {len(own.ids)} originals are not in {name}'s data set as it is here"
            yield own, target, spec, {"missing": why if own.lacking else None}


def _without_programs(lines: Sequence[Line], store: Path, *, strict: bool) -> list[Line]:
    """The rows that were made on no program; those that were are told, and are an error where no other is asked for."""
    from robustcli.models.sources import PROGRAM, split_source

    programs = [line for line in lines if PROGRAM.fullmatch(split_source(line.checkpoint).body)]
    for name in dict.fromkeys(line.checkpoint for line in programs):
        ids = [str(line.id) for line in programs if line.checkpoint == name]
        command = shlex.join(["robustcli", "replay", "--store", str(store), *ids, name])
        why = f"{name}: is a program, which runs only where it is named; its rows are judged by `{command}`"
        if strict or len(programs) == len(lines):
            raise ConfigError(why)
        warn(why)
    return [line for line in lines if line not in programs]


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
