"""Images made on another network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from robustcli.studies.batchout.design import Network, Probe
from robustcli.studies.batchout.laboratory import Laboratory
from robustcli.studies.batchout.results import columns
from robustcli.studies.batchout.studies import parts

from ..conftest import TINY
from .conftest import (
    bench_in,
    measured_file,
    never,
)

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
