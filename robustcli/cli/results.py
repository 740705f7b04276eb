"""`robustcli results`: what the store holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from robustcli.cli.completion import COMPLETERS, complete_rows, words
from robustcli.cli.console import notice, out, warn
from robustcli.cli.options import argument
from robustcli.cli.request import STORE
from robustcli.disk import file_hash
from robustcli.errors import CheckpointError, ConfigError, DataError, unknown
from robustcli.models.zoo import locate

if TYPE_CHECKING:
    import sqlite3

    from robustcli.store.browse import Contents, Line

T = TypeVar("T")

results = typer.Typer(help="List, show, export and prune what the store holds.", rich_markup_mode="markdown")

STYLES = ("table", "json")

Store = Annotated[Path, typer.Option("--store", help="The store's file.")]
Style = Annotated[str, typer.Option("--format", help="table or json, on stdout.", autocompletion=words(*STYLES))]
Row = Annotated[int, argument("A row's id, as `robustcli results list` gives it.", complete_rows)]
Rows = Annotated[list[int] | None, argument("Rows by id; all if left out.", complete_rows)]
File = Annotated[
    Path, typer.Argument(help="A .json or .csv of all samples, or an .npz or .pt that has the images too.")
]
Age = Annotated[
    str | None, typer.Option("--older-than", help="Rows whose last sample is older, such as 12h, 30d or 8w.")
]
OfCheckpoint = Annotated[
    str | None, typer.Option("--checkpoint", help="Rows of this file, or of a hash that begins so.")
]
OfAttack = Annotated[
    str | None,
    typer.Option("--attack", help="Rows of the attack of this name.", autocompletion=COMPLETERS["--attack"]),
]
All = Annotated[bool, typer.Option("--all", help="All rows.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")]

Stores = Annotated[list[Path], typer.Argument(help="Stores to read.")]
Target = Annotated[Path, typer.Option("--store", help="The store to write; what is in it stays.", show_default=False)]

HOURS = {"h": 1, "d": 24, "w": 7 * 24}


@results.command("list")
def list_rows(store: Store = STORE, style: Style = "table") -> None:
    """A stored row a line: an attack at a budget on a checkpoint.

    Example: `robustcli results list`
    """
    from robustcli.report.formats import print_tables
    from robustcli.report.stored import as_dict, list_table

    check_style(style)
    with open_store(store) as (connection, contents):
        found = contents.lines
        if style == "json":
            long = {"ids", "robust", "distances", "pred", "pred_after", "broken_at", "provenance"}
            rows = [as_dict(connection, line) for line in found]
            short = [{key: value for key, value in row.items() if key not in long} for row in rows]
            out().file.write(json.dumps({"schema": 1, "rows": short}) + "\n")
        elif found:
            print_tables([list_table(connection, found, f"{store}: {len(found)} rows")], "table", out())
        else:
            notice(f"{store}: holds no rows")


@results.command()
def show(row: Row, store: Store = STORE, style: Style = "table") -> None:
    """One stored row with its parameters and where its samples come from.

    Example: `robustcli results show 3`
    """
    from robustcli.report.formats import print_tables
    from robustcli.report.stored import as_dict, show_table

    check_style(style)
    with open_store(store) as (connection, contents):
        (line,) = select_rows(contents, [row], store)
        if style == "json":
            out().file.write(json.dumps(as_dict(connection, line), allow_nan=False) + "\n")
        else:
            print_tables([show_table(connection, line)], "table", out())


@results.command()
def export(file: File, row: Rows = None, store: Store = STORE) -> None:
    """Write rows with their samples to a file.

    Example: `robustcli results export all.csv`
    """
    from robustcli.cli.outputs import check_output
    from robustcli.disk import write_whole
    from robustcli.report.stored import FORMATS

    if file.suffix not in FORMATS:
        raise ConfigError(f"results export {file}: should end in {', '.join(FORMATS)}")
    check_output(file, "results export", [("the store", store)], file.suffix)
    with open_store(store) as (connection, contents):
        lines = select_rows(contents, row, store) if row else contents.lines
        write_whole(file, FORMATS[file.suffix](connection, lines), "results export")
    notice(f"{file}: {len(lines)} rows, {sum(line.n for line in lines)} samples")


@results.command()
def prune(
    older_than: Age = None,
    checkpoint: OfCheckpoint = None,
    attack: OfAttack = None,
    everything: All = False,
    dry_run: DryRun = False,
    store: Store = STORE,
) -> None:
    """Remove rows, and give their room back to the disk. Where several filters are given, all have to fit.

    Example: `robustcli results prune --older-than 30d`
    """
    from robustcli.store.browse import matches
    from robustcli.store.database import size, writable

    if not everything and not (older_than or checkpoint or attack):
        raise ConfigError("results prune: say which rows: --older-than, --checkpoint, --attack or --all")
    before = _time_before(older_than) if older_than else None
    sha256 = _hash(checkpoint) if checkpoint else None
    with open_store(store) as (_, contents):
        gone = [line for line in contents.lines if everything or matches(line, before, checkpoint, sha256, attack)]
    summary = f"{len(gone)} of {len(contents.lines)} rows with {sum(line.n for line in gone)} samples"
    summary += f", and {len(contents.unreadable)} that cannot be read" if contents.unreadable else ""
    if dry_run:
        notice(f"{store}: would remove {summary}")
        return
    if not writable(store):
        raise DataError(f"--store {store}: is read-only")
    size_before = size(store)
    _remove(store, gone, contents.unreadable)
    notice(f"{store}: removed {summary}; {(size_before - size(store)) / 1e6:.1f} MB are free again")


@results.command()
def merge(stores: Stores, store: Target) -> None:
    """Write what several stores hold into one: the shards of a run, all of them, or samples of any runs.

    Example: `robustcli results merge 1.db 2.db --store all.db`
    """
    from robustcli.store.merge import merge as merge_stores

    for path in stores:
        if path.resolve() == store.resolve() or (path.exists() and store.exists() and path.samefile(store)):
            raise ConfigError(f"--store {store}: is one of the stores that are merged; give another file")
    added, lines = merge_stores(stores, store)
    for line in lines:
        warn(line)
    notice(f"{store}: {added} samples of {len(stores)} stores are new in it")


@contextmanager
def open_store(path: Path) -> Iterator[tuple[sqlite3.Connection, Contents]]:
    """The store and its rows; a warning for what cannot be read.

    Raises:
        DataError: it is missing, damaged, locked or of another schema.
    """
    from robustcli.store.database import StoreError

    try:
        connection, contents = _with_connection(path, _read)
        with closing(connection):
            for line in contents.troubles:
                warn(f"--store {path}: {line}")
            yield connection, contents
    except StoreError as error:
        raise DataError(f"--store {path}: {error}") from None


def _read(connection: sqlite3.Connection) -> tuple[sqlite3.Connection, Contents]:
    from robustcli.store.browse import read

    try:
        return connection, read(connection)
    except BaseException:
        connection.close()
        raise


def _remove(path: Path, lines: Sequence[Line], unreadable: Sequence[int]) -> None:
    """Remove rows, also on a full disk.

    Raises:
        DataError: they cannot be removed.
    """
    from robustcli.store.browse import remove
    from robustcli.store.database import StoreError

    def act(connection: sqlite3.Connection) -> None:
        with closing(connection):
            remove(connection, lines, unreadable)

    try:
        _with_connection(path, act, writes=True)
    except StoreError as error:
        way_out = (
            "; free some space, or delete it with the files -wal and -shm beside it" if error.kind == "full" else ""
        )
        raise DataError(f"--store {path}: {error}{way_out}") from None


def _with_connection(path: Path, act: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
    """What `act` makes of a connection; on a full disk once more, of one that needs no file beside the store."""
    from robustcli.store.database import StoreError, connect, connect_alone

    try:
        return act(connect(path, make=False))
    except StoreError as error:
        if error.kind != "full":
            raise
        return act(connect_alone(path, writes=writes))


def select_rows(contents: Contents, ids: list[int], store: Path) -> list[Line]:
    """The rows of these ids, each of which there is."""
    by_id = {line.id: line for line in contents.lines}
    for number in ids:
        if number in contents.unreadable:
            raise DataError(f"--store {store}: row {number} cannot be read; `robustcli results prune` removes it")
        if number not in by_id:
            raise ConfigError(f"results: {store} has no row {number}; `robustcli results list` gives those there are")
    return [by_id[number] for number in ids]


def check_style(style: str) -> None:
    """Refuse a format that is neither of two."""
    if style not in STYLES:
        raise unknown("--format", style, STYLES)


def _time_before(text: str) -> str:
    """The time that long ago, ISO 8601."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.strip())
    if match is None:
        raise ConfigError(f"--older-than {text}: should be a number of hours, days or weeks, such as 12h, 30d or 8w")
    try:
        time = datetime.now(UTC) - timedelta(hours=float(match[1]) * HOURS[match[2]])
    except OverflowError:
        raise ConfigError(f"--older-than {text}: is older than the calendar") from None
    return time.isoformat(timespec="seconds")


def _hash(checkpoint: str) -> str | None:
    """The hash of a file, or the beginning of one as it was given."""
    try:
        return file_hash(locate(Path(checkpoint)))
    except (OSError, CheckpointError):
        return checkpoint.lower() if re.fullmatch(r"[0-9a-fA-F]{6,64}", checkpoint) else None
