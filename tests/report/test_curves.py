from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.image import imread

from robustcli.attacks.norms import L2, Linf
from robustcli.fields import Eps
from robustcli.measure.curve import Curve, Group
from robustcli.measure.record import Subject
from robustcli.report.curve_plot import save_curves
from robustcli.report.curves import COLUMNS, class_sheet, curve_sheet, curves_csv, sparkline
from robustcli.report.tables import to_rich, to_text

CURVE = Curve(
    subject=Subject("runs/a.pt", "ab12", "mnist-cnn", "batchout"),
    dataset="mnist",
    norm=Linf(),
    attacks=("fmn:iters=100", "bisect:pgd:steps=20"),
    ids=tuple(range(8)),
    labels=(0, 0, 0, 0, 1, 1, 1, 1),
    classes=("cat", "dog"),
    distances=(0.0, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1, math.inf),
)
BUDGETS = [0.0, 0.05, 0.1, 0.2, 0.3]


def test_a_sheet_has_a_budget_a_row() -> None:
    sheet = curve_sheet(CURVE, BUDGETS)
    assert sheet.title == "runs/a.pt: batchout mnist-cnn on mnist, n = 8: accuracy within Linf eps"
    assert [cells[0] for cells in sheet.cells] == ["0", "0.05", "0.1", "0.2", "0.3"]
    assert [cells[1] for cells in sheet.cells] == ["87.5", "87.5", "37.5", "25.0", "12.5"]
    assert [cells[3] for cells in sheet.cells] == ["7", "7", "3", "2", "1"]
    assert sheet.notes[0] == "Half are broken within 0.1; closest of fmn:iters=100 and bisect:pgd:steps=20."


def test_budgets_are_spelt_as_they_were_written() -> None:
    assert [cells[0] for cells in curve_sheet(CURVE, [Eps("8/255"), Eps("0.10")]).cells] == ["8/255", "0.10"]


def test_a_sheet_by_class_has_all_first_and_a_sparkline_each() -> None:
    sheet = class_sheet(CURVE, BUDGETS)
    assert [cells[:4] for cells in sheet.cells] == [
        ("all", "8", "87.5", "0.1"),
        ("cat", "4", "75.0", "0.2"),
        ("dog", "4", "100.0", "0.1"),
    ]
    assert sheet.headers[-1] == "accuracy, eps 0 to 0.3"
    assert {len(cells[4]) for cells in sheet.cells} == {COLUMNS + 2}


def test_a_sparkline_falls_from_full_to_empty() -> None:
    line = sparkline(Group("all", (0.1, 0.2, 0.3, 0.4)), 0.5)
    assert (line[0], line[-1]) == ("\u2588", " ")
    assert list(line) == sorted(line, reverse=True)
    assert sparkline(Group("all", (math.inf,)), 1.0) == "\u2588" * COLUMNS
    assert sparkline(Group("all", (0.0,)), 1.0) == " " * COLUMNS
    assert "\u2581" in sparkline(Group("all", (*[0.1] * 99, 0.2)), 0.3), "one of a hundred is not nothing"


def test_every_format_takes_the_sheets() -> None:
    for sheet in (curve_sheet(CURVE, BUDGETS), class_sheet(CURVE, BUDGETS)):
        assert to_rich(sheet, 100)
        for style in ("markdown", "latex"):
            assert "0.3" in to_text(sheet, style)


def test_csv_has_a_line_a_class_and_budget() -> None:
    lines = list(csv.DictReader(curves_csv([(CURVE, BUDGETS), (replace(CURVE, norm=L2()), [1.0])]).splitlines()))
    assert len(lines) == 3 * 5 + 3
    third = lines[2]
    assert (third["class"], third["eps"], third["n"], third["correct"]) == ("all", "0.1", "8", "3")
    assert float(third["accuracy"]) == 3 / 8
    assert float(third["ci_low"]) < 3 / 8 < float(third["ci_high"])
    assert {line["norm"] for line in lines[15:]} == {"l2"}
    assert [line["class"] for line in lines[15:]] == ["all", "cat", "dog"]


def test_a_picture_has_a_panel_a_norm(tmp_path: Path) -> None:
    save_curves([(CURVE, BUDGETS)], tmp_path / "one.png")
    save_curves([(CURVE, BUDGETS), (replace(CURVE, norm=L2()), [0.0, 1.0])], tmp_path / "two.png")
    one, two = (torch.from_numpy(imread(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[1] == 2 * one.shape[1]
    assert 0.3 < float(one.mean()) < 0.99
