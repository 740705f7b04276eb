"""The curves that `train --tensorboard` writes, read as TensorBoard does."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.cli.main import run
from robustcli.config import TrainSpec
from robustcli.models import checkpoint
from robustcli.training.loop import Run
from robustcli.training.tensorboard import curves_in
from robustcli.training.train import prepare, resume, train

pytest.importorskip("tensorboard")


@pytest.fixture
def bars(checkpoint: Path) -> Path:
    return checkpoint.parent / "bars.npz"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def fit(spec: dict[str, Any], path: Path, folder: Path | None) -> None:
    prepared, state = prepare(TrainSpec(**spec)), Run()
    with curves_in(folder, prepared.job, state) as write:
        train(prepared, path, state, on_epoch=lambda run: write(run.history[-1]))


def test_each_epoch_is_a_point_of_each_curve_and_nothing_else_changes(bars: Path, tmp_path: Path) -> None:
    spec = {"dataset": str(bars), "epochs": 3, "batch_size": 64, "schedule": "cosine", "method": {"name": "fgsm"}}
    fit(spec, tmp_path / "a.pt", tmp_path / "curves")
    fit(spec, tmp_path / "b.pt", None)
    logged, without = checkpoint_of(tmp_path / "a.pt"), checkpoint_of(tmp_path / "b.pt")
    assert all(torch.equal(value, without.state_dict[key]) for key, value in logged.state_dict.items())
    found = curves(tmp_path / "curves")
    assert found.keys() == logged.history[0].keys() - {"epoch"} | {"lr"}
    assert found["loss"] == [(i, pytest.approx(one["loss"])) for i, one in enumerate(logged.history, start=1)]
    assert [step for step, _ in found["val_robust_accuracy"]] == [1, 2, 3]
    rates = [rate for _, rate in found["lr"]]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-4 < rates[0] < 1e-3


def checkpoint_of(path: Path) -> checkpoint.Checkpoint:
    return checkpoint.load(path)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_that_goes_on_has_whole_curves_without_a_point_twice(bars: Path, tmp_path: Path, elsewhere: bool) -> None:
    spec = TrainSpec(dataset=str(bars), epochs=3, batch_size=64)
    prepared, state, path, folder = prepare(spec), Run(), tmp_path / "a.pt", tmp_path / "curves"
    with curves_in(folder, prepared.job, state) as write:
        stop = lambda: len(state.history) == 1  # noqa: E731
        train(prepared, path, state, on_epoch=lambda run: write(run.history[-1]), should_stop=stop)
    assert [step for step, _ in curves(folder)["loss"]] == [1]
    folder = tmp_path / "other" if elsewhere else folder
    prepared, state = resume(path)
    with curves_in(folder, prepared.job, state) as write:
        train(prepared, path, state, on_epoch=lambda run: write(run.history[-1]))
    history = checkpoint_of(path).history
    assert curves(folder)["loss"] == [(i, pytest.approx(one["loss"])) for i, one in enumerate(history, start=1)]


def test_the_command_writes_into_a_folder_named_after_the_checkpoint(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--dataset", str(bars), "--limit", "40", "--epochs", "1", "--output", "m.pt"]
    assert run(["train", *few, "--tensorboard", "curves"]) == 0
    assert [step for step, _ in curves(Path("curves/m"))["seconds"]] == [1]


@pytest.mark.parametrize("taken", [False, True])
def test_what_cannot_be_done_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError("No module named 'tensorboard'")
        return real(name, *arguments, **keywords)

    if taken:
        Path("curves").touch()
    else:
        monkeypatch.setattr("robustcli.errors.import_module", refuse)
    assert run(["train", "--tensorboard", "curves", "--dataset", "mnist-sample", "--limit", "20"]) == 2
    assert list(Path().rglob("*.pt")) == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --tensorboard curves: ")
    assert line.endswith("Not a directory" if taken else "pip install 'robustcli[tensorboard]'")
