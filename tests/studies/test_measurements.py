"""Networks are measured once, whatever happens in between."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.errors import CheckpointError
from robustcli.models import checkpoint
from robustcli.models.sources import open_target
from robustcli.studies.batchout.experiments import AttackSpec, Network, parts
from robustcli.studies.batchout.measurements import measure_network
from robustcli.studies.batchout.networks import train_network
from robustcli.studies.batchout.part_results import columns
from robustcli.studies.batchout.study import Study

from .tiny_study import ATTACKS, FIRST, ROWS, TINY, never, stop_after, study_in

HEADLINE = parts(TINY)["mnist"]
VANILLA, BATCHOUT = HEADLINE.networks[0], HEADLINE.networks[2]
FROM_VANILLA = AttackSpec("fgsm", ("0.3",), source="vanilla")


def test_a_row_has_counts_and_where_they_come_from(finished: Path) -> None:
    rows = measure_network(study_in(finished).study, FIRST, ATTACKS)
    assert [(row["attack"]["name"], row["attack"]["eps"], row["eps"], row["n"]) for row in rows] == [
        ("fgsm", "0.1", 0.1, TINY.n),
        ("fgsm", "0.3", 0.3, TINY.n),
        ("pgd", "0.1", 0.1, TINY.n_costly),
    ]
    for row in rows:
        assert row["model"] == FIRST.name
        assert 0 <= row["correct"] <= row["clean_correct"] <= row["n"]
        assert list(row) == [
            *("model", "checkpoint_sha256", "attack", "norm", "eps", "n", "clean_correct", "correct", "accuracy"),
            *("ci95", "median_distance", "seed", "commit", "device", "hardware", "threads", "test_fingerprint"),
        ], "nothing by sample, no cost"
        assert (row["seed"], row["commit"], row["device"]) == (0, "0123456789", "cpu")
        assert len(row["checkpoint_sha256"]) == 64


def test_only_a_new_budget_is_measured(finished: Path) -> None:
    noted = study_in(finished)
    rows = measure_network(noted.study, FIRST, [AttackSpec("fgsm", ("0.3", "0.2", "0.1"))])
    assert noted.did == ["measure fgsm 0.2"]
    assert [row["eps"] for row in rows] == [0.3, 0.2, 0.1]
    assert noted.said == [f"{FIRST.name}: fgsm 0.2: {rows[1]['correct']} of {TINY.n} left"]


def test_of_more_samples_only_the_new_ones_are_measured(finished: Path) -> None:
    noted = study_in(finished, scale=replace(TINY, n=20))
    rows = measure_network(noted.study, FIRST, ATTACKS[:1])
    assert ([row["n"] for row in rows], len(noted.did)) == ([20, 20], 2)
    fewer = study_in(finished, scale=replace(TINY, n=10))
    assert [row["n"] for row in measure_network(fewer.study, FIRST, ATTACKS[:1])] == [10, 10]
    assert fewer.did == []


def test_a_row_is_of_the_run_that_began_it(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.provenance._commit", lambda root: "another")
    (first, _, pgd) = measure_network(study_in(finished, scale=replace(TINY, n=20)).study, FIRST, ATTACKS)
    assert (first["commit"], first["resumed"]) == ("0123456789", ["another"])
    assert pgd["commit"] == "0123456789"
    assert "resumed" not in pgd
    (new,) = measure_network(study_in(finished).study, FIRST, [AttackSpec("fgsm", ("0.2",))])
    assert new["commit"] == "another"


def test_deepfool_has_a_row_with_its_iterations(finished: Path) -> None:
    attack = AttackSpec("deepfool:iters=5,box=none", price="costly")
    (row,) = measure_network(study_in(finished).study, FIRST, [attack])
    assert (row["attack"]["box"], len(row["by_iter"]), row["n"]) == ("none", 5, TINY.n_costly)
    noted = study_in(finished)
    assert measure_network(noted.study, FIRST, [attack]) == [row]
    assert noted.did == []


def test_of_autoattack_the_worst_case_alone_is_a_row_and_the_first_seed_alone_meets_it(finished: Path) -> None:
    attack = AttackSpec("autoattack:rounds=2,queries=4", ("0.1", "0.2"), price="dear")
    noted = study_in(finished)
    rows = measure_network(noted.study, FIRST, [attack])
    assert [(row["attack"]["name"], row["eps"], row["n"]) for row in rows] == [
        ("autoattack", 0.1, TINY.n_dear),
        ("autoattack", 0.2, TINY.n_dear),
    ]
    assert rows == measure_network(study_in(finished).study, FIRST, [attack]), "found again"
    second = Network(f"{FIRST.name}-second", FIRST.label, FIRST.spec.model_copy(update={"seed": 1}))
    assert measure_network(noted.study, second, [attack]) == []


def test_another_checkpoint_of_the_name_is_measured_anew(finished: Path) -> None:
    other = Network(FIRST.name, FIRST.label, FIRST.spec.model_copy(update={"seed": 5}))
    noted = study_in(finished)
    rows = measure_network(noted.study, other, ATTACKS)
    assert len(noted.did) == 1 + ROWS
    assert {row["checkpoint_sha256"] for row in rows} == {checkpoint.sha256(finished / "models" / f"{FIRST.name}.pt")}


def test_a_store_that_is_none_is_told_and_left_and_all_is_measured(finished: Path) -> None:
    (finished / "store.db").write_bytes(b"mine")
    noted = study_in(finished, train=never)
    rows = measure_network(noted.study, FIRST, ATTACKS)
    assert (len(noted.did), [row["commit"] for row in rows]) == (ROWS, ["0123456789"] * ROWS)
    assert any(line.startswith(f"{finished / 'store.db'}: ") for line in noted.said)
    assert (finished / "store.db").read_bytes() == b"mine"


def test_an_interrupted_measurement_keeps_the_rows_that_are_there(finished: Path) -> None:
    (finished / "store.db").unlink()
    with pytest.raises(KeyboardInterrupt):
        measure_network(study_in(finished, measure=stop_after(1)).study, FIRST, ATTACKS)
    noted = study_in(finished)
    assert len(measure_network(noted.study, FIRST, ATTACKS)) == ROWS
    assert "measure fgsm 0.1" not in noted.did


def test_a_checkpoint_damaged_within_is_not_measured(finished: Path) -> None:
    """`peek` does not see it; opening it tells."""
    path = finished / "models" / f"{FIRST.name}.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)):
        measure_network(study_in(finished, train=never).study, FIRST, ATTACKS)


def test_a_colour_budget_stays_as_it_was_written(colours: Path, tmp_path: Path) -> None:
    network = parts(TINY)["fig4a"].networks[0]
    (row,) = measure_network(study_in(tmp_path, data_dir=colours).study, network, [AttackSpec("fgsm", ("8/255",))])
    assert (row["attack"]["eps"], row["eps"], row["n"]) == ("8/255", 8 / 255, 16)


# --- Images made on another network


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which vanilla and BatchOut are trained. To be copied."""
    folder = tmp_path_factory.mktemp("pair") / "out"
    for network in (VANILLA, BATCHOUT):
        train_network(Study(folder, TINY, device="cpu"), network)
    return folder


@pytest.fixture
def both(pair: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pair, tmp_path / "out")


def test_vanillas_images_are_asked_of_the_others_and_kept(both: Path) -> None:
    noted = study_in(both, train=never)
    (row,) = measure_network(noted.study, BATCHOUT, [FROM_VANILLA], HEADLINE.networks)
    assert (row["model"], row["n"]) == (BATCHOUT.name, TINY.n)
    assert row["attack"] == {"name": "fgsm", "eps": "0.3", "norm": "linf", "source": "vanilla"}
    assert columns(row) == [("FGSM 0.3 from vanilla", row["correct"])]
    assert noted.said == [f"{BATCHOUT.name}: fgsm 0.3 from vanilla: {row['correct']} of {TINY.n} left"]
    noted = study_in(both, train=never)
    own, again = measure_network(noted.study, BATCHOUT, [AttackSpec("fgsm", ("0.3",)), FROM_VANILLA], HEADLINE.networks)
    assert (again, noted.did) == (row, ["measure fgsm 0.3"]), "its own images are not vanilla's"
    assert "source" not in own["attack"]


def test_the_same_weights_under_another_name_break_as_by_their_own_images(both: Path) -> None:
    models = both / "models"
    shutil.copy(models / f"{VANILLA.name}.pt", models / "twin.pt")
    twin = Network("twin", "twin", VANILLA.spec)
    attacks = [AttackSpec("fgsm", ("0.3",)), FROM_VANILLA]
    own, transferred = measure_network(study_in(both).study, twin, attacks, HEADLINE.networks)
    assert (own["clean_correct"], own["correct"]) == (transferred["clean_correct"], transferred["correct"])


def test_other_weights_of_vanilla_make_other_images(both: Path) -> None:
    noted = study_in(both)
    measure_network(noted.study, BATCHOUT, [FROM_VANILLA], HEADLINE.networks)
    changed = Network(VANILLA.name, VANILLA.label, VANILLA.spec.model_copy(update={"lr": 0.123}))
    train_network(noted.study, changed)
    measure_network(noted.study, BATCHOUT, [FROM_VANILLA], [changed, BATCHOUT])
    assert noted.did == ["measure fgsm 0.3", f"train {VANILLA.name}", "measure fgsm 0.3"]


@pytest.mark.parametrize("beside", [[], [BATCHOUT]])
def test_without_the_source_there_are_no_rows(both: Path, beside: list[Network]) -> None:
    assert measure_network(study_in(both, measure=never).study, BATCHOUT, [FROM_VANILLA], beside) == []


def test_the_source_itself_is_not_asked(both: Path) -> None:
    assert measure_network(study_in(both, measure=never).study, VANILLA, [FROM_VANILLA], HEADLINE.networks) == []


def test_a_source_that_failed_is_not_trained_again_for_each_of_the_others(both: Path) -> None:
    (both / "models" / f"{VANILLA.name}.pt").unlink()
    study = study_in(both, train=never).study
    assert measure_network(study, BATCHOUT, [FROM_VANILLA], HEADLINE.networks) == []


def test_what_the_source_gets_wrong_stays_as_it_is(both: Path) -> None:
    """As `measure.transfer` has it."""
    from robustcli.attacks import FGSM
    from robustcli.config import DataSpec
    from robustcli.data.load import load
    from robustcli.engine.run import Samples
    from robustcli.measure.transfer import transfer

    images = load(DataSpec(dataset=TINY.mnist, split="test", limit=TINY.n))
    samples = Samples(images.batch(slice(None), "cpu"), images.y, images.ids)
    source, target = (open_target(both / "models" / f"{one.name}.pt").module for one in (VANILLA, BATCHOUT))
    clean, robust = transfer(source, target, FGSM(0.3), samples)
    (row,) = measure_network(study_in(both).study, BATCHOUT, [FROM_VANILLA], HEADLINE.networks)
    assert (row["clean_correct"], row["correct"]) == (int(clean.sum()), int(robust.sum()))
