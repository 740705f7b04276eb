"""A store from someone else: whatever its file holds, what is read is right or left out, and said in one line."""

from __future__ import annotations

import os
import random
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.config import EvalSpec
from robustcli.measure.evaluate import evaluate
from robustcli.measure.session import open_session
from robustcli.store import database
from robustcli.store.browse import pictures, provenances, read, remove, samples
from robustcli.store.cache import Cache
from robustcli.store.database import StoreError, check_file, connect, connect_alone, select
from robustcli.store.series import Chunk, Entry

from .conftest import AT, BROKEN, STANDS, WRONG, change, chunk, fill, lines, series


@pytest.mark.parametrize("entry", [STANDS, BROKEN, WRONG, BROKEN._replace(distance=0.0)])
def test_what_is_written_is_sound(filled: Path, entry: Entry) -> None:
    with Cache(filled) as store:
        store.keep([Chunk(series(seed=1), {(1, AT): entry}, {})])
    with Cache(filled) as store:
        assert store.recall(series(seed=1)) == {(1, AT): entry}
        assert store.troubles() == []
    assert entry.fits(3, 10)


@pytest.mark.parametrize(
    "value",
    [
        *["robust = 1000", "robust = -1", "robust = 'x'", "robust = x'01'", "robust = 0"],
        *["distance = 'abc'", "distance = -1", "distance = 0.5", "distance = x'00'"],
        *["pred = -1", "pred = 'x'", "pred = 9223372036854775807", "pred = 1.5", "pred = 4", "pred_after = 7"],
        *["broken_at = -1", "seconds = 'x'", "seconds = -1", "seconds = 9e999", "forwards = -1", "backwards = 'x'"],
        *["forwards = 9223372036854775807", "digest = 'text'", "sample = 'x'"],
    ],
)
def test_a_sample_that_robustcli_would_not_write_is_unknown_and_replaced(filled: Path, value: str) -> None:
    change(filled, f"UPDATE samples SET {value} WHERE sample = 1")
    with Cache(filled) as store:
        assert set(store.recall(series())) == {(2, AT), (3, AT), (4, AT)}
        (line,) = store.troubles()
        assert line.startswith(
            f"--store {filled}: holds a sample of fgsm Linf 8/255 whose values contradict each other"
        )
    with closing(connect(filled)) as connection:
        contents = read(connection)
        assert [(row.n, row.correct, row.clean_correct) for row in contents.lines] == [(3, 1, 2)]
        assert contents.troubles[0].startswith("1 sample is left out, with values that contradict each other")
        assert samples(connection, contents.lines[0])["robust"] == [0, 0, 1]
    with Cache(filled) as store:
        store.recall(series())
        store.keep([Chunk(series(), {(1, AT): STANDS}, {})])
    with Cache(filled) as store:
        assert store.recall(series())[1, AT] == STANDS
        assert store.troubles() == [] or "digest" in value or "sample" in value


@pytest.mark.parametrize(
    ("entry", "y", "fits"),
    [
        *[(STANDS, 3, True), (STANDS, 4, False), (STANDS._replace(pred=11, pred_after=11), 11, False)],
        *[(BROKEN, 3, True), (BROKEN, 5, False), (BROKEN, 4, False), (BROKEN._replace(distance=0.0), 3, True)],
        *[(WRONG, 3, True), (WRONG, 5, False), (WRONG._replace(pred_after=-1), 3, False)],
    ],
)
def test_flags_that_contradict_a_samples_class_do_not_fit(entry: Entry, y: int, fits: bool) -> None:
    assert entry.fits(y, 10) == fits


def test_flags_that_were_falsified_are_measured_anew_and_said(checkpoint: Path, tmp_path: Path) -> None:
    spec, store = EvalSpec(attacks=("fgsm",), eps="0.1", limit=20), tmp_path / "r.db"

    def measured() -> tuple[list[int], int, list[str]]:
        with Cache(store) as cache:
            (result,) = evaluate(open_session([checkpoint], spec), cache=cache)
        return list(result.record.robust), result.record.cached, cache.troubles()

    flags, cached, said = measured()
    assert (cached, said, 0 < sum(flags) < 20) == (0, [], True)
    robust = "robust = 1, distance = 9e999, pred = (pred + 1) % 3, pred_after = (pred + 1) % 3"  # in the wrong class
    change(store, f"UPDATE samples SET {robust} WHERE distance > 0")
    again, cached, said = measured()
    assert (again, cached < 3) == (flags, True)
    assert [line.partition(" samples of ")[2].split()[0] for line in said] == ["clean", "fgsm"]
    assert measured() == (flags, 20, [])


@pytest.mark.parametrize(
    "value",
    [
        *["checkpoint = x'ff'", "eps = x'ff'", "model = x'00'", "method = x''", "label = x'00'", "seed = 'x'"],
        *["eot = 1.5", "attack_schema = 'x'", "attack = 'x'", "attack = '[]'", "attack = '{\"a\": NaN}'"],
        "attack = '{\"a\": 1e999}'",
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_and_pruned(filled: Path, value: str) -> None:
    change(filled, f"UPDATE series SET {value}")
    with closing(connect(filled)) as connection:
        contents = read(connection)
        assert (contents.lines, contents.unreadable) == ((), (1,))
        (line,) = contents.troubles
        assert line.startswith(f"row 1 is left out: its {value.split()[0]} cannot be read")
        remove(connection, contents.lines, contents.unreadable)
        assert read(connection).troubles == ()


@pytest.mark.parametrize("text", ["{", "[]", "x'ff'", "[" * 5000, '{"a": ' * 200 + "1" + "}" * 200])
def test_a_provenance_that_cannot_be_read_costs_no_row(filled: Path, text: str) -> None:
    change(
        filled, f"UPDATE runs SET provenance = '{text}'" if text[0] != "x" else f"UPDATE runs SET provenance = {text}"
    )
    with closing(connect(filled)) as connection:
        contents = read(connection)
        assert contents.troubles == ("where samples come from cannot be read for 1 of its runs",)
        assert provenances(connection, contents.lines[0]) == [{"samples": 4}]


@pytest.mark.parametrize(
    "value",
    [
        *["shape = 'axb'", "shape = x'00'", "shape = '0x1x2'", "shape = '1x2'", "shape = '1x1x3'"],
        *["shape = '99999x99999x99999'", "pixels = x'00'", "pixels = 'text'", "sample = 'x'"],
        f"pixels = x'{zlib.compress(bytes(2**24)).hex()}'",
        f"pixels = x'{zlib.compress(bytes.fromhex('0000c07f') * 2).hex()}'",
    ],
    ids=lambda value: value[:30],
)
def test_an_image_that_cannot_be_read_is_one_line(filled: Path, value: str) -> None:
    change(filled, f"UPDATE adversarials SET {value}")
    with closing(connect(filled)) as connection:
        (row,) = read(connection).lines
        with pytest.raises(StoreError, match=r"^row 1: the image of sample .* cannot be read \("):
            list(pictures(connection, row))


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON samples BEGIN UPDATE samples SET robust = 1; END", "trigger 't'"),
        ("CREATE VIEW v AS SELECT 1", "view 'v'"),
        ("CREATE INDEX i ON samples (robust) WHERE robust = 1", "index 'i'"),
        ('CREATE TABLE "t\x1b" (x)', r"table 't\x1b'"),
        ("ALTER TABLE samples ADD COLUMN more DEFAULT 1", "table 'samples'"),
        ("ANALYZE", "table 'sqlite_stat1'"),
        ("DROP INDEX samples_by_run", "index 'samples_by_run'"),
    ],
    ids=lambda value: value[:14],
)
@pytest.mark.parametrize("writes", [True, False])
def test_a_store_with_foreign_parts_is_refused(
    filled: Path, statement: str, part: str, writes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(filled, statement)
    before = filled.read_bytes()
    if not writes:
        monkeypatch.setattr(database, "writable", lambda _: False)
    with Cache(filled) as store:
        assert store.recall(series()) == {}
        store.keep([chunk(9)])
    (line,) = store.troubles()
    assert f": its {part} is " in line
    assert filled.read_bytes() == before


def test_nothing_in_a_store_is_trusted(filled: Path) -> None:
    with closing(connect(filled)) as connection:
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        assert connection.execute("PRAGMA cell_size_check").fetchone() == (1,)


def test_a_query_that_does_not_end_is_one_line(filled: Path) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT "
    with closing(connect(filled)) as connection:
        for what in ("i FROM n", "zeroblob(100000) FROM n", "sum(i) FROM n"):
            with pytest.raises(StoreError, match="reading it does not end"):
                select(connection, endless + what)


@pytest.mark.parametrize(
    "name", ["pipe", "folder", "device", "text", "a" * 300, "text/r.db", "loop", "/".join("b" * 600)]
)
def test_what_can_be_no_store_is_refused_before_sqlite_opens_it(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "text").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreError) as refused:
        check_file(tmp_path / name, make=True)
    assert refused.value.kind == "other"
    assert (tmp_path / "text").read_text() == "mine"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("end", ["-wal", "-journal", "-shm"])
def test_a_pipe_beside_a_store_does_not_hang(filled: Path, end: str) -> None:
    os.mkfifo(f"{filled}{end}")
    with pytest.raises(StoreError, match=f"has a r.db{end} beside it that is no regular file"):
        connect(filled)


def test_another_programs_file_is_not_tidied_up(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "other.db-wal").read_bytes()
    with pytest.raises(StoreError, match="is a database of another program"):
        connect(tmp_path / "other.db")
    assert (tmp_path / "other.db-wal").read_bytes() == before
    other.close()


@pytest.mark.parametrize("name", ["file:r.db?mode=memory", "a?b#c%20d.db", os.fsdecode(b"bad\xff.db"), ":memory:"])
def test_any_name_is_that_of_a_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path(name))
    monkeypatch.setattr(database, "writable", lambda _: False)
    with Cache(Path(name)) as store:
        assert len(store.recall(series())) == 4
    assert all(found.name.startswith(name) for found in tmp_path.iterdir())


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "deep" / "r.db")
    fill(tmp_path / "link.db")
    assert (tmp_path / "link.db").is_symlink()
    assert (tmp_path / "deep" / "r.db").is_file()


@pytest.mark.parametrize(
    "name",
    [os.fsdecode(b"bad\xff"), "a\0b", "\ud800", "\N{PILE OF POO}", "x" * 2_000_000, "a\x1b[2Jb\nc"],
    ids=range(6),
)
def test_any_text_is_kept_as_it_is(filled: Path, name: str) -> None:
    with Cache(filled) as store:
        store.keep([replace(chunk(1), series=series(seed=1, checkpoint=name, method=name, dataset=name))])
        assert store.troubles() == []
    row = lines(filled)[1]
    expected = name if name != "\ud800" else r"\ud800"
    assert (row.checkpoint, row.method, row.dataset) == (expected,) * 3


def test_a_store_that_waits_for_its_journal_is_not_read_without_it(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(filled, "PRAGMA journal_mode = DELETE")

    def no_journal(*arguments: Any) -> sqlite3.Connection:
        if "immutable" not in arguments[-1]:
            raise sqlite3.OperationalError("unable to open database file")
        return opened(*arguments)

    opened = database._open
    monkeypatch.setattr(database, "_open", no_journal)
    monkeypatch.setattr(database, "writable", lambda _: False)
    connect(filled).close()
    (tmp_path / "r.db-wal").write_bytes(b"later rows")
    with pytest.raises(StoreError, match=r"cannot be read where it may not be written, while r\.db-wal is there"):
        connect(filled)


def test_a_store_alone_makes_no_files_and_rows_are_removed(filled: Path) -> None:
    with closing(connect_alone(filled)) as connection:
        assert len(read(connection).lines) == 1
        assert [file.name for file in filled.parent.iterdir() if file.name != "r.db-wal"] == ["r.db"]
    with closing(connect_alone(filled, writes=True)) as connection:
        remove(connection, read(connection).lines)
        assert [file.name for file in filled.parent.iterdir()] == ["r.db"]
    with closing(connect(filled)) as connection:
        assert read(connection).lines == ()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_damage_at_random_is_read_right_or_one_line(filled: Path, tmp_path: Path) -> None:
    whole, draw, damaged = filled.read_bytes(), random.Random(0), 0
    for i in range(150):
        content = bytearray(whole)
        for _ in range(draw.choice((1, 3, 30))):
            content[draw.randrange(len(content) if i % 2 else 200)] = draw.randrange(256)
        file = tmp_path / f"{i}.db"
        file.write_bytes(content[: draw.randrange(len(content))] if i % 7 == 0 else content)
        with Cache(file) as store:
            for entry in store.recall(series()).values():
                assert entry.robust == (entry.distance == float("inf"))
            store.pictured(series())
        assert all("\n" not in line for line in store.troubles())
        try:
            with closing(connect(file, make=False)) as connection:
                for row in read(connection).lines:
                    assert len(samples(connection, row)["ids"]) == row.n
                    provenances(connection, row)
                    list(pictures(connection, row))
        except StoreError:
            damaged += 1
    assert 20 < damaged < 150
