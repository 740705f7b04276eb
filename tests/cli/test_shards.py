"""`--shard i/n` and `results merge`: the parts give the whole, and one that is missing, doubled or foreign is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from .conftest import Call

ATTACKS = ("--attack", "fgsm", "--attack", "autoattack:rounds=2,queries=5", "--eps", "0.1", "--format", "json")


@pytest.fixture
def measure(call: Call, models: Path) -> Any:
    """Evaluate, with these flags."""

    def measured(*flags: object) -> Any:
        return call("evaluate", models / "vanilla.pt", *ATTACKS, "--limit", 21, *flags)

    return measured


@pytest.fixture
def shards(measure: Any, here: Path) -> list[Path]:
    for i in (1, 2):
        assert measure("--shard", f"{i}/2", "--store", f"{i}.db", "--workers", i, "--batch-size", 3 * i).code == 0
    return [Path("1.db"), Path("2.db")]


def flags(document: dict[str, Any]) -> list[Any]:
    return [[row[key] for key in ("label", "ids", "robust", "pred_after")] for row in document["rows"]]


def test_merged_shards_are_one_run(call: Call, measure: Any, shards: list[Path]) -> None:
    whole = measure("--no-store").document
    ended = call("results", "merge", *shards, "--store", "all.db")
    assert (ended.code, ended.err) == (0, "all.db: 147 samples of 2 stores are new in it\n")
    merged = measure("--store", "all.db").document
    assert flags(merged) == flags(whole)
    assert [row["cached"] for row in merged["rows"]] == [21] * len(whole["rows"])
    again = call("results", "merge", "all.db", "--store", "copy.db")
    assert again.err == "copy.db: 147 samples of 1 stores are new in it\n", "what is merged is a store like any other"


def test_a_shard_says_so_and_has_every_nth_sample(call: Call, measure: Any, here: Path) -> None:
    whole, part = measure("--no-store").document, measure("--shard", "2/4", "--store", "2.db")
    assert part.document["rows"][0]["ids"] == whole["rows"][0]["ids"][1::4]
    assert "shard 2 of 4: 5 of 21 samples; its table and verdict are those of a part" in part.err
    table = measure("--shard", "2/4", "--store", "2.db", "--format", "table").out
    assert "n = 5; shard 2 of 4: 5 of 21 samples" in " ".join(table.split())


def test_what_is_no_whole_set_of_shards_is_named_and_nothing_is_written(
    call: Call, measure: Any, shards: list[Path]
) -> None:
    first, second = shards
    shutil.copy(first, "copy.db")
    measure("--shard", "2/2", "--store", "seed.db", "--seed", 1)
    measure("--shard", "2/3", "--store", "three.db")
    measure("--store", "plain.db")
    for stores, expected in [
        ([first], "results merge: shard 2 of 2 is missing"),
        ([first, second, "copy.db"], "copy.db: shard 1 of 2 is there already, in 1.db"),
        ([first, "seed.db"], "seed.db: shard 2 of 2 is of another run than 1.db: by its spec"),
        ([first, "three.db"], "three.db: shard 2 of 3 is of another run than 1.db"),
        ([first, "plain.db"], "plain.db: is no shard, and another store here is one"),
        ([first, "none.db"], "none.db: is not there; `robustcli evaluate` makes one"),
    ]:
        ended = call("results", "merge", *stores, "--store", "all.db")
        assert (ended.code, ended.error) == (3, f"error: {expected}")
        assert not Path("all.db").exists()
    ended = call("results", "merge", first, second, "--store", first)
    assert (ended.code, ended.error) == (
        2,
        "error: --store 1.db: is one of the stores that are merged; give another file",
    )


@pytest.mark.parametrize(
    ("shard", "variables", "expected"),
    [
        ("slurm", {"SLURM_ARRAY_TASK_ID": "7", "MIN": "3", "COUNT": "3", "STEP": "2"}, "3/3"),
        ("slurm", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "1/4"),
        ("slurm", {"SLURM_ARRAY_TASK_ID": "7", "MIN": "3"}, "SLURM_ARRAY_TASK_COUNT is ''; should be a number"),
        ("slurm", {}, "SLURM_PROCID is ''; should be a number"),
        ("slurm", {"SLURM_PROCID": "4", "SLURM_NTASKS": "4"}, "--shard 5/4: should be i/n with i from 1 to n"),
        ("0/3", {}, "--shard 0/3: should be i/n"),
        ("1/2", {"no": "store"}, "--shard 1/2: needs a store of its own"),
    ],
)
def test_which_shard(
    measure: Any, monkeypatch: pytest.MonkeyPatch, shard: str, variables: dict[str, str], expected: str
) -> None:
    store = () if variables.pop("no", None) else ("--store", "s.db")
    for name, value in variables.items():
        monkeypatch.setenv(name if name.startswith("SLURM") else f"SLURM_ARRAY_TASK_{name}", value)
    ended = measure("--shard", shard, *store)
    if "/" in expected[:3]:
        number, of = expected.split("/")
        assert f"shard {number} of {of}: " in ended.err
    else:
        assert ended.code == 2
        assert expected in ended.error
