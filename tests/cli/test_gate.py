"""`--fail-under` and `--junit`."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from robustcli.measure.anytime import _Slices

from .conftest import Call

FGSM = ("--attack", "fgsm:eps=0.01", "--limit", "24")


def test_a_bar_that_is_met_changes_nothing(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", *FGSM, "--fail-under", 0)
    assert (ended.code, "error" in ended.err) == (0, False)


def test_a_bar_that_is_not_met_is_exit_4_and_says_by_which_row(call: Call, models: Path) -> None:
    gate = ("--fail-under", "99.5%", "--junit", "r.xml", "--format", "json")
    ended = call("evaluate", models / "vanilla.pt", *FGSM, *gate)
    assert ended.code == 4
    assert len(ended.document["rows"]) == 1
    assert "vanilla.pt: fgsm Linf 0.01: " in ended.error
    assert ended.error.endswith("the interval begins below --fail-under 99.5 %")
    assert ElementTree.parse("r.xml").getroot().get("failures") == "1"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0.45", "is in per cent; did you mean 45, or 0.45%?"),
        ("101", "should be an accuracy in per cent, 0 to 100"),
        ("-1", "should be an accuracy in per cent, 0 to 100"),
        ("half", "should be an accuracy in per cent, 0 to 100"),
        ("nan", "should be an accuracy in per cent, 0 to 100"),
    ],
)
def test_a_bar_that_makes_no_sense_is_told_before_anything_is_measured(
    call: Call, models: Path, value: str, told: str
) -> None:
    ended = call("evaluate", models / "vanilla.pt", *FGSM, f"--fail-under={value}")
    assert (ended.code, ended.out) == (2, "")
    assert f"--fail-under {value}: {told}" in ended.error


def test_an_attack_that_the_budget_left_no_time_meets_no_bar(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Slices, "_over", lambda _: True)
    bar = ("--budget", "1s", "--fail-under", 0, "--checks", "off", "--junit", "report.xml")
    ended = call("evaluate", models / "vanilla.pt", *FGSM, *bar)
    assert (ended.code, ended.out) == (4, "")
    assert ended.error.endswith("vanilla.pt: fgsm Linf 0.01: was not run, so nothing shows --fail-under 0 %")
    assert ElementTree.parse("report.xml").getroot().get("failures") == "1"


def test_rows_without_a_budget_are_not_judged_and_it_is_said(call: Call, models: Path) -> None:
    both = ("--attack", "fgsm:eps=0.001", "--attack", "deepfool:iters=30", "--limit", "24", "--checks", "off")
    ended = call("evaluate", models / "vanilla.pt", *both, "--fail-under", 20, "--junit", "r.xml")
    assert (ended.code, "error" in ended.err) == (0, False)
    assert "--fail-under judges rows with a budget, so not those of deepfool:iters=30" in ended.err
    skipped = [
        case.get("name") for case in ElementTree.parse("r.xml").iter("testcase") if case.find("skipped") is not None
    ]
    assert skipped == ["deepfool:iters=30 L2"]


def test_a_bar_with_nothing_to_judge_is_refused(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", "--attack", "deepfool", "--fail-under", 20)
    assert (ended.code, ended.out) == (2, "")
    assert "--fail-under: judges rows with a budget; none of the attacks here has one" in ended.error
