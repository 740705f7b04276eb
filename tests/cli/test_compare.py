from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustcli.models import checkpoint

from .conftest import Call, write_checkpoint, write_images

ATTACKS = ("--attack", "fgsm:eps=0.1", "--attack", "deepfool:iters=2", "--limit", "24")


def tables(markdown: str) -> list[list[list[str]]]:
    """The cells of each table, its header first."""
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    cells = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block] for block in blocks]
    return [[block[0], *block[2:]] for block in cells]


def test_a_checkpoint_is_a_row_and_an_attack_a_column(call: Call, models: Path) -> None:
    table, _ = tables(call("compare", *ATTACKS, "--format", "markdown").out)
    assert table[0] == ["method", "clean", "fgsm Linf 0.1", "deepfool:iters=2 L2", "median L2"]
    assert [row[0] for row in table[1:]] == ["batchout", "vanilla"]


def test_pairs_stand_below_and_in_the_json(call: Call, models: Path) -> None:
    _, table = tables(call("compare", *ATTACKS, "--format", "markdown").out)
    assert [row[:2] for row in table[1:]] == [
        ["batchout - vanilla", "fgsm Linf 0.1"],
        ["batchout - vanilla", "deepfool:iters=2 L2"],
    ]
    found = call("compare", *ATTACKS, "--format", "json").document
    rows = {(row["method"], row["attack"]["name"]): row for row in found["rows"]}
    assert [pair["attack"]["name"] for pair in found["pairs"]] == ["fgsm", "deepfool"]
    for pair in found["pairs"]:
        first, second = (rows[method, pair["attack"]["name"]] for method in ("batchout", "vanilla"))
        assert (pair["a"], pair["b"]) == (first["checkpoint"], second["checkpoint"])
        assert pair["only_a"] - pair["only_b"] == first["correct"] - second["correct"]
        assert first["ids"] == second["ids"] == list(range(24))
        assert pair["both"] + pair["only_a"] + pair["only_b"] + pair["neither"] == pair["n"] == 24


def test_left_out_checkpoints_are_all_that_share_the_newest_ones_data(call: Call, models: Path) -> None:
    write_checkpoint(models / "digits.pt")
    os.utime(models / "digits.pt", ns=(10**18, 10**18))
    shutil.copy(models / "vanilla.pt", models / "again.pt")
    ended = call("compare", *ATTACKS, "--format", "json")
    names = [f"checkpoints/{name}.pt" for name in ("again", "batchout", "vanilla")]
    assert ended.err.splitlines()[:2] == [
        "checkpoint: checkpoints/again.pt",
        "and all that share its data set, 3 in all",
    ]
    assert [row["checkpoint"] for row in ended.document["rows"][::2]] == names


def test_checkpoints_that_ask_for_other_images_are_refused(call: Call, models: Path, here: Path) -> None:
    x = np.zeros((60, 8, 8), dtype=np.uint8)
    other = write_images(here / "dark.npz", x_test=x)
    call("train", "--dataset", other, "--epochs", 1, "--limit", 48, "--output", "dark.pt")
    ended = call("compare", models / "vanilla.pt", "dark.pt", *ATTACKS)
    assert (ended.code, ended.out) == (3, "")
    assert "bars and dark" in ended.error


def test_seeds_of_one_recipe_are_grouped(call: Call, models: Path) -> None:
    for name in ("vanilla", "batchout"):
        saved = checkpoint.load(models / f"{name}.pt")
        checkpoint.save(models / f"{name}-1.pt", replace(saved, spec=saved.spec | {"seed": 1}))
    document = call("compare", *ATTACKS, "--format", "json").document
    assert [len(family["checkpoints"]) for family in document["families"]] == [2, 2]
    assert [pair["kind"] for pair in document["pairs"]].count("seeds") == 2


# --- Transfer


def test_each_model_is_asked_of_the_others_images(call: Call, models: Path) -> None:
    _, _, third = tables(call("compare", *ATTACKS, "--transfer", "--format", "markdown").out)
    assert third[0] == ["made on", "batchout asked", "vanilla asked"]
    assert [row[0] for row in third[1:]] == ["batchout", "vanilla"]
    plain, found = (call("compare", *ATTACKS, *more, "--format", "json").document for more in ((), ("--transfer",)))
    for one, other in zip(plain["rows"], found["rows"], strict=True):
        assert (one["robust"], one["forwards"]) == (other["robust"], other["forwards"])
    rows = {(row["checkpoint"], row["attack"]["name"]): row for row in found["rows"]}
    assert len(found["transfer"]) == 4, "DeepFool has no budget"
    for cell in found["transfer"]:
        assert cell["ids"] == rows[cell["target"], "fgsm"]["ids"]
        if cell["source"] == cell["target"]:
            assert cell["robust"] == rows[cell["target"], "fgsm"]["robust"]
            assert cell["broken_beyond"] == []
    assert "transfer" not in plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("checkpoints/vanilla.pt", *ATTACKS), "--transfer: takes two checkpoints or more"),
        (("--attack", "deepfool"), "--transfer: takes images of attacks with a budget"),
    ],
)
def test_transfer_needs_others_and_a_budget(call: Call, models: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = call("compare", *arguments, "--transfer")
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.error
