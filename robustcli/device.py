"""Where a run computes."""

from __future__ import annotations

import re

import torch

from robustcli.errors import ConfigError


def pick_device(name: str) -> str:
    """`auto` as the first GPU or else the CPU; `cpu` and `cuda:1` as they are.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    allowed = "(allowed: auto, cpu, cuda, cuda:N)"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):  # torch knows others, such as meta, that compute nothing
        raise ConfigError(f"--device '{name}' is unknown {allowed}")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: not available here {allowed}: {reason}") from None
    return name
