"""Every measured number that a reader meets comes from a file under results/reproduction/, and that says where."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.text import Text

from robustcli.studies.batchout import PARTS
from robustcli.studies.batchout.experiments import FULL, parts
from robustcli.studies.batchout.headline_claims import CLOSE, PAPER_CLEAN
from robustcli.studies.batchout.part_results import read
from robustcli.studies.batchout.report import report

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "reproduction"
PAGE = ROOT / "docs" / "reproduction.md"
MEASURED = re.compile(r"(?<![\w.])\d+\.\d+(?= ?%| ?±| \[\d)")
"""A percentage with a decimal, alone or with its interval or spread."""

LABEL = re.compile(r"<text [^>]*>([^<]+)</text>")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stamp_numbers", ROOT / "scripts" / "stamp_numbers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/tour.md", "docs/numbers.md"])
def test_a_page_says_what_was_measured(script: ModuleType, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert script.stamped(page, text) == text


def test_the_picture_shows_what_the_command_printed(script: ModuleType) -> None:
    drawn = ElementTree.fromstring((script.PICTURES / "terminal.svg").read_text(encoding="utf-8"))
    shown = "".join("".join(part.itertext()) for part in drawn.iter("{http://www.w3.org/2000/svg}text"))
    found = json.loads((FOLDER / "terminal.json").read_text(encoding="utf-8"))
    lines = [Text.from_ansi(line).plain for line in (found["command"], *found["stdout"])]
    plain = re.sub(r"\s", "", shown)
    assert [line for line in lines if re.sub(r"\s", "", line) not in plain] == []


def test_the_figure_shows_the_measured_accuracies(script: ModuleType) -> None:
    """Its text is that of the script's own drawing; what matplotlib draws around it may differ by version."""
    kept = (script.PICTURES / "batchout.svg").read_text(encoding="utf-8")
    assert LABEL.findall(kept) == LABEL.findall(script.truth())


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configs_header_says_what_was_measured(script: ModuleType, path: Path) -> None:
    assert script.stamped_config(path) == path.read_text(encoding="utf-8")


def test_the_page_is_what_the_command_writes() -> None:
    found = {name: read(FOLDER / f"{name}.json") for name in PARTS if (FOLDER / f"{name}.json").exists()}
    speed = json.loads((FOLDER / "training-speed.json").read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == report(found, "../results/reproduction", speed)


@pytest.mark.parametrize(
    "path",
    sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {PAGE, ROOT / "docs" / "verdict.md"}),
    ids=lambda path: path.name,
)
def test_a_page_quotes_no_accuracy_of_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    outside = re.sub(r"<!-- \w+ -->\n.*?<!-- end -->", "", text, flags=re.DOTALL)
    assert MEASURED.findall(outside) == []


@pytest.mark.parametrize("part", PARTS)
class TestEachPart:
    def test_it_is_there_with_table_and_pictures(self, part: str) -> None:
        assert [kind for kind in ("json", "md", "png", "svg") if not (FOLDER / f"{part}.{kind}").is_file()] == []

    def test_it_is_the_whole_study(self, part: str) -> None:
        assert not read(FOLDER / f"{part}.json").quick

    def test_its_networks_are_the_studys(self, part: str) -> None:
        results = read(FOLDER / f"{part}.json")
        study = {network.name: network.spec.as_dict() for network in parts(FULL)[part].networks}
        assert {network["name"]: network["spec"] for network in results.networks}.items() <= study.items()
        there = {network["name"] for network in results.networks} | {entry["name"] for entry in results.missing}
        assert there == study.keys()

    def test_everything_in_it_says_where_it_comes_from(self, part: str) -> None:
        results = read(FOLDER / f"{part}.json")
        for entry in (*results.networks, *results.rows):
            assert said(entry), entry


def test_mnists_numbers_are_as_high_as_the_papers_and_fall_as_it_says() -> None:
    results = read(FOLDER / "mnist.json")
    for label, paper in PAPER_CLEAN["mnist"].items():
        clean = results.accuracies(label)["clean"]
        assert len(clean.counts) >= 3
        assert clean.n == 10_000
        assert clean.mean >= paper - CLOSE
    assert results.accuracies("BatchOut")["FGSM 0.3"].mean >= 40
    assert results.accuracies("vanilla")["FGSM 0.3"].mean <= 20
    assert max(network["epochs"] for network in results.networks) <= 40


def said(entry: dict[str, Any]) -> bool:
    """Whether an entry names a clean commit, the seed, the hardware, and how many samples."""
    return (
        re.fullmatch(r"[0-9a-f]{40}", str(entry["commit"])) is not None
        and isinstance(entry["seed"], int)
        and bool(entry["hardware"])
        and int(entry.get("n", entry.get("n_train", 0))) > 0
    )


@pytest.mark.parametrize("name", ["recipes-mnist", "recipes-cifar10", "training-speed", "sample", "terminal"])
def test_a_file_beside_the_parts_says_where_it_comes_from(name: str) -> None:
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for entry in content["runs"] if name.startswith("recipes") else [content]:
        assert re.fullmatch(r"[0-9a-f]{40}(\+dirty)?", str(entry["commit"]))
        assert entry["hardware"]
        assert entry["n"] > 0
