"""One document in every format."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from robustcli.errors import DataError
from robustcli.measure.document import make_document
from robustcli.report.formats import PER_SAMPLE, print_document, to_csv
from robustcli.report.views import tables

from ..records import documents, record


def printed(document: dict[str, Any], style: str, width: int = 120) -> str:
    out = io.StringIO()
    print_document(document, style, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("style", ["table", "markdown", "latex"])
@pytest.mark.parametrize("name", documents())
def test_every_table_of_a_document_is_in_every_format(name: str, style: str) -> None:
    shown = printed(documents()[name], style, 1000)
    for table in tables(documents()[name]):
        assert all(cell in shown for cells in table.cells for cell in cells[-1].splitlines() if cell.isalnum())
    assert bool(shown) == (name != "no rows")


@pytest.mark.parametrize("name", documents())
def test_json_is_the_document_and_nothing_else(name: str) -> None:
    assert json.loads(printed(documents()[name], "json")) == json.loads(json.dumps(documents()[name]))


def test_csv_has_every_key_of_any_row_and_no_samples() -> None:
    lines = list(csv.DictReader(to_csv(documents()["evaluate"]).splitlines()))
    rows = documents()["evaluate"]["rows"]
    keys = {key for row in rows for key in row} - set(PER_SAMPLE) - {"ci95"}
    assert lines[0].keys() == keys | {"ci_low", "ci_high"}
    assert [line["by_iter"] for line in lines][:4] == ["", "", "", "[2, 1]"]
    assert (lines[0]["budget"], float(lines[0]["eps"]), lines[3]["budget"]) == ("8/255", 8 / 255, "")
    assert [float(lines[0][key]) for key in ("ci_low", "ci_high")] == rows[0]["ci95"]
    assert json.loads(lines[3]["attack"])["iters"] == 2


def test_csv_of_curves_has_a_line_a_class_and_budget() -> None:
    lines = list(csv.DictReader(to_csv(documents()["curve"]).splitlines()))
    assert [line["class"] for line in lines] == [name for name in ("all", "cat", "owl") for _ in range(3)]
    assert [float(line["eps"]) for line in lines[:3]] == [0.0, 8 / 255, 1.0]
    last = lines[2]
    assert (last["n"], last["correct"], float(last["accuracy"])) == ("4", "1", 1 / 4)
    assert float(last["ci_low"]) < 1 / 4 < float(last["ci_high"])


def test_csv_quotes_a_name_with_commas() -> None:
    (line,) = csv.DictReader(to_csv(make_document("evaluate", [record(name='a,"b".pt')], {})).splitlines())
    assert line["checkpoint"] == 'a,"b".pt'


@pytest.mark.parametrize("style", ["table", "csv", "markdown", "latex"])
@pytest.mark.parametrize("odd", [3, [None], [{}], [[]]], ids=str)
def test_rows_that_are_none_are_an_error_before_anything_is_printed(style: str, odd: Any) -> None:
    """A store's documents come here unread."""
    out = io.StringIO()
    with pytest.raises(DataError):
        print_document(documents()["attack"] | {"rows": odd}, style, Console(file=out))
    assert out.getvalue() == ""


def test_what_json_does_not_have_is_an_error_too() -> None:
    with pytest.raises(DataError):
        printed(documents()["attack"] | {"provenance": {"loss": math.nan}}, "json")
