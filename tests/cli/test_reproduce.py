"""`robustcli reproduce`, with a study so small that each of its networks takes a moment."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustcli import checkpoint
from robustcli.cli import reproduce as command
from robustcli.cli import run as cli
from robustcli.errors import TrainingError
from robustcli.reproduction import PARTS, design, run, studies
from robustcli.reproduction.design import Part, Scale
from robustcli.reproduction.results import read
from robustcli.training import loop

from .conftest import Call

TINY = Scale(
    mnist=design.SAMPLE, seeds=1, epochs=2, ablation_epochs=2, limit=32, n=16, n_costly=8, n_dear=4, quick=True
)
QUICK = Path("results/reproduction-quick")
KINDS = ("json", "md", "png", "svg")
FIRST, SECOND = "mnist-sample-batchout-seed0", "mnist-sample-batchout-nostop-seed0"
"""The networks of `stopgrad`; each meets FGSM at three budgets and PGD at one."""
ROWS = ["fgsm 0.1", "fgsm 0.3", "fgsm 0.4", "pgd 0.1"]
CIFAR = ("cifar10", "fig3", "fig4a")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without pictures, but for those of `once`: they take longer than all the rest."""
    monkeypatch.setattr(run, "save_figure", lambda results, folder: None)
    monkeypatch.setattr(design, "QUICK", TINY)
    monkeypatch.setattr("robustcli.provenance._commit", lambda root: "0123456789")  # git takes longer than a training


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which `reproduce stopgrad --quick` has ended. To be copied."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(design, "QUICK", TINY)
        assert cli(["reproduce", "stopgrad", "--quick"]) == 0
    return folder


@pytest.fixture
def finished(once: Path, here: Path) -> Path:
    shutil.copytree(once, here, dirs_exist_ok=True)
    return here / QUICK


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has its first network and attack only: for all parts at once."""
    every = studies.parts

    def cut(scale: Scale) -> dict[str, Part]:
        return {
            name: replace(part, networks=part.networks[:1], probes=part.probes[:1])
            for name, part in every(scale).items()
        }

    monkeypatch.setattr(studies, "parts", cut)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained and measured, in order."""
    seen: list[str] = []
    train, measure = command._train, command._measure
    monkeypatch.setattr(command, "_train", lambda *given: (seen.append(given[1].stem), train(*given))[1])

    def measured(session: Any) -> Any:
        for row in measure(session):
            seen.append(f"{row.attack.name} {row.eps:g}")
            yield row

    monkeypatch.setattr(command, "_measure", measured)
    return seen


def at_call(count: int, act: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, but `act` comes before its call number `count`."""
    calls: list[int] = []

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            act()
        return original(*args, **kwargs)

    return called


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def parts_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json")}


def write_colours(folder: Path) -> Path:
    """A data folder with a CIFAR-10 of 32 training and 16 test images, all noise."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 32), ("test", 16)):
        arrays |= {f"x_{split}": draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), f"y_{split}": np.arange(n) % 10}
    folder.mkdir()
    np.savez(folder / "cifar10.npz", **arrays)
    return folder


# --- What is asked for


@pytest.mark.parametrize(("wrong", "near"), [("fig6", "fig"), ("minst", "mnist"), ("cifar", "cifar10"), ("al", "all")])
def test_an_unknown_part_is_an_error_that_names_the_nearest(call: Call, here: Path, wrong: str, near: str) -> None:
    ended = call("reproduce", wrong)
    assert (ended.code, ended.out) == (2, "")
    assert f"reproduce: '{wrong}' is unknown (allowed: all, " in ended.error
    assert f"did you mean '{near}" in ended.error
    assert all(part in ended.error for part in PARTS)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stopgrad", "--seeds", "0"], "--seeds 0: should be at least 1"),
        (["stopgrad", "--seeds", "-2"], "--seeds -2: should be at least 1"),
        (["stopgrad", "--seeds", "two"], "--seeds two: "),
        (["stopgrad", "--quik"], "no such option --quik; did you mean '--quick'?"),
        ([], "argument"),
        (["stopgrad", "fig1"], "fig1"),
        (["stopgrad", "--quick", "--device", "abacus"], "--device 'abacus' is unknown"),
        (["fig1", "--quick", "--device", "abacus"], "--device 'abacus' is unknown"),
    ],
)
def test_a_wrong_flag_is_one_line(call: Call, here: Path, arguments: list[str], said: str) -> None:
    ended = call("reproduce", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.error


def test_help_names_every_part(call: Call) -> None:
    ended = call("reproduce", "--help")
    assert ended.code == 0
    assert all(name in ended.out for name in (*PARTS, "all", "--quick", "--seeds", "--out", "--report", "--data-dir"))


# --- A part


def test_a_part_leaves_its_files_its_checkpoints_and_the_page(finished: Path) -> None:
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        *(f"stopgrad.{kind}" for kind in KINDS),
        "report.md",
        *(f"models/{name}.{kind}" for name in (FIRST, SECOND) for kind in ("pt", "lock")),
        *(f"measured/{name}.json" for name in (FIRST, SECOND)),
    }
    assert "A quick look" in (finished / "report.md").read_text()
    assert read(finished / "stopgrad.json").quick


def test_a_second_run_trains_and_measures_nothing_and_prints_the_same(
    call: Call, finished: Path, done: list[str]
) -> None:
    kept = [*finished.glob("models/*"), *finished.glob("measured/*"), *(finished / f"stopgrad.{k}" for k in KINDS[1:])]
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


def test_a_part_uses_the_networks_of_another(call: Call, finished: Path, done: list[str], few: None) -> None:
    """fig5b's first is BatchOut with the paper's eta, and so is the stop-gradient's."""
    assert call("reproduce", "fig5b", "--quick").code == 0
    assert done == []
    assert read(finished / "fig5b.json").labels == ["BatchOut, eta x 1"]


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


def test_the_page_covers_what_earlier_runs_left(call: Call, finished: Path) -> None:
    assert call("reproduce", "fig1", "--quick").code == 0
    page = (finished / "report.md").read_text()
    assert page.index("### fig1:") < page.index("### stopgrad:")


# --- What is damaged, changed or cannot be written


def test_a_checkpoint_of_another_recipe_is_replaced(
    call: Call, finished: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(studies.RECIPES["mnist"], "lr", 0.01)
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == [FIRST, *ROWS, SECOND, *ROWS]
    assert {checkpoint.peek(path).spec["lr"] for path in finished.glob("models/*.pt")} == {0.01}
    kept = {path.name.removesuffix(".pt.old") for path in finished.glob("models/*.old")}
    assert kept == {FIRST, SECOND}, "hours of training are kept"


def test_damaged_measurements_are_made_again(call: Call, finished: Path, done: list[str]) -> None:
    path = finished / "measured" / f"{SECOND}.json"
    path.write_bytes(path.read_bytes()[:200])
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == ROWS
    assert len(json.loads(path.read_text())["rows"]) == len(ROWS)


def test_a_damaged_result_of_another_part_is_named(call: Call, finished: Path) -> None:
    (finished / "mnist.json").write_text("{")
    ended = call("reproduce", "fig1", "--quick")
    assert ended.code == 2
    assert f"--out {QUICK}/mnist.json: is not a part's results" in ended.error
    assert (finished / "fig1.json").exists()


@pytest.mark.parametrize("part", ["fig1", "stopgrad", "all"])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "file"], "--out file: "),
        (["--out", "file/below"], "--out file/below: Not a directory"),
        (["--out", "o", "--report", "nowhere/page.md"], "--report nowhere/page.md: its folder nowhere does not exist"),
        (["--out", "o", "--report", "o"], "--report o: is a folder"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is_trained(
    call: Call, here: Path, done: list[str], part: str, flags: list[str], said: str
) -> None:
    (here / "file").write_text("mine")
    ended = call("reproduce", part, "--quick", *flags)
    assert (ended.code, ended.out, done) == (2, "", [])
    assert said in ended.error
    assert (here / "file").read_text() == "mine"


def test_the_page_may_lie_in_a_folder_that_the_command_makes(call: Call, here: Path) -> None:
    assert call("reproduce", "fig1", "--quick", "--out", "new", "--report", "new/page.md").code == 0
    assert (here / "new" / "page.md").exists()


# --- Data


def test_all_without_cifar10_skips_its_parts_says_so_and_ends_with_0(
    call: Call, here: Path, done: list[str], few: None
) -> None:
    ended = call("reproduce", "all", "--quick")
    assert ended.code == 0, ended.err
    (warning,) = [line for line in ended.err.splitlines() if line.startswith("warning:")]
    assert warning.startswith("warning: cifar10, fig3, fig4a: skipped: --dataset cifar10: not in")
    assert parts_in(here / QUICK) == set(PARTS) - set(CIFAR)
    assert len([name for name in done if name.startswith("mnist-sample")]) == 2, "vanilla and BatchOut, for six parts"


def test_all_with_cifar10_makes_every_part(call: Call, here: Path, done: list[str], few: None) -> None:
    ended = call("reproduce", "all", "--quick", "--data-dir", write_colours(here / "data"), "--out", "o")
    assert ended.code == 0, ended.err
    assert "skipped" not in ended.err
    assert parts_in(here / "o") == set(PARTS)
    assert done.count("cifar10-vanilla-seed0") == 1
    assert len(read(here / "o" / "fig4a.json").networks[0]["losses"]) == 2
    assert "8/255" in (here / "o" / "fig3.md").read_text()


@pytest.mark.parametrize("part", CIFAR)
def test_a_cifar10_part_by_itself_needs_its_data(call: Call, here: Path, done: list[str], part: str) -> None:
    ended = call("reproduce", part, "--quick")
    assert (ended.code, ended.out, done) == (3, "", [])
    assert "--dataset cifar10: not in" in ended.error
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("part", ["mnist", "fig2", "stopgrad", "all"])
def test_the_study_itself_needs_mnist(call: Call, here: Path, done: list[str], part: str) -> None:
    """The bundled digits do not stand in for it."""
    ended = call("reproduce", part)
    assert (ended.code, ended.out, done) == (3, "", [])
    assert "--dataset mnist: not in" in ended.error
    assert list(here.iterdir()) == []


# --- Ctrl-C


def test_ctrl_c_in_a_training_keeps_what_is_finished_and_the_next_run_goes_on(
    call: Call, here: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._train_step
    monkeypatch.setattr(loop, "_train_step", at_call(3, ctrl_c, step))  # the second network's first of two steps
    ended = call("reproduce", "stopgrad", "--quick")
    assert ended.code == 130
    assert "interrupted: what was finished is kept; the same command goes on" in ended.err
    assert "Traceback" not in ended.err
    results = read(here / QUICK / "stopgrad.json")
    assert [entry["name"] for entry in results.networks] == [FIRST]
    assert [entry["name"] for entry in results.missing] == [SECOND]
    assert f"Missing: {SECOND}, 1 of 2 epochs trained." in (here / QUICK / "report.md").read_text()

    monkeypatch.setattr(loop, "_train_step", step)
    done.clear()
    ended = call("reproduce", "stopgrad", "--quick")
    assert ended.code == 0
    assert done == [SECOND, *ROWS]
    assert f"{SECOND}: going on after epoch 1 of 2" in ended.err
    assert list(read(here / QUICK / "stopgrad.json").missing) == []
    assert "Missing" not in (here / QUICK / "report.md").read_text()


def test_ctrl_c_in_a_measurement_keeps_the_rows_and_the_next_run_goes_on(
    call: Call, finished: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustcli.evaluation import evaluate

    shutil.rmtree(finished / "measured")
    attack = evaluate.stream_attack
    monkeypatch.setattr(evaluate, "stream_attack", at_call(4, ctrl_c, attack))  # the second network's PGD
    assert call("reproduce", "stopgrad", "--quick").code == 130
    assert len(read(finished / "stopgrad.json").networks) == 2, "a whole part gave way to half of one"
    assert len(json.loads((finished / "measured" / f"{SECOND}.json").read_text())["rows"]) == len(ROWS) - 1

    monkeypatch.setattr(evaluate, "stream_attack", attack)
    done.clear()
    assert call("reproduce", "stopgrad", "--quick").code == 0
    assert done == ["pgd 0.1"]


def test_ctrl_c_before_anything_is_finished_leaves_no_part(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", at_call(1, ctrl_c, loop._train_step))
    ended = call("reproduce", "stopgrad", "--quick")
    assert (ended.code, ended.out) == (130, "")
    assert parts_in(here / QUICK) == set()
    assert not checkpoint.peek(here / QUICK / "models" / f"{FIRST}.pt").complete


def test_the_page_on_a_sweep_cut_short_says_what_is_missing(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", at_call(3, ctrl_c, loop._train_step))
    ended = call("reproduce", "fig5a", "--quick")
    assert ended.code == 130, ended.err
    page = (here / QUICK / "report.md").read_text()
    assert page.count("Missing: ") == len(read(here / QUICK / "fig5a.json").missing) == 4
    assert "**holds" not in page


@pytest.mark.usefixtures("few")
def test_ctrl_c_in_all_keeps_the_parts_before(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "save_figure", at_call(3, ctrl_c, lambda results, folder: None))
    ended = call("reproduce", "all", "--quick")
    assert ended.code == 130
    assert {"fig1", "mnist"} <= parts_in(here / QUICK) <= {"fig1", "mnist", "fig2"}
    assert (here / QUICK / "report.md").exists()


# --- What fails, and what must not be lost


def diverging(*calls: int) -> Callable[..., Any]:
    """A training step that fails at these of its calls."""
    step, seen = loop._train_step, [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        seen[0] += 1
        if seen[0] in calls:
            raise TrainingError("the loss became NaN")
        return step(*args, **kwargs)

    return failing


def test_a_network_that_fails_is_named_and_the_others_go_on(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", diverging(1))
    ended = call("reproduce", "stopgrad", "--quick")
    assert ended.code == 3
    assert "some networks failed; they are named above" in ended.error
    assert f"{FIRST}: the loss became NaN" in ended.err
    results = read(here / QUICK / "stopgrad.json")
    assert [entry["name"] for entry in results.networks] == [SECOND]
    assert [(entry["name"], entry["reason"]) for entry in results.missing] == [(FIRST, "the loss became NaN")]
    said = f"Missing: {FIRST}, 0 of 2 epochs trained; the loss became NaN."
    assert said in (here / QUICK / "report.md").read_text()
    assert said in (here / QUICK / "stopgrad.md").read_text()


def test_where_all_networks_fail_the_other_parts_are_still_made(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_train_step", diverging(*range(1, 100)))
    ended = call("reproduce", "all", "--quick")
    assert ended.code == 3, ended.err
    assert parts_in(finished) == set(PARTS) - set(CIFAR)
    assert [entry["label"] for entry in read(finished / "fig4b.json").networks] == ["all"], "found"
    assert len(read(finished / "stopgrad.json").networks) == 2, "which were trained before"
    page = (finished / "report.md").read_text()
    assert "### stopgrad:" in page
    assert "0 of 2 epochs trained; the loss became NaN." in page


def test_a_quick_look_does_not_take_the_place_of_the_study(call: Call, finished: Path, done: list[str]) -> None:
    path = finished / "stopgrad.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quick": False}))
    before = path.read_bytes()
    ended = call("reproduce", "stopgrad", "--quick")
    assert (ended.code, ended.out, done) == (2, "", [])
    assert f"--out {QUICK}: holds the whole study; give a quick look another folder" in ended.error
    assert path.read_bytes() == before
    assert call("reproduce", "stopgrad", "--quick", "--out", "another").code == 0


def test_fewer_seeds_do_not_take_the_place_of_more(
    call: Call, here: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design, "FULL", replace(TINY, seeds=2, quick=False))
    assert call("reproduce", "stopgrad", "--out", "o").code == 0
    before = (here / "o" / "stopgrad.json").read_bytes()
    done.clear()
    ended = call("reproduce", "stopgrad", "--out", "o", "--seeds", 1)
    assert (ended.code, done) == (2, [])
    assert "stopgrad.json has 4 networks, this run asks for 2; give another folder" in ended.error
    assert (here / "o" / "stopgrad.json").read_bytes() == before
