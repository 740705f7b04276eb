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
    """How many samples a chunk has, for all that shares this value: fewer once memory has run out."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.halved = False

    def halve(self, error: Exception, samples: int) -> bool:
        """Whether an error says that memory ran out, and fewer can be tried: then half of so many from now on."""
        if samples <= 1 or not is_out_of_memory(error):
            return False
        self.samples, self.halved = min(self.samples, samples // 2), True
        warnings.warn(f"out of memory with {samples} samples a chunk; going on with {self.samples}", stacklevel=2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def samples_that_fit(model: nn.Module, x: Tensor) -> int:
    """How many like the images `x` (n, c, h, w) half of the free memory holds: a power of two. On the CPU, twice."""
    most, chunks = (MOST_ON_CPU, MOST) if x.device.type == "cpu" else (MOST_ON_GPU, 1)
    fitting = int(_free_bytes(x.device) / 2 / bytes_a_sample(model, x) / chunks)
    return 1 << (max(1, min(most, fitting)).bit_length() - 1)


def bytes_a_sample(model: nn.Module, x: Tensor) -> float:
    """The memory that a gradient takes for an image like `x` (n, c, h, w)."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with frozen(model), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Meter(model)(x.clone().requires_grad_())
    for weight in (*model.parameters(), *model.buffers()):
        kept.pop(weight.untyped_storage().data_ptr(), None)
    return sum(kept.values()) / len(x) + IMAGES * x[0].nbytes


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = Path("/proc/meminfo")
    for line in known.read_text().splitlines() if known.exists() else ():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
