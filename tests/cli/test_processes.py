"""A command in two processes, as torchrun starts them: one process's rows, one voice, and no chunk lost with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustcli.store.cache import Cache
from tests.processes import run_both

from .conftest import Call, Ended

PROGRAM = """
import os
import signal

import torch
from torch import nn

class Bars(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if os.environ.get("RANK") == "1" and self.calls > int(os.environ.get("CALLS", 10**6)):
            if os.environ["HOW"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no more\\nof this")
        rows = x.mean((1, 3))
        return torch.stack([rows[:, 2 * k : 2 * k + 3].mean(1) for k in range(3)], 1) * 20 + self.bias

def make():
    return Bars().eval()

def other():
    net = make()
    net.bias.data += int(os.environ.get("RANK", 0))
    return net
"""
ATTACKS = ("--attack", "pgd:steps=3", "--attack", "autoattack:rounds=2,queries=5", "--eps", "0.1")


@pytest.fixture
def program(here: Path, images: Path) -> Path:
    (here / "net.py").write_text(PROGRAM)
    return here / "net.py"


@pytest.fixture
def command(program: Path, images: Path) -> list[str]:
    shared = ["--normalize", "none", "--batch-size", "4", "--limit", "40", "--checks", "off", "--dataset", str(images)]
    return ["evaluate", f"{program}:make", *shared]


def both(*arguments: object, **changes: str) -> tuple[Ended, Ended]:
    """How a command ends as rank 0 and as rank 1."""
    first, second = run_both(["-m", "robustcli", *arguments], **changes)
    return tuple(Ended(one.returncode, one.stdout, one.stderr) for one in (first, second))  # type: ignore[return-value]


def flags(document: dict[str, Any]) -> list[Any]:
    keys = ("label", "ids", "robust", "distance", "pred_after", "forwards", "backwards")
    return [[row[key] for key in keys] for row in document["rows"]]


def kept(path: Path) -> set[int]:
    """The ids of the attack's samples in a store."""
    with Cache(path) as cache:
        assert cache.connection is not None
        query = "SELECT sample FROM samples JOIN series ON series.id = series WHERE label <> 'clean'"
        return {number for (number,) in cache.connection.execute(query)}


def test_two_processes_give_the_rows_and_the_store_of_one(call: Call, here: Path, command: list[str]) -> None:
    alone = call(*command, *ATTACKS, "--format", "json", "--store", "alone.db").document
    first, second = both(*command, *ATTACKS, "--format", "json", "--store", "both.db", "--json", "both.json")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (second.out, second.err) == ("", "")
    assert flags(first.document) == flags(alone)
    assert [row["cached"] for row in first.document["rows"]] == [0] * len(alone["rows"])
    assert json.loads(Path("both.json").read_text()) == first.document
    again = call(*command, *ATTACKS, "--format", "json", "--store", "both.db", "--batch-size", "3", "--no-sample")
    assert flags(again.document) == flags(alone)
    assert [row["cached"] for row in again.document["rows"]] == [40] * len(alone["rows"])


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_a_process_that_dies_ends_the_run_in_one_line_and_loses_no_chunk(
    call: Call, here: Path, command: list[str], how: str
) -> None:
    """Rank 1 dies in its fourth chunk of five: each has four samples and four passes, the clean predictions five."""
    command += ["--attack", "pgd:steps=3", "--eps", "0.1"]
    first, second = both(*command, "--store", "s.db", HOW=how, CALLS="18")
    assert second.code == (-9 if how == "killed" else 3)
    assert (first.code, second.out, second.err) == (3, "", "")
    why = "a process of this run has died" if how == "killed" else "rank 1: "
    assert first.error.startswith(f"error: {why}")
    assert first.error.endswith("0 of 1 rows were finished and are kept; the same command goes on from there")
    there = kept(Path("s.db"))
    whole = call(*command, "--store", "s.db", "--format", "json").document
    assert there >= set(whole["rows"][0]["ids"][1::2][:12]), "what rank 1 has finished"
    assert whole["rows"][0]["cached"] == len(there)
    assert flags(whole) == flags(call(*command, "--no-store", "--format", "json").document)


def test_processes_that_differ_are_named_and_other_commands_are_refused(
    command: list[str], program: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    command[1] = f"{program}:other"
    first, second = both(*command, "--attack", "fgsm", "--no-store")
    assert (first.code, second.code, second.err) == (3, 3, "")
    assert first.error.startswith("error: rank 1: has other models than rank 0; all need the same command")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        ended = call("attack", *command[1:], "--attack", "fgsm")
        assert (ended.code, bool(ended.err)) == (2, rank == "0")
