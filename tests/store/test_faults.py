"""Whatever happens to the store's file: one clear line, nothing lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import robustcli
from robustcli.store import cache, database
from robustcli.store.browse import lines, remove
from robustcli.store.cache import Cache
from robustcli.store.database import StoreError, connect
from robustcli.store.documents import code_stamp
from robustcli.store.series import Chunk, Entry, Picture, Series

ENTRY = Entry(True, float("inf"), 3, 3, 0, 0.5, 10, 4)


def series(**changes: object) -> Series:
    values: dict[str, object] = {
        "checkpoint": "a.pt",
        "sha256": "ab",
        "model": {"name": "cnn"},
        "method": "vanilla",
        "dataset": "bars",
        "source": "bars/test",
        "attack": {"name": "fgsm", "eps": "8/255"},
        "label": "fgsm",
        "norm": "Linf",
        "eps": "8/255",
        "ensemble": None,
        "seed": 0,
        "dtype": "float32",
        "eot": 1,
        "attack_schema": 1,
    }
    return Series(**(values | changes))  # type: ignore[arg-type]


def chunk(*ids: int) -> Chunk:
    return Chunk(
        series(), {(i, b"12345678"): ENTRY for i in ids}, {(ids[0], b"12345678"): Picture((1, 1, 2), b"01234567")}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "r.db"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (database, cache):
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(cache, "IMPATIENT_SECONDS", 0.01)
    monkeypatch.setattr(connect, "__kwdefaults__", {"make": True, "wait": 0.05})


def known(path: Path) -> int:
    with Cache(path) as again:
        return len(again.recall(series()))


def test_what_is_kept_is_recalled(path: Path) -> None:
    with Cache(path) as store:
        store.keep([chunk(1, 2), chunk(3)])
        assert store.recall(series())[3, b"12345678"] == ENTRY
        assert store.pictured(series()) == {(1, b"12345678"), (3, b"12345678")}
    assert known(path) == 3


def test_nothing_is_written_before_something_is_kept(path: Path) -> None:
    with Cache(path) as store:
        assert store.recall(series()) == {}
    assert not path.parent.exists()


@pytest.mark.parametrize("eps", ["8/255", "0.03137254901960784"])
def test_how_a_budget_is_written_does_not_count(eps: str) -> None:
    assert series(attack={"name": "fgsm", "eps": eps}).key == series().key


@pytest.mark.parametrize(
    "change",
    [
        *[{"sha256": "cd"}, {"source": "bars/train"}, {"attack": {"name": "fgsm", "eps": "0.1"}}, {"seed": 1}],
        *[{"dtype": "bfloat16"}, {"eot": 2}, {"attack_schema": 2}, {"model": {"name": "cnn", "mean": [0.5]}}],
        {"ensemble": {"name": "autoattack", "member": 0}},
    ],
    ids=str,
)
def test_what_moves_a_result_counts(change: dict[str, object]) -> None:
    assert series(**change).key != series().key


@pytest.mark.parametrize("change", [{"checkpoint": "b.pt"}, {"dataset": "other"}, {"label": "x"}], ids=str)
def test_names_do_not_count(change: dict[str, object]) -> None:
    assert series(**change).key == series().key


@pytest.mark.usefixtures("impatient")
def test_a_locked_store_keeps_what_came_meanwhile_when_it_is_free_again(path: Path) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        store.keep([chunk(2)])
        store.keep([chunk(3)])
        (line,) = store.troubles()
        assert line.startswith(f"--store {path}: is locked by another process; ")
        other.execute("ROLLBACK")
        other.close()
    assert store.troubles() == []
    assert known(path) == 3


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_locked_says_how_much_was_not_kept(path: Path) -> None:
    Cache(path).keep([chunk(1)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Cache(path) as store:
        assert len(store.recall(series())) == 1
        store.keep([chunk(2, 3)])
    assert store.troubles()[-1] == f"--store {path}: 2 results could not be kept"
    other.close()
    assert known(path) == 1


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_locked_when_it_is_opened_is_used_when_it_is_free(path: Path) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with Cache(path) as store:
        assert len(store.troubles()) == 1
        assert store.recall(series()) == {}
        other.close()
        store.keep([chunk(2)])
    assert known(path) == 2


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


@pytest.mark.parametrize(("version", "whose"), [(0, "older"), (7, "newer")])
def test_another_schema_is_left_as_it_is(path: Path, version: int, whose: str) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {version}")
    other.close()
    with Cache(path) as store:
        store.keep([chunk(2)])
    (line,) = store.troubles()
    assert line.startswith(
        f"--store {path}: has schema {version}, of a{'n' if whose == 'older' else ''} {whose} robustcli"
    )
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM samples").fetchone() == (1,)
    other.close()


def test_an_older_schema_with_a_migration_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
    monkeypatch.setattr(database, "SCHEMA", 2)
    monkeypatch.setattr(
        database, "MIGRATIONS", {1: "ALTER TABLE runs ADD COLUMN note TEXT; UPDATE runs SET note = 'x';"}
    )
    assert known(path) == 1
    connection = connect(path)
    assert connection.execute("SELECT note FROM runs").fetchall() == [("x",)]
    connection.close()


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache(path) as store:
        store.keep([chunk(1)])
    with monkeypatch.context() as patched:
        patched.setattr(database, "SCHEMA", 2)
        patched.setattr(database, "MIGRATIONS", {1: "DELETE FROM samples; ALTER TABLE nothing ADD COLUMN note"})
        with pytest.raises(StoreError, match="cannot be used"):
            connect(path)
    assert known(path) == 1


def test_another_programs_database_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with Cache(path) as store:
        store.keep([chunk(1)])
    assert "is a database of another program" in store.troubles()[0]


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


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Cache(tmp_path / "file" / "r.db") as store:
        store.keep([chunk(1)])
        store.keep([chunk(2)])
    (line,) = store.troubles()
    assert "cannot be made: " in line


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


def test_a_run_whose_rows_were_pruned_meanwhile_goes_on(path: Path) -> None:
    with Cache(path, lambda: {"command": "mine"}) as running:
        running.keep([chunk(1)])
        with connect(path) as other:
            remove(other, lines(other))
        other.close()
        running.keep([chunk(2)])
        assert running.troubles() == []
    with connect(path) as connection:
        assert [line.n for line in lines(connection)] == [1]
    connection.close()
    assert known(path) == 1


def test_an_answer_of_other_code_networks_or_bundled_images_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robustcli, "__file__", str(tmp_path / "__init__.py"))
    stamps = []
    for name in ("__init__.py", "assets/zoo/mnist-vanilla.pt", "assets/digits.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        stamps.append(code_stamp())
    assert len(set(stamps)) == 3
    (tmp_path / "__init__.cpython-311.pyc").write_bytes(b"")
    assert code_stamp() == stamps[-1]
