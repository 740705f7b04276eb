"""Two consoles: stdout carries the result only; progress, notices and errors go to stderr."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

PIPE_WIDTH = 120


def out() -> Console:
    """For results. A pipe is taken to be wide, so that a table in a file does not depend on a terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, emoji=False)


def err() -> Console:
    """For everything else; lines are never wrapped, so that one message is one line.

    While a bar is shown, this is the bar's console: another one would write into its line, and leave it there.
    """
    shown: Console | None = getattr(sys.stderr, "_FileProxy__console", None)  # of what rich puts in stderr's place
    return shown or Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def notice(text: str, bold: bool = False) -> None:
    """Tell the user something that is not an error."""
    err().print(escape(text), style="bold yellow" if bold else "dim")


def warn(text: str) -> None:
    """One line for what may be a mistake."""
    err().print(f"[bold yellow]warning:[/] {escape(text)}")


def fail(text: str) -> None:
    """The one red line of an error, whatever line breaks the user's value had."""
    err().print(f"[bold red]error:[/] [red]{escape(' '.join(text.splitlines()))}[/]")


def progress(*columns: str | ProgressColumn) -> Progress:
    """A bar with a count and the time left, on stderr; nothing where that is no terminal."""
    console = err()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
