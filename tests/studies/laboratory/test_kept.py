"""What fails is named, and what was finished is never lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.errors import AttackError, ConfigError, TrainingError
from robustcli.measure.evaluate import Session
from robustcli.measure.record import Record
from robustcli.models.checkpoint import Checkpoint
from robustcli.studies.batchout.results import read
from robustcli.studies.batchout.run import run_part
from robustcli.training.loop import Run
from robustcli.training.train import Prepared, train

from ..conftest import TINY
from .conftest import (
    FIRST,
    PART,
    SECOND,
    bench_in,
    measure,
    measured_file,
    never,
    stop_after,
)


@pytest.mark.usefixtures("undrawn")
def test_a_training_that_fails_is_named_and_the_next_network_goes_on(tmp_path: Path) -> None:
    def first_fails(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
        if path.stem == FIRST.name:
            raise TrainingError("the loss became NaN")
        return train(prepared, path, run)

    bench = bench_in(tmp_path, train=first_fails)
    results = run_part(PART, bench)
    assert [entry["name"] for entry in results.networks] == [SECOND.name]
    entry = {"name": FIRST.name, "label": FIRST.label, "epochs_done": 0, "epochs": 2}
    assert results.missing == [entry | {"reason": "the loss became NaN"}]
    assert f"{FIRST.name}: the loss became NaN" in bench.said
    assert read(tmp_path / "stopgrad.json").missing == results.missing


@pytest.mark.usefixtures("undrawn")
def test_an_attack_that_fails_is_named_and_the_next_network_goes_on(finished: Path) -> None:
    shutil.rmtree(finished / "measured")
    calls: list[int] = []

    def first_fails(session: Session) -> Iterator[Record]:
        calls.append(1)
        if len(calls) == 1:
            raise AttackError("logits are NaN")
        return measure(session)

    results = run_part(PART, bench_in(finished, train=never, measure=first_fails))
    assert [entry["name"] for entry in results.networks] == [SECOND.name]
    assert [(entry["epochs_done"], entry["reason"]) for entry in results.missing] == [(2, "logits are NaN")]


def whole(folder: Path) -> bytes:
    """Make the part in `folder` pass for one of the whole study; its bytes."""
    path = folder / "stopgrad.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quick": False}))
    return path.read_bytes()


def test_a_quick_look_does_not_take_the_place_of_the_study(finished: Path) -> None:
    before = whole(finished)
    with pytest.raises(ConfigError, match="holds the whole study; give a quick look another folder"):
        run_part(PART, bench_in(finished, train=never, measure=never))
    assert (finished / "stopgrad.json").read_bytes() == before


def test_fewer_networks_do_not_take_the_place_of_more(finished: Path) -> None:
    before = whole(finished)
    fewer = replace(PART, networks=PART.networks[:1])
    with pytest.raises(ConfigError, match=r"stopgrad\.json has 2 networks, this run asks for 1"):
        run_part(fewer, bench_in(finished, scale=replace(TINY, quick=False), train=never, measure=never))
    assert (finished / "stopgrad.json").read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_the_study_takes_the_place_of_a_quick_look(finished: Path) -> None:
    run_part(PART, bench_in(finished, scale=replace(TINY, quick=False), train=never, measure=never))
    assert not read(finished / "stopgrad.json").quick


def test_an_interrupted_run_leaves_a_file_with_more_networks(finished: Path) -> None:
    before = (finished / "stopgrad.json").read_bytes()
    measured_file(finished, SECOND).unlink()
    with pytest.raises(KeyboardInterrupt):
        run_part(PART, bench_in(finished, measure=stop_after(0)))
    assert (finished / "stopgrad.json").read_bytes() == before


def test_a_run_in_which_a_network_fails_leaves_a_file_with_more_networks(finished: Path) -> None:
    before = (finished / "stopgrad.json").read_bytes()
    measured_file(finished, SECOND).unlink()

    def fails(session: Session) -> Iterator[Record]:
        raise AttackError("the model returned NaN")

    bench = bench_in(finished, measure=fails)
    assert [entry["reason"] for entry in run_part(PART, bench).missing] == ["the model returned NaN"]
    assert (finished / "stopgrad.json").read_bytes() == before
    assert f"{finished / 'stopgrad.json'}: left as it was; this run finished 1 of 2 networks" in bench.said


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_file_is_made_again_and_kept_aside(finished: Path) -> None:
    path = finished / "stopgrad.json"
    before = read(path)
    path.write_text("{")
    bench = bench_in(finished, train=never, measure=never)
    assert run_part(PART, bench).rows == before.rows
    assert read(path).rows == before.rows
    assert path.with_suffix(".json.old").read_text() == "{"
    assert any("is made again, and kept as stopgrad.json.old" in line for line in bench.said)
