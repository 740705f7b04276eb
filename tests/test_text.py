"""Text from files is harmless in each format."""

from __future__ import annotations

import csv
import io
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcli.text import csv_cells, latex, markdown, short_paths, visible

anything = st.text(st.characters(), max_size=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mnist-fgsm.pt", "mnist-fgsm.pt"),
        ("caf\u00e9 \u4e2d\u6587", "caf\u00e9 \u4e2d\u6587"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\nVerdict: RELIABLE\r\t", r"a\nVerdict: RELIABLE\r\t"),
        ("\x0b\x0c\x7f\x85\x9b", r"\x0b\x0c\x7f\x85\x9b"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u202e\u2066\u200f\u200b\ufeff", r"\u202e\u2066\u200f\u200b\ufeff"),
        ("\udcff\ud800", r"\xff\ud800"),
        ("\ufffe\U000e0041\u3164", r"\ufffe\U000e0041\u3164"),
    ],
)
def test_what_acts_or_hides_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(anything)
def test_visible_text_is_one_line_that_utf_8_and_xml_can_hold(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    element = ElementTree.Element("a", name=shown)
    assert ElementTree.fromstring(ElementTree.tostring(element, encoding="utf-8")).get("name") == shown


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[45.8, 47.8]", "[45.8, 47.8]"),
        ("p < 0.001", "p < 0.001"),
        ("a/*.pt and mnist_cnn", "a/*.pt and mnist_cnn"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("`rm`", r"\`rm\`"),
        ("$x$", r"\$x\$"),
        ("![a](http://b)", r"![a\](http:\//b)"),
        ("[a][b]", r"[a\][b]"),
        ("x\n[a]: b", r"x\\n[a]: b"),
        ("[a]: b", r"\[a]: b"),
        ("# Verdict", r"\# Verdict"),
        ("> a", r"\> a"),
        ("- a", r"\- a"),
        ("-0.5", "-0.5"),
        ("---", r"\---"),
        ("1. a", r"1\. a"),
        ("    code", "code"),
    ],
)
def test_markdown_has_nothing_live(text: str, written: str) -> None:
    assert markdown(text).strip() == written


def test_latex_has_nothing_live() -> None:
    assert latex("a\n\\input{x}") == r"a\textbackslash{}n\textbackslash{}input\{x\}"
    assert latex("50% & $1 #2 a_b ^~ <>") == (
        r"50\% \& \$1 \#2 a\_b \^{}\textasciitilde{} \ensuremath{<}\ensuremath{>}"
    )


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+a", "'+a"),
        ("-a", "'-a"),
        ("@a", "'@a"),
        ("  =1", "  '=1"),
        ("\t=1", r"\t=1"),
        ("a;=1", "a;'=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("a=1", "a=1"),
        (-0.5, -0.5),
        (None, None),
    ],
)
def test_a_cell_is_no_formula_and_a_number_stays_one(value: object, cell: object) -> None:
    assert csv_cells([value]) == [cell]


@given(st.lists(anything, min_size=1))
def test_a_row_of_cells_is_one_line(values: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(csv_cells(values))
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["c/m.pt"], ["m"]),
        (["a/m.pt", "b/m.pt"], ["a/m", "b/m"]),
        (["r/a/m.pt", "r/b/m.pt", "r/n.pt"], ["a/m", "b/m", "n"]),
        (["a/x/m.pt", "b/x/m.pt"], ["a/x/m", "b/x/m"]),
        (["m.pt", "m.pth"], ["m.pt", "m.pth"]),
        (["m.pt", "a/m.pt"], ["m.pt", "a/m"]),
        (["/a/m.pt", "a/m.pt"], ["/a/m", "a/m.pt"]),
        (["zoo:a", "zoo:b"], ["zoo:a", "zoo:b"]),
    ],
)
def test_paths_are_told_apart_by_their_shortest_ends(paths: list[str], names: list[str]) -> None:
    assert list(short_paths(paths).values()) == names
