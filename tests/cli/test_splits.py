"""What was measured is told: the split, and which of two checkpoints or data sets of one name."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from robustcli.models import checkpoint

from .conftest import Call, write_images

FGSM = ("--attack", "fgsm:eps=0.1", "--limit", "6", "--checks", "off")
TRAIN = (*FGSM, "--split", "train")


@pytest.mark.parametrize("command", ["attack", "evaluate", "compare"])
def test_every_title_names_a_split_that_is_not_held_out(call: Call, models: Path, command: str) -> None:
    held_out, seen = (call(command, *flags).out for flags in (FGSM, TRAIN))
    assert ("on bars (train split), n = 6" in seen, "split" in held_out) == (True, False)


def test_every_export_has_a_column_for_the_split(call: Call, models: Path) -> None:
    for flags, split in ((FGSM, "test"), (TRAIN, "train")):
        (line,) = csv.DictReader(call("evaluate", *flags, "--format", "csv").out.splitlines())
        (row,) = call("evaluate", *flags, "--format", "json").document["rows"]
        assert (line["split"], row["split"], row["dataset"]) == (split, split, "bars")
    curve = ("--curve", "--attack", "fmn:iters=2", "--limit", "6", "--split", "train", "--checks", "off")
    assert {line["split"] for line in csv.DictReader(call("evaluate", *curve, "--format", "csv").out.splitlines())} == {
        "train"
    }
    assert "on bars (train split)" in call("evaluate", *curve).out
    assert call("evaluate", *curve, "--format", "json").document["curves"][0]["split"] == "train"


def test_a_gate_names_the_split(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", *TRAIN, "--fail-under", 100, "--junit", "r.xml")
    assert "fgsm Linf 0.1 on bars (train split): " in ended.error
    (text,) = [case.findtext("system-out") for case in ElementTree.parse("r.xml").iter("testcase")]
    assert (text or "").startswith("bars (train split): ")


def test_the_store_names_the_split(call: Call, models: Path) -> None:
    for flags in (FGSM, TRAIN):
        assert call("evaluate", models / "vanilla.pt", *flags).code == 0
    listed = call("results", "list").out
    assert (listed.count("bars (train"), listed.count("bars")) == (2, 4)
    rows = call("results", "list", "--format", "json").document["rows"]
    assert [row["split"] for row in rows] == ["test", "test", "train", "train"]
    assert "bars (train split)" in call("results", "show", 3).out
    assert call("results", "show", 3, "--format", "json").document["split"] == "train"
    assert call("results", "export", "all.csv").code == 0
    assert [line["split"] for line in csv.DictReader(Path("all.csv").read_text().splitlines())].count("train") == 12


def test_two_checkpoints_of_one_name_are_told_apart(call: Call, models: Path) -> None:
    for folder, name in (("a", "vanilla"), ("b", "batchout")):
        Path(folder).mkdir()
        shutil.copy(models / f"{name}.pt", Path(folder, "m.pt"))
    shown = call("compare", "a/m.pt", "b/m.pt", *FGSM, "--transfer").out
    assert all(name in shown for name in ("a/m - b/m", "a/m", "b/m"))


def test_two_checkpoints_of_one_path_are_told_apart_in_the_store(call: Call, models: Path) -> None:
    for name in ("vanilla", "batchout"):
        shutil.copy(models / f"{name}.pt", "m.pt")
        assert call("evaluate", "m.pt", *FGSM).code == 0
        assert ("m.pt " + checkpoint.sha256(Path("m.pt"))[:8] in call("results", "list").out) == (name == "batchout")


def test_two_data_sets_of_one_name_are_told_apart(call: Call, here: Path) -> None:
    for folder, n in (("a", 60), ("b", 66)):
        Path(folder).mkdir()
        write_images(Path(folder, "bars.npz"), n_test=n)
        trained = ("--dataset", f"{folder}/bars.npz", "--epochs", 1, "--limit", 48)
        assert call("train", *trained, "--output", f"{folder}.pt").code == 0
    ended = call("evaluate", "a.pt", "b.pt", "--attack", "fgsm:eps=0.1", "--checks", "off")
    assert ("on a/bars, n = 60" in ended.out, "on b/bars, n = 66" in ended.out) == (True, True)
    ended = call("compare", "a.pt", "b.pt", "--attack", "fgsm:eps=0.1")
    assert (ended.code, "a/bars and b/bars" in ended.error) == (3, True)
    assert "on bars, n = 4" in call("evaluate", "a.pt", "--attack", "fgsm:eps=0.1", "--limit", 4).out
