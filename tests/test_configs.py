"""Each shipped YAML is a run that works, named after what it is, and its header is a measured claim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustcli.cli.train import train_spec
from robustcli.config import TrainSpec, default_budgets
from robustcli.data.named import DATASETS
from robustcli.models import MODELS
from robustcli.studies.batchout.experiments import FULL, parts, resolve
from robustcli.training.methods import parse_method

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))

pytestmark = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def spec_of(path: Path) -> TrainSpec:
    return train_spec({"config": path})


def header(path: Path) -> str:
    """The comment lines at the top."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


def test_it_resolves(path: Path) -> None:
    spec = spec_of(path)
    data = DATASETS[spec.dataset]
    network = MODELS[spec.model or ""]
    method = parse_method(spec.method).resolve(network, default_budgets(data.shape)[1])
    assert set(method.recipe().filling) <= set(network.slot_names)


def test_it_trains_the_network_that_its_header_tells_of(path: Path) -> None:
    spec = spec_of(path)
    study = {network.name: network.spec for network in parts(FULL)[spec.dataset].networks}
    assert resolve(spec) == study[f"{path.stem}-seed0"]


def test_its_name_is_its_data_set_and_method(path: Path) -> None:
    spec = spec_of(path)
    assert re.fullmatch(rf"{spec.dataset}-{spec.method['name']}(-[\w.]+)*", path.stem)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"robustcli train\b[^\n]*--config configs/{name}\b", id="command"),
        pytest.param(r"\b\d\d?\.\d|\d+/\d+", id="result"),
        pytest.param(r"n = ?\d[\d ]*|\d+/\d{{3,}}", id="n"),
        pytest.param(r"seeds?\W{{1,3}}\d", id="seed"),
        pytest.param(r"commit [0-9a-f]{{7,40}}", id="commit"),
        pytest.param(r"cores?\b|CPU|GPU|H100|H200", id="hardware"),
    ],
)
def test_its_header_states(path: Path, pattern: str) -> None:
    assert re.search(pattern.format(name=re.escape(path.name)), header(path))
