"""Tables fit 80 columns: no line is longer, and no number or interval is broken."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from .conftest import Call

FEW = ("--limit", "12", "--checks", "quick", "--store", "s.db")
FIVE = [
    word for spec in ("fgsm", "pgd:steps=2", "deepfool:iters=2", "noise", "apgd:steps=2") for word in ("--attack", spec)
]
FOUR = [
    f"checkpoints/{name}.pt" for name in ("mnist-vanilla-1", "mnist-batchout-1", "mnist-gaussian-2", "mnist-fgsm-17")
]


@pytest.fixture
def narrow(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """At 80 columns, with four checkpoints."""
    monkeypatch.setattr("robustcli.cli.console.PIPE_WIDTH", 80)
    monkeypatch.setattr("robustcli.cli.listing.PIPE_WIDTH", 120)
    for name in FOUR:
        shutil.copy(models / ("batchout.pt" if "batchout" in name else "vanilla.pt"), name)
    return call


def check(out: str, *words: str) -> None:
    lines = out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    rows = [line for line in lines if line.startswith(" ") and "Linf" not in line]
    assert [line for line in rows if re.search(r"\[[+-]?\d+\.[^\]]*$", line)] == [], "an interval is broken"
    assert [word for word in words if word not in out] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", FOUR[0], *FIVE, "--eps", "0.1,8/255", *FEW], ["apgd:steps=2", "Linf", "8/255", "median"]),
        (
            ["evaluate", FOUR[0], "--attack", "autoattack:rounds=2,queries=3,version=fast", "--eps", "0.1", *FEW],
            ["fab-t:"],
        ),
        (["evaluate", FOUR[0], "--curve", "--attack", "fmn:iters=3", *FEW], ["same by class"]),
        (
            [
                "attack",
                FOUR[0],
                "--attack",
                "pgd:steps=3,restarts=2,random_start=false,step_size=0.01",
                "--eps",
                "0.1",
                *FEW,
            ],
            [],
        ),
        (["compare", *FOUR, *FIVE, "--eps", "0.1,8/255", *FEW], ["gaussian", "Told apart", "The pairs of"]),
        (["compare", *FOUR, "--attack", "fgsm", "--eps", "0.1", "--transfer", *FEW], ["Transfer", "made on"]),
        (["evaluate", FOUR[0], *FIVE, "--eps", "0.1", *FEW, "--dry-run"], ["exact"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:60],
)
def test_what_is_measured_fits(narrow: Call, arguments: list[str], words: list[str]) -> None:
    ended = narrow(*arguments)
    assert ended.code == 0, ended.err
    check(ended.out, *words)


def test_what_is_stored_fits(narrow: Call) -> None:
    specs = ["--attack", "autoattack:rounds=2,queries=3", "--attack", "pgd:steps=3,restarts=2", "--eps", "0.1"]
    assert narrow("evaluate", FOUR[0], FOUR[3], *specs, *FEW).code == 0
    check(narrow("results", "list", "--store", "s.db").out, "restarts=2", "apgd-t:", "Linf 0.1")
    check(narrow("results", "show", "2", "--store", "s.db").out, "sha256")


@pytest.mark.parametrize("what", ["models", "attacks", "methods", "datasets", "zoo"])
def test_lists_fit(narrow: Call, what: str) -> None:
    out = narrow("list", what).out
    check(out)
    assert "Moosavi-Dezfooli" in out or what != "attacks"
    assert "binary_search_steps" in out or what != "attacks"


@pytest.mark.parametrize("arguments", [["list"], ["info", "mnist-sample"]])
def test_data_fits(narrow: Call, arguments: list[str]) -> None:
    check(narrow("data", *arguments).out)
