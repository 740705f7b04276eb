"""`robustcli plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.console import notice
from robustcli.cli.outputs import check_output
from robustcli.cli.report import Files, Store, inputs, opened
from robustcli.errors import ConfigError, DataError, unknown

if TYPE_CHECKING:
    import sqlite3

    from robustcli.report.points import Results

SUFFIXES = (".png", ".svg", ".pdf")

Kind = Annotated[
    str, typer.Argument(help="curve, pairs, classes, confusion, history, progress or gallery.", show_default=False)
]
Output = Annotated[Path, options.option("--output", options.OUTPUT, "The file to write: .png, .svg or .pdf.")]
Model = Annotated[str | None, options.option("--model", options.MODEL, "Of this model alone, by its name.")]
Attack = Annotated[str | None, options.option("--attack", options.ATTACK, "Of this attack alone, by its name.")]


def plot(
    kind: Kind, output: Output, files: Files = None, store: Store = None, model: Model = None, attack: Attack = None
) -> None:
    """Draw one chart of the page for print, from saved results. Nothing is measured.

    Example: `robustcli plot curve result.json --output curve.pdf`
    """
    from robustcli.report.charts import CHARTS, draw
    from robustcli.report.points import gather

    if kind not in CHARTS and kind != "gallery":
        raise unknown("plot", kind, [*CHARTS, "gallery"])
    given, suffix = files or [], output.suffix
    if suffix not in SUFFIXES:
        raise ConfigError(f"--output {output}: should end in {', '.join(SUFFIXES)}")
    check_output(output, "--output", inputs(given, store), suffix)
    with opened("plot", given, store, images=kind == "gallery") as (documents, connection):
        results = gather(list(documents.values())).only(model, attack)
        if kind == "gallery":
            _draw_gallery(connection, results, output)
            return
        chart = CHARTS[kind]
        choices = chart.points(results)
        if not choices:
            raise DataError(f"plot {kind}: {chart.missing}")
        name, points = next(iter(choices.items()))
        draw(chart, points, name or chart.title, output)
        more = f"; --model and --attack choose one of {len(choices) - 1} more" if len(choices) > 1 else ""
        notice(f"{output}: {name or chart.title}{more}")


def _draw_gallery(connection: sqlite3.Connection | None, results: Results, output: Path) -> None:
    from robustcli.report.gallery import galleries
    from robustcli.report.pictures import save_kept

    found = galleries(connection, results) if connection is not None else []
    whole = [one for one in found if one.without_original < len(one.samples)]
    if not whole:
        older = "earlier versions kept no originals: remove the rows (`robustcli results prune`) and measure them again"
        nothing = "no store has images of these rows; evaluate without --no-store keeps some, and --store FILE names it"
        raise DataError(f"plot gallery: {older if found else nothing}")
    save_kept(whole[0], output)
    notice(f"{output}: {whole[0].row.title}")
