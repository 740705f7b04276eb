"""A part: its files, and runs after the first."""

from __future__ import annotations

from pathlib import Path

from robustcli.studies.batchout.part_results import read

from ..conftest import Call
from .conftest import FIRST, KINDS, QUICK, SECOND


def test_a_part_leaves_its_files_its_checkpoints_and_the_page(finished: Path) -> None:
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        *(f"stopgrad.{kind}" for kind in KINDS),
        "report.md",
        *(f"models/{name}.{kind}" for name in (FIRST, SECOND) for kind in ("pt", "lock")),
        "store.db",
    }
    assert "A quick look" in (finished / "report.md").read_text()
    assert read(finished / "stopgrad.json").quick


def test_a_second_run_trains_and_measures_nothing_and_prints_the_same(
    call: Call, finished: Path, done: list[str]
) -> None:
    kept = [*finished.glob("models/*"), *(finished / f"stopgrad.{k}" for k in KINDS[1:])]
    before = {path: path.read_bytes() for path in kept}
    ended = call("reproduce", "stopgrad", "--quick")
    assert (ended.code, done) == (0, [])
    assert {path: path.read_bytes() for path in kept} == before
    assert "with the stop-gradient" in ended.out
    assert f"{QUICK}/stopgrad.json .md .png .svg" in ended.out
    assert "epoch" not in ended.err.replace("epochs", "")


def test_progress_and_notices_go_to_stderr(call: Call, here: Path) -> None:
    ended = call("reproduce", "fig1", "--quick", "--out", "o")
    assert ended.code == 0
    assert "fig1: The toy example" in ended.err
    assert "report: o/report.md" in ended.err
    assert "report" not in ended.out
    assert "mean distance moved" in ended.out
    assert {path.name for path in (here / "o").iterdir()} == {"report.md", "fig1.json", "fig1.md"}


def test_more_seeds_train_only_the_new_ones_and_stay_a_quick_look(call: Call, finished: Path, done: list[str]) -> None:
    ended = call("reproduce", "stopgrad", "--quick", "--seeds", 2)
    assert ended.code == 0
    trained = [name for name in done if name.startswith("mnist-sample")]
    assert trained == [name.replace("seed0", "seed1") for name in (FIRST, SECOND)]
    results = read(finished / "stopgrad.json")
    assert (results.quick, len(results.networks)) == (True, 4)
    assert "A quick look" in (finished / "report.md").read_text()


def test_the_page_goes_where_it_is_wanted_with_links_that_lead_back(call: Call, here: Path) -> None:
    (here / "docs").mkdir()
    assert call("reproduce", "fig1", "--quick", "--out", "o", "--report", "docs/page.md").code == 0
    assert "](../o/fig1.png)" in (here / "docs" / "page.md").read_text()
    assert not (here / "o" / "report.md").exists()
