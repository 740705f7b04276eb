"""What attack, evaluate and compare hand over: the rows with all that was made of them, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustcli.cli.answers import Asked
from robustcli.cli.checks import exit_code
from robustcli.cli.console import fail
from robustcli.cli.measure import Measured, origin_of
from robustcli.cli.printing import print_result
from robustcli.errors import RobustCliError

if TYPE_CHECKING:
    from robustcli.measure.curve import Curve
    from robustcli.measure.evaluate import Session
    from robustcli.measure.pairs import Pair
    from robustcli.measure.record import Row
    from robustcli.measure.seeds import Contest
    from robustcli.measure.transfer import Matrix
    from robustcli.report.sheets import Sheet
    from robustcli.verdict.judge import Verdict


@dataclass(frozen=True)
class Delivery:
    """What was made of the rows.

    Attributes:
        sheets: the rows as tables.
        pairs: what tells the checkpoints apart.
        curves: the rows' curves and the budgets to show each at, where they were asked for.
        matrix: what each checkpoint's images do to the others, where it was asked for.
        verdicts: on each checkpoint.
        checks: which were asked for.
        anytime: what a run that need not reach all samples has left out.
    """

    sheets: Sequence[Sheet]
    pairs: Sequence[Pair | Contest] = ()
    curves: Sequence[tuple[Curve, Sequence[float]]] = ()
    matrix: Matrix | None = None
    verdicts: Sequence[Verdict] = ()
    checks: str = "off"
    anytime: Mapping[str, Any] | None = None

    def document(self, rows: Sequence[Row], origin: dict[str, Any]) -> dict[str, Any]:
        """The JSON document: these rows, from there, and all of this."""
        from robustcli.measure.record import document
        from robustcli.verdict.judge import as_document

        tested = [pair.as_dict() for pair in self.pairs]
        drawn = [curve.as_dict(budgets) for curve, budgets in self.curves]
        cells = self.matrix.as_dicts(rows) if self.matrix else []
        found = document(rows, origin, tested, drawn, cells, as_document(self.verdicts, self.checks))
        return found | ({"anytime": self.anytime} if self.anytime else {})

    def csv(self, rows: Sequence[Row]) -> str:
        """The rows, or the curves in their place, as CSV."""
        if not rows:
            return ""
        from robustcli.report.curves import curves_csv
        from robustcli.report.tables import to_csv

        return curves_csv(self.curves) if self.curves else to_csv(rows)


def deliver(
    measured: Measured, session: Session, made: Delivery, style: str, json_file: Path | None, asked: Asked
) -> int:
    """Write the JSON file and print the result; what is finished is delivered whatever happens to either.

    Args:
        measured: the rows.
        session: what was run.
        made: what was made of the rows.
        style: the format on stdout.
        json_file: where to write the JSON document too.
        asked: for what; a whole answer is kept for whoever asks the same again.

    Returns:
        The exit code: 130 where Ctrl-C cut the run or its checks short, 5 where a verdict is INVALID, else 0.

    Raises:
        RobustCliError: what cut the run short, or why the file could not be written.
    """
    found, csv, code = (
        made.document(measured.rows, origin_of(session)),
        made.csv(measured.rows),
        exit_code(made.verdicts),
    )
    print_result(found, made.sheets, csv, style, json_file)
    unchecked = any(verdict.interrupted for verdict in made.verdicts)
    if measured.stopped_by is None and not unchecked:
        asked.remember(session, found, made.sheets, csv, code)
    if isinstance(measured.stopped_by, RobustCliError):
        raise measured.stopped_by
    if measured.stopped_by is not None or unchecked:
        on = "" if asked.path is None else "; the same command goes on from there"
        cut = "" if measured.stopped_by is not None else "; the checks were cut short"
        done = f"{len(measured.rows)} of {session.rows} rows were finished and are kept{cut}{on}"
        fail(done, "interrupted")
        return 130
    return code
