"""`--fail-under` and `--junit`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from robustcli.measure.anytime import _Slices
from robustcli.text import github

from .conftest import Call
from .test_nasty_names import NASTY, assert_harmless

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


@pytest.mark.parametrize(
    ("text", "message", "value"),
    [
        ("a: b, c", "a: b, c", "a%3A b%2C c"),
        ("100 %", "100 %25", "100 %25"),
        ("%0A%2C", "%250A%252C", "%250A%252C"),
        ("x\r\n::stop::y", r"x\r\n::stop::y", r"x\r\n%3A%3Astop%3A%3Ay"),
    ],
)
def test_nothing_ends_the_line_or_the_property_of_a_workflow_command(text: str, message: str, value: str) -> None:
    assert (github(text), github(text, value=True)) == (message, value)


@pytest.mark.parametrize("action", ["true", "", "false"])
def test_on_github_each_row_below_the_bar_is_an_annotation_on_stderr(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", action)
    shutil.copy(models / "vanilla.pt", path := models / f"a,b:{NASTY}.pt")
    both = ("--attack", "fgsm:eps=0.01", "--attack", "pgd:eps=0.02,steps=2", "--limit", "6", "--checks", "off")
    ended = call("evaluate", path, *both, "--fail-under", "99", "--format", "json")
    assert (ended.code, len(json.loads(ended.out)["rows"])) == (4, 2)
    assert_harmless(ended.err)
    lines = [line for line in ended.err.splitlines() if "::error" in line]
    assert len(lines) == (2 if action == "true" else 0)
    for line, attack in zip(lines, ("fgsm Linf 0.01", "pgd%3Asteps=2 Linf 0.02"), strict=False):
        properties, message = line.removeprefix("::error title=").split("::", 1)
        assert properties.endswith(f".pt%3A {attack}")
        assert not set(properties) & set(":,")
        assert message.endswith("the interval begins below --fail-under 99 %25")


def test_on_github_an_attack_that_was_not_run_is_an_annotation(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr(_Slices, "_over", lambda _: True)
    ended = call("evaluate", models / "vanilla.pt", *FGSM, "--budget", "1s", "--fail-under", 0, "--checks", "off")
    assert ended.code == 4
    (line,) = [line for line in ended.err.splitlines() if line.startswith("::")]
    assert "/vanilla.pt%3A fgsm Linf 0.01::" in line
    assert line.endswith("/vanilla.pt: fgsm Linf 0.01: was not run, so nothing shows --fail-under 0 %25")
