"""What a check watches: all that code under test could change and should not."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn

from robustcli.engine.run import Samples


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds; unlike `assert`, also under -O."""
    if not condition:
        raise AssertionError(message)


def state_of(model: nn.Module, samples: Samples) -> dict[str, object]:
    """All that an attack could change and should not, by what a sentence calls it."""
    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is what we watch
    state: dict[str, object] = {
        "its input": samples.x.clone(),
        "the labels": samples.y.clone(),
        "the ids": samples.ids.clone(),
        "the global random state of torch": torch.get_rng_state(),
        "the global random state of Python": random.getstate(),
        "the global random state of numpy": str([np.asarray(part).tobytes() for part in numpy_state]),
        "whether gradients are on": torch.is_grad_enabled(),
    }
    for name, parameter in model.named_parameters():
        state[f"the parameter {name}"] = parameter.detach().clone()
        state[f"the gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"requires_grad of {name}"] = parameter.requires_grad
    for name, buffer in model.named_buffers():
        state[f"the buffer {name}"] = buffer.clone()
    for name, module in model.named_modules():
        state[f"the train/eval flag of {name or 'the model'}"] = module.training
    return state


def _same(value: object, now: object) -> bool:
    if isinstance(value, Tensor) and isinstance(now, Tensor):
        return torch.equal(value, now)
    return type(value) is type(now) and value == now


def require_unchanged(who: str, before: dict[str, object], after: dict[str, object]) -> None:
    """Refuse a difference between two `state_of`, naming `who` and what changed."""
    for what, value in before.items():
        require(_same(value, after[what]), f"{who} changed {what}")
