"""`zoo:NAME` stands wherever a checkpoint does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustcli.data.load import SAMPLE_FILE

from .conftest import Call

FEW = ("--attack", "fgsm", "--eps", "0.3", "--format", "json")


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A few digits under another name than MNIST's."""
    with np.load(SAMPLE_FILE) as sample:
        arrays = {f"{kind}_{split}": sample[f"{kind}_test"][:20] for split in ("train", "test") for kind in "xy"}
    np.savez(tmp_path / "digits.npz", **arrays)
    return tmp_path / "digits.npz"


def test_evaluate_names_it_as_it_was_given(call: Call, digits: Path) -> None:
    ended = call("evaluate", "zoo:mnist-vanilla", "--dataset", digits, *FEW)
    assert ended.code == 0, ended.err
    (row,) = ended.document["rows"]
    assert (row["checkpoint"], row["method"], row["n"]) == ("zoo:mnist-vanilla", "vanilla", 20)
    assert row["clean_correct"] >= 18


def test_compare_and_attack_take_it(call: Call, digits: Path, tmp_path: Path) -> None:
    ended = call("compare", "zoo:mnist-vanilla", "zoo:mnist-batchout", "--dataset", digits, *FEW)
    assert [row["method"] for row in ended.document["rows"]] == ["vanilla", "batchout"]
    saved = tmp_path / "images.npz"
    assert call("attack", "zoo:mnist-batchout", "--dataset", digits, "--save", saved, *FEW).code == 0
    assert saved.is_file()


def test_it_asks_for_the_data_it_was_trained_beside(call: Call) -> None:
    ended = call("evaluate", "zoo:mnist-vanilla", *FEW)
    assert ended.code == 3
    assert "mnist: not in" in ended.error


def test_an_unknown_name_is_one_line_with_the_nearest(call: Call) -> None:
    ended = call("evaluate", "zoo:mnist-vanila")
    assert ended.code == 3
    assert "zoo:mnist-vanila: is not in the zoo (allowed: " in ended.error
    assert "did you mean 'mnist-vanilla'?" in ended.error


def test_it_has_nothing_to_resume(call: Call) -> None:
    assert "is complete already" in call("train", "--resume", "zoo:mnist-vanilla").err
