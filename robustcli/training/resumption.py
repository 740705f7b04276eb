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
FREE = {"lr", "foreach", "fused", "maximize", "capturable", "differentiable"}
"""Keys of an optimiser's group that may differ: each step sets its rate, and the others choose the kernel."""


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
    _check_weights(state["last"], weights, "last")
    if state["best_epoch"]:
        _check_weights(state["best"], weights, "best")
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
        for key in dict.fromkeys(("epoch", "loss", "accuracy", "seconds", *entry)):
            _number(entry, key, *((number, number, int) if key == "epoch" else (-math.inf, math.inf, float)))
        if ("val_pgd_accuracy" in entry) != ("val_fgsm_accuracy" in entry):
            raise ValueError(f"epoch {number} of its history has one of val_pgd_accuracy and val_fgsm_accuracy")
    seen = done * job.spec.batch_size
    _number(state, "seen", seen, seen, int)
    _number(state, "right", 0, seen, int)
    _number(state, "loss_sum", -math.inf, math.inf, float)
    _number(state, "best_epoch", min(1, epochs), epochs, int)
    _number(state, "best_score", -1, max(1, epochs) if epochs else -1, float)
    for key, begun in (("best", epochs > 0), ("optimizer", step > 0), ("rng", step > 0)):
        if (state[key] is not None) != begun:
            raise ValueError(f"after step {step} its '{key}' should be {'there' if begun else 'None'}")


def _number(values: Mapping[str, Any], key: str, low: float, high: float, kind: type) -> Any:
    """The number at `key`, from `low` to `high`; an integer passes for a float, and a boolean for neither."""
    value: Any = values.get(key)
    if type(value) not in (int, kind) or not math.isfinite(value) or not low <= value <= high:
        allowed = "a finite number" if math.isinf(low) else f"{low}" if low == high else f"from {low} to {high}"
        raise ValueError(f"'{key}' is {_shown(value)}, should be {allowed}")
    return value


def _shown(value: object) -> str:
    return " ".join(str(value).split())[:40]


def _check_weights(found: object, expected: Mapping[str, Tensor], name: str) -> None:
    if not isinstance(found, dict) or found.keys() != expected.keys():
        keys = found.keys() ^ expected.keys() if isinstance(found, dict) else ()
        differs = f": {', '.join(sorted(map(str, keys))[:3])}" if keys else ""
        raise ValueError(f"'{name}' has other tensors than the network{differs}")
    for key, value in expected.items():
        _check_tensor(found[key], value, f"{name}.{key}")


def _check_tensor(found: object, expected: Tensor, name: str) -> None:
    """Refuse what has another shape or type, or what is no number."""
    if not isinstance(found, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
        has = _described(found) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"'{name}' is {has}, should be {_described(expected)}")
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise ValueError(f"'{name}' holds NaN or an infinite number")


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _check_optimizer(found: object, step: int, job: Job) -> None:
    """Compare with the state of a fresh optimiser after one step: fused kernels walk through memory unasked."""
    scratch = [nn.Parameter(torch.zeros_like(weight, device="cpu")) for weight in job.model.parameters()]
    for parameter in scratch:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(job.spec, scratch)
    optimizer.step()
    expected = optimizer.state_dict()
    if not isinstance(found, dict) or found.keys() != expected.keys():
        raise ValueError("'optimizer' should have a state and param_groups")
    _check_groups(found["param_groups"], expected["param_groups"])
    states = found["state"]
    if not isinstance(states, dict) or states.keys() != expected["state"].keys():
        raise ValueError(f"'optimizer' should have the state of {len(expected['state'])} parameters")
    for index, wanted in expected["state"].items():
        state, name = states[index], f"optimizer.state.{index}"
        if not isinstance(state, dict) or state.keys() != wanted.keys():
            raise ValueError(f"'{name}' should have {', '.join(wanted)}")
        for key, value in wanted.items():
            _check_tensor(state[key], value, f"{name}.{key}")
        if "step" in wanted and float(state["step"]) != min(step, EXACT):
            raise ValueError(f"'{name}.step' is {float(state['step']):g}, should be {step}")
        if "exp_avg_sq" in wanted and bool((state["exp_avg_sq"] < 0).any()):
            raise ValueError(f"'{name}.exp_avg_sq' has a negative number")


def _check_groups(found: object, expected: Sequence[Mapping[str, Any]]) -> None:
    if not isinstance(found, list) or len(found) != len(expected) or not isinstance(found[0], dict):
        raise ValueError(f"'optimizer.param_groups' should be {len(expected)} group")
    for key in sorted(expected[0].keys() - FREE):
        # What a later torch has added to its groups, an earlier file lacks.
        if key in found[0] and str(found[0][key]) != str(expected[0][key]):
            has, wants = _shown(found[0][key]), _shown(expected[0][key])
            raise ValueError(f"'optimizer.param_groups.{key}' is {has}, should be {wants}")


def _check_rng(found: object, device: str) -> None:
    if not isinstance(found, list) or not found or not all(_is_bytes(state) for state in found):
        raise ValueError("'rng' should be the states of generators")
    generators = [torch.Generator()]
    generators += [torch.Generator(device)] if device.startswith("cuda") else []
    for generator, state in zip(generators, found, strict=False):
        try:
            generator.set_state(state)
        except RuntimeError as error:
            raise ValueError(f"'rng' is no generator's state: {' '.join(str(error).split())[:80]}") from None


def _is_bytes(state: object) -> bool:
    return isinstance(state, Tensor) and state.dtype == torch.uint8 and state.dim() == 1
