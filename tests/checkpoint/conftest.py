"""A checkpoint made by hand, and how reading one fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.config import ModelSpec, TrainSpec
from robustcli.errors import CheckpointError
from robustcli.models.checkpoint import SCHEMA, Checkpoint, load


def make(**changes: Any) -> Checkpoint:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    values: dict[str, Any] = {
        "spec": TrainSpec(method={"name": "batchout", "eta": "0.1"}).as_dict(),
        "model": ModelSpec(name="mnist-cnn", channels=1, height=8, width=8, classes=10).as_dict(),
        "data": {
            "name": "mnist",
            "source": "mnist/train",
            "classes": list("0123456789"),
            "fingerprint": "ab12",
            "n_train": 5,
            "n_validation": 2,
        },
        "train_ids": torch.arange(5),
        "state_dict": net.state_dict(),
        "history": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": float("inf")}],
        "metrics": {"accuracy": 0.75},
        "provenance": {"seed": 0, "commit": None, "command": "robustcli train \udce9.yaml"},
        "complete": True,
        "resume": {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.99)}]}},
    }
    return Checkpoint(**{**values, **changes})


def stored(**changes: Any) -> dict[str, Any]:
    checkpoint = make()
    values = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    return {"schema": SCHEMA, **values, **changes}


def same(a: Any, b: Any) -> bool:
    """Equal in value, type and (for tensors) shape and dtype."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def fails(path: Path, read: Any = load) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.exit_code == 3
    return message.removeprefix(f"{path}: ")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
