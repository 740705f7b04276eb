"""Whatever happens to the store's file: one clear line, nothing lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from robustcli.store import cache, database
from robustcli.store.browse import read, remove
from robustcli.store.cache import Cache
from robustcli.store.database import connect

from .conftest import AT, STANDS, change, chunk, known, lines, locked, series


def test_what_is_kept_is_recalled_and_nothing_is_written_before(path: Path) -> None:
    with Cache(path) as store:
        assert store.recall(series()) == {}
        assert not path.parent.exists()
        store.keep([chunk(1, 2), chunk(3)])
        assert store.recall(series())[3, AT] == STANDS
        assert store.pictured(series()) == {(1, AT), (3, AT)}
    assert known(path) == 3


@pytest.mark.parametrize(
    "changes",
    [
        *[{"sha256": "cd"}, {"source": "bars/train"}, {"attack": {"name": "fgsm", "eps": "0.1"}}, {"seed": 1}],
        *[{"dtype": "bfloat16"}, {"eot": 2}, {"attack_schema": 2}, {"model": {"name": "cnn", "mean": [0.5]}}],
        {"ensemble": {"name": "autoattack", "member": 0}},
    ],
    ids=str,
)
def test_what_moves_a_result_counts(changes: dict[str, object]) -> None:
    assert series(**changes).key != series().key


@pytest.mark.parametrize(
    "changes",
    [
        *[{"checkpoint": "b.pt"}, {"dataset": "other"}, {"label": "x"}],
        {"attack": {"name": "fgsm", "eps": "0.03137254901960784"}},
    ],
    ids=str,
)
def test_names_and_how_a_budget_is_written_do_not_count(changes: dict[str, object]) -> None:
    assert series(**changes).key == series().key


@pytest.mark.usefixtures("impatient")
def test_a_locked_store_keeps_what_came_meanwhile_when_it_is_free_again(filled: Path) -> None:
    with Cache(filled) as store, locked(filled):
        store.keep([chunk(5)])
        store.keep([chunk(6)])
        (line,) = store.troubles()
        assert line.startswith(f"--store {filled}: is locked by another process; ")
    assert store.troubles() == []
    assert known(filled) == 6


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_locked_says_how_much_was_not_kept(filled: Path) -> None:
    with locked(filled), Cache(filled) as store:
        assert len(store.recall(series())) == 4
        store.keep([chunk(5, 6)])
    assert store.troubles()[-1] == f"--store {filled}: 2 results could not be kept"
    assert known(filled) == 4


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_locked_when_it_is_opened_is_used_when_it_is_free(filled: Path) -> None:
    with locked(filled, "PRAGMA locking_mode = EXCLUSIVE") as other, Cache(filled) as store:
        assert len(store.troubles()) == 1
        assert store.recall(series()) == {}
        other.close()
        store.keep([chunk(5)])
    assert known(filled) == 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no database at all, " * 100, "is no store (no SQLite file)"),
        (b"x", "is no store (no SQLite file)"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "is a database of another program"),
        (
            b"SQLite format 3\0" + b"\xff" * 52 + database.APPLICATION.to_bytes(4, "big") + b"\xff" * 5000,
            "is damaged (",
        ),
    ],
)
def test_a_damaged_file_is_left_as_it_is(path: Path, content: bytes, reason: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with Cache(path) as store:
        assert store.recall(series()) == {}
        store.keep([chunk(1)])
    (line,) = store.troubles()
    assert line.startswith(f"--store {path}: {reason}")
    assert path.read_bytes() == content


def test_a_file_that_is_damaged_in_its_middle_is_one_line(path: Path) -> None:
    with Cache(path) as store:
        store.keep([chunk(*range(2000))])
    content = bytearray(path.read_bytes())
    content[8192:60_000] = b"\xa5" * (60_000 - 8192)
    path.write_bytes(content)
    with Cache(path) as store:
        assert store.recall(series()) == {}
        store.keep([chunk(9999)])
    (line,) = store.troubles()
    assert "is damaged" in line


@pytest.mark.parametrize(("version", "whose"), [(0, "an older"), (7, "a newer")])
def test_another_schema_is_left_as_it_is(filled: Path, version: int, whose: str) -> None:
    change(filled, f"PRAGMA user_version = {version}")
    with Cache(filled) as store:
        store.keep([chunk(9)])
    (line,) = store.troubles()
    assert line.startswith(f"--store {filled}: has schema {version}, of {whose} robustcli")
    change(filled, f"PRAGMA user_version = {database.SCHEMA}")
    assert known(filled) == 4


def test_a_read_only_store_is_still_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
    monkeypatch.setattr(database, "writable", lambda _: False)
    with Cache(path) as store:
        assert len(store.recall(series())) == 1
        store.keep([chunk(2)])
        store.keep([chunk(3)])
    (line,) = store.troubles()
    assert line == f"--store {path}: is read-only; it is left as it is, and nothing new is kept"
    monkeypatch.undo()
    assert known(path) == 1


def test_a_full_disk_is_one_line_and_leaves_what_was_there(path: Path) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
        assert store.connection is not None
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        store.keep([chunk(*range(2, 5000))])
    first, last = store.troubles()
    assert "cannot be written: database or disk is full" in first
    assert last == f"--store {path}: 4998 results could not be kept"
    assert known(path) == 1


def test_ctrl_c_within_a_write_leaves_all_of_it_or_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def stop(*arguments: object) -> None:
        written.append(write(*arguments))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    write = cache._write
    with Cache(path) as store:
        store.keep([chunk(1)])
        with monkeypatch.context() as patched:
            patched.setattr(cache, "_write", stop)
            with pytest.raises(KeyboardInterrupt):
                store.keep([chunk(2)])
        assert store.connection is not None
        assert store.connection.execute("SELECT count(*) FROM samples").fetchone() == (1,)
    assert known(path) == 2  # what was left is written at the end


def test_ctrl_c_while_the_store_is_closed_loses_nothing(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = [True]

    def stop(*arguments: object) -> None:
        if stops.pop() if stops else False:
            raise KeyboardInterrupt
        write(*arguments)  # type: ignore[arg-type]

    write = cache._write
    store = Cache(filled)
    store.pending.append(chunk(9))
    monkeypatch.setattr(cache, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        store.close()
    assert store.connection is None
    assert known(filled) == 5


def test_a_run_whose_rows_were_pruned_meanwhile_goes_on(path: Path) -> None:
    with Cache(path, lambda: {"command": "mine"}) as running:
        running.keep([chunk(1)])
        with closing(connect(path)) as other:
            remove(other, read(other).lines)
        running.keep([chunk(2)])
        assert running.troubles() == []
    assert [line.n for line in lines(path)] == [1]
    assert known(path) == 1
