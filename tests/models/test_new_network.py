"""A network of a user's own: one class and its line in `MODELS`, and every command takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from robustcli.cli.main import run
from robustcli.config import ModelSpec
from robustcli.models import MODELS
from robustcli.models.nets import Network


class Linear(Network):
    """One linear layer."""

    summary = "one linear layer"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.layer = nn.Linear(spec.channels * spec.height * spec.width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        logits: Tensor = self.layer(x.flatten(1))
        return logits


Call = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a line of `robustcli` in a folder with a small data set, where the network is known."""
    monkeypatch.setitem(MODELS, "linear", Linear)
    monkeypatch.chdir(tmp_path)
    y = np.arange(60) % 3
    x = np.random.default_rng(0).integers(0, 150, (60, 8, 8)).astype(np.uint8)
    for label in range(3):
        x[y == label, 2 * label] += 100
    np.savez("bars.npz", x_train=x, y_train=y, x_test=x[:30] // 2, y_test=y[:30])

    def called(line: str) -> tuple[int, str, str]:
        return run(line.split()), *capsys.readouterr()

    return called


def test_a_new_network_is_listed_trains_is_evaluated_and_is_judged(call: Call) -> None:
    _, listed, _ = call("list models")
    assert ["linear", "one", "linear", "layer"] in map(str.split, listed.splitlines())
    code, _, err = call("train --model linear --dataset bars.npz --epochs 1 --batch-size 60 --output a.pt")
    assert code == 0, err
    code, out, err = call("evaluate a.pt --attack fgsm --eps 0.01 --no-store --format json")
    document = json.loads(out)
    (row,) = document["rows"]
    assert (row["model"], row["n"]) == ("linear", 30), err
    assert document["verdict"]["word"], "judged, whatever the word"


def test_a_method_that_needs_slots_says_that_the_network_has_none(call: Call) -> None:
    code, _, err = call("train --model linear --method batchout --dataset bars.npz")
    assert (code, err) == (2, "error: method batchout: the network has no slots to fill; fgsm and pgd need none\n")
