"""The shipped networks are what the index says, are found by name, and give the numbers that stand beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.attacks.losses import input_gradient, is_right, margin
from robustcli.attacks.norms import Linf
from robustcli.config import DataSpec, EvalSpec, TrainSpec
from robustcli.data.load import is_here, load
from robustcli.errors import CheckpointError
from robustcli.fields import parse_number
from robustcli.measure.evaluate import evaluate
from robustcli.measure.session import open_session
from robustcli.models import checkpoint, zoo
from robustcli.models.sources import open_target
from robustcli.studies.batchout.experiments import FULL, parts

SHARED = Path(__file__).parents[3] / "shared" / "data"
NAMES = list(zoo.entries())
MNIST = ("mnist-vanilla", "mnist-fgsm", "mnist-pgd", "mnist-gaussian", "mnist-batchout")
FLIPS = 3
"""Samples so close to a boundary that another processor's rounding may decide them."""
WITHOUT_AVX512 = {("mnist-gaussian", "0.3"): 1691, ("mnist-batchout", "0.3"): 4566}
"""What FGSM leaves of 10 000 on a processor without AVX-512 (an AMD EPYC), where it is not what the index says.

On these networks the float32 cross-entropy of many images is 0, and what is left of its gradient is rounding.
"""
MARGIN = {
    "mnist-vanilla": [418, 26],
    "mnist-fgsm": [489, 497],
    "mnist-pgd": [487, 476],
    "mnist-gaussian": [425, 24],
    "mnist-batchout": [447, 28],
    "cifar10-vanilla": [18, 8],
    "cifar10-fgsm": [33, 28],
    "cifar10-batchout": [24, 11],
}
"""What one step down the margin, whose gradient does not vanish, leaves of the first twentieth, exactly."""


def data_dir() -> Path | None:
    return None if "ROBUSTCLI_DATA" in os.environ else SHARED


def fgsm_rows(name: str) -> list[Mapping[str, Any]]:
    """What the index says of FGSM on a network; skips where its data set is not here."""
    entry = zoo.entries()[name]
    if not is_here(entry.dataset, data_dir()):
        pytest.skip(f"{entry.dataset} is not here")
    return [row for row in entry.rows if row["attack"]["name"] == "fgsm"]


def stated_here(name: str, row: Mapping[str, Any]) -> int:
    """The count of a row of the index, as this kind of processor gives it."""
    elsewhere = {} if torch.backends.cpu.get_cpu_capability() == "AVX512" else WITHOUT_AVX512
    return elsewhere.get((name, row["attack"]["eps"]), int(row["correct"]))


def test_the_papers_mnist_networks_are_there() -> None:
    assert set(MNIST) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEachNetwork:
    def test_its_entry_says_what_its_checkpoint_says(self, name: str) -> None:
        entry, saved = zoo.entries()[name], checkpoint.load(Path(f"zoo:{name}"))
        assert entry.sha256 == checkpoint.sha256(Path(f"zoo:{name}"))
        assert saved.complete
        assert (entry.dataset, entry.method) == (saved.spec["dataset"], saved.spec["method"])
        assert (entry.epochs, entry.seed) == (saved.spec["epochs"], saved.spec["seed"])
        assert entry.model == saved.model["name"]
        assert name == f"{entry.dataset}-{entry.method['name']}"

    def test_its_spec_is_the_studys_and_its_commit_is_known(self, name: str) -> None:
        entry = zoo.entries()[name]
        (spec,) = [one.spec for one in parts(FULL)[entry.dataset].networks if one.name == f"{name}-seed0"]
        assert TrainSpec(**entry.spec) == TrainSpec(**checkpoint.peek(Path(f"zoo:{name}")).spec) == spec
        assert re.fullmatch("[0-9a-f]{40}", str(entry.provenance["commit"]))

    def test_it_opens_under_its_name_and_is_small(self, name: str) -> None:
        target = open_target(f"zoo:{name}")
        assert target.name == f"zoo:{name}"
        assert not any(module.training for module in target.module.modules())
        assert zoo.entries()[name].path.stat().st_size < 6_000_000

    @pytest.mark.data
    def test_it_gives_the_stated_numbers(self, name: str) -> None:
        stated = fgsm_rows(name)
        budgets = tuple(row["attack"]["eps"] for row in stated)
        spec = EvalSpec(data_dir=data_dir(), device="cpu", attacks=("fgsm",), eps=budgets)
        found = [result.record for result in evaluate(open_session([Path(f"zoo:{name}")], spec))]
        for row, expected in zip(found, stated, strict=True):
            assert row.n == expected["n"]
            assert abs(row.clean_correct - expected["clean_correct"]) <= FLIPS
            assert abs(row.correct - stated_here(name, expected)) <= FLIPS

    @pytest.mark.data
    def test_a_step_down_the_margin_leaves_what_it_did(self, name: str) -> None:
        stated = fgsm_rows(name)
        images = load(DataSpec(dataset=zoo.entries()[name].dataset, data_dir=data_dir(), limit=stated[0]["n"] // 20))
        model, x, y = open_target(f"zoo:{name}").module.double(), images.batch(slice(None)).double(), images.y
        gradient, _ = input_gradient(model, lambda logits, y: -margin(logits, y), x, y)
        with torch.no_grad():
            steps = [Linf().climb(x, gradient, parse_number(row["attack"]["eps"])).clamp(0, 1) for row in stated]
            assert [int(is_right(model(step), y).sum()) for step in steps] == MARGIN[name]


@pytest.mark.parametrize("path", ["model.pt", "folder/zoo.pt", "folder/zoo:mnist-vanilla"])
def test_any_other_path_is_itself(path: str) -> None:
    assert zoo.locate(Path(path)) == Path(path)


@pytest.mark.parametrize("read", [checkpoint.load, checkpoint.peek, checkpoint.sha256])
def test_an_unknown_name_is_told_with_the_nearest(read: object) -> None:
    with pytest.raises(CheckpointError, match=r"zoo:mnist-batchot: is not in the zoo .*did you mean 'mnist-batchout'"):
        read(Path("zoo:mnist-batchot"))  # type: ignore[operator]
