from __future__ import annotations

import csv
from pathlib import Path

import pytest

from .conftest import Call

FAST = ("--limit", "12", "--attack", "fmn:iters=5", "--attack", "fgsm", "--curve")


def test_the_table_has_budgets_classes_and_what_was_run(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", *FAST, "--eps", "0.1,0.3,8/255")
    assert ended.code == 0, ended.err
    assert "accuracy within Linf eps" in ended.out
    assert "closest of fmn:iters=5 and bisect:fgsm." in ended.out
    lines = [line.split() for line in ended.out.splitlines() if line.strip()]
    assert [line[0] for line in lines if line[0] in ("8/255", "0.1", "0.3")] == ["8/255", "0.1", "0.3"]
    assert [line[0] for line in lines if line[0] in ("all", "0", "1", "2")][-4:] == ["all", "0", "1", "2"]


def test_json_has_the_curve_and_the_distances_of_each_row(call: Call, models: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", *FAST, "--format", "json")
    document = ended.document
    (curve,) = document["curves"]
    rows = document["rows"]
    assert document["schema"] == 1
    assert [row["attack"]["name"] for row in rows] == ["fmn", "bisect"]
    assert rows[1]["attack"]["attack"]["name"] == "fgsm"
    far = [[float("inf") if d is None else d for d in row["distance"]] for row in rows]
    closest = [None if min(pair) == float("inf") else min(pair) for pair in zip(*far, strict=True)]
    assert curve["distances"] == closest
    assert (curve["points"][0]["budget"], curve["points"][0]["eps"]) == ("0", 0)
    assert curve["points"][0]["correct"] == rows[0]["clean_correct"]
    assert sum(part["n"] for part in curve["by_class"]) == curve["n"] == 12


def test_a_norm_has_a_curve_of_its_own(call: Call, models: Path) -> None:
    flags = ("--limit", "6", "--curve", "--attack", "fmn:iters=3", "--attack", "deepfool:iters=3", "--format", "json")
    found = call("evaluate", *sorted(models.glob("*.pt")), *flags).document["curves"]
    assert [(Path(one["checkpoint"]).stem, one["norm"]) for one in found] == [
        (name, norm) for name in ("batchout", "vanilla") for norm in ("linf", "l2")
    ]
    assert all(len(one["distances"]) == one["n"] == 6 for one in found)


def test_a_plot_means_a_curve_and_replaces_the_one_before(call: Call, models: Path, here: Path) -> None:
    (here / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nolder")
    flags = ("--limit", "6", "--attack", "fmn:iters=3", "--curve-plot", "c.png", "--format", "csv")
    ended = call("evaluate", *sorted(models.glob("*.pt")), *flags)
    assert ended.code == 0, ended.err
    assert "curves: c.png" in ended.err
    assert (here / "c.png").read_bytes()[:4] == b"\x89PNG"
    assert (here / "c.png").stat().st_size > 1000
    assert {Path(line["checkpoint"]).stem for line in csv.DictReader(ended.out.splitlines())} == {"batchout", "vanilla"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--curve", "--attack", "deepfool:box=none"), "leaves the pixels' range"),
        (("--curve", "--attack", "pgd:eps=0"), "eps=0: should be above 0"),
        (("--curve-plot", "nowhere/c.png"), "--curve-plot nowhere/c.png: its folder nowhere does not exist"),
        (("--curve", "--fail-under", "50"), "--fail-under: judges rows with a budget; --curve has none"),
        (("--curve", "--junit", "j.xml"), "--junit: judges rows with a budget; --curve has none"),
    ],
)
def test_a_mistake_is_one_line(call: Call, models: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = call("evaluate", models / "vanilla.pt", *arguments)
    assert ended.code == 2
    assert message in ended.error
