"""A part of the study: what its file says, what fails is named, and what was finished is never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.data.named import SAMPLE
from robustcli.errors import AttackError, ConfigError
from robustcli.measure.record import Record
from robustcli.measure.session import Session
from robustcli.models import checkpoint
from robustcli.store.cache import Cache
from robustcli.studies.batchout.experiments import parts
from robustcli.studies.batchout.part_results import read
from robustcli.studies.batchout.reproduction import available_parts, reproduce_part

from .tiny_study import FIRST, PART, SECOND, TINY, measure, never, stop_after, study_in

WHOLE = replace(TINY, quick=False)


def test_an_entry_on_a_network_says_how_it_was_made(finished: Path) -> None:
    entry = read(finished / "stopgrad.json").networks[0]
    saved = checkpoint.load(finished / "models" / f"{FIRST.name}.pt")
    assert (entry["name"], entry["label"], entry["spec"]) == (FIRST.name, FIRST.label, FIRST.spec.as_dict())
    assert (entry["dataset"], entry["network"], entry["epochs"], entry["seed"]) == (SAMPLE, "mnist-cnn", 2, 0)
    assert entry["n_train"] == saved.data["n_train"] == 30
    assert entry["losses"] == [round(epoch["loss"], 6) for epoch in saved.history]
    assert entry["sha256"] == checkpoint.sha256(finished / "models" / f"{FIRST.name}.pt")
    assert {"commit", "hardware", "threads", "seconds_an_epoch"} <= entry.keys()


def test_a_second_run_gives_the_same_rows_and_does_nothing(finished: Path) -> None:
    before = read(finished / "stopgrad.json")
    noted = study_in(finished, train=never)
    results = reproduce_part(PART, noted.study)
    assert (results.rows, results.networks) == (before.rows, before.networks)
    assert (noted.did, noted.said) == ([], [])


@pytest.mark.usefixtures("undrawn")
def test_an_attack_that_fails_is_named_and_the_next_network_goes_on(finished: Path) -> None:
    (finished / "store.db").unlink()
    calls: list[int] = []

    def first_fails(session: Session, cache: Cache) -> Iterator[Record]:
        calls.append(1)
        if len(calls) == 1:
            raise AttackError("logits are NaN")
        return measure(session, cache)

    (finished / "stopgrad.json").unlink()
    results = reproduce_part(PART, study_in(finished, train=never, measure=first_fails).study)
    assert [entry["name"] for entry in results.networks] == [SECOND.name]
    assert [(entry["epochs_done"], entry["reason"]) for entry in results.missing] == [(2, "logits are NaN")]


def write_whole(folder: Path) -> bytes:
    """Make the part in `folder` pass for one of the whole study; its bytes."""
    path = folder / "stopgrad.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quick": False}))
    return path.read_bytes()


def test_fewer_networks_do_not_take_the_place_of_more(finished: Path) -> None:
    before = write_whole(finished)
    fewer = replace(PART, networks=PART.networks[:1])
    with pytest.raises(ConfigError, match=r"stopgrad\.json has 2 networks, this run asks for 1"):
        reproduce_part(fewer, study_in(finished, scale=WHOLE, train=never, measure=never).study)
    assert (finished / "stopgrad.json").read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_the_study_takes_the_place_of_a_quick_look(finished: Path) -> None:
    reproduce_part(PART, study_in(finished, scale=WHOLE, train=never).study)
    assert not read(finished / "stopgrad.json").quick


@pytest.mark.usefixtures("undrawn")
def test_a_whole_study_of_other_weights_is_kept_aside(finished: Path) -> None:
    path = finished / "stopgrad.json"
    content = json.loads(path.read_text())
    content["networks"][0]["sha256"] = "other"
    path.write_text(json.dumps(content))
    noted = study_in(finished, train=never)
    reproduce_part(PART, noted.study)
    assert noted.said == [f"{path}: tells of other weights; it is kept as stopgrad.json.old"]
    assert read(path.with_suffix(".json.old")).networks[0]["sha256"] == "other"


def test_an_interrupted_run_leaves_a_file_with_more_networks(finished: Path) -> None:
    before = (finished / "stopgrad.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        reproduce_part(PART, study_in(finished, measure=stop_after(3)).study)
    assert (finished / "stopgrad.json").read_bytes() == before


def test_a_run_in_which_a_network_fails_leaves_a_file_with_more_networks(finished: Path) -> None:
    before = (finished / "stopgrad.json").read_bytes()

    def fails(session: Session, cache: Cache) -> Iterator[Record]:
        if SECOND.name in session.items[0].target.name:
            raise AttackError("the model returned NaN")
        return measure(session, cache)

    noted = study_in(finished, measure=fails)
    assert [entry["reason"] for entry in reproduce_part(PART, noted.study).missing] == ["the model returned NaN"]
    assert (finished / "stopgrad.json").read_bytes() == before
    assert f"{finished / 'stopgrad.json'}: left as it was; this run finished 1 of 2 networks" in noted.said


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_file_is_made_again_and_kept_aside(finished: Path) -> None:
    path = finished / "stopgrad.json"
    before = read(path)
    path.write_text("{")
    noted = study_in(finished, train=never)
    assert reproduce_part(PART, noted.study).rows == read(path).rows == before.rows
    assert path.with_suffix(".json.old").read_text() == "{"
    assert any("is made again, and kept as stopgrad.json.old" in line for line in noted.said)


def test_a_quick_look_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.data.load.reachable", never)
    for scale in (TINY, replace(TINY, seeds=3)):
        there, problem = available_parts(list(parts(scale).values()), study_in(tmp_path, scale=scale).study)
        assert [part.name for part in there] == ["fig1", "mnist", "fig2", "fig4b", "fig5a", "fig5b", "stopgrad"]
        assert "--dataset cifar10: not in" in str(problem)
