"""Where a run computes."""

from __future__ import annotations

import torch

from robustcli.errors import ConfigError


def pick_device(name: str) -> str:
    """`auto` as the first GPU or else the CPU; `cpu` and `cuda:1` as they are.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: not available here (allowed: auto, cpu, cuda, cuda:N): {reason}") from None
    return name
