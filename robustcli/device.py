"""Where a run computes."""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Mapping

import torch

from robustcli.errors import ConfigError

BFLOAT16_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16")
"""What torch calls a processor's instructions for them; the last is ARM's."""


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


def multiplies(dtype: str, device: str) -> bool:
    """Whether a device has instructions for this type, as far as torch knows; without, float32 is quicker."""
    if dtype != "bfloat16":
        return True
    kind = torch.device(device).type
    if kind == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    get_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # not in older torch
    capabilities: Mapping[str, bool] = get_capabilities() if kind == "cpu" else {}
    known = [capabilities[name] for name in BFLOAT16_PRODUCTS if name in capabilities]
    return any(known) or not known


def keep_freed_memory() -> None:
    """Keep freed memory in this process, on Linux with glibc; elsewhere nothing happens.

    glibc hands each large block back to the kernel, which clears its pages again for the next one: without that a
    training step of `mnist-cnn` on 256 digits takes 61 ms instead of 108 (2 cores, float32).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
