"""The state that a run goes on from, as a file has it: checked against the run before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.training.loop import Job, Run, Weights, steps_per_epoch
from robustcli.training.schedules import make_optimizer

EXACT = 2**24
"""Adam counts its steps in float32, which goes no further."""


def check_state(state: Mapping[str, Any], history: Sequence[Mapping[str, Any]], job: Job) -> tuple[Run, Weights]:
    """The run in a checkpoint's `resume` and `history`, and the network's last weights.

    Args:
        state: the fields of `Run` but for the history, and `last`, the weights.
        history: one entry a finished epoch.
        job: what the run works on; only the layout of its network counts.

    Raises:
        ValueError: names the first part that is not this job's, with what was expected.
    """
    names = {field.name for field in fields(Run)} - {"history"} | {"last"}
    if missing := sorted(names - state.keys()):
        raise ValueError(f"it has no '{missing[0]}'")
    if extra := sorted(map(str, state.keys() - names)):
        raise ValueError(f"it has the unknown part '{extra[0]}'")
    _check_counts(state, history, job)
    weights = job.model.state_dict()
    _compare(state["last"], weights, "last")
    if state["best_epoch"]:
        _compare(state["best"], weights, "best")
    if state["step"]:
        _check_optimizer(state["optimizer"], state["step"], job)
        _check_rng(state["rng"], job.device)
    run = Run(history=[dict(entry) for entry in history], **{key: state[key] for key in names - {"last"}})
    return run, state["last"]


def _check_counts(state: Mapping[str, Any], history: Sequence[Mapping[str, Any]], job: Job) -> None:
    per_epoch = steps_per_epoch(job.spec, len(job.train))
    step = _number(state, "step", 0, job.spec.epochs * per_epoch, int)
    epochs, done = divmod(step, per_epoch)
    if len(history) != epochs:
        raise ValueError(f"after step {step} it should have a history of {epochs} epochs, not of {len(history)}")
    for number, entry in enumerate(history, start=1):
        _number(entry, "epoch", number, number, int)
        for key in dict.fromkeys(("loss", "accuracy", "seconds", *entry)):
            _number(entry, key)
        if ("val_pgd_accuracy" in entry) != ("val_fgsm_accuracy" in entry):
            raise ValueError(f"epoch {number} of its history has one of val_pgd_accuracy and val_fgsm_accuracy")
    seen = done * job.spec.batch_size
    _number(state, "seen", seen, seen, int)
    _number(state, "right", 0, seen, int)
    _number(state, "loss_sum")
    _number(state, "best_epoch", min(1, epochs), epochs, int)
    _number(state, "best_score", -1, max(1, epochs) if epochs else -1)
    for key, begun in (("best", epochs > 0), ("optimizer", step > 0), ("rng", step > 0)):
        if (state[key] is not None) != begun:
            raise ValueError(f"after step {step} its '{key}' should be {'there' if begun else 'None'}")


def _number(
    values: Mapping[str, Any], key: str, low: float = -math.inf, high: float = math.inf, kind: type = float
) -> Any:
    """The number at `key`, from `low` to `high`; an integer passes for a float, and a boolean for neither."""
    value: Any = values.get(key)
    if type(value) not in (int, kind) or not math.isfinite(value) or not low <= value <= high:
        allowed = "a finite number" if math.isinf(low) else f"{low}" if low == high else f"from {low} to {high}"
        raise ValueError(f"'{key}' is {_shorten(value)}, should be {allowed}")
    return value


def _shorten(value: object) -> str:
    return " ".join(str(value).split())[:40]


def _compare(found: object, expected: Mapping[Any, Any] | Tensor, name: str) -> None:
    """Refuse other keys than those of `expected`, and tensors of another shape or type, or with NaN or infinity."""
    if isinstance(expected, Mapping):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            keys = found.keys() ^ expected.keys() if isinstance(found, dict) else expected
            raise ValueError(f"'{name}' has other parts than this run's: {', '.join(sorted(map(str, keys))[:3])}")
        for key, value in expected.items():
            _compare(found[key], value, f"{name}.{key}")
        return
    if not isinstance(found, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
        has = _describe(found) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"'{name}' is {has}, should be {_describe(expected)}")
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise ValueError(f"'{name}' holds NaN or an infinite number")


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _check_optimizer(found: object, step: int, job: Job) -> None:
    """Compare with the state of a fresh optimiser after one step: fused kernels walk through memory unasked.

    The parameter groups are not compared: the run takes its own.
    """
    scratch = [nn.Parameter(torch.zeros_like(weight, device="cpu")) for weight in job.model.parameters()]
    for parameter in scratch:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(job.spec, scratch)
    optimizer.step()
    state: Any = found.get("state") if isinstance(found, dict) else None
    _compare(state, optimizer.state_dict()["state"], "optimizer.state")
    for index, values in state.items():
        if "step" in values and float(values["step"]) != min(step, EXACT):
            raise ValueError(f"'optimizer.state.{index}.step' is {float(values['step']):g}, should be {step}")


def _check_rng(found: Any, device: str) -> None:
    generators = [torch.Generator()]
    generators += [torch.Generator(device)] if device.startswith("cuda") else []
    try:
        for generator, state in zip(generators, found or [None], strict=False):  # a run on the CPU has one state
            generator.set_state(state)
    except (TypeError, RuntimeError):
        raise ValueError("'rng' should be the states of generators") from None
