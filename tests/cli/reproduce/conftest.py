"""`robustcli reproduce`, with a study so small that each of its networks takes a moment."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.cli import reproduce as command
from robustcli.cli.main import run as cli
from robustcli.data.named import SAMPLE
from robustcli.studies.batchout import experiments, reproduction
from robustcli.studies.batchout.experiments import Part, Scale

TINY = Scale(mnist=SAMPLE, seeds=1, epochs=2, ablation_epochs=2, limit=32, n=16, n_costly=8, n_dear=4, quick=True)
QUICK = Path("results/reproduction-quick")
KINDS = ("json", "md", "png", "svg")
FIRST, SECOND = "mnist-sample-batchout-seed0", "mnist-sample-batchout-nostop-seed0"
"""The networks of `stopgrad`; each meets FGSM at three budgets and PGD at one."""
ROWS = ["fgsm 0.1", "fgsm 0.3", "fgsm 0.4", "pgd 0.1"]
CIFAR = ("cifar10", "fig3", "fig4a")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without pictures, but for those of `once`: they take longer than all the rest."""
    monkeypatch.setattr(reproduction, "save_figure", lambda results, folder: None)
    monkeypatch.setattr(experiments, "QUICK", TINY)
    monkeypatch.setattr("robustcli.provenance._commit", lambda root: "0123456789")  # git takes longer than a training


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which `reproduce stopgrad --quick` has ended. To be copied."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(experiments, "QUICK", TINY)
        assert cli(["reproduce", "stopgrad", "--quick"]) == 0
    return folder


@pytest.fixture
def finished(once: Path, here: Path) -> Path:
    shutil.copytree(once, here, dirs_exist_ok=True)
    return here / QUICK


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has its first network and attack only: for all parts at once."""
    every = experiments.parts

    def cut(scale: Scale) -> dict[str, Part]:
        return {
            name: replace(part, networks=part.networks[:1], attacks=part.attacks[:1])
            for name, part in every(scale).items()
        }

    monkeypatch.setattr(experiments, "parts", cut)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained and measured, in order."""
    seen: list[str] = []
    train, measure = command.train_with_bar, command._measure
    monkeypatch.setattr(command, "train_with_bar", lambda *given: (seen.append(given[1].stem), train(*given))[1])

    def measured(session: Any, memory: Any) -> Any:
        for record in measure(session, memory):
            if record.cached < record.n:
                seen.append(f"{record.attack['name']} {record.budget}")
            yield record

    monkeypatch.setattr(command, "_measure", measured)
    return seen


def parts_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json")}
