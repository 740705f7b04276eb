"""The page: every number on it comes from the parts' files."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.errors import ConfigError
from robustcli.reproduction.claims import CLAIMS
from robustcli.reproduction.report import report, write_report
from robustcli.reproduction.results import Results

from .conftest import attacked, every_part, made, mnist

WHOLE = report(every_part(), ".")


def claims_table(text: str) -> list[list[str]]:
    table = text.partition("## Claim by claim")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]


def test_every_claim_has_a_line_with_a_verdict_and_what_breaks_it() -> None:
    head, _, *lines = claims_table(WHOLE)
    assert head == ["section", "the paper says", "verdict", "our number", "and under"]
    assert [line[:2] for line in lines] == [[claim.source, claim.words] for claim in CLAIMS]
    assert {line[2] for line in lines} <= {"**holds**", "**holds in part**", "**does not hold**"}
    assert all(line[3] for line in lines)


def test_every_part_has_its_table_and_picture() -> None:
    for part, results in every_part().items():
        section = WHOLE.partition(f"### {part}: {results.title}\n")[2].partition("\n#")[0]
        assert f"![{results.title}](./{part}.png)" in section
        assert f"{results.source} of the paper." in section
        assert len([line for line in section.splitlines() if line.startswith("| ")]) > 1


@pytest.mark.parametrize("part", [part for part, results in every_part().items() if results.rows])
def test_another_row_gives_another_page(part: str) -> None:
    """Each row of the part's last network, with the others left out: they only take time."""
    whole = every_part()[part]
    entry = whole.networks[-1]
    rows = [row for row in whole.rows if row["model"] == entry["name"]]
    one = replace(whole, networks=[entry], rows=rows)
    pages = {report({part: one}, ".")}
    for index, row in enumerate(rows):
        changed = [*rows[:index], row | {"correct": 777, "by_iter": [777] * 5}, *rows[index + 1 :]]
        pages.add(report({part: replace(one, rows=changed)}, "."))
    assert len(pages) == len(rows) + 1


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"fgsm_large": 33.3}, "33.3 ["),
        ({"pgd_small": 71.7}, "71.7 ["),
        ({"pgd_large": 3.7}, "3.7 ["),
        ({"l2": 2.345}, "2.35"),
    ],
)
def test_the_words_on_masking_carry_the_numbers_of_the_rows(change: dict[str, float], shown: str) -> None:
    text = report({"mnist": mnist(batchout=attacked(**change))}, ".")
    masking = text.partition("## Gradient masking")[2].partition("\n## ")[0]
    assert shown in masking
    assert shown not in report({"mnist": mnist()}, ".").partition("## Gradient masking")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("large", "title"), [(95.0, "leaks labels"), (90.0, "overfits to one step")])
def test_label_leaking_is_said_only_where_the_larger_budget_leaves_more(large: float, title: str) -> None:
    text = report({"mnist": mnist(fgsm=attacked(fgsm_small=90, fgsm_large=large))}, ".")
    assert f"**FGSM training {title}.**" in text
    assert ("reads the label" in text) == (large > 90)


def test_without_the_numbers_nothing_is_said_of_masking() -> None:
    for parts in ({}, {"fig2": every_part()["fig2"]}, {"mnist": made("mnist", {"vanilla": attacked()})}):
        assert "Gradient masking" not in report(parts, ".")


def test_only_a_quick_look_is_said_to_be_one() -> None:
    assert "A quick look" not in WHOLE
    parts = every_part()
    text = report(parts | {"mnist": replace(parts["mnist"], quick=True)}, ".")
    assert text.index("**A quick look: few images and few epochs.") < text.index("## Claim by claim")


def test_what_is_missing_is_named() -> None:
    missing = [{"name": "mnist-pgd-seed0", "label": "PGD-trained", "epochs_done": 3, "epochs": 12}]
    assert "Missing: mnist-pgd-seed0, 3 of 12 epochs trained." in report(
        {"mnist": replace(mnist(), missing=missing)}, "."
    )
    assert "Missing" not in WHOLE


def test_what_was_not_measured_says_so() -> None:
    lines = claims_table(report({"mnist": mnist()}, "."))[2:]
    unmeasured = {line[0] for line in lines if line[2] == "**not measured**"}
    assert {"6.1", "6.3", "6.4", "6.5", "6.6", "6.7"} == unmeasured


@pytest.mark.parametrize("page", ["out/report.md", "docs/reproduction.md", "page.md", "docs/deep/er/page.md"])
def test_pictures_are_linked_relative_to_the_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, path = Path("out"), Path(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    mnist().write(folder)
    (folder / "mnist.png").touch()
    assert write_report(folder, path) == path
    (link,) = re.findall(r"\]\((.+?mnist\.png)\)", path.read_text())
    assert not Path(link).is_absolute()
    assert (path.parent / link).resolve() == (folder / "mnist.png").resolve()


def test_the_page_lies_beside_the_parts_where_no_place_is_named(tmp_path: Path) -> None:
    mnist().write(tmp_path)
    assert write_report(tmp_path) == tmp_path / "report.md"
    assert (tmp_path / "report.md").read_text() == report({"mnist": mnist()}, ".")


def test_the_page_from_files_is_that_from_memory_in_the_order_of_the_study(tmp_path: Path) -> None:
    parts = every_part()
    for results in reversed(parts.values()):
        results.write(tmp_path)
    path = write_report(tmp_path)
    assert path is not None
    found = [line for line in path.read_text().splitlines() if line.startswith("### ")]
    assert [line.split()[1].rstrip(":") for line in found] == [
        *("mnist", "fig2", "fig4b", "fig5a", "fig5b", "stopgrad"),
        *("cifar10", "fig3", "fig4a"),
    ]


def test_without_parts_there_is_no_page(tmp_path: Path) -> None:
    assert write_report(tmp_path) is None
    assert write_report(tmp_path / "nowhere") is None
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_parts_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "fig2.json").write_text("{")
    with pytest.raises(ConfigError, match=r"--out .*fig2\.json: is not a part's results"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    mnist().write(tmp_path)
    with pytest.raises(ConfigError, match=r"--report .*nowhere/page\.md: No such file"):
        write_report(tmp_path, tmp_path / "nowhere" / "page.md")


def test_the_toy_example_is_a_part_like_any_other() -> None:
    toy = Results("fig1", "The toy example", "Figure 1", "", False, toy={"points": 300, "seed": 0})
    assert "| points | " in re.sub(r" +", " ", report({"fig1": toy}, "p"))
    assert "](p/fig1.png)" in report({"fig1": toy}, "p")
