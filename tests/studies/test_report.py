"""The page: every number on it comes from the parts' files."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.errors import ConfigError
from robustcli.studies.batchout.claims import CLAIMS
from robustcli.studies.batchout.part_results import PartResults
from robustcli.studies.batchout.report import report, write_report

from .conftest import SPEED, attacked, every_part, made, mnist, network

WHOLE = report(every_part(), ".", SPEED)


def claims_table(text: str) -> list[list[str]]:
    table = text.partition("## Claim by claim")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]


def test_every_claim_has_a_line_with_a_verdict_and_what_breaks_it() -> None:
    head, _, *lines = claims_table(WHOLE)
    assert head == ["section", "the paper says", "verdict", "our number", "what breaks it, or does not"]
    assert [line[:2] for line in lines] == [[claim.source, claim.text] for claim in CLAIMS]
    assert {line[2] for line in lines} <= {"**holds**", "**holds in part**", "**does not hold**", "**cannot be told**"}
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


def on_masking(text: str) -> str:
    return text.partition("## Gradient masking, label leaking, and what is left")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"fgsm_large": 43.3}, "43.3 ["),
        ({"transferred": 21.2}, "21.2 ["),
        ({"pgd_small": 71.7}, "71.7 ["),
        ({"pgd_large": 3.7}, "3.7 ["),
        ({"l2": 2.345}, "2.35"),
    ],
)
def test_the_words_on_masking_carry_the_numbers_of_the_rows(change: dict[str, float], shown: str) -> None:
    own: dict[str, float] = {"clean": 98.8, "fgsm_large": 45, "transferred": 30}
    assert shown in on_masking(report({"mnist": mnist(batchout=attacked(**(own | change)))}, "."))
    assert shown not in on_masking(report({"mnist": mnist(batchout=attacked(**own))}, "."))


@pytest.mark.parametrize(("transferred", "masks"), [(38.8, True), (38.9, False), (45, False), (80, False)])
def test_masking_is_said_only_where_vanillas_images_break_more(transferred: float, masks: bool) -> None:
    text = report({"mnist": mnist(batchout=attacked(fgsm_large=45, transferred=transferred))}, ".")
    assert ("**BatchOut masks its gradients.**" in text) == masks
    (line,) = [line for line in claims_table(text) if line[1].endswith("obfuscated gradients")]
    assert line[2] == ("**does not hold**" if masks else "**cannot be told**")


@pytest.mark.parametrize(("left", "masks"), [(1.0, True), (20.0, False)])
def test_masking_is_said_where_autoattack_breaks_what_pgd_does_not(left: float, masks: bool) -> None:
    cells = attacked(fgsm_large=45, pgd_large=20, transferred=60) | {"AutoAttack 0.3": left}
    text = report({"mnist": mnist(batchout=cells)}, ".")
    assert ("**BatchOut masks its gradients.**" in text) == masks
    assert (": it finds what PGD does not" in on_masking(text)) == masks


def test_masking_of_the_fgsm_trained_network_is_said_too() -> None:
    text = on_masking(report({"mnist": mnist(fgsm=attacked(fgsm_large=95, transferred=58))}, "."))
    assert "**FGSM-trained masks its gradients.** On MNIST, FGSM-trained at eps 0.3: its own" in text
    text = on_masking(report({"mnist": mnist(fgsm=attacked(fgsm_large=95, transferred=96))}, "."))
    assert "**FGSM-trained was not seen to mask its gradients.**" in text


@pytest.mark.parametrize(
    ("clean", "leaks"), [(90.0, True), (95.0, False), (99.0, False)]
)  # 95 % under FGSM at the budget that it was trained at
def test_label_leaking_is_more_accuracy_under_attack_than_without(clean: float, leaks: bool) -> None:
    text = report({"mnist": mnist(fgsm=attacked(clean=clean, fgsm_small=80, fgsm_large=95, pgd_large=0))}, ".")
    assert ("**FGSM training leaks labels.**" in text) == leaks
    assert ("reads the label" in text) == leaks
    assert ("no label leaking is seen" in text) != leaks


@pytest.mark.parametrize(("pgd", "said"), [(90, ", more beyond chance"), (61, ", which cannot be told apart")])
def test_the_gain_that_is_left_is_said(pgd: float, said: str) -> None:
    text = on_masking(report({"mnist": mnist(batchout=attacked(pgd_small=pgd, transferred=30))}, "."))
    assert f"PGD-40 0.1 leaves {pgd:.1f} [" in text
    assert f"of vanilla{said}" in text


def test_each_paragraph_is_said_without_the_others() -> None:
    whole = mnist()
    for label, word, other in (("BatchOut", "FGSM training", "BatchOut"), ("FGSM-trained", "BatchOut", "FGSM train")):
        networks = [entry for entry in whole.networks if entry["label"] != label]
        said = on_masking(report({"mnist": replace(whole, networks=networks)}, "."))
        assert word in said
        assert other not in said


def test_a_quick_look_gives_no_verdicts() -> None:
    quick = {name: replace(part, quick=True) for name, part in every_part().items()}
    assert {line[2] for line in claims_table(report(quick, ".", SPEED))[2:]} == {"**quick look**"}


def test_every_rule_is_printed_once_after_its_sections() -> None:
    listed = WHOLE.partition("How each is judged, by section:")[2].partition("\n## ")[0].strip().splitlines()
    assert [line.partition(": ")[2] for line in listed] == list(dict.fromkeys(claim.rule for claim in CLAIMS))
    for line in listed:
        sections, _, rule = line.removeprefix("- ").partition(": ")
        assert sections.split(", ") == list(dict.fromkeys(claim.source for claim in CLAIMS if claim.rule == rule))


def test_recipes_are_those_of_the_networks_specs() -> None:
    section = WHOLE.partition("## The recipes")[2].partition("\n## ")[0]
    for name in ("mnist", "cifar10"):
        spec = every_part()[name].networks[0]["spec"]
        (said,) = [line for line in section.splitlines() if line.startswith(f"**{name}**: ")]
        assert f"optimizer {spec['optimizer']}, lr {spec['lr']}, schedule {spec['schedule']}" in said
    assert "But" not in section
    with_pgd = mnist()
    text = report({"mnist": replace(with_pgd, networks=[*with_pgd.networks, network("PGD-trained", epochs=8)])}, ".")
    assert ". But PGD-trained: 8 epochs, 7 steps an image.\n" in text


def test_without_headline_networks_there_are_no_recipes() -> None:
    assert "## The recipes" not in report({"fig2": every_part()["fig2"]}, ".")
    assert "## The recipes" not in report({"mnist": made("mnist", {})}, ".")


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
    assert unmeasured == {"1", "6.1", "6.3", "6.4", "6.5", "6.6", "Figure 5", "6.7"}


def test_what_training_costs_is_read_beside_the_parts(tmp_path: Path) -> None:
    mnist().write(tmp_path)
    (tmp_path / "training-speed.json").write_text(json.dumps(SPEED))
    path = write_report(tmp_path)
    assert path is not None
    (line,) = [line for line in claims_table(path.read_text()) if line[0] == "1"]
    assert line[2:4] == ["**holds**", "seconds an epoch, as a multiple of vanilla's: BatchOut 1.10, FGSM-trained 2.00"]


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
    toy = PartResults("fig1", "The toy example", "Figure 1", "", False, toy={"points": 300, "seed": 0})
    assert "| points | " in re.sub(r" +", " ", report({"fig1": toy}, "p"))
    assert "](p/fig1.png)" in report({"fig1": toy}, "p")
