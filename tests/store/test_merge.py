"""Stores from anyone in one: what is sound is united, what contradicts is named, and then nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.errors import DataError
from robustcli.store.cache import Cache
from robustcli.store.merge import merge
from robustcli.store.series import Chunk, Digest, Entry, Picture, Series

from .conftest import AT, BROKEN, STANDS, WRONG, change, known, series

RUN = {"spec": {"seed": 0}, "version": "1", "commit": "c", "data_fingerprint": "f"}


FAST = replace(series(), attack={"name": "autoattack", "version": "fast"})


def write(path: Path, entries: dict[int, Entry], shard: dict[str, Any] | None = None, of: Series | None = None) -> Path:
    samples: dict[Digest, Entry] = {(i, AT): entry for i, entry in entries.items()}
    pictures = {at: Picture((1, 1, 2), b"\0" * 8) for at, entry in samples.items() if entry == BROKEN}
    with Cache(path, lambda: {"command": path.stem} | ({"shard": shard} if shard else {})) as store:
        store.keep([Chunk(of or series(), samples, pictures)])
    return path


def shard(number: int, n: int, of: int = 2, **run: Any) -> dict[str, Any]:
    rows = {series().key: ["fgsm", n]}
    return {"number": number, "of": of, "text": "", "run": RUN | run, "rows": rows}


def recalled(path: Path) -> dict[Digest, Entry]:
    with Cache(path) as store:
        return dict(store.recall(series()))


def test_plain_stores_are_united_and_what_was_there_stays(tmp_path: Path) -> None:
    first = write(tmp_path / "a.db", {1: STANDS, 2: BROKEN})
    second = write(tmp_path / "b.db", {2: BROKEN._replace(seconds=9.0), 3: WRONG})
    target = write(tmp_path / "c.db", {3: WRONG, 4: STANDS})
    assert merge([first, second], target) == (2, [])
    assert recalled(target) == {(1, AT): STANDS, (2, AT): BROKEN, (3, AT): WRONG, (4, AT): STANDS}
    with Cache(target) as store:
        assert store.pictured(series()) == {(2, AT)}


def test_samples_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.db", {1: STANDS}), write(tmp_path / "b.db", {1: BROKEN})
    with pytest.raises(DataError, match=r"b\.db: has sample 1 of fgsm, as has .*a\.db, with another result"):
        merge([first, second], tmp_path / "c.db")
    assert not (tmp_path / "c.db").exists()
    with pytest.raises(DataError, match=r"b\.db: has sample 1 of fgsm, as has .*a\.db, with another result"):
        merge([second], first)
    assert recalled(first) == {(1, AT): STANDS}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_fast_what_one_run_broke_is_broken(tmp_path: Path, order: tuple[int, int]) -> None:
    stores = [write(tmp_path / "a.db", {1: STANDS}, of=FAST), write(tmp_path / "b.db", {1: BROKEN}, of=FAST)]
    merge([stores[i] for i in order], tmp_path / "c.db")
    with Cache(tmp_path / "c.db") as store:
        assert store.recall(FAST) == {(1, AT): BROKEN}


def test_what_is_unsound_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.db", {1: STANDS, 2: BROKEN, 3: BROKEN})
    change(path, "UPDATE samples SET distance = -1 WHERE sample = 1", "UPDATE adversarials SET shape = '9x9x9'")
    added, lines = merge([path], tmp_path / "c.db")
    assert (added, len(lines), known(tmp_path / "c.db")) == (2, 1, 2)
    with Cache(tmp_path / "c.db") as store:
        assert store.pictured(series()) == set()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (shard(2, 2), r"b\.db: shard 2 of 2 is not finished: fgsm on 1 of 2 samples"),
        (shard(2, 1, version="2"), r"b\.db: shard 2 of 2 is of another run than .*a\.db: by its version"),
        (shard(2, 1, of=3), r"b\.db: shard 2 of 3 is of another run than .*a\.db$"),
        (shard(1, 1), r"b\.db: shard 1 of 2 is there already, in .*a\.db"),
        ({"number": 2}, r"b\.db: what it says of its shard cannot be read"),
        (None, r"b\.db: is no shard, and another store here is one"),
    ],
)
def test_shards_that_are_no_whole_are_refused(tmp_path: Path, second: dict[str, Any] | None, expected: str) -> None:
    paths = [write(tmp_path / "a.db", {1: STANDS}, shard(1, 1)), write(tmp_path / "b.db", {2: BROKEN}, second)]
    _refused(paths, tmp_path / "c.db", expected)


def test_shards_that_share_a_sample_are_refused_and_so_is_a_store_of_two(tmp_path: Path) -> None:
    first = write(tmp_path / "a.db", {1: STANDS}, shard(1, 1))
    _refused([first, write(tmp_path / "b.db", {1: STANDS}, shard(2, 1))], tmp_path / "c.db", "has sample 1 of fgsm")
    write(first, {2: STANDS}, shard(2, 1))
    _refused([first], tmp_path / "c.db", "holds samples of several runs")


def _refused(paths: Sequence[Path], target: Path, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        merge(paths, target)
    assert not target.exists()
