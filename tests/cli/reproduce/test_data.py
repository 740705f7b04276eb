"""Data that is there and data that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustcli.studies.batchout import PARTS
from robustcli.studies.batchout.part_results import read

from ..conftest import Call
from .conftest import CIFAR, QUICK, parts_in


def write_colours(folder: Path) -> Path:
    """A data folder with a CIFAR-10 of 32 training and 16 test images, all noise."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 32), ("test", 16)):
        arrays |= {f"x_{split}": draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), f"y_{split}": np.arange(n) % 10}
    folder.mkdir()
    np.savez(folder / "cifar10.npz", **arrays)
    return folder


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


@pytest.mark.parametrize(
    ("arguments", "dataset"), [(["fig3", "--quick"], "cifar10"), (["stopgrad"], "mnist"), (["all"], "mnist")]
)
def test_without_its_data_nothing_is_made(
    call: Call, here: Path, done: list[str], arguments: list[str], dataset: str
) -> None:
    """The bundled digits do not stand in for MNIST, but for a quick look."""
    ended = call("reproduce", *arguments)
    assert (ended.code, ended.out, done) == (3, "", [])
    assert f"--dataset {dataset}: not in" in ended.error
    assert list(here.iterdir()) == []
