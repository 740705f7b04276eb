"""What fails is named, what cannot be written is refused, and what was finished is never lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustcli.errors import TrainingError
from robustcli.studies.batchout import PARTS
from robustcli.studies.batchout.part_results import read
from robustcli.training import loop

from ..conftest import Call
from .conftest import CIFAR, FIRST, QUICK, ROWS, SECOND, parts_in


def diverging(*calls: int) -> Callable[..., Any]:
    """A training step that fails at these of its calls."""
    step, seen = loop._train_step, [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        seen[0] += 1
        if seen[0] in calls:
            raise TrainingError("the loss became NaN")
        return step(*args, **kwargs)

    return failing


def test_a_network_that_fails_is_named_and_the_others_go_on(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", diverging(1))
    ended = call("reproduce", "stopgrad", "--quick")
    assert ended.code == 3
    assert "some networks failed; they are named above" in ended.error
    assert f"{FIRST}: the loss became NaN" in ended.err
    results = read(here / QUICK / "stopgrad.json")
    assert [entry["name"] for entry in results.networks] == [SECOND]
    assert [(entry["name"], entry["reason"]) for entry in results.missing] == [(FIRST, "the loss became NaN")]
    said = f"Missing: {FIRST}, 0 of 2 epochs trained; the loss became NaN."
    assert said in (here / QUICK / "report.md").read_text()
    assert said in (here / QUICK / "stopgrad.md").read_text()


def test_where_all_networks_fail_the_other_parts_are_still_made(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", diverging(*range(1, 100)))
    ended = call("reproduce", "all", "--quick")
    assert ended.code == 3, ended.err
    assert parts_in(finished) == set(PARTS) - set(CIFAR)
    assert [entry["label"] for entry in read(finished / "fig4b.json").networks] == ["all"], "found"
    assert len(read(finished / "stopgrad.json").networks) == 2, "which were trained before"
    page = (finished / "report.md").read_text()
    assert "### stopgrad:" in page
    assert "0 of 2 epochs trained; the loss became NaN." in page


def test_a_quick_look_does_not_take_the_place_of_the_study(call: Call, finished: Path, done: list[str]) -> None:
    path = finished / "stopgrad.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quick": False}))
    before = path.read_bytes()
    ended = call("reproduce", "stopgrad", "--quick")
    assert (ended.code, ended.out, done) == (2, "", [])
    assert f"--out {QUICK}: holds the whole study; give a quick look another folder" in ended.error
    assert path.read_bytes() == before
    assert call("reproduce", "stopgrad", "--quick", "--out", "another").code == 0


def test_what_an_earlier_version_measured_is_told_and_left(call: Call, finished: Path, done: list[str]) -> None:
    (finished / "measured").mkdir()
    ended = call("reproduce", "stopgrad", "--quick")
    assert (ended.code, done) == (0, [])
    assert f"{QUICK}/measured: is of an earlier version, and not read" in ended.err
    (finished / "store.db").unlink()
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == [*ROWS, *ROWS]


def test_a_damaged_result_of_another_part_is_named(call: Call, finished: Path) -> None:
    (finished / "mnist.json").write_text("{")
    ended = call("reproduce", "fig1", "--quick")
    assert ended.code == 2
    assert f"--out {QUICK}/mnist.json: is not a part's results" in ended.error
    assert (finished / "fig1.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "file"], "--out file: "),
        (["--out", "file/below"], "--out file/below: Not a directory"),
        (["--out", "o", "--report", "nowhere/page.md"], "--report nowhere/page.md: its folder nowhere does not exist"),
        (["--out", "o", "--report", "o"], "--report o: is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_trained(
    call: Call, here: Path, done: list[str], flags: list[str], said: str
) -> None:
    (here / "file").write_text("mine")
    ended = call("reproduce", "all", "--quick", *flags)
    assert (ended.code, ended.out, done) == (2, "", [])
    assert said in ended.error
    assert (here / "file").read_text() == "mine"


def test_the_page_may_lie_in_a_folder_that_the_command_makes(call: Call, here: Path) -> None:
    assert call("reproduce", "fig1", "--quick", "--out", "new", "--report", "new/page.md").code == 0
    assert (here / "new" / "page.md").exists()
