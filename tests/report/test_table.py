from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable

from robustcli.report.table import Table, interval, percent, to_rich, to_text


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


HARD = Table("50% of a_b & c", ("a_b %", "c & d", "f"), (("x_y", "1 # 2", "$5"), ("{z}|w", "~", "^")), ("50% note_1",))


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


WIDE = Table(
    "t", ("name", *(f"pgd:x\n{i}" for i in range(20))), tuple((n, *["60.0\n[1, 2]"] * 20) for n in "ab"), ("n",)
)


def test_line_breaks_of_a_cell_do_not_break_text_tables() -> None:
    markdown = [line for line in to_text(WIDE, "markdown").splitlines() if line.startswith("|")]
    assert len(markdown) == 4
    assert len([line for line in to_text(WIDE, "latex").splitlines() if line.endswith(r"\\")]) == 3


def test_numbers_in_text_tables_stay_as_they_were_written() -> None:
    table = Table("t", ("a", "b"), (("x", "60.0"), ("y", "1e5")))
    assert "60.0 |" in to_text(table, "markdown")
    assert "1e5 |" in to_text(table, "markdown")


def shown_at(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(to_rich(table, width))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [120, 30])
def test_a_terminal_shows_markup_as_text(width: int) -> None:
    table = Table("[red]t", ("[/a]", "b", "c", "d"), (("[bold]x", "[0.1, 0.2]", "[/]", "[/b]"),), ("[/] note",))
    shown = shown_at(table, width)
    assert all(text in shown for text in ("[red]t", "[/a]", "[bold]x", "[0.1, 0.2]", "[/]", "[/b]", "[/] note"))


def columns(table: Table, width: int) -> list[str]:
    shown = to_rich(table, width).renderables[1]
    shown = shown.renderable if isinstance(shown, Padding) else shown
    assert isinstance(shown, RichTable)
    return [str(column.header) for column in shown.columns]


def test_a_table_that_is_too_wide_has_its_rows_as_columns() -> None:
    assert columns(WIDE, 400)[:2] == ["name", "pgd\nx\n0"]
    assert columns(WIDE, 80) == ["name", "a", "b"]
    assert max(map(len, shown_at(WIDE, 80).splitlines())) <= 80
    assert shown_at(WIDE, 80).count("60.0") == shown_at(WIDE, 400).count("60.0") == 40


def test_a_table_with_more_rows_than_columns_is_never_turned() -> None:
    long = Table("t", ("a name", "a number"), tuple(("x" * 30, str(i)) for i in range(9)))
    assert columns(long, 20) == ["a name", "a number"]


def test_transposing_twice_gives_the_same_cells() -> None:
    turned = WIDE.transpose()
    assert (turned.headers, turned.cells[0]) == (("name", "a", "b"), ("pgd:x\n0", "60.0\n[1, 2]", "60.0\n[1, 2]"))
    assert turned.transpose() == WIDE
