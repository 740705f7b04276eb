"""`robustcli doctor`."""

from __future__ import annotations

import typer
from rich.markup import escape

from robustcli.cli import options
from robustcli.cli.console import out

MARKS = {"ok": "[green]ok[/]   ", "note": "[yellow]note[/] ", "wrong": "[bold red]wrong[/]"}
WRONG = 3


def doctor(data_dir: options.DataDir = None) -> None:
    """Check this installation: versions, attacks on models with a known answer, draws, shipped networks, data.

    Exit code 3 where something is wrong; what is merely missing is a note.
    """
    from robustcli.doctor import examine

    console, wrong = out(), 0
    for finding in examine(data_dir):
        wrong += finding.state == "wrong"
        console.print(f"{MARKS[finding.state]} {escape(f'{finding.what:<14}')} {escape(finding.told)}", soft_wrap=True)
    console.print(f"\n{wrong} wrong" if wrong else "\nall is well", soft_wrap=True)
    raise typer.Exit(WRONG if wrong else 0)
