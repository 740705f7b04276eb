"""What a user hears of a type that the machine has no products of."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustcli import device

from .conftest import Call

TOLD = "warning: bfloat16 is slow here: this processor has no products of it; float32 is quicker"


@pytest.fixture(params=[True, False], ids=["with products", "without"])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    there = bool(request.param)
    monkeypatch.setattr(device, "multiplies", lambda dtype, device: there or dtype == "float32")
    return not there


def test_an_attack_says_that_it_will_be_slow(call: Call, models: Path, slow: bool) -> None:
    given = ("evaluate", "--attack", "fgsm", "--eps", "0.1", "--limit", 4, "--no-store")
    assert (TOLD in call(*given, "--dtype", "bfloat16").err) is slow
    assert TOLD not in call(*given).err


def test_training_says_that_it_will_be_slow(call: Call, images: Path, slow: bool) -> None:
    given = ("train", "--dataset", images, "--epochs", 1, "--limit", 48)
    assert (TOLD in call(*given, "--set", "dtype=bfloat16").err) is slow
    assert TOLD not in call(*given).err
