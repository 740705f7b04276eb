"""Networks are trained once, whatever happens in between."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from robustcli.errors import CheckpointError, DataError
from robustcli.models import checkpoint, zoo
from robustcli.models.checkpoint import Checkpoint
from robustcli.studies.batchout.experiments import Network, parts
from robustcli.studies.batchout.measurements import measure_network
from robustcli.studies.batchout.networks import checkpoint_path, find_checkpoint, train_network

from .tiny_study import ATTACKS, FIRST, ROWS, TINY, never, stop_after_an_epoch, study_in


def test_a_network_is_trained_to_the_end_of_its_spec(tmp_path: Path) -> None:
    noted = study_in(tmp_path / "new")
    path = train_network(noted.study, FIRST)
    assert path == tmp_path / "new" / "models" / f"{FIRST.name}.pt"
    saved = checkpoint.load(path)
    assert (saved.complete, saved.spec, len(saved.history)) == (True, FIRST.spec.as_dict(), 2)
    assert noted.said == [f"{FIRST.name}: training for 2 epochs"]


def test_a_finished_network_is_found_and_not_touched(finished: Path) -> None:
    before = checkpoint.sha256(finished / "models" / f"{FIRST.name}.pt")
    noted = study_in(finished, train=never)
    assert checkpoint.sha256(train_network(noted.study, FIRST)) == before
    assert (noted.did, noted.said) == ([], [])


def test_an_interrupted_training_goes_on_to_the_same_weights(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_network(study_in(tmp_path / "cut", train=stop_after_an_epoch).study, FIRST)
    noted = study_in(tmp_path / "cut")
    found = find_checkpoint(noted.study, FIRST)
    assert found is not None
    assert (found.complete, len(found.history)) == (False, 1)
    path = train_network(noted.study, FIRST)
    assert noted.said == [f"{FIRST.name}: going on after epoch 1 of 2"]
    one, other = (checkpoint.load(where / "models" / path.name) for where in (tmp_path / "cut", finished))
    assert all(torch.equal(value, other.state_dict[key]) for key, value in one.state_dict.items())


def test_a_checkpoint_of_another_recipe_is_replaced(finished: Path) -> None:
    other = Network(FIRST.name, FIRST.label, FIRST.spec.model_copy(update={"lr": 0.123}))
    noted = study_in(finished)
    assert find_checkpoint(noted.study, other) is None
    saved = checkpoint.load(train_network(noted.study, other))
    assert (saved.spec["lr"], saved.complete) == (0.123, True)
    training, replaced = noted.said
    path = checkpoint_path(noted.study, FIRST)
    assert replaced == (f"{path}: has another recipe or other images, or is damaged; it is kept as {FIRST.name}.pt.old")
    assert checkpoint.load(path.with_suffix(".pt.old")).spec == FIRST.spec.as_dict()
    assert training == f"{FIRST.name}: training for 2 epochs"
    assert find_checkpoint(noted.study, FIRST) is None


def test_an_incomplete_checkpoint_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    other = Network(FIRST.name, FIRST.label, FIRST.spec.model_copy(update={"lr": 0.123}))
    with pytest.raises(KeyboardInterrupt):
        train_network(study_in(tmp_path, train=stop_after_an_epoch).study, other)
    assert checkpoint.load(train_network(study_in(tmp_path).study, FIRST)).spec == FIRST.spec.as_dict()


@pytest.mark.parametrize("length", [0, 1_000_000])
def test_a_checkpoint_that_is_cut_off_is_trained_anew(finished: Path, length: int) -> None:
    path = finished / "models" / f"{FIRST.name}.pt"
    path.write_bytes(path.read_bytes()[:length])
    noted = study_in(finished)
    assert find_checkpoint(noted.study, FIRST) is None
    assert checkpoint.load(train_network(noted.study, FIRST)).complete


def test_without_its_data_set_nothing_is_trained(tmp_path: Path) -> None:
    (network, *_) = parts(replace(TINY, mnist="mnist"))["stopgrad"].networks
    noted = study_in(tmp_path)
    with pytest.raises(DataError, match="--dataset mnist: not in"):
        train_network(noted.study, network)
    assert not checkpoint_path(noted.study, network).exists()
    assert noted.did == []


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
    noted = study_in(tmp_path / "new", train=never)
    assert train_network(noted.study, FIRST) == shipped
    assert [row["model"] for row in measure_network(noted.study, FIRST, ATTACKS)] == [FIRST.name] * ROWS
    assert noted.did[0] == "measure fgsm 0.1"


def test_a_network_that_ships_with_another_spec_is_trained(shipped: Path, tmp_path: Path) -> None:
    longer = replace(FIRST, spec=FIRST.spec.model_copy(update={"epochs": 3}))
    assert train_network(study_in(tmp_path / "new").study, longer) == tmp_path / "new" / "models" / f"{FIRST.name}.pt"


@pytest.mark.usefixtures("shipped")
def test_without_the_zoo_every_network_is_trained_here(tmp_path: Path) -> None:
    noted = study_in(tmp_path / "new", zoo=False)
    assert train_network(noted.study, FIRST).is_relative_to(tmp_path)
    assert noted.did == [f"train {FIRST.name}"]


def test_what_was_trained_here_comes_before_what_ships(shipped: Path, finished: Path) -> None:
    assert train_network(study_in(finished, train=never).study, FIRST).is_relative_to(finished)


# --- What counts as trained already


def test_what_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    noted = study_in(tmp_path, train=never)
    path = checkpoint_path(noted.study, FIRST)
    path.parent.mkdir()
    with FileLock(path.with_suffix(".lock")), pytest.raises(CheckpointError, match="trained by another process"):
        train_network(noted.study, FIRST)


def test_a_spec_without_a_key_that_is_new_since_is_the_same(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peek = checkpoint.peek

    def older(path: Path) -> Checkpoint:
        found = peek(path)
        return replace(found, spec={key: value for key, value in found.spec.items() if key != "validation"})

    monkeypatch.setattr(checkpoint, "peek", older)
    assert find_checkpoint(study_in(finished).study, FIRST) is not None


def test_a_spec_that_is_none_any_more_is_another(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peek = checkpoint.peek
    monkeypatch.setattr(checkpoint, "peek", lambda path: replace(found := peek(path), spec=found.spec | {"gone": 1}))
    assert find_checkpoint(study_in(finished).study, FIRST) is None
