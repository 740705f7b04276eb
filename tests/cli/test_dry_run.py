"""`--dry-run` opens what a run opens, says what it would take, and measures and keeps nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Call

FEW = ("--limit", "24", "--eps", "0.05")
PLANS = ["fgsm", "pgd:steps=3", "pgd:steps=3,early_stop=False", "square:queries=9", "autoattack:rounds=2,queries=4"]


def test_what_a_run_counts_lies_within_what_was_said(call: Call, models: Path) -> None:
    attacks = [word for spec in PLANS for word in ("--attack", spec)]
    said = call("evaluate", models / "vanilla.pt", *attacks, *FEW, "--dry-run", "--format", "json")
    assert (said.code, said.err) == (0, "")
    assert not Path("results").exists()
    run = call("evaluate", models / "vanilla.pt", *attacks, *FEW, "--no-store", "--checks", "off", "--format", "json")
    plan, rows = said.document["plan"], run.document["rows"]
    assert [row["label"] for row in plan] == ["clean", *PLANS]
    shared = plan[0]["forwards"]
    for planned in plan[1:]:
        name = planned["label"]
        own = [
            row for row in rows if name == row["label"] or (row.get("ensemble") and name.startswith(row["ensemble"]))
        ]
        assert own
        assert sum(row["forwards"] for row in own) <= planned["forwards"] + shared
        assert sum(row["backwards"] for row in own) <= planned["backwards"]
    for key in ("forwards", "backwards"):
        assert sum(row[key] for row in rows) <= sum(row[key] for row in plan)


@pytest.mark.parametrize("command", ["evaluate", "compare", "attack"])
@pytest.mark.parametrize("style", ["table", "markdown", "latex", "json"])
def test_every_command_says_what_would_run(call: Call, models: Path, here: Path, command: str, style: str) -> None:
    names = [models / "vanilla.pt", *([models / "batchout.pt"] if command == "compare" else [])]
    outputs = ["--json", "out.json"] + (["--save", "out.npz"] if command == "attack" else [])
    before = sorted(here.rglob("*"))
    ended = call(command, *names, "--attack", "pgd:steps=7", *FEW, "--dry-run", "--format", style, *outputs)
    assert ended.code == 0, ended.err
    assert sorted(here.rglob("*")) == before
    for word in ("pgd", "24", "7"):
        assert word in ended.out
    if style == "json":
        document = json.loads(ended.out)
        assert document["dry_run"] is True
        assert {row["checkpoint"] for row in document["plan"]} == set(map(str, names))
    else:
        assert "Nothing was measured" in ended.out
        assert "Not counted" in ended.out
        assert "Verdict" not in ended.out


def test_all_parameters_are_shown_in_80_columns(call: Call, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.cli.console.PIPE_WIDTH", 80)
    attacks = [
        word for name in ("fgsm", "pgd", "deepfool", "fmn", "autoattack", "square") for word in ("--attack", name)
    ]
    out = call("evaluate", models / "vanilla.pt", *attacks, *FEW, "--dry-run").out
    assert max(map(len, out.splitlines())) <= 80
    for word in (
        "steps=20",
        "restarts=1",
        "early_stop=true",
        "norm=linf",
        "overshoot=0.02",
        "queries=5000",
        "exact",
        "at most",
    ):
        assert word in out


def test_a_mistake_is_found_as_in_a_run(call: Call, models: Path) -> None:
    assert call("evaluate", models / "vanilla.pt", "--attack", "fgms", "--dry-run").code == 2
    assert call("evaluate", models / "none.pt", "--attack", "fgsm", "--dry-run").code == 3


def test_it_answers_though_the_store_has_the_answer_and_tells_what_is_known(call: Call, models: Path) -> None:
    arguments = ("evaluate", models / "vanilla.pt", "--attack", "fgsm", *FEW, "--checks", "off")
    assert call(*arguments).code == 0
    store = Path("results/robustcli.db").read_bytes()
    document = call(*arguments, "--dry-run", "--format", "json").document
    assert [row["known"] for row in document["plan"]] == [24, 24]
    assert Path("results/robustcli.db").read_bytes() == store
    assert call(*arguments).code == 0


@pytest.mark.parametrize("flags", [("--save", "x.npz"), ("--gallery", "x.png"), ("--eight-bit",)])
def test_where_images_are_needed_the_store_saves_nothing(call: Call, models: Path, flags: tuple[str, ...]) -> None:
    arguments = ("attack", models / "vanilla.pt", "--attack", "fgsm", *FEW, "--checks", "off")
    assert call(*arguments).code == 0
    plan = call(*arguments, *flags, "--dry-run", "--format", "json").document["plan"]
    assert [row["known"] for row in plan] == [0, 0]
    assert plan[-1]["backwards"] == 24


def test_where_all_images_are_kept_what_lacks_one_is_measured_anew(call: Call, models: Path) -> None:
    arguments = ("attack", models / "vanilla.pt", "--attack", "fgsm:eps=0.3", "--limit", 40, "--checks", "off")
    assert call(*arguments).code == 0
    arguments += ("--keep-adversarials", "--format", "json")
    said = call(*arguments, "--dry-run").document["plan"][-1]
    run = call(*arguments).document["rows"][0]
    assert (said["known"], said["backwards"]) == (run["cached"], 40 - run["cached"])
    assert 0 < run["cached"] < 40


def test_an_empty_shard_has_no_plan(call: Call, models: Path) -> None:
    for more in (("--dry-run",), ("--checks", "off")):
        ended = call("evaluate", models / "vanilla.pt", "--attack", "fgsm", "--limit", 3, "--shard", "5/10", *more)
        assert "Traceback" not in ended.err


def test_a_plan_has_no_csv(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", "--attack", "fgsm", "--dry-run", "--format", "csv")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_warnings_of_the_run_are_told(call: Call, models: Path) -> None:
    ended = call(
        "evaluate", models / "vanilla.pt", "--attack", "fgsm:norm=l2", "--eps", "0.05", "--limit", 4, "--dry-run"
    )
    assert "Linf-sized budget" in ended.err
