"""Networks are trained once and measured once, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from robustcli import checkpoint, zoo
from robustcli.checkpoint import Checkpoint
from robustcli.datasets import SAMPLE
from robustcli.errors import AttackError, CheckpointError, ConfigError, DataError, TrainingError
from robustcli.evaluation.evaluate import Session, evaluate
from robustcli.evaluation.results import Row
from robustcli.reproduction.design import Network, Part, Probe
from robustcli.reproduction.laboratory import Laboratory
from robustcli.reproduction.results import columns, read
from robustcli.reproduction.run import run_part, with_data
from robustcli.reproduction.studies import parts
from robustcli.training.loop import Run
from robustcli.training.train import Observers, Prepared, train

from .conftest import TINY, Json

PROBES = (Probe("fgsm", ("0.1", "0.3")), Probe("pgd:steps=3", ("0.1",), price="costly"))
PART = replace(parts(TINY)["stopgrad"], probes=PROBES)
FIRST, SECOND = PART.networks
Train = Callable[[Prepared, Path, Run], Checkpoint]
Measure = Callable[[Session], Iterator[Row]]
ROWS = 3
"""A network's: FGSM at two budgets and PGD at one."""


def measure(session: Session) -> Iterator[Row]:
    return (result.row for result in evaluate(session))


@dataclass(frozen=True)
class Bench(Laboratory):
    """A laboratory that notes what it does, and what it says."""

    did: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def bench_in(folder: Path, *, train: Train = train, measure: Measure = measure, **changes: Any) -> Bench:
    did: list[str] = []
    said: list[str] = []

    def noted(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
        did.append(f"train {path.stem}")
        return train(prepared, path, run)

    def measured(session: Session) -> Iterator[Row]:
        for row in measure(session):
            did.append(f"measure {row.attack.name} {row.eps:g}")
            yield row

    values: Json = {"scale": TINY, "device": "cpu"} | changes
    return Bench(folder, train=noted, measure=measured, say=said.append, did=did, said=said, **values)


def stop_after_an_epoch(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
    return train(prepared, path, run, Observers(should_stop=lambda: True))


def never(*_: object) -> Any:
    raise AssertionError("should have been found")


def stop_after(count: int) -> Callable[[Session], Iterator[Row]]:
    """Measures so many rows, then Ctrl-C."""
    left = [count]

    def measured(session: Session) -> Iterator[Row]:
        for row in measure(session):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            yield row

    return measured


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the part is finished. To be copied."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    run_part(PART, Laboratory(folder, TINY, device="cpu"))
    return folder


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once, tmp_path / "out")


def measured_file(folder: Path, network: Network = FIRST) -> Path:
    return folder / "measured" / f"{network.name}.json"


# --- Training


def test_a_network_is_trained_to_the_end_of_its_spec(tmp_path: Path) -> None:
    bench = bench_in(tmp_path / "new")
    path = bench.trained(FIRST)
    assert path == tmp_path / "new" / "models" / f"{FIRST.name}.pt"
    saved = checkpoint.load(path)
    assert (saved.complete, saved.spec, len(saved.history)) == (True, FIRST.spec.as_dict(), 2)
    assert bench.said == [f"{FIRST.name}: training for 2 epochs"]


def test_a_finished_network_is_found_and_not_touched(finished: Path) -> None:
    before = checkpoint.sha256(finished / "models" / f"{FIRST.name}.pt")
    bench = bench_in(finished, train=never)
    assert checkpoint.sha256(bench.trained(FIRST)) == before
    assert (bench.did, bench.said) == ([], [])


def test_an_interrupted_training_goes_on_to_the_same_weights(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench_in(tmp_path / "cut", train=stop_after_an_epoch).trained(FIRST)
    bench = bench_in(tmp_path / "cut")
    found = bench.found(FIRST)
    assert found is not None
    assert (found.complete, len(found.history)) == (False, 1)
    path = bench.trained(FIRST)
    assert bench.said == [f"{FIRST.name}: going on after epoch 1 of 2"]
    one, other = (checkpoint.load(where / "models" / path.name) for where in (tmp_path / "cut", finished))
    assert all(torch.equal(value, other.state_dict[key]) for key, value in one.state_dict.items())


def test_a_checkpoint_of_another_recipe_is_replaced(finished: Path) -> None:
    other = Network(FIRST.name, FIRST.label, FIRST.spec.model_copy(update={"lr": 0.123}))
    bench = bench_in(finished)
    assert bench.found(other) is None
    saved = checkpoint.load(bench.trained(other))
    assert (saved.spec["lr"], saved.complete) == (0.123, True)
    training, replaced = bench.said
    assert replaced == (
        f"{bench.path(FIRST)}: has another recipe or other images, or is damaged; it is kept as {FIRST.name}.pt.old"
    )
    assert checkpoint.load(bench.path(FIRST).with_suffix(".pt.old")).spec == FIRST.spec.as_dict()
    assert training == f"{FIRST.name}: training for 2 epochs"
    assert bench.found(FIRST) is None


def test_an_incomplete_checkpoint_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    other = Network(FIRST.name, FIRST.label, FIRST.spec.model_copy(update={"lr": 0.123}))
    with pytest.raises(KeyboardInterrupt):
        bench_in(tmp_path, train=stop_after_an_epoch).trained(other)
    assert checkpoint.load(bench_in(tmp_path).trained(FIRST)).spec == FIRST.spec.as_dict()


@pytest.mark.parametrize("length", [0, 1_000_000])
def test_a_checkpoint_that_is_cut_off_is_trained_anew(finished: Path, length: int) -> None:
    path = finished / "models" / f"{FIRST.name}.pt"
    path.write_bytes(path.read_bytes()[:length])
    bench = bench_in(finished)
    assert bench.found(FIRST) is None
    assert checkpoint.load(bench.trained(FIRST)).complete


def test_without_its_data_set_nothing_is_trained(tmp_path: Path) -> None:
    (network, *_) = parts(replace(TINY, mnist="mnist"))["stopgrad"].networks
    bench = bench_in(tmp_path)
    with pytest.raises(DataError, match="--dataset mnist: not in"):
        bench.trained(network)
    assert not bench.path(network).exists()
    assert bench.did == []


# --- Measuring


def test_a_row_has_counts_and_where_they_come_from(finished: Path) -> None:
    rows = bench_in(finished).rows(FIRST, PART.probes)
    assert [(row["attack"]["name"], row["eps"], row["n"]) for row in rows] == [
        ("fgsm", 0.1, TINY.n),
        ("fgsm", 0.3, TINY.n),
        ("pgd", 0.1, TINY.n_costly),
    ]
    for row in rows:
        assert row["model"] == FIRST.name
        assert 0 <= row["correct"] <= row["clean_correct"] <= row["n"]
        assert {"accuracy", "ci95", "median_distance", "seed", "commit", "device", "hardware", "threads"} <= row.keys()
        assert not {"ids", "robust", "checkpoint", "seconds", "forwards", "backwards"} & row.keys()
        assert len(row["checkpoint_sha256"]) == 64


def test_what_was_measured_is_not_measured_again(finished: Path) -> None:
    first, second = bench_in(finished, measure=never), bench_in(finished, measure=never)
    assert first.rows(FIRST, PART.probes) == second.rows(FIRST, PART.probes)
    assert first.did == second.did == []


def test_only_a_new_budget_is_measured(finished: Path) -> None:
    bench = bench_in(finished)
    rows = bench.rows(FIRST, [Probe("fgsm", ("0.3", "0.2", "0.1"))])
    assert bench.did == ["measure fgsm 0.2"]
    assert [row["eps"] for row in rows] == [0.3, 0.2, 0.1]
    assert bench.said == [f"{FIRST.name}: fgsm 0.2"]


def test_another_number_of_samples_is_measured_and_both_are_kept(finished: Path) -> None:
    bench = bench_in(finished, scale=replace(TINY, n=10))
    assert {row["n"] for row in bench.rows(FIRST, PART.probes[:1])} == {10}
    assert len(bench.did) == 2
    assert {row["n"] for row in bench_in(finished, measure=never).rows(FIRST, PART.probes[:1])} == {TINY.n}


def test_deepfool_has_a_row_with_its_iterations(finished: Path) -> None:
    (row,) = Laboratory(finished, TINY, device="cpu").rows(FIRST, [Probe("deepfool:iters=5,box=none", price="costly")])
    assert (row["attack"]["box"], len(row["by_iter"]), row["n"]) == ("none", 5, TINY.n_costly)


def test_of_autoattack_the_worst_case_alone_is_a_row_and_the_first_seed_alone_meets_it(finished: Path) -> None:
    probe = Probe("autoattack:rounds=2,queries=4", ("0.1", "0.2"), price="dear")
    bench = Laboratory(finished, TINY, device="cpu")
    rows = bench.rows(FIRST, [probe])
    assert [(row["attack"]["name"], row["eps"], row["n"]) for row in rows] == [
        ("autoattack", 0.1, TINY.n_dear),
        ("autoattack", 0.2, TINY.n_dear),
    ]
    assert rows == bench.rows(FIRST, [probe]), "found again"
    second = Network(f"{FIRST.name}-second", FIRST.label, FIRST.spec.model_copy(update={"seed": 1}))
    assert bench.rows(second, [probe]) == []


def test_rows_of_another_checkpoint_are_forgotten(finished: Path) -> None:
    other = Network(FIRST.name, FIRST.label, FIRST.spec.model_copy(update={"seed": 5}))
    bench = bench_in(finished)
    rows = bench.rows(other, PART.probes)
    assert len(bench.did) == 1 + ROWS
    assert {row["checkpoint_sha256"] for row in rows} == {checkpoint.sha256(bench.path(other))}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"of": "WHAT", "rows": 3}',
        b'{"of": "WHAT", "rows": [1]}',
    ],
)
def test_a_damaged_file_of_rows_is_measured_again(finished: Path, content: bytes) -> None:
    path = measured_file(finished)
    expected = json.loads(path.read_text())
    path.write_bytes(content.replace(b"WHAT", expected["of"].encode()))
    bench = bench_in(finished, train=never)
    bench.rows(FIRST, PART.probes)
    assert len(bench.did) == ROWS
    assert _without_time(json.loads(path.read_text())) == _without_time(expected)


def test_other_test_images_are_measured_anew(finished: Path, tmp_path: Path) -> None:
    path = measured_file(finished)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"of": content["of"][:-1] + "x"}))
    bench = bench_in(finished, train=never)
    bench.rows(FIRST, PART.probes)
    assert len(bench.did) == ROWS


def _without_time(content: Json) -> Json:
    changing = ("seconds", "commit")
    rows = {
        key: {name: value for name, value in row.items() if name not in changing}
        for key, row in content["rows"].items()
    }
    return content | {"rows": rows}


def test_an_interrupted_measurement_keeps_the_rows_that_are_there(finished: Path) -> None:
    measured_file(finished).unlink()
    with pytest.raises(KeyboardInterrupt):
        bench_in(finished, measure=stop_after(1)).rows(FIRST, PART.probes)
    bench = bench_in(finished)
    assert len(bench.rows(FIRST, PART.probes)) == ROWS
    assert bench.did == ["measure fgsm 0.3", "measure pgd 0.1"]


def test_a_checkpoint_damaged_within_is_not_measured(finished: Path) -> None:
    """`peek` does not see it: what is kept is the file's hash, and opening it tells."""
    path = finished / "models" / f"{FIRST.name}.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)):
        bench_in(finished, train=never).rows(FIRST, PART.probes)


# --- Images made on another network


HEADLINE = parts(TINY)["mnist"]
VANILLA, TRANSFERRED = HEADLINE.networks[0], HEADLINE.networks[2]
FROM_VANILLA = Probe("fgsm", ("0.3",), source="vanilla")


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which vanilla and BatchOut are trained. To be copied."""
    folder = tmp_path_factory.mktemp("pair") / "out"
    for network in (VANILLA, TRANSFERRED):
        Laboratory(folder, TINY, device="cpu").trained(network)
    return folder


@pytest.fixture
def both(pair: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pair, tmp_path / "out")


def test_vanillas_images_are_asked_of_the_others_and_kept(both: Path) -> None:
    bench = bench_in(both, train=never, measure=never)
    (row,) = bench.rows(TRANSFERRED, [FROM_VANILLA], HEADLINE.networks)
    assert (row["model"], row["n"]) == (TRANSFERRED.name, TINY.n)
    assert row["attack"] == {"name": "fgsm", "eps": "0.3", "norm": "linf", "source": "vanilla"}
    assert 0 <= row["correct"] <= row["clean_correct"]
    assert columns(row) == [("FGSM 0.3 from vanilla", row["correct"])]
    said = list(bench.said)
    assert bench.rows(TRANSFERRED, [FROM_VANILLA], HEADLINE.networks) == [row]
    assert bench.said == said, "not measured twice"


def test_the_same_weights_under_another_name_break_as_by_their_own_images(both: Path) -> None:
    models = both / "models"
    shutil.copy(models / f"{VANILLA.name}.pt", models / "twin.pt")
    twin = Network("twin", "twin", VANILLA.spec)
    own, transferred = bench_in(both).rows(twin, [Probe("fgsm", ("0.3",)), FROM_VANILLA], HEADLINE.networks)
    assert (own["clean_correct"], own["correct"]) == (transferred["clean_correct"], transferred["correct"])


def test_budgets_come_back_in_the_order_that_they_were_asked_in(both: Path) -> None:
    wanted = Probe("fgsm", ("0.3", "0.05", "0.1"), source="vanilla")
    rows = bench_in(both).rows(TRANSFERRED, [wanted], HEADLINE.networks)
    assert [row["attack"]["eps"] for row in rows] == ["0.3", "0.05", "0.1"]


def test_other_weights_of_vanilla_make_other_images(both: Path) -> None:
    bench = bench_in(both)
    bench.rows(TRANSFERRED, [FROM_VANILLA], HEADLINE.networks)
    changed = Network(VANILLA.name, VANILLA.label, VANILLA.spec.model_copy(update={"lr": 0.123}))
    bench.trained(changed)
    bench.rows(TRANSFERRED, [FROM_VANILLA], [changed, TRANSFERRED])
    assert len(json.loads(measured_file(both, TRANSFERRED).read_text())["rows"]) == 2


@pytest.mark.parametrize("beside", [[], [TRANSFERRED]])
def test_without_the_source_there_are_no_rows(both: Path, beside: list[Network]) -> None:
    assert bench_in(both, measure=never).rows(TRANSFERRED, [FROM_VANILLA], beside) == []


def test_the_source_itself_is_not_asked(both: Path) -> None:
    assert bench_in(both, measure=never).rows(VANILLA, [FROM_VANILLA], HEADLINE.networks) == []


def test_a_source_that_failed_is_not_trained_again_for_each_of_the_others(both: Path) -> None:
    (both / "models" / f"{VANILLA.name}.pt").unlink()
    bench = bench_in(both, train=never)
    assert bench.rows(TRANSFERRED, [FROM_VANILLA], HEADLINE.networks) == []


# --- Parts


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
    monkeypatch.setattr("robustcli.reproduction.run.save_figure", lambda *_: None)
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


# --- What ships with the package


@pytest.fixture
def shipped(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo that holds the first network."""
    name, folder = FIRST.name.removesuffix("-seed0"), tmp_path / "zoo"
    folder.mkdir()
    shutil.copy(finished / "models" / f"{FIRST.name}.pt", folder / f"{name}.pt")
    kept = {"dataset": "", "model": "", "epochs": 2, "seed": 0, "method": {}, "spec": {}, "rows": [], "provenance": {}}
    (folder / "zoo.json").write_text(json.dumps({"networks": [{"name": name, "sha256": ""} | kept]}))
    monkeypatch.setattr(zoo, "FOLDER", folder)
    monkeypatch.setattr(zoo, "INDEX", folder / "zoo.json")
    return Path(f"zoo:{name}")


def test_a_network_that_ships_is_not_trained_again(shipped: Path, tmp_path: Path) -> None:
    bench = bench_in(tmp_path / "new", train=never)
    assert bench.trained(FIRST) == shipped
    assert [row["model"] for row in bench.rows(FIRST, PROBES)] == [FIRST.name] * ROWS
    assert bench.did[0] == "measure fgsm 0.1"


def test_a_network_that_ships_with_another_spec_is_trained(shipped: Path, tmp_path: Path) -> None:
    longer = replace(FIRST, spec=FIRST.spec.model_copy(update={"epochs": 3}))
    assert bench_in(tmp_path / "new").trained(longer) == tmp_path / "new" / "models" / f"{FIRST.name}.pt"


@pytest.mark.usefixtures("shipped")
def test_without_the_zoo_every_network_is_trained_here(tmp_path: Path) -> None:
    bench = bench_in(tmp_path / "new", shipped=False)
    assert bench.trained(FIRST).is_relative_to(tmp_path)
    assert bench.did == [f"train {FIRST.name}"]


def test_what_was_trained_here_comes_before_what_ships(shipped: Path, finished: Path) -> None:
    assert bench_in(finished, train=never).trained(FIRST).is_relative_to(finished)


# --- What fails, and what must not be lost


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.reproduction.run.save_figure", lambda *_: None)


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

    def first_fails(session: Session) -> Iterator[Row]:
        calls.append(1)
        if len(calls) == 1:
            raise AttackError("logits are NaN")
        return measure(session)

    results = run_part(PART, bench_in(finished, train=never, measure=first_fails))
    assert [entry["name"] for entry in results.networks] == [SECOND.name]
    assert [(entry["epochs_done"], entry["reason"]) for entry in results.missing] == [(2, "logits are NaN")]


def test_what_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    bench = bench_in(tmp_path, train=never)
    path = bench.path(FIRST)
    path.parent.mkdir()
    with FileLock(path.with_suffix(".lock")), pytest.raises(CheckpointError, match="trained by another process"):
        bench.trained(FIRST)


def test_a_spec_without_a_key_that_is_new_since_is_the_same(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peek = checkpoint.peek

    def older(path: Path) -> Checkpoint:
        found = peek(path)
        return replace(found, spec={key: value for key, value in found.spec.items() if key != "validation"})

    monkeypatch.setattr(checkpoint, "peek", older)
    assert bench_in(finished).found(FIRST) is not None


def test_a_spec_that_is_none_any_more_is_another(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peek = checkpoint.peek
    monkeypatch.setattr(checkpoint, "peek", lambda path: replace(found := peek(path), spec=found.spec | {"gone": 1}))
    assert bench_in(finished).found(FIRST) is None


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

    def fails(session: Session) -> Iterator[Row]:
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


# --- Data


def names(wanted: list[Part]) -> list[str]:
    return [part.name for part in wanted]


def test_a_quick_look_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    there, problem = with_data(list(parts(TINY).values()), bench_in(tmp_path))
    assert names(there) == ["fig1", "mnist", "fig2", "fig4b", "fig5a", "fig5b", "stopgrad"]
    assert problem is not None
    assert "--dataset cifar10: not in" in str(problem)


def test_a_quick_look_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.data.reachable", never)
    with_data(list(parts(TINY).values()), bench_in(tmp_path))
    more_seeds = replace(TINY, seeds=3)
    with_data(list(parts(more_seeds).values()), bench_in(tmp_path, scale=more_seeds))


def test_with_the_data_nothing_is_left_out(tmp_path: Path, colours: Path) -> None:
    wanted = list(parts(TINY).values())
    assert with_data(wanted, bench_in(tmp_path, data_dir=colours)) == (wanted, None)


def test_the_study_itself_leaves_out_what_can_neither_be_found_nor_got(tmp_path: Path) -> None:
    full = replace(TINY, mnist="mnist", quick=False)
    there, problem = with_data(list(parts(full).values()), bench_in(tmp_path, scale=full))
    assert names(there) == ["fig1"]
    assert str(problem).startswith("--dataset mnist: not in")
    assert list(tmp_path.iterdir()) == []
