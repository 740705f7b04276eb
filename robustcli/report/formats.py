"""A document as text: on a terminal, as JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from robustcli.errors import DataError
from robustcli.measure.document import curves_of, records_of
from robustcli.report.table import Table, to_rich, to_text
from robustcli.report.verdict import verdict_text
from robustcli.report.views import tables
from robustcli.text import csv_cells

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "json", "csv", "markdown", "latex")
PER_SAMPLE = ("ids", "robust", "y", "pred", "pred_after", "distance")


@contextmanager
def refusals() -> Iterator[None]:
    """Within it, what cannot be shown is refused.

    Raises:
        DataError: says why.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"is no result that can be shown: {what}") from None


def print_document(document: Mapping[str, Any], style: str, console: Console) -> None:
    """Print a document; nothing is printed of one that cannot be.

    Args:
        document: as `make_document` makes it; it may come from a file or a store.
        style: one of `FORMATS`.
        console: where to.

    Raises:
        DataError: it is no document; says where.
    """
    shown: Sequence[Table] = ()
    text = ""
    with refusals():
        if style == "json":
            text = json.dumps(document, allow_nan=False) + "\n"
        elif document["rows"] and style == "csv":
            text = to_csv(document)
        elif document["rows"]:
            shown = tables(document)
            if shard := document["provenance"].get("shard"):
                shown = [replace(shown[0], title=f"{shown[0].title}; {shard['text']}"), *shown[1:]]
            if document["verdict"] is not None:
                text = verdict_text(document["verdict"], style, console.width) + "\n\n"
    print_tables(shown, style, console)
    console.file.write(text)


def print_tables(shown: Sequence[Table], style: str, console: Console) -> None:
    """Print tables for a terminal, as Markdown or as LaTeX."""
    for table in shown:
        if style == "table":
            console.print(to_rich(table, console.width))
            console.print()
        else:
            console.file.write(to_text(table, style) + "\n\n")


def to_csv(document: Mapping[str, Any]) -> str:
    """The rows, or the curves in their place, as CSV; accuracies are fractions."""
    lines = _curve_lines(document) if document.get("curves") else _row_lines(document)
    columns = list(dict.fromkeys(column for line in lines for column in line))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(csv_cells(line.get(column, "") for column in columns) for line in lines)
    return out.getvalue()


def _row_lines(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every field of the rows but the per-sample ones, a line a row."""
    lines = []
    for record in records_of(document):
        line = {key: value for key, value in record.as_dict().items() if key not in PER_SAMPLE}
        line["ci_low"], line["ci_high"] = line.pop("ci95")
        lines.append({key: json.dumps(value) if isinstance(value, dict) else value for key, value in line.items()})
    return lines


def _curve_lines(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each curve, class (and `all`) and budget."""
    return [
        {
            "checkpoint": curve.subject.checkpoint,
            "dataset": curve.dataset,
            "split": curve.split,
            "norm": curve.norm,
            "attacks": " ".join(curve.attacks),
            "class": group.name,
            "eps": point["eps"],
            "n": group.n,
            "correct": point["correct"],
            "accuracy": point["accuracy"],
            "ci_low": point["ci95"][0],
            "ci_high": point["ci95"][1],
        }
        for curve, budgets in curves_of(document)
        for group in (curve.everyone, *curve.by_class)
        for point in group.points(budgets)
    ]
