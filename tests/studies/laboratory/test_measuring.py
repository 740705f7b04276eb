"""Networks are measured once, whatever happens in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.errors import CheckpointError
from robustcli.models import checkpoint
from robustcli.studies.batchout.design import Network, Probe
from robustcli.studies.batchout.laboratory import Laboratory

from ..conftest import TINY, Json
from .conftest import (
    FIRST,
    PART,
    ROWS,
    bench_in,
    measured_file,
    never,
    stop_after,
)


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
