"""Curves of robust accuracy over the budget: as sheets, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from robustcli.measure.curve import Curve, Group
from robustcli.report.sheets import Sheet, data_name
from robustcli.report.tables import interval, percent
from robustcli.text import csv_cells, visible

BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
"""An eighth of a line's height to the whole of it; a space is nothing left."""

COLUMNS = 32
"""The width of a sparkline."""

CURVE_BOUND = (
    "Accuracy: no adversarial found within eps, of all n; in brackets its 95 % Wilson interval. "
    "An upper bound at every eps: a stronger attack may find closer ones."
)


def sparkline(group: Group, reach: float) -> str:
    """Accuracy from eps 0 to `reach`, a bar a column."""
    shares = [group.correct(reach * i / (COLUMNS - 1)) / group.n for i in range(COLUMNS)]
    return "".join(BARS[min(int(share * len(BARS)), len(BARS) - 1)] if share else " " for share in shares)


def curve_sheet(curve: Curve, budgets: Sequence[float]) -> Sheet:
    """One curve: a budget a row."""
    everyone, subject = curve.everyone, curve.subject
    rows = [(everyone.correct(eps), eps) for eps in budgets]
    cells = [(spelt(eps), percent(right, everyone.n), interval(right, everyone.n), str(right)) for right, eps in rows]
    return Sheet(
        title=f"{subject.checkpoint}: {subject.method} {subject.model} on {data_name(curve.dataset, curve.split)}, "
        f"n = {everyone.n}: accuracy within {curve.norm.label} eps",
        headers=("eps", "acc. %", "95 % CI", "right"),
        cells=tuple(cells),
        notes=(f"{_median(everyone)}; closest of {' and '.join(curve.attacks)}.", CURVE_BOUND),
    )


def class_sheet(curve: Curve, budgets: Sequence[float]) -> Sheet:
    """One curve: a class a row, with its sparkline from eps 0 to the last budget."""
    groups = (curve.everyone, *curve.by_class)
    cells = [
        (
            visible(group.name),
            str(group.n),
            percent(group.correct(0), group.n),
            "inf" if group.median is None else f"{group.median:.3g}",
            f"|{sparkline(group, budgets[-1])}|",
        )
        for group in groups
        if group.n
    ]
    return Sheet(
        title=f"{curve.subject.checkpoint}: the same by class",
        headers=("class", "n", "clean %", f"median {curve.norm.label}", f"accuracy, eps 0 to {spelt(budgets[-1])}"),
        cells=tuple(cells),
    )


def _median(group: Group) -> str:
    return "Half are not broken at any eps" if group.median is None else f"Half are broken within {group.median:.3g}"


def spelt(eps: float) -> str:
    """A budget as it was written."""
    return str(eps) if hasattr(eps, "text") else f"{eps:g}"


def curves_csv(curves: Sequence[tuple[Curve, Sequence[float]]]) -> str:
    """A line for each curve, class (and `all`) and budget; accuracies are fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = (
        "checkpoint",
        "dataset",
        "split",
        "norm",
        "attacks",
        "class",
        "eps",
        "n",
        "correct",
        "accuracy",
        "ci_low",
        "ci_high",
    )
    writer.writerow(head)
    for curve, budgets in curves:
        start = (curve.subject.checkpoint, curve.dataset, curve.split, curve.norm.name, " ".join(curve.attacks))
        for group in (curve.everyone, *curve.by_class):
            for point in group.points(budgets):
                share = (point["correct"], point["accuracy"], *point["ci95"])
                writer.writerow(csv_cells((*start, group.name, point["eps"], group.n, *share)))
    return out.getvalue().rstrip("\n")
