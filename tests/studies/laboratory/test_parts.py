"""A part of the study: its files, and its end before time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.data.named import SAMPLE
from robustcli.models import checkpoint
from robustcli.models.checkpoint import Checkpoint
from robustcli.studies.batchout.design import Probe
from robustcli.studies.batchout.results import read
from robustcli.studies.batchout.run import run_part
from robustcli.studies.batchout.studies import parts
from robustcli.training.loop import Run
from robustcli.training.train import Prepared, train

from ..conftest import TINY
from .conftest import (
    FIRST,
    PART,
    ROWS,
    SECOND,
    bench_in,
    never,
    stop_after_an_epoch,
)


def test_a_part_has_its_four_files(finished: Path) -> None:
    files = {path.name for path in finished.iterdir() if path.is_file()}
    assert files == {f"stopgrad.{kind}" for kind in ("json", "md", "png", "svg")}
    results = read(finished / "stopgrad.json")
    assert (results.quick, list(results.missing), len(results.rows)) == (True, [], 2 * ROWS)
    table = (finished / "stopgrad.md").read_text()
    assert all(label in table for label in results.labels)


def test_an_entry_on_a_network_says_how_it_was_made(finished: Path) -> None:
    entry = read(finished / "stopgrad.json").networks[0]
    saved = checkpoint.load(finished / "models" / f"{FIRST.name}.pt")
    assert (entry["name"], entry["label"], entry["spec"]) == (FIRST.name, FIRST.label, FIRST.spec.as_dict())
    assert (entry["dataset"], entry["network"], entry["epochs"], entry["seed"]) == (SAMPLE, "mnist-cnn", 2, 0)
    assert entry["n_train"] == saved.data["n_train"] == 30
    assert entry["losses"] == [round(epoch["loss"], 6) for epoch in saved.history]
    assert entry["sha256"] == checkpoint.sha256(finished / "models" / f"{FIRST.name}.pt")
    assert {"commit", "hardware", "threads", "seconds_an_epoch"} <= entry.keys()


def test_a_second_run_gives_the_same_files_and_does_nothing(finished: Path) -> None:
    kinds = ("md", "png", "svg")
    before = [(finished / f"stopgrad.{kind}").read_bytes() for kind in kinds]
    results = run_part(PART, bench_in(finished, train=never, measure=never))
    assert [(finished / f"stopgrad.{kind}").read_bytes() for kind in kinds] == before
    found = read(finished / "stopgrad.json")
    assert (found.rows, found.networks) == (results.rows, results.networks)


def test_a_part_stopped_in_its_second_network_has_the_first_and_names_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustcli.studies.batchout.run.save_figure", lambda *_: None)
    calls: list[str] = []

    def second_stops(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
        calls.append(path.stem)
        return (train if len(calls) == 1 else stop_after_an_epoch)(prepared, path, run)

    with pytest.raises(KeyboardInterrupt):
        run_part(PART, bench_in(tmp_path, train=second_stops))
    results = read(tmp_path / "stopgrad.json")
    assert [entry["name"] for entry in results.networks] == [FIRST.name]
    assert {row["model"] for row in results.rows} == {FIRST.name}
    assert results.missing == [{"name": SECOND.name, "label": SECOND.label, "epochs_done": 1, "epochs": 2}]
    assert f"Missing: {SECOND.name}, 1 of 2 epochs trained." in (tmp_path / "stopgrad.md").read_text()

    bench = bench_in(tmp_path)
    assert not run_part(PART, bench).missing
    assert bench.did[0] == f"train {SECOND.name}"
    assert len(bench.did) == 1 + ROWS


def test_a_part_stopped_before_its_first_network_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_part(PART, bench_in(tmp_path / "out", train=stop_after_an_epoch))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["models"]


@pytest.mark.parametrize("quick", [True, False])
def test_the_toy_example_needs_no_network(tmp_path: Path, quick: bool) -> None:
    scale = replace(TINY, quick=quick)
    results = run_part(parts(scale)["fig1"], bench_in(tmp_path, scale=scale, train=never, measure=never))
    assert (results.toy["points"], results.quick) == (300, quick)
    assert {path.name for path in tmp_path.iterdir()} == {f"fig1.{kind}" for kind in ("json", "md", "png", "svg")}


def test_losses_are_a_part_too_and_a_colour_budget_stays_as_it_was_written(colours: Path, tmp_path: Path) -> None:
    part = parts(TINY)["fig4a"]
    results = run_part(part, bench_in(tmp_path, data_dir=colours, measure=never))
    assert results.rows == []
    assert [len(entry["losses"]) for entry in results.networks] == [2, 2]
    assert {entry["spec"]["dtype"] for entry in results.networks} == {"bfloat16"}
    bench = bench_in(tmp_path, data_dir=colours, train=never)
    (row,) = bench.rows(part.networks[0], [Probe("fgsm", ("8/255",))])
    assert (row["attack"]["eps"], row["eps"], row["n"]) == ("8/255", 8 / 255, 16)
