"""Ctrl-C, SIGTERM and SIGHUP, in training and in evaluations: everything that was finished is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from robustcli.cli.main import run
from robustcli.engine import run as driver
from robustcli.models import checkpoint

from .conftest import CODES, Call, write_checkpoint, write_images

ARGUMENTS = ("train", "--method", "batchout", "--epochs", "6", "--batch-size", "16", "--seed", "3")


def test_an_interrupted_and_resumed_training_ends_with_the_weights_of_a_whole_one(call: Call, here: Path) -> None:
    """In a process of its own, sent SIGINT after its first epoch."""
    arguments = (*ARGUMENTS, "--dataset", write_images(here / "many.npz", n_train=1200), "--output")
    command = [sys.executable, "-m", "robustcli", *map(str, arguments), "part.pt"]
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=os.environ | single, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        err = ""
        for line in process.stderr:
            err += line
            if line.startswith("epoch  1"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, err
    assert "go on with: robustcli train --resume part.pt" in err
    assert "Traceback" not in err
    saved = checkpoint.load(Path("part.pt"))
    assert not saved.complete
    assert 1 <= len(saved.history) < 6

    assert call("train", "--resume", "part.pt").code == 0
    assert call(*arguments, "whole.pt").code == 0
    found, expected = checkpoint.load(Path("part.pt")), checkpoint.load(Path("whole.pt"))
    assert (found.complete, found.spec) == (True, expected.spec)
    assert [key for key, value in expected.state_dict.items() if not torch.equal(value, found.state_dict[key])] == []
    assert found.resume is not None
    assert expected.resume is not None
    last, wanted = found.resume["last"], expected.resume["last"]
    assert [key for key, value in wanted.items() if not torch.equal(value, last[key])] == []


def test_resume_of_a_complete_run_changes_nothing_and_needs_no_data(call: Call, here: Path) -> None:
    path = write_checkpoint(Path("mnist.pt"))
    before = checkpoint.sha256(path)
    ended = call("train", "--resume", path)
    assert (ended.code, ended.out, ended.err) == (0, "", "mnist.pt: is complete already\n")
    assert checkpoint.sha256(path) == before


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *[("--epochs", "9"), ("--seed", "0"), ("--lr", "0.1"), ("--set", "lr=1"), ("--method", "fgsm")],
        *[("--output", "other.pt"), ("--config", "c.yaml"), ("--eta", "0.1"), ("--limit", "5"), ("--batch-size", "8")],
    ],
)
def test_resume_takes_no_flag_that_changes_the_run(call: Call, models: Path, flag: str, value: str) -> None:
    ended = call("train", "--resume", models / "vanilla.pt", flag, value)
    assert ended.code == 2
    assert ended.error.startswith(f"error: {flag}: comes from the checkpoint")


# --- SIGTERM and SIGHUP


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("number", CODES)
def test_training_keeps_the_step_that_it_was_in(
    call: Call, here: Path, images: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    from robustcli.training import loop

    step, steps = loop._train_step, []

    def stopped_in_the_third(*args: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(number)
        return step(*args)

    monkeypatch.setattr(loop, "_train_step", stopped_in_the_third)
    ended = call("train", "--dataset", images, "--batch-size", 16, "--epochs", 1, "--output", "a.pt")
    assert ended.code == CODES[number]
    assert "saved; go on with: robustcli train --resume a.pt" in ended.err
    saved = checkpoint.load(Path("a.pt"))
    assert saved.resume is not None
    assert (saved.complete, saved.resume["step"]) == (False, 3)
    assert [path.name for path in here.iterdir()] == ["a.pt"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert call("train", "--resume", "a.pt").code == 0


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("again", CODES)
@pytest.mark.parametrize("number", CODES)
def test_evaluate_keeps_its_rows_also_where_a_second_signal_follows_at_once(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, again: signal.Signals
) -> None:
    calls = []

    def run_attack(*args: Any, **kwargs: Any) -> list[driver.Outcome]:
        calls.append(1)
        if len(calls) == 2:
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(again)
        return driver.run_attack(*args, **kwargs)

    monkeypatch.setattr("robustcli.measure.evaluate.stream_attack", run_attack)
    ended = call("evaluate", "--attack", "fgsm", "--attack", "pgd", "--eps", "0.1", "--limit", 8, "--format", "json")
    assert ended.code == CODES[number]
    assert len(json.loads(ended.out)["rows"]) == 1
    assert "interrupted: 1 of 2 rows were finished and are kept" in ended.err


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_signal_that_is_ignored_stays_so_as_under_nohup(
    call: Call, models: Path, images: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    place = ("robustcli.training.train.fit", "robustcli.measure.evaluate.run_item")[command == "evaluate"]
    module, _, name = place.rpartition(".")
    real = getattr(sys.modules[module], name)

    def hung_up(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGHUP)
        return real(*args, **kwargs)

    monkeypatch.setattr(place, hung_up)
    flags = ("--epochs", 1, "--dataset", images) if command == "train" else ("--attack", "fgsm", "--limit", 4)
    assert call(command, *flags).code == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.usefixtures("default_handlers")
@pytest.mark.parametrize("number", CODES)
def test_a_signal_before_any_work_is_one_line(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr("robustcli.measure.session.load", lambda *_: signal.raise_signal(number))
    ended = call("evaluate")
    assert (ended.code, ended.out, ended.error) == (CODES[number], "", "error: interrupted")


def test_a_command_runs_in_another_thread_too(call: Call) -> None:
    codes: list[int] = []
    thread = Thread(target=lambda: codes.append(call("list", "methods").code))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.usefixtures("default_handlers")
def test_a_terminal_that_is_gone_keeps_the_results_all_the_same(models: Path, here: Path) -> None:
    """What a closed window does: its terminal hangs up, and writing to it fails from then on."""
    pty = pytest.importorskip("pty")
    program = [sys.executable, "-m", "robustcli", "train", "--dataset", str(write_images(here / "x.npz", 60_000))]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*program, "--batch-size", "8", "--output", "a.pt"])
    while not (here / "a.pt").exists():
        os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert not checkpoint.load(here / "a.pt").complete


# --- Evaluations


@pytest.fixture
def second_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the second attack runs."""
    calls = []

    def run_attack(*args: Any, **kwargs: Any) -> list[driver.Outcome]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return driver.run_attack(*args, **kwargs)

    monkeypatch.setattr("robustcli.measure.evaluate.stream_attack", run_attack)


@pytest.mark.usefixtures("second_run_stops")
@pytest.mark.parametrize("style", ["table", "json", "csv", "markdown", "latex"])
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_finished_rows_are_printed_and_written(call: Call, models: Path, command: str, style: str) -> None:
    attacks = ("--attack", "fgsm", "--attack", "deepfool", "--eps", "0.1,0.2")
    ended = call(command, *attacks, "--format", style, "--json", "r.json")
    assert ended.code == 130
    assert ended.out.count("fgsm") >= (1 if command == "compare" else 2)
    assert "deepfool" not in ended.out.partition('"provenance"')[0]
    assert f"interrupted: 2 of {6 if command == 'compare' else 3} rows were finished and are kept" in ended.err
    assert len(json.loads(Path("r.json").read_text())["rows"]) == 2


@pytest.mark.usefixtures("second_run_stops")
def test_a_comparison_cut_short_within_a_checkpoint_shows_the_rest(call: Call, models: Path) -> None:
    calls = call("compare", "--attack", "fgsm", "--eps", "0.1", "--format", "markdown")
    table = [line for line in calls.out.splitlines() if line.startswith("|")]
    assert (calls.code, len(table)) == (130, 3)


@pytest.mark.parametrize("style", ["table", "json", "csv"])
def test_ctrl_c_before_the_first_row_is_no_traceback(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustcli.measure.evaluate.stream_attack", stop)
    ended = call("evaluate", "--attack", "fgsm", "--format", style)
    assert ended.code == 130
    assert "interrupted: 0 of 2 rows" in ended.err
    assert (json.loads(ended.out)["rows"] if style == "json" else ended.out.split()) == []


def test_ctrl_c_twice_quits_training_at_once(here: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustcli.training import loop

    step = loop._train_step

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return step(*args)

    monkeypatch.setattr(loop, "_train_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert run(["train", "--dataset", str(images), "--epochs", "1"]) == 130
    assert signal.getsignal(signal.SIGINT) is before
