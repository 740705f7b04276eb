"""Files that a command would replace, and values that are empty, are told before any work."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from .conftest import Call

FGSM = ("--attack", "fgsm:eps=0.1", "--limit", "4", "--checks", "off")


@pytest.fixture
def place(here: Path, models: Path, images: Path) -> Path:
    """A working folder with a checkpoint `m.pt`, a data set `k.npz`, names of both, and files of other kinds."""
    shutil.copy(models / "vanilla.pt", "m.pt")
    shutil.copy(images, "k.npz")
    Path("link").symlink_to("m.pt")
    os.link("k.npz", "hard.npz")
    Path("loop").symlink_to("loop")
    Path("notes.txt").write_text("precious")
    Path("conf.yaml").write_text("epochs: 1\n")
    Path("pets/cats").mkdir(parents=True)
    np.savez("other.npz", x=np.zeros(3))
    return here


LONG = "n" * 300
REFUSED = [
    ("evaluate m.pt --json m.pt", "--json m.pt --format json"),
    ("evaluate m.pt --json checkpoints/vanilla.pt", "--json checkpoints/vanilla.pt --format json"),
    ("evaluate --json zoo:mnist-vanilla", "--json zoo:mnist-vanilla --format json"),
    ("evaluate --json -", "--json - --format json"),
    ("evaluate --json --format table", "--json --format option"),
    ("evaluate m.pt --json", "--json argument --format json"),
    ("evaluate m.pt --json link", "--json link checkpoint reads"),
    ("evaluate m.pt --json notes.txt", "--json notes.txt not a JSON file"),
    ("evaluate m.pt --json loop", "--json loop"),
    ("evaluate m.pt --dataset k.npz --junit k.npz", "--junit k.npz data set reads"),
    ("evaluate m.pt --dataset k.npz --junit hard.npz", "--junit hard.npz data set reads"),
    ("evaluate m.pt --junit conf.yaml", "--junit conf.yaml JUnit XML"),
    ("evaluate m.pt --curve --curve-plot notes.txt", "--curve-plot notes.txt PNG"),
    ("evaluate m.pt --dataset pets --curve --curve-plot pets/cats/new.png", "--curve-plot lies in the data set pets"),
    ("evaluate m.pt --json r.json --junit r.json", "--junit r.json --json own"),
    ("evaluate m.pt --json ./r.json --junit checkpoints/../r.json", "--junit --json own"),
    ("evaluate m.pt --json r.json --store r.json", "--store r.json --json own"),
    ("evaluate m.pt --store m.pt", "--store m.pt checkpoint reads"),
    ("evaluate m.pt --dataset k.npz --store k.npz", "--store k.npz data set reads"),
    ("attack m.pt --attack fgsm:eps=0.1 --gallery m.pt", "--gallery m.pt checkpoint reads"),
    ("attack m.pt --attack fgsm:eps=0.1 --gallery notes.txt", "--gallery notes.txt PNG"),
    ("attack m.pt --attack fgsm:eps=0.1 --dataset k.npz --save k.npz", "--save k.npz data set reads"),
    ("attack m.pt --attack fgsm:eps=0.1 --save k.npz", "--save k.npz what --save writes"),
    ("attack m.pt --attack fgsm:eps=0.1 --save other.npz", "--save other.npz what --save writes"),
    ("attack m.pt --attack fgsm:eps=0.1 --dataset pets --save pets/new", "--save pets/new lies in the data set"),
    ("attack m.pt --attack fgsm:eps=0.1 --save checkpoints", "--save checkpoints files in it"),
    ("train --dataset k.npz --output k.npz --force", "--output k.npz data set reads"),
    ("train --dataset k.npz --output notes.txt --force", "--output notes.txt checkpoint"),
    ("train --dataset k.npz --config conf.yaml --output conf.yaml --force", "--output conf.yaml config reads"),
    ("train --dataset pets --output pets/m.pt", "--output pets/m.pt lies in the data set"),
    ("results export k.npz", "export k.npz an export of rows"),
    ("reproduce fig1 --quick --report notes.txt --out o", "--report notes.txt the report"),
    (f"evaluate m.pt --json {LONG}", "--json nnn name too long"),
    (f"results export {LONG}.csv", "export nnn name too long"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line[:70] for line, _ in REFUSED])
def test_what_must_not_be_replaced_is_refused(call: Call, place: Path, line: str, words: str) -> None:
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    ended = call(*shlex.split(line))
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert [word for word in words.split() if word.lower() not in ended.error.lower()] == [], ended.error
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_png_in_the_folder_that_the_checkpoint_names_is_not_replaced(call: Call, here: Path) -> None:
    from PIL import Image

    for split in ("a", "b"):
        Path("pets", split).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(Path("pets", split, f"{i}.png"))
    assert call("train", "--dataset", "pets", "--epochs", 1, "--output", "p.pt").code == 0
    before = Path("pets/a/0.png").read_bytes()
    ended = call("attack", "p.pt", *FGSM, "--gallery", "pets/a/0.png")
    assert (ended.code, ended.out) == (2, "")
    assert "--gallery pets/a/0.png: lies in the data set" in ended.error
    assert Path("pets/a/0.png").read_bytes() == before


def test_files_of_the_same_kind_are_replaced_and_links_are_followed(call: Call, place: Path) -> None:
    Path("real.json").write_text('{"schema": 1}')
    Path("linked.json").symlink_to("real.json")
    for path in ("empty.xml", "empty.png", "empty.npz"):
        Path(path).touch()
    flags = ("--save", "empty.npz", "--gallery", "empty.png", "--json", "linked.json")
    for _ in range(2):
        assert call("attack", "m.pt", *FGSM, *flags).code == 0
        assert call("evaluate", "m.pt", *FGSM, "--junit", "empty.xml").code == 0
    assert Path("linked.json").is_symlink()
    assert b'"rows"' in Path("real.json").read_bytes()
    for name in ("all.csv", "all.json", "all.npz"):
        assert [call("results", "export", name).code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("evaluate m.pt --json ''", "--json ''"),
        ("evaluate m.pt --dataset=", "--dataset ''"),
        ("evaluate m.pt --data-dir '  '", "--data-dir '  '"),
        ("attack m.pt --attack fgsm --seed ' '", "--seed ' '"),
        ("train --set ''", "--set ''"),
        ("results list --store ''", "--store ''"),
        ("reproduce fig1 --out ''", "--out ''"),
        ("doctor ''", "doctor: CHECKPOINT ''"),
        ("compare m.pt ' '", "compare: CHECKPOINT ' '"),
    ],
)
def test_an_empty_value_names_its_flag(call: Call, place: Path, line: str, flag: str) -> None:
    ended = call(*shlex.split(line))
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith(f"error: {flag}: is empty, perhaps a shell variable that is not set")


@pytest.mark.parametrize(
    ("eps", "meant"),
    [("0,1", "0.1"), ("0,05", "0.05"), ("0, 3", "0.3"), ("0,1,0,3", "0.1,0.3")]
    + [("8/255,0,1", "8/255,0.1"), ("0,1,0.3", "0.1,0.3")],
)
def test_a_decimal_comma_is_asked_back(call: Call, place: Path, eps: str, meant: str) -> None:
    ended = call("evaluate", "m.pt", "--attack", "fgsm", "--eps", eps)
    assert (ended.code, ended.out) == (2, "")
    assert f"--eps {eps}: " in ended.error
    assert f"did you mean {meant}?" in ended.error


@pytest.mark.parametrize("eps", ["0", "0,0.1", "0.0,1", "0.1,0.3", "8/255,16/255", "0,8/255"])
def test_lists_of_budgets_are_taken(call: Call, place: Path, eps: str) -> None:
    ended = call("evaluate", "m.pt", "--attack", "fgsm", "--eps", eps, "--limit", 4, "--checks", "off")
    assert (ended.code, "error" in ended.err) == (0, False)


def test_a_working_folder_that_is_gone_is_told_as_such(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ended = call("evaluate", "m.pt")
    assert (ended.code, ended.out) == (2, "")
    assert "the working folder cannot be used" in ended.error
    monkeypatch.chdir(tmp_path)
