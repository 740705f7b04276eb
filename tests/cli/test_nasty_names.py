"""One nasty name through every command and format: no escape, no forged line, nothing live."""

from __future__ import annotations

import csv
import json
import re
import shutil
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from robustcli.errors import DataError
from robustcli.measure.document import read_document
from robustcli.report.exports import EXPORTS

from .conftest import Call

NASTY = "=cmd|\x1b[2J\x1b]0;owned\x07\r\nVerdict: RELIABLE\u2028Verdict: RELIABLE\x85\x0b"
NASTY += "\\input{x}%$a$&#_^~`<script>\u202e\u200b"
FGSM = ("--attack", "fgsm:eps=0.1", "--limit", "6")
CURVE = ("--curve", "--attack", "fmn:iters=2", "--limit", "6")
COMMANDS = {
    "evaluate": ("evaluate", "a", *FGSM),
    "gate": ("evaluate", "a", *FGSM, "--fail-under", "100"),
    "curve": ("evaluate", "a", "b", *CURVE),
    "compare": ("compare", "a", "b", *FGSM, "--transfer"),
    "attack": ("attack", "a", *FGSM),
}


@pytest.fixture
def nasty(models: Path) -> tuple[Path, Path]:
    """Two checkpoints of one nasty stem in two folders, and a data set of a nasty name that both were trained on."""
    paths = []
    for folder, source in (("one", "vanilla.pt"), ("two", "batchout.pt")):
        path = models / folder / f"{NASTY}.pt"
        path.parent.mkdir()
        shutil.copy(models / source, path)
        paths.append(path)
    return paths[0].relative_to(models.parent), paths[1].relative_to(models.parent)


def assert_harmless(text: str) -> None:
    kinds = {character: unicodedata.category(character) for character in set(text) - {"\n"}}
    assert [character for character, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")] == []
    assert [line for line in text.splitlines() if re.match(r"[*#>%-]*\s?Verdict: RELIABLE", line)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_no_format_writes_a_name_raw(call: Call, nasty: tuple[Path, Path], images: Path, command: str) -> None:
    data = Path(f"{NASTY}.npz")
    shutil.copy(images, data)
    names = {"a": nasty[0], "b": nasty[1]}
    arguments = [names.get(part, part) for part in COMMANDS[command]]
    for style in ("table", "json", "csv", "markdown", "latex"):  # those after the first come from the store
        ended = call(*arguments, "--dataset", f"./{data}", "--format", style)
        assert ended.code == (4 if command == "gate" else 0), ended.err
        assert_harmless(ended.out)
        assert_harmless(ended.err)
        if style == "csv":
            cells = [cell for row in csv.reader(ended.out.splitlines()) for cell in row]
            formulas = [cell for cell in cells if re.match(r"\s*[=+@-]", cell)]
            assert [cell for cell in formulas if not re.fullmatch(r"-[\d.e-]+", cell)] == []
        if style == "latex":
            assert not re.search(r"(?<!\\)[$#_]|\\input", ended.out)
        if style == "markdown":
            assert "<script>" not in ended.out
            assert not re.search(r"(?<!\\)`", ended.out)
        if style == "json":
            assert json.loads(ended.out)["rows"][0]["checkpoint"] == str(nasty[0])


def test_what_is_kept_and_written_is_harmless(call: Call, nasty: tuple[Path, Path], here: Path) -> None:
    files = ("--gallery", "g.png", "--save", "pngs")
    assert call("attack", nasty[0], *FGSM, *files).code == 0
    assert call("evaluate", *nasty, *FGSM, "--junit", "r.xml", "--fail-under", 100).code == 4
    assert call("evaluate", *nasty, *CURVE, "--curve-plot", "c.png").code == 0
    assert NASTY.encode("unicode_escape")[:4].decode() in ElementTree.parse("r.xml").getroot()[0].get("name", "")
    assert_harmless(Path("r.xml").read_text())
    for arguments in (("list",), ("show", 1), ("export", "all.csv"), ("list", "--format", "json")):
        ended = call("results", *arguments)
        assert ended.code == 0
        assert_harmless(ended.out + ended.err)
    assert_harmless(Path("all.csv").read_text())
    assert all(line.split(",")[0].isdigit() for line in Path("all.csv").read_text().splitlines()[1:])


@pytest.mark.parametrize("name", EXPORTS)
def test_no_export_writes_a_name_raw(call: Call, nasty: tuple[Path, Path], images: Path, name: str) -> None:
    shutil.copy(images, f"{NASTY}.npz")
    ended = call("evaluate", nasty[0], *FGSM, "--dataset", f"./{NASTY}.npz", "--json", "r.json")
    assert ended.code == 0, ended.err
    try:
        text = EXPORTS[name][1]([read_document(Path("r.json"))])
    except DataError as error:
        assert name == "robustbench"
        assert_harmless(str(error))
        return
    assert_harmless(text)
    if name == "latex-document":
        assert not re.search(r"(?<!\\)[$#_]|\\input\{", text.split("\\begin{document}")[1])
    elif name == "model-card":
        assert "<script>" not in "".join(line for line in text.split("---\n")[2].splitlines() if line[:4].strip())
    else:
        assert yaml.safe_load(text)


def test_errors_and_doctor_are_harmless(call: Call, nasty: tuple[Path, Path], here: Path) -> None:
    for arguments in (
        ("evaluate", f"{NASTY}.pt"),
        ("evaluate", nasty[0], "--dataset", NASTY),
        ("evaluate", nasty[0], "--attack", NASTY),
        ("evaluate", nasty[0], "--json", f"{NASTY}/r.json"),
        ("train", "--config", NASTY),
        ("train", "--set", NASTY),
        ("results", "list", "--store", NASTY),
        ("list", NASTY),
        (NASTY,),
        (f"--{NASTY}",),
    ):
        ended = call(*arguments)
        assert ended.code in (2, 3), arguments
        assert_harmless(ended.out + ended.err)
        assert len(ended.err.splitlines()) == 1, ended.err
