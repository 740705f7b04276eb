"""The curves of `robustcli evaluate --curve`: flags, and the way from rows to sheets and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.console import notice

if TYPE_CHECKING:
    from robustcli.measure.curve import Curve
    from robustcli.measure.evaluate import Session
    from robustcli.measure.record import Row
    from robustcli.report.tables import Sheet

Curved = Annotated[
    bool,
    typer.Option(
        "--curve",
        help="Accuracy at every eps from each sample's closest adversarial, by class too; budget attacks are bisected. "
        "--eps are the points shown. FMN and PGD-20 if no attack is named.",
        rich_help_panel=options.ATTACK,
    ),
]
CurvePlot = Annotated[
    Path | None,
    typer.Option(
        "--curve-plot", help="Also draw the curves into this .png.", rich_help_panel=options.OUTPUT, show_default=False
    ),
]


def curves_of(session: Session, rows: Sequence[Row]) -> list[tuple[Curve, Sequence[float]]]:
    """The curves of each checkpoint, and the budgets to show each at."""
    from robustcli.measure.curve import budgets_of, curves

    made = []
    for item in session.items:
        own = [row for row in rows if row.subject == item.candidate.subject]
        made += curves(own, item.images.y, item.images.classes)
    budgets = budgets_of(made, session.spec.eps)
    return [(curve, budgets[curve.norm]) for curve in made]


def sheets_of(curves: Sequence[tuple[Curve, Sequence[float]]]) -> list[Sheet]:
    """Two a curve: a budget a row, and a class a row."""
    from robustcli.report.curves import class_sheet, curve_sheet

    return [sheet(curve, budgets) for curve, budgets in curves for sheet in (curve_sheet, class_sheet)]


def draw_curves(curves: Sequence[tuple[Curve, Sequence[float]]], path: Path) -> None:
    """Draw them into a PNG."""
    from robustcli.report.curve_plot import save_curves

    save_curves(curves, path)
    notice(f"curves: {path}")
