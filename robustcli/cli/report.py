"""`robustcli report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.console import notice, out, tell
from robustcli.cli.outputs import check_output
from robustcli.cli.request import STORE, exit_code
from robustcli.cli.results import open_store
from robustcli.errors import ConfigError, DataError, unknown

if TYPE_CHECKING:
    import sqlite3

Files = Annotated[
    list[Path] | None,
    typer.Argument(help="What --json or --format json wrote; what the store holds if left out.", show_default=False),
]
Store = Annotated[
    Path | None,
    options.option("--store", options.OUTPUT, "A store with results and images (default results/robustcli.db)."),
]
Output = Annotated[
    Path | None,
    options.option("--output", options.OUTPUT, "Write a page with tables, charts and images to this .html file."),
]


def report(files: Files = None, store: Store = None, style: options.Format = "table", output: Output = None) -> None:
    """Print saved results as the runs themselves did, or write them as one self-contained page. Nothing is measured.

    Example: `robustcli report result.json --output report.html`
    """
    from robustcli.report.formats import FORMATS

    if style not in FORMATS:
        raise unknown("--format", style, FORMATS)
    given = files or []
    if output is not None:
        if output.suffix.lower() != ".html" or style != "table":
            raise ConfigError(f"--output {output}: writes a page, which ends in .html and has no --format")
        check_output(output, "--output", inputs(given, store), ".html")
    with opened("report", given, store, images=output is not None) as (documents, connection):
        if output is None:
            _print(documents, style)
        else:
            _write_page(documents, connection, given, store, output)
    raise typer.Exit(max(map(exit_code, documents.values()), default=0) if given else 0)


def inputs(files: Sequence[Path], store: Path | None) -> list[tuple[str, Path]]:
    """What the command reads, as `check_output` takes it."""
    return [*(("the result", path) for path in files), ("the store", store or STORE)]


@contextmanager
def opened(
    command: str, files: Sequence[Path], store: Path | None, *, images: bool
) -> Iterator[tuple[dict[str, Any], sqlite3.Connection | None]]:
    """Documents by where they are from, of the store where no files are given; and the store, where it is needed.

    Raises:
        ConfigError: neither is there.
        DataError: one of them cannot be read.
    """
    from robustcli.measure.document import read_document

    documents = {str(path): read_document(path) for path in files}
    path = store or (STORE if STORE.exists() else None)
    if path is None and not files:
        raise ConfigError(f"{command}: give a FILE.json, or --store FILE; {STORE} is not there")
    if path is None or (files and not images):
        yield documents, None
        return
    with open_store(path) as (connection, _):
        if not files:
            from robustcli.report.stored import documents as stored

            documents = {f"--store {path}, result {i}": one for i, one in enumerate(stored(connection), start=1)}
        yield documents, connection


def _print(documents: dict[str, Any], style: str) -> None:
    from robustcli.report.formats import print_document

    for where, document in documents.items():
        try:
            for kind, text in document["notes"]:
                tell(str(text), str(kind))
            print_document(document, style, out())
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


def _write_page(
    documents: dict[str, Any],
    connection: sqlite3.Connection | None,
    files: Sequence[Path],
    store: Path | None,
    output: Path,
) -> None:
    from robustcli.disk import write_whole
    from robustcli.report.gallery import galleries
    from robustcli.report.page import make_page
    from robustcli.report.points import gather

    results = gather(list(documents.values()))
    shown = galleries(connection, results) if connection is not None else []
    words = [*map(str, files), *(["--store", str(store)] if store else [])]
    content = make_page(results, shown, words, str(output)).encode()
    write_whole(output, content, "--output")
    notice(f"{output}: {len(results.rows)} rows, {len(shown)} galleries, {len(content) / 1e6:.1f} MB")
