"""The README names every command, and the commands that it shows run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from robustcli.cli import app, run
from robustcli.data import SAMPLE_FILE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = ("train", "attack", "evaluate", "compare", "reproduce", "doctor", "list")
ELSEWHERE = ("reproduce",)
"""Takes minutes; tests/cli/test_reproduce.py runs it on a few images."""
FEW = ["--limit", "16"]
SMALL = {"train": ["--limit", "100", "--epochs", "1"], "attack": FEW, "evaluate": FEW, "compare": FEW}


def shell_lines(text: str) -> list[str]:
    """The commands in fenced blocks: after `$ ` in console blocks, bare in sh blocks; continued lines are joined."""
    blocks = re.findall(r"^```(console|sh|bash)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        line.removeprefix("$ ").strip()
        for kind, block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if kind != "console" or line.startswith("$ ")
    ]


def robustcli_lines(text: str) -> list[list[str]]:
    """The arguments of each `robustcli` line, without redirections and what is piped elsewhere."""
    found = []
    for line in shell_lines(text):
        words = shlex.split(line, comments=True)
        if words[:1] == ["robustcli"]:
            end = next((i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&", "2>")), len(words))
            found.append(words[1:end])
    return found


LINES = robustcli_lines(README)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_shows_every_command(command: str) -> None:
    assert command in {arguments[0] for arguments in LINES}


@pytest.mark.parametrize("arguments", LINES, ids=" ".join)
def test_a_line_of_the_readme_parses(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    with command.make_context("robustcli", list(arguments)) as context:
        name, inner, rest = command.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
        inner.make_context(name, rest).close()


def test_the_lines_of_the_readme_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _lend_data(tmp_path / "data")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("robustcli.data.reachable", lambda host: False)
    for arguments in LINES:
        if "--data-dir" not in arguments and arguments[0] not in ELSEWHERE:
            small = [] if "--resume" in arguments else SMALL.get(arguments[0], [])
            code = run([*arguments, *small])
            assert code == 0, (arguments, capsys.readouterr().err)


def _lend_data(folder: Path) -> None:
    """A few hundred images in the place of MNIST and CIFAR-10."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    names = [f"{kind}_{split}" for split in ("train", "test") for kind in "xy"]
    with np.load(SAMPLE_FILE) as sample:
        np.savez(folder / "mnist.npz", **{name: sample[name][:200] for name in names})
    shapes = {"x": (200, 32, 32, 3), "y": (200,)}
    colour = {name: draw.integers(0, 256 if name[0] == "x" else 10, shapes[name[0]]) for name in names}
    arrays: dict[str, Any] = {
        name: array.astype(np.uint8 if name[0] == "x" else np.int64) for name, array in colour.items()
    }
    np.savez(folder / "cifar10.npz", **arrays)


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_lines_of_the_other_pages_parse(path: Path) -> None:
    for arguments in robustcli_lines(path.read_text(encoding="utf-8")):
        test_a_line_of_the_readme_parses(arguments)


def test_links_to_files_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_placeholders_of_a_draft_are_gone() -> None:
    assert re.findall(r"@@\w+@@|\bTODO\b|\bTBD\b", README) == []
