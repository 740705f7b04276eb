"""What a terminal shows while a command runs: rows as they finish, and how many samples stand; a pipe shows neither."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.progress import Progress

from robustcli.attacks import parse_attack
from robustcli.cli.console import moving_bar
from robustcli.cli.main import run
from robustcli.engine.run import run_attack
from robustcli.testing import tiny_net, tiny_samples

from .conftest import Call

FEW = ("--limit", "24", "--no-store", "--checks", "off")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], Terminal]:
    """Make a terminal of stderr; in the test itself, as pytest takes it back before."""

    def watch() -> Terminal:
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "stderr", made := Terminal())
        return made

    return watch


def lines(terminal: Terminal) -> list[str]:
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", terminal.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", shown) if line.strip()]


def test_rows_are_shown_as_they_finish(
    models: Path, watch: Callable[[], Terminal], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = watch()
    attacks = ("--attack", "fgsm", "--attack", "deepfool:iters=2", "--eps", "0.02,0.1")
    assert run(["evaluate", str(models / "vanilla.pt"), *attacks, *FEW]) == 0
    rows = [line for line in lines(terminal) if re.search(r"\d %  \[.*\] +[\d.]+ s$", line)]
    assert [row.split("  ")[0] for row in rows] == ["fgsm Linf 0.02", "fgsm Linf 0.1", "deepfool:iters=2 L2"]
    table = capsys.readouterr().out
    for row in rows:
        found = re.search(r"([\d.]+) %  (\[.*\])", row)
        assert found is not None
        assert found[1] in table
        assert found[2] in table
    assert " s\n" not in table


def test_of_several_models_a_row_says_which(models: Path, watch: Callable[[], Terminal]) -> None:
    terminal = watch()
    paths = [str(models / name) for name in ("vanilla.pt", "batchout.pt")]
    assert run(["compare", *paths, "--attack", "fgsm", "--eps", "0.1", *FEW]) == 0
    assert [line.split(": fgsm")[0] for line in lines(terminal) if " % " in line] == paths


def test_a_pipe_shows_no_rows_and_no_bar(call: Call, models: Path) -> None:
    ended = call("attack", models / "vanilla.pt", "--attack", "pgd:steps=2", "--eps", "0.1", *FEW, "--format", "json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.document["notes"] == []


def test_rows_on_a_terminal_are_no_notes_of_the_document(
    models: Path, watch: Callable[[], Terminal], tmp_path: Path
) -> None:
    watch()
    file = tmp_path / "result.json"
    assert (
        run(["attack", str(models / "vanilla.pt"), "--attack", "fgsm", "--eps", "0.1", *FEW, "--json", str(file)]) == 0
    )
    assert '"notes": []' in file.read_text()


def test_the_bar_says_how_many_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Progress, "update", lambda bar, task, **fields: seen.append(fields["description"]))
    with moving_bar(10) as advance:
        advance(1, 0, "a.pt: autoattack", 1.0)
        advance(0, 0, standing=("autoattack", [(133, 200)]))
        advance(1, 0, "a.pt: autoattack", 1.0)
        advance(0, 0, standing=("pgd", [(5, 8), (3, 8)]))
        advance(0, 0, standing=("pgd", []))
        advance(0, 0, standing=("pgd", [(count, 9) for count in (9, 8, 7, 6, 5)]))
        advance(1, 0, "a.pt: fgsm", 1.0)
    stand = "autoattack: 133 of 200 stand"
    pgd = ["pgd: 5, 3 of 8 stand", "a.pt: autoattack", "pgd: 9 ... 5 of 9 stand"]
    assert seen == ["a.pt: autoattack", stand, stand, *pgd, "a.pt: fgsm"]


@pytest.mark.parametrize(
    "spec",
    ["pgd:steps=3", "autoattack:rounds=3,queries=5", "autoattack:rounds=3,queries=5,version=fast", "deepfool:iters=2"],
)
@pytest.mark.parametrize("batch_size", [3, 64])
@pytest.mark.parametrize("pause", [0, 60])
def test_what_is_said_to_stand_is_what_was_judged(
    monkeypatch: pytest.MonkeyPatch, spec: str, batch_size: int, pause: int
) -> None:
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", pause)
    net = tiny_net()
    samples = tiny_samples(net)
    seen: list[list[tuple[int, int]]] = []
    attack = parse_attack(spec, {"eps": "0.05"})
    budgets = (0.02, 0.1) if spec.startswith("pgd") else ()
    outcomes = run_attack(
        net, attack, samples, budgets=budgets, batch_size=batch_size, on_judged=lambda counts: seen.append(list(counts))
    )
    rows = outcomes if budgets else outcomes[-1:]
    assert seen[0] == []
    assert seen[-1] == [(int(row.robust.sum()), len(samples)) for row in rows]
    for counts in filter(None, seen):
        for (standing, judged), row in zip(counts, rows, strict=True):
            assert int(row.robust.sum()) <= standing + len(samples) - judged
            assert standing <= judged <= len(samples)
    if batch_size == 3 and pause:
        assert seen[1][0][1] < len(samples), "of what is not judged nothing is said"


@pytest.mark.parametrize("spec", ["pgd:steps=20,eps=0.3", "square:queries=50,eps=0.3"])
def test_how_many_stand_is_said_while_a_chunk_runs(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.setattr("robustcli.engine.progress.SECONDS", 0)
    net = tiny_net()
    samples, seen = tiny_samples(net), list[list[tuple[int, int]]]()
    run_attack(net, parse_attack(spec, {}), samples, on_judged=lambda counts: seen.append(list(counts)))
    standing = [counts[0][0] for counts in seen[1:]]
    assert len(set(standing)) > 2
    assert standing == sorted(standing, reverse=True)
