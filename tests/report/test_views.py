from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from robustcli.attacks import FGSM, PGD, DeepFool
from robustcli.attacks.base import Attack
from robustcli.attacks.norms import L2
from robustcli.fields import Eps
from robustcli.measure.record import Row, Subject
from robustcli.report.tables import (
    Sheet,
    compare_sheet,
    evaluation_sheet,
    interval,
    percent,
    to_csv,
    to_rich,
    to_text,
    transposed,
)


def row(attack: Attack, correct: int = 30, n: int = 50, name: str = "a.pt", **changes: object) -> Row:
    minimal = isinstance(attack, DeepFool)
    made = Row(
        subject=Subject(name, "ab12", "mnist-cnn", "vanilla"),
        dataset="mnist",
        attack=attack,
        ids=tuple(range(n)),
        robust=(1,) * correct + (0,) * (n - correct),
        clean_correct=n - 1,
        median_distance=1.234 if minimal else None,
        by_iter=(45, correct) if minimal else (),
        seconds=2.04,
        forwards=100,
        backwards=50,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


ATTACKS: list[Attack] = [FGSM(eps=Eps("8/255")), PGD(eps=1.5, steps=50, norm=L2()), DeepFool(iters=2, box="none")]


@pytest.mark.parametrize(
    ("correct", "n", "shown"),
    [
        (30, 50, "60.0"),
        (0, 7, "0.0"),
        (7, 7, "100.0"),
        (2, 3, "66.7"),
        (4676, 10_000, "46.76"),
        (9_999, 10_000, "99.99"),
        (1_999, 2_000, "99.95"),
        (1, 3_000, "0.03"),
        (59_999, 60_000, "99.998"),
        (1, 60_000, "0.002"),
        (60_000, 60_000, "100.00"),
        (0, 3_000, "0.0"),
        (0, 0, "-"),
    ],
)
def test_a_percentage_has_as_many_digits_as_n_supports(correct: int, n: int, shown: str) -> None:
    assert percent(correct, n) == shown


@given(st.integers(1, 200_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_percentage_is_0_or_100_only_where_that_is_true(counts: tuple[int, int]) -> None:
    correct, n = counts
    shown = float(percent(correct, n))
    assert (shown == 0, shown == 100) == (correct == 0, correct == n)
    assert shown == pytest.approx(100 * correct / n, abs=0.0501)


@pytest.mark.parametrize(("correct", "shown"), [(0, "[0.0, 27.8]"), (5, "[23.7, 76.3]"), (10, "[72.2, 100.0]")])
def test_an_interval_is_in_per_cent(correct: int, shown: str) -> None:
    assert interval(correct, 10) == shown


# --- Sheets


def test_a_sheet_has_the_clean_row_first_and_then_an_attack_a_row() -> None:
    sheet = evaluation_sheet([row(attack) for attack in ATTACKS])
    assert sheet.headers == ("attack", "budget", "acc. %", "95 % CI", "right", "median", "sec")
    assert [cells[:2] for cells in sheet.cells] == [
        ("clean", "-"),
        ("fgsm", "Linf 8/255"),
        ("pgd:steps=50", "L2 1.5"),
        ("deepfool:iters=2,box=none", "L2"),
    ]
    assert sheet.cells[0][2:] == ("98.0", "[89.5, 99.6]", "49", "-", "-")
    assert sheet.cells[1][2:] == ("60.0", "[46.2, 72.4]", "30", "-", "2.0")
    assert sheet.cells[3][5] == "1.23"


@pytest.mark.parametrize(("distance", "shown"), [(None, "inf"), (0.0, "0"), (0.000123, "0.000123")])
def test_a_median_that_was_not_reached_says_so(distance: float | None, shown: str) -> None:
    sheet = evaluation_sheet([row(DeepFool(iters=2), median_distance=distance)])
    assert sheet.cells[1][5] == shown


@pytest.mark.parametrize(("correct", "state"), [(0, "all converged"), (30, "30 of 50 not converged")])
def test_a_minimal_norm_attack_says_whether_it_converged(correct: int, state: str) -> None:
    note = evaluation_sheet([row(DeepFool(iters=2), correct=correct)]).notes[0]
    assert note.startswith("deepfool:iters=2")
    assert f"after each iteration 90.0 {percent(correct, 50)}; {state}." in note


@pytest.mark.parametrize(
    ("by_iter", "told"),
    [
        ((45, 20, 0, 0, 0), "90.0 40.0 0.0 0.0 0.0; all"),
        ((45, 20) + 9 * (0,), "90.0 40.0 0.0 (the same in the 8 after); all"),
        (tuple(range(12, -1, -1)), "24.0 22.0 20.0 18.0 16.0 14.0 12.0 10.0 8.0 6.0 4.0 2.0 0.0; all"),
    ],
)
def test_of_many_iterations_the_last_that_change_nothing_are_not_told(by_iter: tuple[int, ...], told: str) -> None:
    note = evaluation_sheet([row(DeepFool(iters=len(by_iter)), correct=0, by_iter=by_iter)]).notes[0]
    assert f"after each iteration {told}" in note


def test_every_sheet_says_that_its_numbers_are_upper_bounds() -> None:
    rows = [row(attack) for attack in ATTACKS]
    assert all("upper bound" in sheet.notes[-1] for sheet in (evaluation_sheet(rows), compare_sheet([rows, rows])))


@pytest.mark.parametrize(("correct_8bit", "told"), [(None, False), (30, False), (31, False), (32, True)])
def test_rounding_is_told_where_it_saves_more_than_a_point(correct_8bit: int | None, told: bool) -> None:
    made = row(FGSM(eps=Eps("8/255")), correct=30, n=100, correct_8bit=correct_8bit)
    lines = [note for note in evaluation_sheet([made]).notes if "8 bits" in note]
    words = "fgsm Linf 8/255: accuracy % with its images rounded to 8 bits 32.0, before 30.0."
    assert lines == ([words] if told else [])


def groups(*names: str) -> list[list[Row]]:
    return [[row(attack, name=name) for attack in ATTACKS] for name in names]


def test_a_comparison_has_a_row_a_checkpoint_and_a_column_a_budget() -> None:
    sheet = compare_sheet(groups("a.pt", "b.pt"))
    assert (sheet.headers[:2], sheet.left) == (("checkpoint", "method"), 2)
    assert sheet.headers[2:4] == ("clean", "fgsm\nLinf 8/255")
    assert sheet.headers[-1] == "median\nL2"
    assert {len(cells) for cells in sheet.cells} == {len(sheet.headers)}
    assert sheet.cells[0][2:4] == ("98.0\n[89.5, 99.6]", "60.0\n[46.2, 72.4]")


@pytest.mark.parametrize(
    ("names", "shared", "shown"),
    [
        (["c/mnist-fgsm-0.pt", "c/mnist-pgd-0.pt"], "c/mnist-*-0.pt", ["fgsm", "pgd"]),
        (["c/fgsm.pt", "c/fgsm-2.pt"], "c/*.pt", ["fgsm", "fgsm-2"]),
        (["a.pt", "b.pt"], "*.pt", ["a", "b"]),
        (["x/a.pt", "y/a.pt"], "*.pt", ["x/a", "y/a"]),
        (["seed1.pt", "seed10.pt"], "*.pt", ["seed1", "seed10"]),
        (["c/a.pt"], "c/a.pt", ["vanilla"]),
    ],
)
def test_checkpoints_are_told_apart_by_what_differs(names: list[str], shared: str, shown: list[str]) -> None:
    sheet = compare_sheet(groups(*names))
    assert sheet.title.startswith(f"{shared} on mnist, n = 50")
    assert [cells[0] for cells in sheet.cells] == shown


def test_a_checkpoint_that_is_named_as_its_method_is_told_by_it_alone() -> None:
    pair = [
        [replace(one, subject=replace(one.subject, method=name)) for one in rows]
        for name, rows in zip(("fgsm", "pgd"), groups("fgsm.pt", "pgd.pt"), strict=True)
    ]
    sheet = compare_sheet(pair)
    assert (sheet.headers[:2], sheet.left) == (("method", "clean"), 1)
    assert [cells[0] for cells in sheet.cells] == ["fgsm", "pgd"]
    assert {len(cells) for cells in sheet.cells} == {len(sheet.headers)}
    assert sheet.notes[0].startswith("fgsm, deepfool")


def test_a_group_cut_short_shows_dashes_for_the_rest() -> None:
    first, second = groups("a.pt", "b.pt")
    sheet = compare_sheet([first, second[:1]])
    assert sheet.cells[1][3:] == ("60.0\n[46.2, 72.4]", "-", "-", "-")
    assert {len(cells) for cells in sheet.cells} == {len(sheet.headers)}


# --- Renderings

HARD = Sheet("50% of a_b & c", ("a_b %", "c & d", "f"), (("x_y", "1 # 2", "$5"), ("{z}|w", "~", "^")), ("50% note_1",))


def test_latex_escapes_what_would_break_it() -> None:
    lines = to_text(HARD, "latex").splitlines()
    code = "\n".join(line for line in lines if not line.startswith("%"))
    assert r"a\_b \%" in code
    assert r"x\_y" in code
    body = code.replace(r"\&", "").replace(r"\\", "\n")
    assert {line.count("&") for line in body.splitlines() if "&" in line} == {2}
    assert not re.search(r"(?<!\\)[_%#$]", code)


def test_latex_titles_and_notes_are_comments_of_one_line() -> None:
    lines = to_text(HARD, "latex").splitlines()
    assert lines[0] == r"% 50\% of a\_b \& c"
    assert lines[-1] == r"% 50\% note\_1"
    assert lines[1].startswith(r"\begin{tabular}")


def test_markdown_keeps_its_columns_when_a_cell_has_a_bar() -> None:
    table = [line for line in to_text(HARD, "markdown").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {4}


def test_line_breaks_of_a_cell_do_not_break_text_tables() -> None:
    sheet = compare_sheet(groups("a.pt", "b.pt"))
    markdown = [line for line in to_text(sheet, "markdown").splitlines() if line.startswith("|")]
    assert len(markdown) == 4
    assert len([line for line in to_text(sheet, "latex").splitlines() if line.endswith(r"\\")]) == 3


def test_numbers_in_text_tables_stay_as_they_were_written() -> None:
    sheet = Sheet("t", ("a", "b"), (("x", "60.0"), ("y", "1e5")))
    assert "60.0 |" in to_text(sheet, "markdown")
    assert "1e5 |" in to_text(sheet, "markdown")


def shown_at(sheet: Sheet, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(to_rich(sheet, width))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [120, 30])
def test_a_terminal_shows_markup_as_text(width: int) -> None:
    sheet = Sheet("[red]t", ("[/a]", "b", "c", "d"), (("[bold]x", "[0.1, 0.2]", "[/]", "[/b]"),), ("[/] note",))
    shown = shown_at(sheet, width)
    assert all(text in shown for text in ("[red]t", "[/a]", "[bold]x", "[0.1, 0.2]", "[/]", "[/b]", "[/] note"))


def columns(sheet: Sheet, width: int) -> list[str]:
    table = to_rich(sheet, width).renderables[1]
    assert isinstance(table, Table)
    return [str(column.header) for column in table.columns]


def test_a_sheet_that_is_too_wide_has_its_rows_as_columns() -> None:
    sheet = compare_sheet([[row(attack, name=name) for attack in ATTACKS * 3] for name in ("x:a.pt", "x:b.pt")])
    wide, narrow = shown_at(sheet, 300), shown_at(sheet, 80)
    assert columns(sheet, 300)[:4] == ["checkpoint", "method", "clean", "fgsm\nLinf 8/255"]
    assert columns(sheet, 80) == ["checkpoint", "x:a", "x:b"]
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.count("60.0") == wide.count("60.0") == 2 * 9 + 2 * 3, "cells and notes"


def test_transposing_twice_gives_the_same_cells() -> None:
    sheet = compare_sheet(groups("a.pt", "b.pt"))
    turned = transposed(sheet)
    assert turned.headers == ("checkpoint", "a", "b")
    assert turned.cells[0] == ("method", "vanilla", "vanilla")
    assert (turned.title, turned.notes) == (sheet.title, sheet.notes)
    again = transposed(turned)
    assert (again.headers, again.cells) == (sheet.headers, sheet.cells)


def test_a_sheet_with_more_rows_than_columns_is_never_turned() -> None:
    sheet = evaluation_sheet([row(FGSM(eps=0.1))] * 9)
    assert columns(sheet, 20) == list(sheet.headers)


def test_csv_has_every_key_of_any_row_and_no_samples() -> None:
    lines = list(csv.DictReader(to_csv([row(attack) for attack in ATTACKS]).splitlines()))
    assert not {"ids", "robust", "ci95"} & lines[0].keys()
    assert [line["by_iter"] for line in lines] == ["", "", "[45, 30]"]
    assert [float(lines[0][key]) for key in ("accuracy", "ci_low", "ci_high")] == pytest.approx(
        [0.6, 0.462, 0.724], abs=1e-3
    )
    assert json.loads(lines[1]["attack"])["steps"] == 50


def test_csv_quotes_a_name_with_commas() -> None:
    (line,) = csv.DictReader(to_csv([row(ATTACKS[0], name='a,"b".pt')]).splitlines())
    assert line["checkpoint"] == 'a,"b".pt'
