"""A picture of curves of robust accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustcli.measure.curve import Curve
from robustcli.measure.stats import wilson
from robustcli.report.figure import plain_text, save_figure
from robustcli.text import short_paths, visible

LONGEST = 40
"""Characters of a checkpoint's name in the legend."""

POINTS = 200
"""Budgets that a line is drawn through."""


def save_curves(curves: Sequence[tuple[Curve, Sequence[float]]], path: Path) -> None:
    """Draw each curve from eps 0 to its last budget, with its 95 % band, a panel a norm, in one PNG.

    Raises:
        ConfigError: the file cannot be written.
    """
    with plain_text():
        save_figure(_drawn(curves), path, "--curve-plot")


def _drawn(curves: Sequence[tuple[Curve, Sequence[float]]]) -> Figure:
    names = short_paths(curve.subject.checkpoint for curve, _ in curves)
    norms = list(dict.fromkeys(curve.norm for curve, _ in curves))
    figure = Figure(figsize=(5.2 * len(norms), 4.0), layout="constrained")
    for axis, norm in zip(figure.subplots(1, len(norms), squeeze=False)[0], norms, strict=True):
        for curve, budgets in curves:
            if curve.norm == norm:
                _draw(axis, curve, budgets[-1], names[curve.subject.checkpoint])
        axis.set_xlabel(f"{norm.capitalize()} eps")
        axis.set_ylabel("accuracy %: no adversarial found within eps")
        axis.set_ylim(0, 100)
        axis.set_xlim(left=0)
        axis.grid(color="#e3e6eb", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    return figure


def _draw(axis: Axes, curve: Curve, reach: float, name: str) -> None:
    """Draw one curve; a space before its name, as matplotlib leaves out of a legend what begins with an underscore."""
    everyone = curve.everyone
    at = [reach * i / (POINTS - 1) for i in range(POINTS)]
    right = [everyone.correct(eps) for eps in at]
    bands = [wilson(correct, everyone.n) for correct in right]
    on = "" if curve.split == "test" else f", {curve.split} split"
    name = visible(name)
    name = name if len(name) <= LONGEST else f"...{name[-LONGEST:]}"  # its end is what tells it apart
    shown = f" {name} ({' and '.join(curve.attacks)}, n = {everyone.n}{on})"
    (line,) = axis.plot(at, [100 * correct / everyone.n for correct in right], label=shown)
    low, high = zip(*bands, strict=True)
    axis.fill_between(at, [100 * p for p in low], [100 * p for p in high], color=line.get_color(), alpha=0.15, lw=0)
