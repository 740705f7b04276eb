"""Pictures: PNG and SVG of every part, the same bytes from the same results, whatever was not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from robustcli.errors import ConfigError
from robustcli.studies.batchout import PARTS
from robustcli.studies.batchout.five_gaussians import measure_five_gaussians
from robustcli.studies.batchout.paper_figures import DRAW, save_figure
from robustcli.studies.batchout.part_results import PartResults

from .conftest import attacked, every_part, made

TOY = PartResults("fig1", "The toy example", "Figure 1", "", False, toy=measure_five_gaussians())


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels: a test looks at none of them closely."""
    from matplotlib.figure import Figure

    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: save(self, *args, **(kwargs | {"dpi": 40})))


def draw(results: PartResults, folder: Path) -> tuple[bytes, bytes]:
    save_figure(results, folder)
    return (folder / f"{results.part}.png").read_bytes(), (folder / f"{results.part}.svg").read_bytes()


def words(svg: bytes) -> set[str]:
    """All text of a picture; with `svg.fonttype: none` it is kept as text."""
    return {
        "".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")
    }


NAMED = {"fig5a": {"clean", "FGSM 0.4", "PGD-40 0.1"}, "fig5b": {"BatchOut", "Gaussian"}}
"""What a legend has where it does not have the networks' labels."""


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_drawn_and_names_its_networks(part: str, tmp_path: Path) -> None:
    results = (every_part() | {"fig1": TOY})[part]
    _, svg = draw(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{part}.png", f"{part}.svg"}
    with Image.open(tmp_path / f"{part}.png") as image:
        assert np.asarray(image).std() > 5, "not a blank page"
    assert f"{results.source[0].upper()}{results.source[1:]}: {results.title}" in words(svg)
    assert NAMED.get(part, set(results.labels)) <= words(svg)


@pytest.mark.parametrize(
    ("part", "cells"),
    [
        ("fig1", {}),
        ("mnist", {"vanilla": {"FGSM 0.3": 10.0}}),
        ("fig5a", {"k = 0": {"FGSM 0.4": 10.0}, "k = 1": {"FGSM 0.4": 40.0}}),
    ],
)
def test_the_same_results_give_the_same_bytes(part: str, cells: dict[str, object], tmp_path: Path) -> None:
    results = TOY if part == "fig1" else made(part, cells)  # type: ignore[arg-type]
    assert draw(results, tmp_path) == draw(results, tmp_path)


@pytest.mark.parametrize(
    ("part", "cells"),
    [
        ("mnist", {"vanilla": attacked(), "BatchOut": {"FGSM 0.3": 40.0}, "Gaussian": {}}),
        ("mnist", {"vanilla": [attacked(), {"FGSM 0.3": 40.0}]}),
        ("fig2", {"vanilla": attacked(), "BatchOut": {"FGSM 0.3": 40.0}, "Gaussian": {}}),
        ("fig2", {"vanilla": {"PGD-40 0.1": 10.0}}),
        ("fig3", {"vanilla": {"FGSM 2/255": 10.0}, "BatchOut": {"DeepFool none": [3.0, 2.0, 1.0, 1.0, 1.0]}}),
        ("fig4b", {"none": {"FGSM 0.3": 10.0}}),
        ("fig5a", {"k = 0": {"FGSM 0.4": 10.0}, "k = 0.25": {}}),
        ("fig5b", {"BatchOut, eta x 1": {"FGSM 0.1": 10.0, "FGSM 0.3": 5.0}, "BatchOut, eta x 2": {}}),
        ("stopgrad", {"with the stop-gradient": {"FGSM 0.3": 10.0}}),
        ("fig4a", {"vanilla": {}}),
    ],
)
def test_what_an_interrupted_run_has_is_drawn(part: str, cells: dict[str, object]) -> None:
    figure = DRAW[part](made(part, cells))  # type: ignore[arg-type]
    assert any(axis.has_data() for axis in figure.axes)


def test_other_results_give_another_picture(tmp_path: Path) -> None:
    one, other = (draw(made("fig5a", {"k = 0": {"FGSM 0.4": percent}}), tmp_path) for percent in (10.0, 30.0))
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_lines_and_bars_are_at_the_numbers() -> None:
    results = made("fig2", {"vanilla": attacked(fgsm_small=70, fgsm_large=20)})
    (line,) = [line for line in DRAW["fig2"](results).axes[0].get_lines() if line.get_marker() == "o"]
    assert np.allclose(line.get_xydata(), [(0, 99), (0.1, 70), (0.3, 20)])
    heights = [
        bar.get_height() for bar in DRAW["mnist"](made("mnist", {"vanilla": {"FGSM 0.3": 20.0}})).axes[0].patches
    ]
    assert heights == [99, 20]


def test_deepfool_starts_at_clean_accuracy_in_both_panels() -> None:
    figure = DRAW["fig2"](made("fig2", {"vanilla": attacked()}))
    for axis, after in zip(figure.axes[1:3], (90, 60), strict=True):
        line = next(line for line in axis.get_lines() if line.get_marker() == "o")
        assert np.allclose(line.get_xydata()[:2], [(0, 99), (1, after)])


def footer(results: PartResults, folder: Path) -> str:
    (found,) = [text for text in words(draw(results, folder)[1]) if "; " in text or "missing" in text]
    return found


def test_the_footer_says_what_was_trained_and_measured(tmp_path: Path) -> None:
    results = made("fig5a", {"k = 0": {"FGSM 0.4": 10.0}, "k = 1": {"FGSM 0.4": 40.0}})
    assert footer(results, tmp_path) == (
        "trained for 12 epochs, seeds 1; n: clean 1000, fgsm 1000; "
        "bars: 95 % intervals, Wilson's or over seeds Student's if wider"
    )
    rows = [row | ({"n": 2000} if row["model"].startswith("k = 1") else {}) for row in results.rows]
    networks = [{**results.networks[0], "epochs": 6}, results.networks[1]]
    said = footer(replace(results, rows=rows, networks=networks), tmp_path)
    assert said.startswith("trained for 6 or 12 epochs, seeds 1; n: clean 2000, fgsm 1000; ")


def test_the_footer_counts_the_seeds(tmp_path: Path) -> None:
    results = made("stopgrad", {"with the stop-gradient": [{"FGSM 0.3": 10.0}] * 3})
    assert "epochs, seeds 3; " in footer(results, tmp_path)


def test_only_a_quick_look_says_so_on_the_picture(tmp_path: Path) -> None:
    results = made("fig5a", {"k = 0": {"FGSM 0.4": 10.0}})
    assert "quick look" not in footer(results, tmp_path)
    assert footer(replace(results, quick=True), tmp_path).startswith("quick look: not the paper's numbers; ")


@pytest.mark.parametrize("part", ["mnist", "fig2", "fig4a", "fig5a", "fig5b"])
def test_a_part_of_which_nothing_could_be_made_is_a_page_that_says_so(part: str, tmp_path: Path) -> None:
    missing = [{"name": "a-seed0", "label": "A", "epochs_done": 0, "epochs": 2}]
    assert footer(made(part, {}, missing=missing), tmp_path) == "missing: A"


def test_shares_are_drawn_where_their_methods_are_whatever_their_labels() -> None:
    results = made("fig5a", {"k = 0": {"FGSM 0.4": 10.0}, "k = 0.75": {"FGSM 0.4": 40.0}})
    networks = [entry | {"label": f"network {i}"} for i, entry in enumerate(results.networks)]
    (axis,) = DRAW["fig5a"](replace(results, networks=networks)).axes
    assert [list(line.get_xdata()) for line in axis.get_lines() if line.get_marker() == "o"] == [[0, 0.75]] * 2


def test_noise_is_drawn_where_its_methods_eta_is_whatever_its_label() -> None:
    labels = [f"{method}, eta x {multiple}" for method in ("BatchOut", "Gaussian") for multiple in (1, 5)]
    results = made("fig5b", {label: {"FGSM 0.1": 10.0} for label in labels})
    networks = [entry | {"label": f"network {i}"} for i, entry in enumerate(results.networks)]
    axis = DRAW["fig5b"](replace(results, networks=networks)).axes[0]
    drawn = [line.get_xdata() for line in axis.get_lines() if line.get_marker() in ("D", "^")]
    assert np.allclose(drawn, [[1, 5]] * 2)


def test_drawing_leaves_the_settings_of_matplotlib(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw(TOY, tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "fig1.svg").mkdir()
    with pytest.raises(ConfigError, match=r"--out .*fig1\.svg: Is a directory"):
        save_figure(TOY, tmp_path)


def test_images_made_on_another_network_are_no_point_of_a_curve(tmp_path: Path) -> None:
    part = every_part()["fig2"]
    row = next(row for row in part.rows if row["attack"]["name"] == "fgsm")
    other = row | {"attack": row["attack"] | {"source": "vanilla"}}
    save_figure(replace(part, rows=[*part.rows, other]), tmp_path)
    assert (tmp_path / "fig2.png").stat().st_size > 0
