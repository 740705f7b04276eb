"""A document as text: on a terminal, as JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robustcli.errors import DataError
from robustcli.measure.document import curves_of, records_of
from robustcli.report.table import Table, to_rich, to_text
from robustcli.report.verdict import verdict_text
from robustcli.report.views import tables
from robustcli.text import csv_cells, visible

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "json", "csv", "markdown", "latex")
PER_SAMPLE = ("ids", "robust", "y", "pred", "pred_after", "distance")
CURVE_COLUMNS = (
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


def print_document(document: Mapping[str, Any], style: str, console: Console) -> None:
    """Print a document; nothing is printed of one that cannot be.

    Args:
        document: as `make_document` makes it; it may come from a file or a store.
        style: one of `FORMATS`.
        console: where to.

    Raises:
        DataError: it is no document; says where.
    """
    try:
        if style == "json":
            text = json.dumps(document, allow_nan=False)
            console.file.write(text + "\n")
            return
        if not document["rows"]:
            return
        if style == "csv":
            text = to_csv(document)
            made: Sequence[Table] = ()
            verdict = ""
        else:
            text, made = "", tables(document)
            found = document["verdict"]
            verdict = verdict_text(found, style, console.width) if found is not None else ""
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"is no result that can be shown: {what}") from None
    print_tables(made, style, console)
    if text:
        console.file.write("\n".join(map(visible, text.split("\n"))) + "\n")
    if verdict:
        console.file.write(verdict + "\n\n")


def print_tables(made: Sequence[Table], style: str, console: Console) -> None:
    """Print tables, on a terminal, as Markdown or as LaTeX."""
    for table in made:
        if style == "table":
            console.print(to_rich(table, console.width))
            console.print()
        else:
            console.file.write(to_text(table, style) + "\n\n")


def to_csv(document: Mapping[str, Any]) -> str:
    """The rows, or the curves in their place, as CSV; accuracies are fractions."""
    return _curves_csv(document) if document.get("curves") else _rows_csv(document)


def _rows_csv(document: Mapping[str, Any]) -> str:
    """Every field of the rows but the per-sample ones, a line a row."""
    lines = []
    for record in records_of(document):
        line = {key: value for key, value in record.as_dict().items() if key not in PER_SAMPLE}
        line["ci_low"], line["ci_high"] = line.pop("ci95")
        lines.append(line | {"attack": json.dumps(line["attack"])})
    keys = list(dict.fromkeys(key for line in lines for key in line))
    return _written(keys, ([line.get(key, "") for key in keys] for line in lines))


def _curves_csv(document: Mapping[str, Any]) -> str:
    """A line for each curve, class (and `all`) and budget."""
    lines = []
    for curve, budgets in curves_of(document):
        start = (curve.subject.checkpoint, curve.dataset, curve.split, curve.norm, " ".join(curve.attacks))
        for group in (curve.everyone, *curve.by_class):
            for point in group.points(budgets):
                share = (point["correct"], point["accuracy"], *point["ci95"])
                lines.append((*start, group.name, point["eps"], group.n, *share))
    return _written(CURVE_COLUMNS, lines)


def _written(head: Sequence[str], lines: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(map(csv_cells, lines))
    return out.getvalue().rstrip("\n")
