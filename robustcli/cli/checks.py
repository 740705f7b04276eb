"""`--checks` and `--force`: the checks around a run, and the exit code of an invalid one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.answers import Asked
from robustcli.cli.console import err
from robustcli.cli.measure import Measured, measure
from robustcli.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustcli.measure.anytime import Goal
    from robustcli.measure.evaluate import Result, Session
    from robustcli.measure.pairs import Pair
    from robustcli.measure.transfer import Matrix, Transferred
    from robustcli.verdict.check import Finding
    from robustcli.verdict.judge import Verdict

INVALID = 5
CHOICES = ("quick", "full", "off")

Checks = Annotated[
    str,
    typer.Option(
        "--checks",
        help="What stands behind the verdict under the table: quick (a look at the model, and what the rows say), full "
        "(more attacks on the survivors; minutes) or off.",
        rich_help_panel=options.OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Run although the checks say INVALID.", rich_help_panel=options.OUTPUT),
]


@dataclass(frozen=True)
class Checking:
    """The checks of one command: `before` has looked at the models, `verdicts` looks at the rows.

    Attributes:
        session: what runs.
        asked: for what.
        level: quick, full or off.
        preflights: by checkpoint.
        stopped: whether the run must not start.
    """

    session: Session
    asked: Asked
    level: str
    preflights: dict[str, list[Finding]] = field(default_factory=dict)
    stopped: bool = False

    def measure(
        self,
        *,
        keep_images: bool = False,
        keep_all: bool = False,
        goal: Goal | None = None,
        on_result: Callable[[Result], None] = lambda _: None,
        matrix: Matrix | None = None,
    ) -> Measured:
        """The session's rows, as `measure` has them; none where the run must not start."""
        if self.stopped:
            return Measured([], None)
        return measure(
            self.session,
            self.asked,
            keep_images=keep_images,
            keep_all=keep_all,
            goal=goal,
            on_result=on_result,
            matrix=matrix,
        )

    def verdicts(
        self, measured: Measured, pairs: Sequence[Pair] = (), cells: Sequence[Transferred] = ()
    ) -> list[Verdict]:
        """A verdict a checkpoint; of a run that was cut short without probes.

        Args:
            measured: the rows.
            pairs: of two checkpoints under one attack, where they were compared.
            cells: of the transfer matrix, where it was asked for.
        """
        if self.level == "off":
            return []

        from robustcli.verdict.judge import CheckOptions, verdicts

        options = CheckOptions(full=self.level == "full" and measured.stopped_by is None and not self.stopped)
        with err().status("checking") if options.full and err().is_terminal else nullcontext():
            return verdicts(self.session, measured.rows, self.preflights, options, pairs, cells)


def look_first(session: Session, asked: Asked, level: str, force: bool) -> Checking:
    """The checks before a run; what is INVALID is told at once, a line each, and stops it unless `--force`."""
    if level == "off":
        return Checking(session, asked, level)

    from robustcli.verdict.judge import before

    preflights = before(session)
    invalid = [(name, one) for name, found in preflights.items() for one in found if one.level == "INVALID"]
    for name, finding in invalid:
        asked.tell(f"{name}: INVALID {finding.id}: {finding.message}", "warning" if force else "error")
    if invalid and not force:
        asked.tell("nothing was measured; --force measures all the same, --checks off asks nothing")
    return Checking(session, asked, level, preflights, stopped=bool(invalid) and not force)


def read_level(text: str) -> str:
    """What `--checks` means.

    Raises:
        ConfigError: none of the choices.
    """
    if text not in CHOICES:
        raise unknown("--checks", text, CHOICES)
    return text


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """5 where a verdict is INVALID, else 0."""
    return INVALID if any(verdict.word == "INVALID" for verdict in verdicts) else 0
