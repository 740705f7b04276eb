"""What is damaged, changed or cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustcli.models import checkpoint
from robustcli.studies.batchout import studies

from ..conftest import Call
from .conftest import FIRST, QUICK, ROWS, SECOND


def test_a_checkpoint_of_another_recipe_is_replaced(
    call: Call, finished: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(studies.RECIPES["mnist"], "lr", 0.01)
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == [FIRST, *ROWS, SECOND, *ROWS]
    assert {checkpoint.peek(path).spec["lr"] for path in finished.glob("models/*.pt")} == {0.01}
    kept = {path.name.removesuffix(".pt.old") for path in finished.glob("models/*.old")}
    assert kept == {FIRST, SECOND}, "hours of training are kept"


def test_damaged_measurements_are_made_again(call: Call, finished: Path, done: list[str]) -> None:
    path = finished / "measured" / f"{SECOND}.json"
    path.write_bytes(path.read_bytes()[:200])
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == ROWS
    assert len(json.loads(path.read_text())["rows"]) == len(ROWS)


def test_a_damaged_result_of_another_part_is_named(call: Call, finished: Path) -> None:
    (finished / "mnist.json").write_text("{")
    ended = call("reproduce", "fig1", "--quick")
    assert ended.code == 2
    assert f"--out {QUICK}/mnist.json: is not a part's results" in ended.error
    assert (finished / "fig1.json").exists()


@pytest.mark.parametrize("part", ["fig1", "stopgrad", "all"])
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
    call: Call, here: Path, done: list[str], part: str, flags: list[str], said: str
) -> None:
    (here / "file").write_text("mine")
    ended = call("reproduce", part, "--quick", *flags)
    assert (ended.code, ended.out, done) == (2, "", [])
    assert said in ended.error
    assert (here / "file").read_text() == "mine"


def test_the_page_may_lie_in_a_folder_that_the_command_makes(call: Call, here: Path) -> None:
    assert call("reproduce", "fig1", "--quick", "--out", "new", "--report", "new/page.md").code == 0
    assert (here / "new" / "page.md").exists()
