"""The verdict as text."""

from __future__ import annotations

from typing import Any

import pytest

from robustcli.report.verdict import finding_lines, not_run_line, verdict_text


def finding(name: str, level: str, message: str, title: str = "restarts", budget: str | None = None) -> dict[str, Any]:
    """A finding as the document holds it."""
    return {"id": name, "title": title, "level": level, "message": message, "budget": budget}


def verdict(word: str, reason: str, *findings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A verdict as the document holds it."""
    values = {"checkpoint": "a.pt", "word": word, "reason": reason, "findings": list(findings), "not_run": []}
    return values | {"full_runs": [], "interrupted": False} | changes


def text(*verdicts: dict[str, Any], style: str = "table", checks: str = "quick", width: int = 120) -> str:
    note = "an upper bound; an adaptive attack may lower it"
    return verdict_text({"checkpoints": list(verdicts), "checks": checks, "note": note}, style, width)


SUSPECT = verdict(
    "SUSPECT",
    "R6: one",
    finding("R11", "WARN", "restarts help"),
    finding("R6", "SUSPECT", "at Linf 0.1 one", "many steps beat one"),
    finding("R6", "SUSPECT", "at Linf 0.3 two", "many steps beat one"),
    finding("R18", "INFO", "n = 100", "sample size"),
    finding("R24", "OK", "agrees", "stronger ensemble"),
    not_run=["R2", "R17", "R19"],
    full_runs=["R2", "R17"],
)
CLEAN = verdict("RELIABLE", "for this threat model: nothing speaks against it", checkpoint="b.pt")


def test_findings_at_warn_or_above_are_a_line_each_the_worst_first() -> None:
    assert finding_lines(SUSPECT) == [
        "SUSPECT R6 many steps beat one: at Linf 0.1 one",
        "WARN R11 restarts: restarts help",
    ]


def test_the_number_to_quote_is_told_of_each_budget() -> None:
    each = [finding("R24", "WARN", f"quote {n} %", "stronger ensemble", f"Linf 0.{n}") for n in (1, 3)]
    assert finding_lines(verdict("PRELIMINARY", "else", *each)) == [
        "WARN R24 stronger ensemble: quote 1 %",
        "WARN R24 stronger ensemble: quote 3 %",
    ]


def test_the_verdict_is_short() -> None:
    assert text(SUSPECT).splitlines() == [
        "Verdict: SUSPECT",
        "  SUSPECT R6 many steps beat one: at Linf 0.1 one",
        "  WARN R11 restarts: restarts help",
        "  3 checks were not run: --checks full can run 2 of them.",
        "",
        "An upper bound; an adaptive attack may lower it.",
    ]


@pytest.mark.parametrize(
    ("changes", "checks", "line"),
    [
        ({"not_run": []}, "quick", ""),
        ({"full_runs": ["R2", "R17", "R19"]}, "quick", "3 checks were not run: --checks full can run them."),
        ({"not_run": ["R2"], "full_runs": ["R2"]}, "quick", "1 check was not run: --checks full can run it."),
        ({"full_runs": []}, "quick", "3 checks were not run: there was nothing for them to judge."),
        ({}, "full", "3 checks were not run: there was nothing for them to judge."),
        ({"interrupted": True}, "full", "The checks were cut short: 3 were not run."),
    ],
)
def test_how_many_checks_were_not_run_is_one_line(changes: dict[str, Any], checks: str, line: str) -> None:
    assert not_run_line(SUSPECT | changes, checks) == line


def test_a_reason_is_told_once() -> None:
    weak = finding("R23", "WARN", "only fgsm ran")
    found = verdict("PRELIMINARY", "only fgsm ran", weak, finding("R11", "WARN", "restarts help"))
    assert text(found).splitlines()[:2] == [
        "Verdict: PRELIMINARY: only fgsm ran",
        "  WARN R11 restarts: restarts help",
    ]


def test_several_checkpoints_are_named() -> None:
    both = text(SUSPECT, CLEAN)
    assert "Verdict on a.pt: SUSPECT\n" in both
    assert "Verdict on b.pt: RELIABLE: for this threat model: nothing speaks against it\n\nAn upper bound" in both


@pytest.mark.parametrize("style", ["table", "markdown", "latex"])
def test_every_format_ends_with_what_is_true_of_every_number(style: str) -> None:
    assert text(CLEAN, style=style).endswith("An upper bound; an adaptive attack may lower it.")


def test_latex_has_comments_and_markdown_a_list() -> None:
    assert all(line.startswith("%") or not line for line in text(SUSPECT, style="latex").splitlines())
    assert "- WARN R11 restarts: restarts help" in text(SUSPECT, style="markdown")


def test_lines_are_no_wider_than_asked() -> None:
    assert max(map(len, text(SUSPECT, width=40).splitlines()[:-1])) <= 40
