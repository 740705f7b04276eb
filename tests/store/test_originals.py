"""What is kept with adversarial images: originals and confidences; stores of schema 1 lack them and gain them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from robustcli.store import browse, database
from robustcli.store.cache import Cache
from robustcli.store.database import StoreError, connect
from robustcli.store.merge import merge
from robustcli.store.series import Chunk, Picture

from .conftest import AT, BROKEN, STANDS, change, lines, series

WHOLE = Picture((1, 1, 2), b"\0" * 8, b"\1\2", (0.9, 0.75))
BARE = Picture((1, 1, 2), b"\0" * 8)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store as schema 1 had it: a row of two samples, one with an image."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(database.TABLES)
        made.executescript(f"PRAGMA application_id = {database.APPLICATION}; PRAGMA user_version = 2;")
    _add(path, Chunk(series(), {(1, AT): STANDS, (2, AT): BROKEN}, {(2, AT): BARE}), extended=False)
    change(path, "PRAGMA user_version = 1")
    return path


def _add(path: Path, *chunks: Chunk, extended: bool = True) -> None:
    if not extended:  # by hand: what is written now would bring the tables
        with closing(sqlite3.connect(path, isolation_level=None)) as store:
            store.executescript(database.ADDED)
    with Cache(path) as store:
        store.keep(chunks)
        assert store.troubles() == []
    if not extended:
        change(path, "DROP TABLE originals", "DROP TABLE confidences")


def _broken(path: Path) -> list[Picture]:
    with closing(connect(path, make=False)) as connection:
        return [one.picture for line in browse.read(connection).lines for one in browse.broken(connection, line, 8)]


def test_originals_are_kept_once_for_all_rows(path: Path) -> None:
    for seed in (0, 1):
        _add(path, Chunk(series(seed=seed), {(2, AT): BROKEN}, {(2, AT): WHOLE}))
    assert _broken(path) == [WHOLE, WHOLE]
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM originals").fetchone() == (1,)
        assert browse.pictured(connection) == {1: [1, 1], 2: [1, 1]}


def test_a_store_of_schema_1_is_read_as_it_is(old: Path) -> None:
    before = old.read_bytes()
    old.chmod(0o444)
    old.parent.chmod(0o555)
    try:
        assert _broken(old) == [BARE]
        with closing(connect(old, make=False)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (1,)
            assert browse.pictured(connection) == {1: [1, 0]}
    finally:
        old.parent.chmod(0o755)
    assert old.read_bytes() == before


def test_a_store_of_schema_1_gains_the_tables_where_something_is_kept(old: Path) -> None:
    _add(old, Chunk(series(seed=1), {(2, AT): BROKEN}, {(2, AT): WHOLE}))
    assert _broken(old) == [BARE._replace(original=WHOLE.original), WHOLE]
    with closing(connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_tables_that_another_process_brings_meanwhile_are_used(old: Path) -> None:
    with Cache(old) as store:
        _add(old, Chunk(series(seed=1), {(2, AT): BROKEN}, {(2, AT): WHOLE}))
        store.keep([Chunk(series(seed=2), {(3, AT): BROKEN}, {(3, AT): WHOLE})])
        assert store.troubles() == []
    assert _broken(old)[1:] == [WHOLE, WHOLE]


def test_rows_of_a_store_of_schema_1_can_be_removed(old: Path) -> None:
    with closing(connect(old)) as connection:
        browse.remove(connection, browse.read(connection).lines)
    assert lines(old) == ()


@pytest.mark.parametrize("statement", ["CREATE TABLE originals (x)", "CREATE TABLE confidences (x)"])
def test_a_store_of_schema_1_with_the_tables_was_altered(old: Path, statement: str) -> None:
    change(old, statement)
    with pytest.raises(StoreError, match="was altered"):
        connect(old)


def test_a_store_without_one_of_the_tables_is_damaged(path: Path) -> None:
    _add(path, Chunk(series(), {(2, AT): BROKEN}, {(2, AT): WHOLE}))
    change(path, "DROP TABLE confidences")
    with pytest.raises(StoreError, match=r"confidences.* is missing"):
        connect(path)


def test_what_is_removed_takes_its_originals_along(path: Path) -> None:
    for seed, sample in ((0, 2), (1, 3)):
        _add(path, Chunk(series(seed=seed), {(sample, AT): BROKEN}, {(sample, AT): WHOLE}))
    with closing(connect(path)) as connection:
        browse.remove(connection, browse.read(connection).lines[:1])
        assert connection.execute("SELECT sample FROM originals").fetchall() == [(3,)]
        assert connection.execute("SELECT sample FROM confidences").fetchall() == [(3,)]


def test_merging_brings_originals_also_into_a_store_of_schema_1(old: Path, path: Path, tmp_path: Path) -> None:
    _add(path, Chunk(series(seed=1), {(2, AT): BROKEN}, {(2, AT): WHOLE}))
    merge([path], old)
    assert _broken(old) == [BARE._replace(original=WHOLE.original), WHOLE]
    merge([old], tmp_path / "new.db")
    assert _broken(tmp_path / "new.db") == _broken(old)


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("UPDATE originals SET pixels = x'00'", WHOLE._replace(original=b"")),
        ("UPDATE originals SET shape = '1x2x1'", WHOLE._replace(original=b"")),
        ("UPDATE confidences SET before = 7.0", WHOLE._replace(confidence=None)),
        ("UPDATE confidences SET after = 'high'", WHOLE._replace(confidence=None)),
        ("UPDATE adversarials SET pixels = 1", None),
    ],
)
def test_what_someone_else_has_put_there_is_left_out(path: Path, tmp_path: Path, statement: str, left: Picture) -> None:
    _add(path, Chunk(series(), {(2, AT): BROKEN}, {(2, AT): WHOLE}))
    change(path, statement)
    assert _broken(path) == ([left] if left else [])
    merge([path], tmp_path / "new.db")
    assert _broken(tmp_path / "new.db") == ([left] if left else [])
