"""Two consoles: stdout carries the result only; progress, notices and errors go to stderr."""

from __future__ import annotations

import errno
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from robustcli.text import github, visible, write_what_streams_can

PIPE_WIDTH = 120

MANY = 5
"""Of so many budgets the bar shows the first and the last."""

Advance = Callable[..., None]
"""Moves a bar by what was done, and by what needs no work and so says nothing of the speed; may name what is next."""


def out() -> Console:
    """For results. A pipe is taken to be wide, so that a table in a file does not depend on a terminal."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, emoji=False)


def err() -> Console:
    """For everything else; lines are never wrapped, so that one message is one line.

    While a bar is shown, this is the bar's console: another one would write into its line, and leave it there.
    """
    shown: Console | None = getattr(sys.stderr, "_FileProxy__console", None)  # of what rich puts in stderr's place
    return shown or Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def result(text: str, start: tuple[int, str] = (0, ""), indent: int = 0) -> None:
    """One line of a result, on stdout, wrapped on a terminal alone; its first characters in a style of their own."""
    text, (end, style) = visible(text), start
    if sys.stdout.isatty():
        text = textwrap.fill(text, out().width, subsequent_indent=" " * indent, break_long_words=False)
    line = Text(text)
    line.stylize(style, 0, end)
    out().print(line, soft_wrap=True)


def notice(text: str, bold: bool = False) -> None:
    """A line on stderr that is no error."""
    _write(_line(text, "bold yellow" if bold else "dim"))


def warn(text: str) -> None:
    """One line for what may be a mistake."""
    _write(Text("warning: ", style="bold yellow"), _line(text))


def fail(text: str, kind: str = "error") -> None:
    """The one red line of an error, whatever line breaks the user's value had."""
    _write(Text(f"{kind}: ", style="bold red"), _line(text, "red" if kind == "error" else ""))


def annotate(title: str, text: str) -> None:
    """On GitHub, an error beside the checks of a commit; elsewhere nothing."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _write(Text(f"::error title={github(title, value=True)}::{github(text)}"))


def tell(text: str, kind: str = "notice") -> None:
    """A line on stderr; `kind` is `notice`, `bold`, `warning` or `error`, as a document notes it."""
    if kind in ("warning", "error"):
        (warn if kind == "warning" else fail)(text)
    else:
        notice(text, bold=kind == "bold")


def _write(*parts: Text) -> None:
    """Write a line to stderr; where nobody can read it, the results are not lost for that."""
    try:
        err().print(*parts, sep="")
    except OSError:
        drop(sys.stderr)


def _line(text: str, style: str = "") -> Text:
    """A message as one harmless line; the line breaks of a longer one are spaces."""
    return Text(visible(" ".join(text.splitlines())), style=style)


def progress(*columns: str) -> Progress:
    """A bar with a count, the time left and further columns, on stderr; nothing where that is no terminal."""
    console = err()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def moving_bar(total: float) -> Iterator[Advance]:
    """A bar over `total`, with the images a second that the attack of a description finishes, and what moves it.

    Of an attack's samples those `standing`, of how many, a budget each, stand in its place until that changes.
    """
    bar = progress("{task.fields[rate]}")
    name, began, finished, stand = "", 0.0, 0.0, ""
    with bar:
        task = bar.add_task("", total=total, rate="")

        def advance(
            done: float,
            spared: float,
            description: str | None = None,
            images: float = 0.0,
            standing: tuple[str, Sequence[tuple[int, int]]] | None = None,
        ) -> None:
            nonlocal name, began, finished, stand
            if description not in (None, name):
                name, finished, stand = description, 0.0, ""
            if standing is not None:
                stand = _standing(*standing)
            finished = max(0.0, finished + images) if done else finished
            if not finished:  # what is known before the first pass, or where more is left than it seemed, is no speed
                began = time.monotonic()
            rate = finished / max(1e-9, time.monotonic() - began)
            shown = f"{rate:.{1 if rate < 10 else 0}f} images/s" if finished else ""
            bar.tasks[task].completed += spared
            bar.update(task, advance=done, description=stand or name, rate=shown)

        yield advance


def _standing(attack: str, counts: Sequence[tuple[int, int]]) -> str:
    """`pgd: 133 of 200 stand`; at several budgets `24, 15, 0 of 24`, of many the first and the last."""
    if not counts:
        return ""
    some = counts if len(counts) < MANY else [counts[0], counts[-1]]
    if len({met for _, met in some}) > 1:
        told = [f"{stand} of {met}" for stand, met in some]
    else:
        told = [*(str(stand) for stand, _ in some[:-1]), f"{some[-1][0]} of {some[-1][1]}"]
    return f"{attack}: {(' ... ' if len(some) < len(counts) else ', ').join(told)} stand"


def open_streams() -> None:
    """Make stdout and stderr fit to be written to: in any encoding, and also where they were closed.

    A closed stdout becomes one whose writing fails, which ends the command with a line on stderr; a closed stderr takes
    all and shows nothing. Either keeps its number, so that no other file gets it and then what is printed.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            redirect_to_null(number, os.O_RDONLY if number == 1 else os.O_WRONLY)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    write_what_streams_can()


def drop(stream: TextIO) -> None:
    """After a stream failed: what is left in its buffer must not fail again when Python ends."""
    with suppress(OSError, ValueError):  # it is no file, as in a test, or closed
        redirect_to_null(stream.fileno())


def redirect_to_null(number: int, flags: int = os.O_WRONLY) -> None:
    """Let a file's number stand for the null device."""
    null = os.open(os.devnull, flags)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def reason(error: OSError) -> str:
    """Why the system refused; its words are replaced where they hide the cause."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit, such as by ulimit -n 1024"
    where = "output" if error.filename is None else os.fsdecode(error.filename)
    why = "stdout is closed" if error.errno == errno.EBADF and error.filename is None else error.strerror or error
    return f"{where}: {why}"
