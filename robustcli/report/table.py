"""A table of text, rendered for a terminal, Markdown or LaTeX; and counts as rates with their intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from tabulate import tabulate

from robustcli import text
from robustcli.measure.stats import wilson

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

INDENT = "  "

BREAKS = re.compile(r"(?<=\s)(?![^\[]*\])|(?<=[\w\]][,:/])(?=[A-Za-z_])|(?<=[A-Za-z]-)(?=[A-Za-z]{3})")
"""Where a cell may be broken: after a space outside an interval, and in names after `,`, `:`, `/` and `-`."""


@dataclass(frozen=True)
class Table:
    """A table before it is rendered: `cells` are rows of text, `notes` stand under it, `left` columns are names."""

    title: str
    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: int = 1

    def transpose(self) -> Table:
        """The same table with rows and columns exchanged."""
        head, *rows = zip(self.headers, *self.cells, strict=True)
        return replace(self, headers=tuple(head), cells=tuple(map(tuple, rows)), left=1)


def percent(correct: int, n: int) -> str:
    """`46.8`, in per cent: one digit, two from 10 000 samples on, and more where 0 or 100 would be untrue."""
    if n == 0:
        return "-"
    digits = 2 if n >= 10_000 else 1
    while 0 < correct < n and float(f"{100 * correct / n:.{digits}f}") in (0, 100):
        digits += 1
    return f"{100 * correct / n:.{digits}f}"


def interval(correct: int, n: int) -> str:
    """`[45.8, 47.8]`, in per cent, with one digit, two from 10 000 samples on."""
    low, high = wilson(correct, n)
    digits = 2 if n >= 10_000 else 1
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def data_name(dataset: str, split: str) -> str:
    """A data set's name; with the split, where its samples are not the held-out ones."""
    return dataset if split == "test" else f"{dataset} ({split} split)"


def to_rich(table: Table, width: int) -> Group:
    """For a terminal of so many columns; a table that is too wide for it is transposed, or its cells are broken."""
    from rich.console import Group
    from rich.padding import Padding

    plain = replace(table, headers=tuple(header.replace(":", "\n") for header in table.headers))
    turned = table.transpose() if len(table.cells) < len(table.headers) else table
    wide = (_rich(plain), _rich(turned))
    shown: RenderableType | None = next((form for form in wide if _width(form) <= width), None)
    if shown is None:
        narrow = (_narrow(table, width - 1), _narrow(turned, width - 1))
        shown = Padding(next((form for form in narrow if _width(form) < width), narrow[-1]), (0, 0, 0, 1))
    title = [_wrap(table.title, width, "bold")] if table.title else []
    return Group(*title, shown, *(_wrap(note, width, "dim") for note in table.notes))


def _width(table: RichTable) -> int:
    from rich.console import Console
    from rich.measure import Measurement

    unbounded = Console(width=10_000)
    return Measurement.get(unbounded, unbounded.options, table).maximum


def _narrow(table: Table, width: int) -> RichTable:
    """With cells that are broken where a name or a sentence may be, so that all columns are about as tall."""
    columns = list(zip(*table.cells, strict=True))
    widths = [max(len(line) for cell in cells for line in cell.split("\n")) for cells in columns]
    least = [max(len(part) for cell in cells for part in _parts(cell)) for cells in columns]
    titles = [max(map(len, header.split())) for header in table.headers]
    widths, least = ([*map(max, sizes, titles)] for sizes in (widths, least))
    longest = [max(map(len, cells)) for cells in columns]
    while sum(widths) + 2 * len(widths) > width and widths != least:
        open_ones = (i for i in range(len(widths)) if widths[i] > least[i])
        widths[min(open_ones, key=lambda i: longest[i] / (widths[i] - 1))] -= 1
    return _rich(replace(table, cells=tuple(tuple(map(_broken, cells, widths)) for cells in table.cells)), widths)


def _parts(cell: str) -> list[str]:
    """Of a cell what is not broken: words, parts of a SPEC or a name, and an interval as a whole."""
    return [part for line in cell.split("\n") for part in BREAKS.split(line)]


def _broken(cell: str, width: int) -> str:
    lines = [""]
    for number, line in enumerate(cell.split("\n")):
        lines += [""] if number else []
        for part in BREAKS.split(line):
            lines += [""] if lines[-1] and len(f"{lines[-1]}{part}".rstrip()) > width else []
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _rich(table: Table, widths: Sequence[int] = ()) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0) if widths else (0, 1), pad_edge=not widths)
    for i, (header, most) in enumerate(zip_longest(table.headers, widths)):
        side: Literal["left", "right"] = "left" if i < table.left else "right"
        made.add_column(Text(_lines(header)), justify=side, overflow="fold", max_width=most)
    for cells in table.cells:
        made.add_row(*(Text(_lines(cell)) for cell in cells))
    return made


def _lines(cell: str) -> str:
    """A cell that may have several lines, each of them harmless."""
    return "\n".join(map(text.visible, cell.split("\n")))


def _wrap(line: str, width: int, style: str) -> Text:
    """A title or a note; where it is wrapped, further lines are indented, so that none passes for one of its own."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width, emoji=False)
    parts = Text(text.visible(line)).wrap(console, max(20, width - len(INDENT)), overflow="fold")
    return Text(f"\n{INDENT}".join(part.plain.rstrip() for part in parts), style=style)


def to_text(table: Table, style: str) -> str:
    """As Markdown or LaTeX (booktabs), with title and notes."""
    headers = [header.replace("\n", " ") for header in table.headers]
    rows = [[cell.replace("\n", " ") for cell in cells] for cells in table.cells]
    align = ["left" if i < table.left else "right" for i in range(len(table.headers))]
    if style == "markdown":
        headers, rows = [*map(text.markdown, headers)], [[*map(text.markdown, cells)] for cells in rows]
        body = tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)
        title = [f"**{text.markdown(table.title)}**"] if table.title else []
        return "\n\n".join((*title, body, *map(text.markdown, table.notes)))
    headers, rows = [*map(text.visible, headers)], [[*map(text.visible, cells)] for cells in rows]
    body = tabulate(rows, headers, tablefmt="latex_booktabs", colalign=align, disable_numparse=True)  # it escapes
    return "\n".join((f"% {text.latex(table.title)}", body, *(f"% {text.latex(note)}" for note in table.notes)))
