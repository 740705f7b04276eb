"""What a user hears of a type that the machine has no products of."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustcli import device
from robustcli.cli.measurement import warn_of_slow

from .conftest import Call

TOLD = "warning: bfloat16 is slow here: this processor has no instructions for it; float32 is quicker"


@pytest.fixture(params=[True, False], ids=["with products", "without"])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    there = bool(request.param)
    monkeypatch.setattr(device, "multiplies", lambda dtype, device: there or (dtype, device) != ("bfloat16", "cpu"))
    return not there


def test_an_attack_says_that_it_will_be_slow(call: Call, models: Path, slow: bool) -> None:
    given = ("evaluate", "--limit", 4, "--no-store", "--device", "cpu")
    fgsm, deepfool = ("--attack", "fgsm", "--eps", "0.1"), ("--attack", "deepfool:iters=1")
    assert (TOLD in call(*given, *deepfool, *fgsm, "--dtype", "bfloat16").err) is slow
    assert TOLD not in call(*given, *fgsm).err
    assert TOLD not in call(*given, *deepfool, "--dtype", "bfloat16").err, "which is always in float32"


def test_training_says_that_it_will_be_slow(call: Call, images: Path, slow: bool) -> None:
    given = ("train", "--dataset", images, "--epochs", 1, "--limit", 48, "--device", "cpu")
    assert (TOLD in call(*given, "--set", "dtype=bfloat16").err) is slow
    assert TOLD not in call(*given).err


def test_of_a_gpu_it_says_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(device, "multiplies", lambda dtype, device: False)
    warn_of_slow("bfloat16", "cuda:1")
    assert "this GPU has no" in capsys.readouterr().err
