"""Ensembles, presets and randomised models from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .conftest import Call

SMALL = ("--attack", "autoattack:rounds=2,queries=5", "--limit", "16")
NAMES = ["apgd", "apgd-t", "fab-t", "square", "autoattack"]


def test_each_member_is_a_row_and_the_worst_case_is_the_last(call: Call, models: Path) -> None:
    ended = call("evaluate", *SMALL, "--eps", "0.1,0.3", "--format", "json")
    assert ended.code == 0, ended.err
    rows = ended.document["rows"]
    assert [row["attack"]["name"] for row in rows] == NAMES * 2
    assert [row.get("ensemble") for row in rows] == (["autoattack"] * 4 + [None]) * 2
    assert [row["eps"] for row in rows] == [0.1] * 5 + [0.3] * 5
    for part in (rows[:5], rows[5:]):
        assert [row["correct"] for row in part] == sorted((row["correct"] for row in part), reverse=True)
        assert part[-1]["robust"] == part[-2]["robust"]
    assert [row["kind"] for row in rows] == (["budget"] * 4 + ["ensemble"]) * 2
    assert rows[4]["attack"] == {"name": "autoattack", "version": "standard", "rounds": 2, "queries": 5, "norm": "linf"}


def test_the_table_names_members_behind_their_ensemble_and_says_what_they_meet(call: Call, models: Path) -> None:
    shown = call("evaluate", *SMALL, "--eps", "0.1").out
    names = re.findall(r"^\s*(autoattack\S*) ", shown, re.MULTILINE)
    assert [name.partition(":")[0] for name in names] == [f"autoattack/{name}" for name in NAMES[:-1]] + [NAMES[-1]]
    assert "A member of an ensemble meets what those before it left standing" in " ".join(shown.split())


def test_compare_has_one_column_for_an_ensemble_and_pairs_of_the_worst_case(call: Call, models: Path) -> None:
    shown = call("compare", *SMALL, "--eps", "0.1", "--format", "markdown").out
    header = next(line for line in shown.splitlines() if line.startswith("|"))
    assert header.count("Linf 0.1") == 1
    found = call("compare", *SMALL, "--eps", "0.1", "--format", "json").document
    assert [pair["attack"]["name"] for pair in found["pairs"]] == ["autoattack"]
    assert len(found["rows"]) == 10


def test_the_images_of_an_ensemble_are_those_of_the_worst_case(call: Call, models: Path) -> None:
    ended = call("attack", *SMALL, "--eps", "0.3", "--save", "adv.npz", "--format", "json")
    assert ended.code == 0, ended.err
    worst = ended.document["rows"][-1]
    with np.load("adv.npz") as saved:
        assert (saved["pred_after"] == saved["y"]).sum() == worst["correct"]
    ended = call("attack", *SMALL, "--eps", "0.1,0.3", "--save", "two.npz")
    assert (ended.code, "takes the images of one budget, not of 2" in ended.err) == (2, True)


def test_a_preset_runs_its_attacks(call: Call, models: Path) -> None:
    rows = call("evaluate", "--preset", "paper", "--limit", 4, "--format", "json").document["rows"]
    assert [row["attack"]["name"] for row in rows] == ["fgsm"] * 7 + ["deepfool"]


def test_eot_and_dtype_are_in_the_provenance(call: Call, models: Path) -> None:
    given = ("--attack", "pgd:steps=2", "--eps", "0.1", "--eot", 2, "--dtype", "bfloat16")
    ended = call("evaluate", *given, "--limit", 4, "--format", "json")
    assert ended.code == 0, ended.err
    found = ended.document
    assert found["rows"][0]["attack"]["eot"] == 2
    spec = found["provenance"]["spec"]
    assert (spec["eot"], spec["dtype"]) == (2, "bfloat16")
