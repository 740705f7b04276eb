"""The verdict as text."""

from __future__ import annotations

import pytest

from robustcli.report.verdict import told, verdict_text
from robustcli.verdict.findings import Finding, Verdict

SUSPECT = Verdict(
    "a.pt",
    "SUSPECT",
    "R6: one",
    (
        Finding("R11", "WARN", "restarts help"),
        Finding("R6", "SUSPECT", "at Linf 0.1 one"),
        Finding("R6", "SUSPECT", "at Linf 0.3 two"),
        Finding("R18", "INFO", "n = 100"),
    ),
    ("R2", "R17"),
)
CLEAN = Verdict("b.pt", "RELIABLE", "for this threat model: nothing speaks against it", (), ())


def test_findings_at_warn_or_above_are_a_line_each_the_worst_first() -> None:
    assert told(SUSPECT.findings) == [
        "SUSPECT R6 many steps beat one: at Linf 0.1 one",
        "WARN R11 restarts: restarts help",
    ]


def test_the_word_the_reason_and_what_was_not_run_are_told() -> None:
    lines = verdict_text([SUSPECT], "table").splitlines()
    assert lines[0] == "Verdict: SUSPECT"
    assert lines[3:] == [
        "  Not run: R2 re-evaluation, R17 binarisation test.",
        "",
        "An upper bound; an adaptive attack may lower it.",
    ]


def test_a_reason_is_told_once() -> None:
    weak = Finding("R23", "WARN", "only fgsm ran")
    verdict = Verdict(
        "a.pt", "PRELIMINARY", weak.message, (weak, Finding("R11", "WARN", "restarts help")), ("R2",), True
    )
    assert verdict_text([verdict], "table").splitlines()[:3] == [
        "Verdict: PRELIMINARY: only fgsm ran",
        "  WARN R11 restarts: restarts help",
        "  The checks were cut short. Not run: R2 re-evaluation.",
    ]


def test_several_checkpoints_are_named() -> None:
    text = verdict_text([SUSPECT, CLEAN], "table")
    assert "Verdict on a.pt: SUSPECT\n" in text
    assert "Verdict on b.pt: RELIABLE: for this threat model: nothing speaks against it\n  Every check ran." in text


@pytest.mark.parametrize("style", ["table", "markdown", "latex"])
def test_every_format_ends_with_what_is_true_of_every_number(style: str) -> None:
    assert verdict_text([CLEAN], style).endswith("An upper bound; an adaptive attack may lower it.")


def test_latex_has_comments_and_markdown_a_list() -> None:
    assert all(line.startswith("%") or not line for line in verdict_text([SUSPECT], "latex").splitlines())
    assert "- WARN R11 restarts: restarts help" in verdict_text([SUSPECT], "markdown")


def test_lines_are_no_wider_than_asked() -> None:
    assert max(map(len, verdict_text([SUSPECT], "table", 40).splitlines()[:-1])) <= 40
