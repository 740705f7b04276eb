"""One neutral `Sheet`, rendered for a terminal, Markdown or LaTeX. No torch here: a kept answer is printed at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tabulate import tabulate

from robustcli import text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

INDENT = "  "


@dataclass(frozen=True)
class Sheet:
    """A table before it is rendered: `cells` are rows of text, `notes` stand under it."""

    title: str
    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: int = 1


def data_name(dataset: str, split: str) -> str:
    """A data set's name; with the split, where its samples are not the held-out ones."""
    return dataset if split == "test" else f"{dataset} ({split} split)"


def transposed(sheet: Sheet) -> Sheet:
    """The same sheet with rows and columns exchanged."""
    head, *rows = zip(sheet.headers, *sheet.cells, strict=True)
    return replace(sheet, headers=tuple(head), cells=tuple(map(tuple, rows)), left=1)


def to_rich(sheet: Sheet, width: int) -> Group:
    """For a terminal of so many columns; a sheet that is too wide for it is transposed."""
    from rich.console import Console, Group
    from rich.measure import Measurement

    upright = replace(sheet, headers=tuple(header.replace(":", "\n") for header in sheet.headers))
    table, unbounded = _rich(upright), Console(width=10_000)
    if Measurement.get(unbounded, unbounded.options, table).maximum > width and len(sheet.cells) < len(sheet.headers):
        table = _rich(transposed(sheet))
    return Group(_wrapped(sheet.title, width, "bold"), table, *(_wrapped(note, width, "dim") for note in sheet.notes))


def _rich(sheet: Sheet) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for i, header in enumerate(sheet.headers):
        table.add_column(Text(_lines(header)), justify="left" if i < sheet.left else "right", overflow="fold")
    for cells in sheet.cells:
        table.add_row(*(Text(_lines(cell)) for cell in cells))
    return table


def _lines(cell: str) -> str:
    """A cell that may have several lines, each of them harmless."""
    return "\n".join(map(text.visible, cell.split("\n")))


def _wrapped(line: str, width: int, style: str) -> Text:
    """A title or a note; where it is wrapped, further lines are indented, so that none passes for one of its own."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, emoji=False)
    parts = Text(text.visible(line)).wrap(console, max(20, width - len(INDENT)), overflow="fold")
    return Text(f"\n{INDENT}".join(part.plain.rstrip() for part in parts), style=style)


def to_text(sheet: Sheet, style: str) -> str:
    """As Markdown or LaTeX (booktabs), with title and notes."""
    headers = [header.replace("\n", " ") for header in sheet.headers]
    rows = [[cell.replace("\n", " ") for cell in cells] for cells in sheet.cells]
    align = ["left" if i < sheet.left else "right" for i in range(len(sheet.headers))]
    if style == "markdown":
        headers, rows = [*map(text.markdown, headers)], [[*map(text.markdown, cells)] for cells in rows]
        body = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
        title = [f"**{text.markdown(sheet.title)}**"] if sheet.title else []
        return "\n\n".join((*title, body, *map(text.markdown, sheet.notes)))
    headers, rows = [*map(text.visible, headers)], [[*map(text.visible, cells)] for cells in rows]
    body = tabulate(rows, headers, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)  # it escapes
    return "\n".join((f"% {text.latex(sheet.title)}", body, *(f"% {text.latex(note)}" for note in sheet.notes)))
