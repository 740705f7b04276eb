"""One neutral `Sheet`, rendered for a terminal, Markdown or LaTeX. No torch here: a kept answer is printed at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table before it is rendered: `cells` are rows of text, `notes` stand under it."""

    title: str
    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: int = 1


def transposed(sheet: Sheet) -> Sheet:
    """The same sheet with rows and columns exchanged."""
    head, *rows = zip(sheet.headers, *sheet.cells, strict=True)
    return replace(sheet, headers=tuple(head), cells=tuple(map(tuple, rows)), left=1)


def to_rich(sheet: Sheet, width: int) -> Group:
    """For a terminal of so many columns; a sheet that is too wide for it is transposed."""
    from rich.console import Console, Group
    from rich.measure import Measurement
    from rich.text import Text

    upright = replace(sheet, headers=tuple(header.replace(":", "\n") for header in sheet.headers))
    table, unbounded = _rich(upright), Console(width=10_000)
    if Measurement.get(unbounded, unbounded.options, table).maximum > width and len(sheet.cells) < len(sheet.headers):
        table = _rich(transposed(sheet))
    return Group(Text(sheet.title, style="bold"), table, *(Text(note, style="dim") for note in sheet.notes))


def _rich(sheet: Sheet) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for i, header in enumerate(sheet.headers):
        table.add_column(Text(header), justify="left" if i < sheet.left else "right", overflow="fold")
    for cells in sheet.cells:
        table.add_row(*map(Text, cells))
    return table


def to_text(sheet: Sheet, style: str) -> str:
    """As Markdown or LaTeX (booktabs), with title and notes."""
    headers = [header.replace("\n", " ") for header in sheet.headers]
    rows = [[cell.replace("\n", " ") for cell in cells] for cells in sheet.cells]
    align = ["left" if i < sheet.left else "right" for i in range(len(sheet.headers))]
    if style == "markdown":
        rows = [[cell.replace("|", "\\|") for cell in cells] for cells in rows]
        body = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
        return "\n\n".join((*([f"**{sheet.title}**"] if sheet.title else []), body, *sheet.notes))
    body = tabulate(rows, headers, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)
    return "\n".join((f"% {sheet.title}", body, *(f"% {note}" for note in sheet.notes)))
