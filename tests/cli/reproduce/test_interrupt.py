"""Ctrl-C, and the next run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustcli.models import checkpoint
from robustcli.studies.batchout import reproduction
from robustcli.studies.batchout.part_results import read
from robustcli.training import loop

from ..conftest import Call
from .conftest import FIRST, QUICK, ROWS, SECOND, parts_in

pytestmark = pytest.mark.usefixtures("default_handlers")


def at_call(count: int, act: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, but `act` comes before its call number `count`."""
    calls: list[int] = []

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            act()
        return original(*args, **kwargs)

    return called


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_training_keeps_what_is_finished_and_the_next_run_goes_on(
    call: Call, here: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._train_step
    monkeypatch.setattr(loop, "_train_step", at_call(3, ctrl_c, step))  # the second network's first of two steps
    ended = call("reproduce", "stopgrad", "--quick")
    assert ended.code == 130
    assert "interrupted: what was finished is kept; the same command goes on" in ended.err
    assert "Traceback" not in ended.err
    results = read(here / QUICK / "stopgrad.json")
    assert [entry["name"] for entry in results.networks] == [FIRST]
    assert [entry["name"] for entry in results.missing] == [SECOND]
    assert f"Missing: {SECOND}, 1 of 2 epochs trained." in (here / QUICK / "report.md").read_text()

    monkeypatch.setattr(loop, "_train_step", step)
    done.clear()
    ended = call("reproduce", "stopgrad", "--quick")
    assert ended.code == 0
    assert done == [SECOND, *ROWS]
    assert f"{SECOND}: going on after epoch 1 of 2" in ended.err
    assert list(read(here / QUICK / "stopgrad.json").missing) == []
    assert "Missing" not in (here / QUICK / "report.md").read_text()


def test_ctrl_c_in_a_measurement_keeps_the_rows_and_the_next_run_goes_on(
    call: Call, finished: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustcli.measure import evaluate

    (finished / "store.db").unlink()
    attack = evaluate.stream_attack
    monkeypatch.setattr(evaluate, "stream_attack", at_call(4, ctrl_c, attack))  # the second network's PGD
    assert call("reproduce", "stopgrad", "--quick").code == 130
    assert len(read(finished / "stopgrad.json").networks) == 2, "a whole part gave way to half of one"

    monkeypatch.setattr(evaluate, "stream_attack", attack)
    done.clear()
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == ["pgd 0.1"]


def test_ctrl_c_before_anything_is_finished_leaves_no_part(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", at_call(1, ctrl_c, loop._train_step))
    ended = call("reproduce", "stopgrad", "--quick")
    assert (ended.code, ended.out) == (130, "")
    assert parts_in(here / QUICK) == set()
    assert not checkpoint.peek(here / QUICK / "models" / f"{FIRST}.pt").complete


@pytest.mark.usefixtures("few")
def test_ctrl_c_in_all_keeps_the_parts_before(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "save_figure", at_call(3, ctrl_c, lambda results, folder: None))
    ended = call("reproduce", "all", "--quick")
    assert ended.code == 130
    assert {"fig1", "mnist"} <= parts_in(here / QUICK) <= {"fig1", "mnist", "fig2"}
    assert (here / QUICK / "report.md").exists()
