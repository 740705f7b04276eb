"""The README names every command, and the commands that it shows run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer

from robustcli.attacks import ATTACKS, parse_attack
from robustcli.cli.main import app, run
from robustcli.data.load import SAMPLE_FILE
from robustcli.models.sources import open_target
from robustcli.report.exports import EXPORTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    "init",
    "train",
    "attack",
    "evaluate",
    "compare",
    "report",
    "plot",
    "replay",
    "results",
    "reproduce",
    "doctor",
)
COMMANDS += ("list", "data")
ELSEWHERE = ("reproduce", "doctor")
"""Takes minutes, or finds the images lent here to be none of MNIST: they have tests of their own in tests/cli."""
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
        if "torchrun" in words[:2]:  # in one process here
            words = words[words.index("robustcli") :]
        if words[:1] == ["robustcli"]:
            end = next((i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&", "2>")), len(words))
            found.append(words[1:end])
    return found


LINES = robustcli_lines(README)
TOUR = [line for page in ("tour", "results") for line in robustcli_lines((ROOT / "docs" / f"{page}.md").read_text())]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_shows_every_command(command: str) -> None:
    assert command in {arguments[0] for arguments in LINES}


@pytest.mark.parametrize("arguments", LINES, ids=" ".join)
def test_a_line_of_the_readme_parses(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    with command.make_context("robustcli", list(arguments)) as context:
        name, inner, rest = command.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
        inner.make_context(name, rest).close()


@pytest.mark.parametrize("lines", [TOUR, LINES], ids=["tour", "README"])
def test_the_lines_of_a_page_run_one_after_the_other(
    lines: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _lend_data(tmp_path / "data")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    _write_network(tmp_path)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("robustcli.data.load.reachable", lambda host: False)
    for arguments in lines:
        if "--data-dir" not in arguments and arguments[0] not in ELSEWHERE:
            small = [] if "--resume" in arguments else SMALL.get(arguments[0], [])
            code = run([*arguments, *small])
            assert code == 0, (arguments, capsys.readouterr().err)


def test_the_lines_on_scale_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _lend_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "data"))
    for name, value in {"ID": "1", "MIN": "1", "STEP": "1", "COUNT": "16"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    lines = robustcli_lines((ROOT / "docs" / "scale.md").read_text(encoding="utf-8"))
    for arguments in lines:
        small = [] if arguments[0] == "results" else ["--limit", "4", "--checks", "off"]
        code = run([*("quick" if word == "standard" else word for word in arguments), *small])
        assert code == 0, (arguments, capsys.readouterr().err)
    assert [arguments[0] for arguments in lines].count("results") == 1


def test_the_lines_on_exports_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _lend_data(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "data"))
    made = set()
    for arguments in robustcli_lines((ROOT / "docs" / "exports.md").read_text(encoding="utf-8")):
        if arguments[0] == "report":
            made.add(arguments[3])
            refused = arguments[3] == "robustbench"  # of the quick attacks that run here
            assert (run(arguments), Path(arguments[-1]).exists()) == ((3, False) if refused else (0, True))
            continue
        if "--tensorboard" in arguments and find_spec("tensorboard") is None:
            arguments = arguments[:-2]
        small = [*SMALL.get(arguments[0], [])] + ["--checks", "off"] * (arguments[0] in ("attack", "evaluate"))
        code = run([*("quick" if word == "standard" else word for word in arguments), *small])
        assert code == 0, (arguments, capsys.readouterr().err)
    assert made == EXPORTS.keys()


def _write_network(folder: Path) -> None:
    """The README's own network, and weights for it."""
    (program,) = re.findall(r"^```python\n(# net.py\n.*?)^```", README, re.MULTILINE | re.DOTALL)
    (folder / "net.py").write_text(program)
    torch.save(open_target(f"{folder / 'net.py'}:make").module.state_dict(), folder / "weights.pt")


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


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_no_table_of_the_readme_is_wider_than_a_page() -> None:
    rows = [line for line in README.splitlines() if line.startswith("|")]
    assert [row for row in rows if row.count("|") > 4 or len(row) > 200] == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\((\w[\w-]*\.md)\)", index)) == pages


def test_placeholders_of_a_draft_are_gone() -> None:
    assert re.findall(r"@@\w+@@|\bTODO\b|\bTBD\b", README) == []


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


def test_the_page_on_attacks_is_what_the_script_writes(make_docs: ModuleType) -> None:
    assert make_docs.PAGE.read_text(encoding="utf-8") == make_docs.page(), "run python scripts/make_docs.py"


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_where_it_is_from_and_when_to_use_it(make_docs: ModuleType, name: str) -> None:
    source = make_docs.source(ATTACKS[name])
    assert re.fullmatch(r"[A-Z].* (19|20)\d\d", source), "the summary ends in the source, in brackets"
    assert getattr(ATTACKS[name], "use", "").endswith("."), "a class variable `use` says when to use it"


@pytest.mark.parametrize(
    ("spec", "forwards", "backwards"),
    [
        ("fgsm:eps=0.1", 2, 1),
        ("pgd:eps=0.1,steps=7,restarts=3", 3 * 7 + 2 + 1, 21),
        ("square:eps=0.1,queries=30", 1 + 30 + 1, 0),
    ],
)
def test_costs_are_those_of_an_image_that_withstands(
    make_docs: ModuleType, spec: str, forwards: int, backwards: int
) -> None:
    assert make_docs.cost(parse_attack(spec)) == make_docs.Cost(forwards, backwards)


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (9999, "9 999"), (24417, "24 400"), (123456, "123 000")])
def test_counts_are_shown_with_three_digits_where_they_are_large(make_docs: ModuleType, count: int, text: str) -> None:
    assert make_docs.shown(count) == text
