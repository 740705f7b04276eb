"""A part's table: a network a row, an attack and budget a column, and what a reader must know under it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from robustcli.report.table import Table, to_text
from robustcli.studies.batchout.five_gaussians import measure_five_gaussians
from robustcli.studies.batchout.paper_tables import make_table, notes
from robustcli.studies.batchout.part_results import PartResults

from .conftest import attacked, every_part, made, mnist, network


def cell(shown: Table, label: str, header: str) -> str:
    (row,) = [row for row in shown.cells if row[0] == label]
    return row[shown.headers.index(header)]


@pytest.mark.parametrize("part", every_part())
def test_every_part_has_a_table_of_whole_rows(part: str) -> None:
    shown = make_table(every_part()[part])
    assert {len(row) for row in shown.cells} == {len(shown.headers)}
    assert len(set(shown.headers)) == len(shown.headers)
    lines = [line for line in to_text(shown, "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == len(shown.cells) + 2


def test_a_table_has_the_columns_of_the_attacks_with_deepfools_last_iteration_only() -> None:
    assert make_table(mnist()).headers == (
        *("network", "seeds", "clean", "FGSM 0.1", "FGSM 0.3", "PGD-40 0.1", "PGD-40 0.3"),
        *("DeepFool none 5", "DeepFool project 5", "FGSM 0.3 from vanilla", "median L2"),
    )


@pytest.mark.parametrize("part", ["fig2", "fig3"])
def test_what_a_figure_draws_is_in_its_table_a_column_a_network_with_every_iteration(part: str) -> None:
    shown = make_table(every_part()[part])
    assert shown.headers[1:] == ("vanilla", "FGSM-trained", "BatchOut", "Gaussian")
    lines = [row[0] for row in shown.cells]
    assert [line for line in lines if line.startswith("DeepFool")] == [
        f"DeepFool {box} {i}" for box in ("none", "project") for i in (1, 2, 3, 4, 5)
    ]
    assert (lines[:2], lines[-1]) == (["seeds", "clean"], "median L2")


def test_a_transposed_table_has_the_same_numbers() -> None:
    shown = make_table(made("fig2", {"vanilla": attacked(), "BatchOut": attacked(transferred=30)}))
    found = {row[0]: row[1:] for row in shown.cells}
    assert found["DeepFool none 2"] == ("40.0 [37.0, 43.1]",) * 2
    assert found["FGSM 0.3 from vanilla"] == ("-", "30.0 [27.2, 32.9]")


def test_vanilla_has_no_images_of_its_own_from_itself() -> None:
    assert cell(make_table(mnist()), "vanilla", "FGSM 0.3 from vanilla") == "-"
    assert cell(make_table(mnist()), "BatchOut", "FGSM 0.3 from vanilla") == "30.0 [27.2, 32.9]"


def test_a_cell_is_a_number_with_its_interval_or_deviation() -> None:
    shown = make_table(mnist(batchout=[attacked(fgsm_large=40, l2=1.5), attacked(fgsm_large=50, l2=1.75)]))
    assert cell(shown, "vanilla", "FGSM 0.3") == "15.0 [12.9, 17.3]"
    assert cell(shown, "BatchOut", "FGSM 0.3") == "45.0 ± 7.1"
    assert (cell(shown, "vanilla", "seeds"), cell(shown, "BatchOut", "seeds")) == ("1", "2")
    assert (cell(shown, "vanilla", "median L2"), cell(shown, "BatchOut", "median L2")) == ("1.50", "1.62 ± 0.18")


def test_a_median_that_half_withstood_is_infinite() -> None:
    assert cell(make_table(mnist(vanilla=attacked(l2=None))), "vanilla", "median L2") == "inf"
    assert cell(make_table(mnist(vanilla=[attacked(l2=None), attacked()])), "vanilla", "median L2") == "inf"


def test_what_was_not_measured_is_a_dash() -> None:
    results = made("mnist", {"vanilla": attacked(), "BatchOut": {"FGSM 0.1": 50.0}, "Gaussian": {}})
    shown = make_table(results)
    assert cell(shown, "BatchOut", "FGSM 0.1").startswith("50.0")
    assert (cell(shown, "BatchOut", "FGSM 0.3"), cell(shown, "BatchOut", "median L2")) == ("-", "-")
    assert next(row for row in shown.cells if row[0] == "Gaussian") == ("Gaussian", *"-" * (len(shown.headers) - 1))


def test_a_part_without_attacks_has_the_losses_an_epoch_a_row() -> None:
    results = made(
        "fig4a", {}, networks=[network("vanilla", losses=[2.0, 1.0]), network("BatchOut", losses=[2.5, 1.25, 1.0])]
    )
    shown = make_table(results)
    assert shown.headers == ("epoch", "vanilla", "BatchOut")
    assert shown.cells == (("1", "2.0000", "2.5000"), ("2", "1.0000", "1.2500"), ("3", "-", "1.0000"))


def test_the_toy_example_has_its_numbers() -> None:
    numbers = measure_five_gaussians()
    shown = make_table(PartResults("fig1", "The toy example", "Figure 1", "", False, toy=numbers))
    assert dict(shown.cells) == {name: f"{value:g}" for name, value in numbers.items()}


def test_notes_say_how_many_images_and_how_the_networks_were_trained() -> None:
    rows = [row | ({"n": 200} if row["attack"]["name"] == "pgd" else {}) for row in mnist().rows]
    text = " ".join(notes(replace(mnist(), rows=rows)))
    assert "Test images: clean 1000, deepfool 1000, fgsm 1000, pgd 200." in text
    assert "Trained for 12 epochs at commit 0123456 on a processor." in text


def test_notes_name_each_commit_hardware_and_number_of_epochs() -> None:
    networks = [
        network("vanilla"),
        network("BatchOut", commit="fedcba9876543210+dirty", epochs=6, hardware="another"),
    ]
    assert ("Trained for 6 or 12 epochs at commits 0123456, fedcba9+dirty on a processor, another.") in notes(
        made("mnist", {}, networks=networks)
    )


def test_notes_name_what_is_missing_and_how_far_it_came() -> None:
    missing = [{"name": "mnist-pgd-seed0", "label": "PGD-trained", "epochs_done": 3, "epochs": 12}]
    assert "Missing: mnist-pgd-seed0, 3 of 12 epochs trained." in notes(replace(mnist(), missing=missing))
    assert not [note for note in notes(mnist()) if "Missing" in note]


def test_notes_say_why_a_network_is_missing() -> None:
    entry = {"name": "a", "label": "A", "epochs_done": 1, "epochs": 2, "reason": "the loss became NaN"}
    assert "Missing: a, 1 of 2 epochs trained; the loss became NaN." in notes(replace(mnist(), missing=[entry]))


def test_a_part_of_which_nothing_could_be_made_has_a_table_all_the_same() -> None:
    entry = {"name": "a", "label": "A", "epochs_done": 0, "epochs": 2, "reason": "the loss became NaN"}
    for part in every_part():
        shown = to_text(make_table(made(part, {}, missing=[entry])), "markdown")
        assert "Missing: a, 0 of 2 epochs trained; the loss became NaN." in shown


def test_only_a_quick_look_says_that_it_is_one() -> None:
    assert notes(replace(mnist(), quick=True))[-1].startswith("A quick look: few images")
    assert not [note for note in notes(mnist()) if "quick" in note]


def test_the_studys_note_is_under_the_table() -> None:
    assert "Each network trained for 6 epochs with the data set's recipe." in notes(every_part()["fig4b"])
