"""Chunks beside each other on the CPU, a thread each: a small operation gains little from several threads inside."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import torch
from torch import Tensor, nn

from robustcli.attacks.convolutions import is_quick
from robustcli.attacks.guards import Meter

LEAST = 24
"""Samples a thread: for fewer, one chunk is as quick."""

KNOWN = ("torch.nn.", "torchvision.models.", "torchvision.ops.", "robustcli.models.")
"""Where modules come from whose forward keeps nothing from one call to the next."""

RANDOM = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
"""Layers that draw in eval mode too."""

Task = Callable[[Meter], Tensor]


def threads_for(model: nn.Module, device: torch.device, n: int) -> int:
    """How many chunks of n samples to compute beside each other; 1 of a model that may mind."""
    if device.type != "cpu" or not all(map(_keeps_nothing, model.modules())):
        return 1
    return max(1, min(torch.get_num_threads(), n // LEAST))


def _keeps_nothing(module: nn.Module) -> bool:
    """Whether two threads can call it at once, and draw nothing: no one's own class, and no one's hooks."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), *module._backward_hooks.values()]
    known = type(module).__module__.startswith(KNOWN) and not isinstance(module, RANDOM)
    return known and "forward" not in vars(module) and all(map(is_quick, hooks))


def abreast(tasks: Sequence[Task], meter: Meter, threads: int) -> Generator[Tensor, None, None]:
    """What the tasks make, in their order, as soon as it is there; `meter` counts what they asked of the model.

    One that fails, or whoever stops listening, stops them all at their next question to the model.
    """
    if threads == 1:
        yield from (task(meter) for task in tasks)
        return

    def run(task: Task) -> tuple[Tensor, Meter]:
        own = Meter(meter.model, meter.dtype, stop)
        return task(own), own

    stop, before = Event(), torch.get_num_threads()
    torch.set_num_threads(before // threads)  # those that begin now have as many
    pool = ThreadPoolExecutor(threads)
    try:
        for future in [pool.submit(run, task) for task in tasks]:
            made, own = future.result()
            meter.forwards += own.forwards
            meter.backwards += own.backwards
            yield made
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
