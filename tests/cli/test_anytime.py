from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Call


def test_a_budget_that_is_ample_measures_all(call: Call, models: Path) -> None:
    ended = call("evaluate", "--attack", "fgsm", "--eps", "0.1", "--budget", "2h", "--format", "json")
    document = ended.document
    assert (ended.code, document["rows"][0]["n"], "left out" in ended.err) == (0, 60, False)
    assert document["anytime"] == {"budget_s": 7200.0, "until_ci": None, "left_out": []}


def test_what_was_left_out_is_told(call: Call, models: Path) -> None:
    arguments = ["evaluate", "--attack", "fgsm", "--eps", "0.1,0.3", "--until-ci", "20", "--batch-size", "8"]
    ended = call(*arguments)
    assert ended.code == 0
    assert "left out: fgsm Linf 0.1 on " in ended.err
    assert "of 60 samples; a later call goes on" in ended.err
    (part, *_) = call(*arguments, "--format", "json").document["anytime"]["left_out"]
    assert (part["attack"], part["budget"], part["of"]) == ("fgsm", "Linf 0.1", 60)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--budget", "60"], "--budget 60: should be a time above 0 with its unit, such as 60s, 5m or 2h"),
        (["--budget", "0s"], "--budget 0s: should be a time above 0"),
        (["--budget", "-5s"], "--budget -5s: should be a time above 0"),
        (["--until-ci", "0"], "--until-ci 0: should be points of accuracy above 0 and below 50, such as 1.0"),
        (["--until-ci", "wide"], "--until-ci wide: should be points of accuracy"),
        (["--until-ci", "1", "--curve"], "--until-ci: cannot be given together with --curve"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(call: Call, models: Path, flags: list[str], words: str) -> None:
    ended = call("evaluate", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.error
