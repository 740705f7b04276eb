"""A result on stdout in the chosen format, and in a JSON file. No torch here: a kept answer is printed at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustcli.cli.console import out
from robustcli.text import visible

if TYPE_CHECKING:
    from robustcli.report.sheets import Sheet


def print_result(
    document: dict[str, Any], sheets: Sequence[Sheet], csv: str, style: str, json_file: Path | None
) -> None:
    """Write the JSON file and print the result; each also where the other cannot be written."""
    from robustcli.disk import write_whole

    text = json.dumps(document, allow_nan=False) + "\n"
    with ExitStack() as after:
        if style == "json":
            after.callback(out().file.write, text)
        elif document["rows"]:
            after.callback(print_verdicts, document["verdict"], style)
            after.callback(print_sheets, sheets, csv, style)
        if json_file is not None:
            write_whole(json_file, text.encode(), "--json")


def print_sheets(sheets: Sequence[Sheet], csv: str, style: str) -> None:
    """The sheets in one of the human formats, or the lines of `csv`."""
    from robustcli.report.sheets import to_rich, to_text

    console = out()
    if style == "csv":
        console.file.write("\n".join(map(visible, csv.split("\n"))) + "\n")  # it may come from a store
        return
    for sheet in sheets:
        if style == "table":
            console.print(to_rich(sheet, console.width))
            console.print()
        else:
            console.file.write(to_text(sheet, style) + "\n\n")


def print_verdicts(found: dict[str, Any] | None, style: str) -> None:
    """The verdicts of a document under the sheets; CSV, which holds rows only, has none."""
    if found is not None and style != "csv":
        from robustcli.report.verdict import verdict_text

        console = out()
        console.file.write(verdict_text(found, style, console.width) + "\n\n")
