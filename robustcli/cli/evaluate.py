"""`robustcli evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustcli.cli import options
from robustcli.cli.console import notice
from robustcli.cli.measure import chosen, deliver, measure, read_flags

if TYPE_CHECKING:
    from robustcli.evaluation.curve import Curve
    from robustcli.evaluation.evaluate import Session
    from robustcli.evaluation.results import Row


def evaluate(
    context: typer.Context,
    checkpoint: options.Checkpoints = None,
    attack: options.Attacks = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    steps: options.Steps = None,
    iters: options.Iters = None,
    curve: options.Curve = False,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    split: options.Split = None,
    limit: options.Limit = None,
    no_sample: options.NoSample = False,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    device: options.Device = None,
    json_file: options.JsonFile = None,
    curve_plot: options.CurvePlot = None,
    style: options.Format = "table",
) -> None:
    """Measure checkpoints under attacks: accuracy with its interval, an attack and budget a row.

    Example: `robustcli evaluate --attack fgsm --attack deepfool --eps 0.1,0.3 --iters 5`
    """
    spec = read_flags(context.params)

    from robustcli.evaluation.evaluate import open_session
    from robustcli.reporting.curves import class_sheet, curve_sheet
    from robustcli.reporting.tables import evaluation_sheet

    session = open_session(chosen(checkpoint), spec)
    measured = measure(session)
    curves = _curves(session, measured.rows) if spec.curve else []
    if curves:
        sheets = [sheet(*shown) for shown in curves for sheet in (curve_sheet, class_sheet)]
    else:
        sheets = [evaluation_sheet(list(rows)) for _, rows in groupby(measured.rows, key=lambda row: row.subject)]
    with ExitStack() as after:  # it draws also where another file could not be written
        if curves and curve_plot is not None:
            after.callback(_draw, curves, curve_plot)
        code = deliver(measured, session, sheets, style, json_file, curves)
    raise typer.Exit(code)


def _curves(session: Session, rows: Sequence[Row]) -> list[tuple[Curve, Sequence[float]]]:
    """The curves of each checkpoint, and the budgets to show each at."""
    from robustcli.evaluation.curve import budgets_of, curves

    made = []
    for item in session.items:
        own = [row for row in rows if row.subject == item.candidate.subject]
        made += curves(own, item.images.y, item.images.classes)
    budgets = budgets_of(made, session.spec.eps)
    return [(curve, budgets[curve.norm]) for curve in made]


def _draw(curves: Sequence[tuple[Curve, Sequence[float]]], path: Path) -> None:
    from robustcli.reporting.curve_plot import save_curves

    save_curves(curves, path)
    notice(f"curves: {path}")
