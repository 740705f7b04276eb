"""A part's results: counts in, the numbers that tables, figures and claims ask for out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustcli.errors import ConfigError
from robustcli.measure.stats import wilson
from robustcli.studies.batchout.part_results import Accuracy, PartResults, columns, read

from .conftest import N, attacked, deepfool, every_part, made, mnist

COUNTS = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("counts", "text", "short"),
    [
        (((4612, 10_000),), "46.12 [45.14, 47.10]", "46.12"),
        (((461, 1000),), "46.1 [43.0, 49.2]", "46.1"),
        (((0, 1000),), "0.0 [0.0, 0.4]", "0.0"),
        (((10_000, 10_000),), "100.00 [99.96, 100.00]", "100.00"),
        (((4532, 10_000), (4692, 10_000)), "46.12 ± 1.13", "46.12"),
        (((450, 1000), (450, 1000), (450, 1000)), "45.0 ± 0.0", "45.0"),
    ],
)
def test_a_number_has_its_interval_or_over_seeds_its_deviation(
    counts: tuple[tuple[int, int], ...], text: str, short: str
) -> None:
    assert (Accuracy(counts).text, Accuracy(counts).short) == (text, short)


@settings(max_examples=20)
@given(st.lists(COUNTS, min_size=1, max_size=4))
def test_the_mean_lies_within_the_interval_which_is_at_least_that_of_one_seed(counts: list[tuple[int, int]]) -> None:
    accuracy = Accuracy(tuple(counts))
    assert 0 <= accuracy.low <= accuracy.mean + 1e-9
    assert accuracy.mean - 1e-9 <= accuracy.high <= 100
    if len(counts) == 1:
        assert (accuracy.low, accuracy.high) == tuple(100 * end for end in wilson(*counts[0]))
    else:
        alone = Accuracy(((round(accuracy.mean / 100 * accuracy.n), accuracy.n),))
        assert accuracy.low <= alone.low + 1e-9
        assert accuracy.high >= alone.high - 1e-9


@pytest.mark.parametrize(
    ("attack", "found"),
    [
        ({"name": "fgsm", "eps": "8/255"}, [("FGSM 8/255", 7)]),
        ({"name": "fgsm", "eps": "0.3", "source": "vanilla"}, [("FGSM 0.3 from vanilla", 7)]),
        ({"name": "pgd", "eps": "0.1", "steps": 40}, [("PGD-40 0.1", 7)]),
        ({"name": "deepfool", "box": "none"}, [(f"DeepFool none {i}", 10 - i) for i in (1, 2, 3, 4, 5)]),
    ],
)
def test_a_row_fills_the_columns_of_its_attack(attack: dict[str, object], found: list[tuple[str, int]]) -> None:
    row = {"attack": attack, "correct": 7, "by_iter": [9, 8, 7, 6, 5, 4, 3]}
    assert columns(row) == found, "of DeepFool's 50 iterations the first 5"


def test_a_label_has_each_of_its_seeds_in_each_column() -> None:
    results = made("mnist", {"BatchOut": [attacked(fgsm_large=40), attacked(fgsm_large=50)], "vanilla": attacked()})
    cells = results.accuracies("BatchOut")
    assert cells["FGSM 0.3"].counts == ((400, N), (500, N))
    assert cells["FGSM 0.3"].mean == 45
    assert len(results.accuracies("vanilla")["FGSM 0.3"].counts) == 1
    assert results.labels == ["BatchOut", "vanilla"]


def test_clean_accuracy_is_that_of_the_most_images() -> None:
    results = made("fig2", {"vanilla": {"FGSM 0.1": 10.0}})
    few = {**results.rows[0], "n": 100, "clean_correct": 7, "attack": {"name": "pgd", "eps": "0.1", "steps": 40}}
    for rows in ([results.rows[0], few], [few, results.rows[0]]):
        cells = made("fig2", {"vanilla": {}}, rows=rows).accuracies("vanilla")
        assert cells["clean"].counts == ((990, N),)
        assert cells["PGD-40 0.1"].n == 100


def test_what_was_not_measured_is_none() -> None:
    results = mnist()
    assert results.accuracy("vanilla", "FGSM 0.77") is None
    assert results.accuracy("unheard of", "clean") is None
    assert made("mnist", {"vanilla": {}}).accuracies("vanilla") == {}


def test_the_median_distance_is_that_inside_the_box_a_number_a_seed() -> None:
    results = mnist(batchout=[attacked(l2=1.5), attacked(l2=None)])
    assert results.median_distance("BatchOut") == [1.5, None]
    assert results.median_distance("vanilla") == [1.5]
    assert results.median_distance("unheard of") == []


@pytest.mark.parametrize("part", every_part())
def test_results_survive_their_file(part: str, tmp_path: Path) -> None:
    results = every_part()[part]
    results.write(tmp_path / "new" / "folder")
    found = read(tmp_path / "new" / "folder" / f"{part}.json")
    assert [found.accuracies(label) for label in found.labels] == [
        results.accuracies(label) for label in results.labels
    ]
    assert list(found.networks) == list(results.networks)
    assert (found.title, found.source, found.note, found.quick) == (
        results.title,
        results.source,
        results.note,
        results.quick,
    )


def test_the_file_says_its_schema_and_part(tmp_path: Path) -> None:
    mnist().write(tmp_path)
    content = json.loads((tmp_path / "mnist.json").read_text())
    assert (content["schema"], content["part"]) == (1, "mnist")
    assert content["rows"][0]["attack"] == {"name": "fgsm", "eps": "0.1", "norm": "linf"}


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        made("mnist", {}, toy={"loss": math.nan}).write(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"schema": 2, "part": "mnist"}', '{"schema": 1}', '{"schema": 1, "unheard": 1}'],
)
def test_a_file_that_is_not_a_parts_results_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "mnist.json").write_text(content)
    with pytest.raises(ConfigError, match=r"--out .*mnist\.json: is not a part's results"):
        read(tmp_path / "mnist.json")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "mnist.json").mkdir()
    with pytest.raises(ConfigError, match=r"--out .*mnist\.json: Is a directory"):
        mnist().write(tmp_path)


def test_made_results_look_like_measured_ones() -> None:
    assert isinstance(mnist(), PartResults)
    assert mnist().accuracies("BatchOut")["DeepFool none 3"].percents == [10.0]
    assert deepfool(3, 2) == [3, 2, 2, 2, 2]
