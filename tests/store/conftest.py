"""Series and chunks as a run keeps them, and a store that has one."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from robustcli.store.browse import Line, read
from robustcli.store.cache import Cache
from robustcli.store.database import connect
from robustcli.store.series import Chunk, Entry, Picture, Series

AT = b"12345678"
STANDS = Entry(True, math.inf, 3, 3, 0, 0.5, 10, 4)
BROKEN = Entry(False, 0.25, 3, 5, 2, 0.5, 10, 4)
WRONG = Entry(False, 0.0, 5, 5, 2, 0.0, 0, 0)


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
    return Chunk(series(), {(i, AT): STANDS for i in ids}, {(ids[0], AT): Picture((1, 1, 2), b"01234567")})


def known(path: Path) -> int:
    """How many samples a store recalls."""
    with Cache(path) as again:
        return len(again.recall(series()))


def fill(path: Path) -> None:
    """A store of one row: four samples and an image."""
    entries = {(1, AT): STANDS, (2, AT): BROKEN, (3, AT): WRONG, (4, AT): STANDS}
    with Cache(path, lambda: {"command": "mine"}) as store:
        store.keep([Chunk(series(), entries, {(2, AT): Picture((1, 1, 2), b"\0" * 8)})])


def lines(path: Path) -> tuple[Line, ...]:
    with closing(connect(path)) as connection:
        return read(connection).lines


def change(path: Path, *statements: str) -> None:
    """What someone else did to a store."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)


@contextmanager
def locked(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """Another process writes to the store, until its connection is closed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in (*statements, "BEGIN EXCLUSIVE"):
            other.execute(statement)
        yield other


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where no store is yet, nor its folder."""
    return tmp_path / "results" / "r.db"


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    fill(tmp_path / "r.db")
    return tmp_path / "r.db"
