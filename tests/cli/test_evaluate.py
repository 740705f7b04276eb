from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.models import checkpoint

from .conftest import Call, write_checkpoint

ROW = {
    *("checkpoint", "checkpoint_sha256", "dataset", "split", "model", "method", "attack", "norm", "kind", "bound"),
    *("label", "budget", "eps", "n", "clean_correct", "correct", "accuracy", "ci95", "correct_8bit"),
    *("median_distance", "seconds", "forwards", "backwards", "cached"),
    *("ids", "robust", "y", "pred", "pred_after", "distance"),
}
MINIMAL = {"by_iter", "unconverged"}
BOTH = ("--attack", "fgsm:eps=0.1", "--attack", "deepfool:iters=2", "--limit", "24")


@pytest.fixture
def document(call: Call, models: Path) -> dict[str, Any]:
    ended = call("evaluate", models / "vanilla.pt", *BOTH, "--format", "json")
    assert ended.code == 0
    return ended.document


# --- JSON


def test_json_has_the_keys_of_schema_1(document: dict[str, Any]) -> None:
    assert document.keys() == {"schema", "command", "rows", "pairs", "verdict", "training", "notes", "provenance"}
    assert (document["schema"], document["command"], document["pairs"]) == (1, "evaluate", [])
    assert [row.keys() for row in document["rows"]] == [ROW, ROW | MINIMAL]


def test_json_rows_agree_with_themselves(document: dict[str, Any]) -> None:
    for row in document["rows"]:
        assert row["correct"] == sum(row["robust"])
        assert row["accuracy"] == row["correct"] / row["n"]
        assert {len(row[key]) for key in ("ids", "robust", "y", "pred", "pred_after", "distance")} == {row["n"]} == {24}
        right = [before == y for before, y in zip(row["pred"], row["y"], strict=True)]
        assert sum(right) == row["clean_correct"]
        after = [now == y for now, y in zip(row["pred_after"], row["y"], strict=True)]
        assert [int(b and a) for b, a in zip(right, after, strict=True)] == row["robust"]
        assert [far is None for far in row["distance"]] == [flag == 1 for flag in row["robust"]]
    assert [row["ids"] for row in document["rows"]] == [list(range(24))] * 2


def test_json_says_what_was_measured(document: dict[str, Any], models: Path) -> None:
    budget, minimal = document["rows"]
    assert budget["attack"] == {"name": "fgsm", "norm": "linf"}
    assert (budget["kind"], budget["bound"], budget["label"]) == ("budget", "upper", "fgsm")
    assert (budget["norm"], budget["budget"], budget["eps"], budget["median_distance"]) == ("linf", "0.1", 0.1, None)
    assert (minimal["kind"], minimal["norm"], minimal["budget"], minimal["eps"]) == ("minimal", "l2", None, None)
    assert (minimal["label"], minimal["attack"]["iters"]) == ("deepfool:iters=2", 2)
    assert budget["checkpoint_sha256"] == checkpoint.sha256(models / "vanilla.pt")
    assert (budget["dataset"], budget["model"], budget["method"]) == ("bars", "mnist-cnn", "vanilla")


def test_json_says_where_the_numbers_come_from(document: dict[str, Any]) -> None:
    origin = document["provenance"]
    assert {"versions", "commit", "command", "seed", "device", "data_fingerprint", "spec"} <= origin.keys()
    assert origin["spec"]["attacks"] == ["fgsm:eps=0.1", "deepfool:iters=2"]
    assert (origin["spec"]["limit"], origin["seed"]) == (24, 0)


def test_json_says_which_attacks_ran_where_none_was_given(call: Call, models: Path) -> None:
    document = call("evaluate", models / "vanilla.pt", "--limit", 4, "--format", "json").document
    rows = [(row["attack"]["name"], row["budget"]) for row in document["rows"]]
    assert rows == [("fgsm", "0.1"), ("fgsm", "0.3"), ("pgd", "0.1"), ("pgd", "0.3"), ("deepfool", None)]
    spec = document["provenance"]["spec"]
    (planned,) = spec["runs"]
    assert (spec["attacks"], spec["eps"], spec["device"]) == ([], [], "cpu")
    assert (planned["checkpoint"], planned["dataset"], planned["n"]) == (str(models / "vanilla.pt"), "bars", 4)
    fgsm, pgd, deepfool = planned["attacks"]
    assert (fgsm["name"], fgsm["eps"], fgsm["norm"]) == ("fgsm", ["0.1", "0.3"], "linf")
    assert (pgd["name"], pgd["eps"], pgd["steps"]) == ("pgd", ["0.1", "0.3"], 20)
    assert deepfool == {"name": "deepfool", "iters": 5, "overshoot": 0.02, "box": "project", "norm": "l2"}


@pytest.mark.parametrize("style", ["table", "json", "csv", "markdown", "latex"])
def test_notices_and_warnings_stay_off_stdout(call: Call, models: Path, style: str) -> None:
    ended = call("evaluate", "--attack", "pgd:norm=l2,eps=0.001,steps=1", "--limit", 8, "--format", style)
    assert ended.code == 0
    assert "checkpoint: checkpoints/batchout.pt" in ended.err
    assert "warning: pgd: eps=0.001 is an Linf-sized budget for L2" in ended.err
    if style == "json":  # where they are kept for `report`
        assert [kind for kind, _ in ended.document["notes"]] == ["notice", "warning"]
    else:
        assert not re.search("warning|checkpoint: ", ended.out)


# --- Which checkpoints, attacks and samples


def test_the_newest_complete_checkpoint_is_taken_and_named(call: Call, models: Path) -> None:
    os.utime(models / "vanilla.pt", ns=(2**62, 2**62))
    write_checkpoint(models / "unfinished.pt", complete=False)
    os.utime(models / "unfinished.pt", ns=(2**62 + 10**9, 2**62 + 10**9))
    (models / "noise.pt").write_text("not a checkpoint")
    ended = call("evaluate", *BOTH)
    assert ended.code == 0
    assert ended.err.splitlines()[0] == "checkpoint: checkpoints/vanilla.pt"


def test_short_flags_fill_in_what_a_spec_leaves_out(call: Call, models: Path) -> None:
    flags = ("--attack", "pgd:steps=2", "--attack", "pgd", "--steps", 3, "--eps", "0.1", "--limit", 4)
    rows = call("evaluate", *flags, "--format", "json").document["rows"]
    assert [row["attack"]["steps"] for row in rows] == [2, 3]


def test_a_checkpoint_given_twice_is_measured_once(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", models / "vanilla.pt", *BOTH, "--format", "json")
    assert len(ended.document["rows"]) == 2


@pytest.fixture
def broken(models: Path) -> Path:
    """A checkpoint of the same run whose weights are NaN."""
    saved = checkpoint.load(models / "vanilla.pt")
    weights = {key: value.fill_(float("nan")) for key, value in saved.state_dict.items()}
    checkpoint.save(models / "nan.pt", replace(saved, state_dict=weights))
    return models / "nan.pt"


@pytest.mark.parametrize("style", ["table", "json", "csv", "markdown", "latex"])
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_model_that_fails_costs_no_row_of_the_one_before(
    call: Call, models: Path, broken: Path, command: str, style: str
) -> None:
    ended = call(command, models / "vanilla.pt", broken, *BOTH, "--format", style, "--json", "r.json")
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert ended.code == 3
    assert ended.error == f"error: {broken}: the model returned NaN or infinite logits for 24 of 24 images"
    assert [(row["checkpoint"], row["attack"]["name"]) for row in rows] == [
        (str(models / "vanilla.pt"), "fgsm"),
        (str(models / "vanilla.pt"), "deepfool"),
    ]
    assert [name in ended.out for name in ("fgsm", "deepfool")] == [True, True]
    if style == "json":
        assert ended.document["rows"] == rows


@pytest.mark.parametrize("style", ["table", "json"])
def test_a_model_that_fails_at_once_leaves_no_table(call: Call, broken: Path, style: str) -> None:
    ended = call("evaluate", broken, *BOTH, "--format", style)
    assert ended.code == 3
    assert "NaN" in ended.error
    assert (ended.document["rows"] if style == "json" else ended.out.split()) == []


# --- Rounded to 8 bits


def test_eight_bit_tells_the_accuracy_after_rounding(call: Call, models: Path) -> None:
    asked = ("evaluate", models / "vanilla.pt", *BOTH, "--format", "json")
    plain, rounded = (json.loads(call(*asked, *more).out)["rows"] for more in ((), ("--eight-bit",)))
    assert [row["correct_8bit"] for row in plain] == [None, None]
    assert [row["robust"] for row in plain] == [row["robust"] for row in rounded]
    budget, minimal = rounded
    assert budget["correct"] <= budget["correct_8bit"] <= budget["clean_correct"]
    assert minimal["correct_8bit"] is None


@pytest.mark.parametrize("flags", [("--attack", "deepfool"), ("--curve", "--attack", "fgsm")])
def test_eight_bit_without_a_budget_is_a_mistake(call: Call, models: Path, flags: tuple[str, ...]) -> None:
    ended = call("evaluate", models / "vanilla.pt", *flags, "--eight-bit")
    assert ended.code == 2
    assert "--eight-bit: is of attacks with a budget" in ended.error


def test_batch_size_auto_takes_what_memory_holds_and_says_so(call: Call, models: Path) -> None:
    found = [call("evaluate", models / "vanilla.pt", *BOTH, *size, "--format", "json") for size in ((), AUTO)]
    assert [ended.code for ended in found] == [0, 0]
    plain, auto = (ended.document["rows"] for ended in found)
    assert [row["robust"] for row in auto] == [row["robust"] for row in plain]
    assert re.search(r"--batch-size auto: \d+ samples a chunk", found[1].err)
    assert "batch-size" not in found[0].err


AUTO = ("--batch-size", "auto", "--no-store")
