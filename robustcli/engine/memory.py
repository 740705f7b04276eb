"""How many samples the memory holds: half as many once it has run out, and an estimate before the run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from robustcli.engine.guard import Meter, frozen
from robustcli.engine.threads import MOST
from robustcli.errors import is_out_of_memory

MOST_ON_CPU, MOST_ON_GPU = 128, 1024
"""Samples a chunk: more are not quicker."""

IMAGES = 10
"""Copies of an image that an attack keeps beside what the model does."""


class ChunkSize:
    """How many samples a chunk has, in all that shares this value: fewer from the first time that memory runs out."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.halved = False

    def halve(self, error: Exception, samples: int) -> None:
        """After an error with so many samples: half of them from now on, where it says that memory ran out.

        Raises:
            Exception: the error itself, where it says something else or a single sample is too much.
        """
        if samples <= 1 or not is_out_of_memory(error):
            raise error
        self.samples, self.halved = min(self.samples, samples // 2), True
        warnings.warn(f"out of memory with {samples} samples a chunk; going on with {self.samples}", stacklevel=2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def samples_that_fit(model: nn.Module, x: Tensor) -> int:
    """How many samples like the images `x` (n, c, h, w) fill half of what memory is free: a power of two, or 1.

    Of two chunks at once on the CPU, each.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {part.untyped_storage().data_ptr() for part in (*model.parameters(), *model.buffers())}
    with frozen(model), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Meter(model)(x.clone().requires_grad_())
    each = sum(size for place, size in kept.items() if place not in weights) / len(x) + IMAGES * x[0].nbytes
    on_cpu = x.device.type == "cpu"
    most = int(_free_bytes(x.device) / 2 / each / (MOST if on_cpu else 1))
    return 1 << (max(1, min(most, MOST_ON_CPU if on_cpu else MOST_ON_GPU)).bit_length() - 1)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = Path("/proc/meminfo")
    lines = known.read_text().splitlines() if known.exists() else []
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return free[0] if free else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
