"""Processes that are killed, and processes that share a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robustcli.config import EvalSpec
from robustcli.measure.evaluate import evaluate
from robustcli.measure.session import open_session
from robustcli.store.cache import Cache

PROGRAM = """
import sys, torch
from dataclasses import replace
from pathlib import Path
from robustcli.config import EvalSpec
from robustcli.measure.evaluate import evaluate
from robustcli.measure.session import open_session
from robustcli.store.cache import Cache

torch.set_num_threads(1)
checkpoint, store, first, step = sys.argv[1:]
attacks = ("pgd:steps=10", "autoattack:rounds=3,queries=20")
session = open_session([Path(checkpoint)], EvalSpec(attacks=attacks, eps="0.1", batch_size=4))
(item,) = session.items
part = replace(item, images=item.images.take(torch.arange(int(first), len(item.images), int(step))))
print("ready", flush=True)
with Cache(Path(store)) as cache:
    report = lambda *_: print("chunk", flush=True)
    for result in evaluate(replace(session, items=(part,)), cache=cache, on_progress=report):
        pass
    assert not cache.troubles(), cache.troubles()
"""
SPEC = EvalSpec(attacks=("pgd:steps=10", "autoattack:rounds=3,queries=20"), eps="0.1")


def start(checkpoint: Path, store: Path, first: int = 0, step: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(checkpoint), str(store), str(first), str(step)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def flags(checkpoint: Path, store: Path | None) -> tuple[list[tuple[int, ...]], int]:
    """The flags of each row, and how many of all samples were known."""
    session = open_session([checkpoint], SPEC)
    if store is None:
        return [result.record.robust for result in evaluate(session)], 0
    with Cache(store) as cache:
        rows = [result.record for result in evaluate(session, cache=cache)]
    return [row.robust for row in rows], sum(row.cached for row in rows)


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[tuple[int, ...]]:
    return flags(checkpoint, None)[0]


def test_killed_three_times_the_flags_are_those_of_an_uninterrupted_run(
    checkpoint: Path, tmp_path: Path, expected: list[tuple[int, ...]]
) -> None:
    store, known = tmp_path / "r.db", [0]
    for chunks in (3, 11, 14):
        with start(checkpoint, store) as process:
            assert process.stdout is not None
            for line in process.stdout:
                chunks -= line == "chunk\n"
                if not chunks:
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        with Cache(store) as cache:
            assert cache.connection is not None
            known.append(cache.connection.execute("SELECT count(*) FROM samples").fetchone()[0])
    assert known == sorted(known)
    assert known[-1] > 0
    found, cached = flags(checkpoint, store)
    assert found == expected
    assert cached > 0


@pytest.mark.parametrize(("firsts", "step"), [((0, 1), 2), ((0, 0), 1)], ids=["parts", "the same work"])
def test_two_processes_share_a_store(
    checkpoint: Path, tmp_path: Path, expected: list[tuple[int, ...]], firsts: tuple[int, int], step: int
) -> None:
    store = tmp_path / "r.db"
    both = [start(checkpoint, store, first, step) for first in firsts]
    ended = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert flags(checkpoint, store) == (expected, 61 * len(expected))
