"""`robustcli report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustcli.cli import options
from robustcli.cli.console import out, tell
from robustcli.cli.request import exit_code
from robustcli.errors import DataError, unknown

Files = Annotated[list[Path], typer.Argument(help="What --json or --format json wrote.", show_default=False)]


def report(files: Files, style: options.Format = "table") -> None:
    """Print saved results as the runs themselves did, in any format. Nothing is measured.

    Example: `robustcli report result.json --format markdown`
    """
    from robustcli.measure.document import read_document
    from robustcli.report.formats import FORMATS, print_document

    if style not in FORMATS:
        raise unknown("--format", style, FORMATS)
    documents = {path: read_document(path) for path in files}
    for path, document in documents.items():
        try:
            for kind, text in document["notes"]:
                tell(str(text), str(kind))
            print_document(document, style, out())
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    raise typer.Exit(max(map(exit_code, documents.values())))
