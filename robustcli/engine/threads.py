"""Chunks at the same time on the CPU, a thread each: a small operation gains little from several threads inside."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooked

from robustcli.engine.convolutions import is_quick
from robustcli.engine.guard import Meter

LEAST = 24
"""Samples a thread: for fewer, one chunk is as quick."""

MOST = 2
"""Batches at once, however many threads there are: each keeps its activations."""

SECONDS = 0.2
"""Between two looks at how far the threads are."""

KNOWN = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.", "robustcli.models.")
"""Where modules come from whose forward keeps nothing from one call to the next."""

RANDOM = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
"""Layers that draw in eval mode too."""

Task = Callable[[Meter], Tensor]


def plan_threads(model: nn.Module, device: torch.device, n: int, batch_size: int) -> tuple[int, int]:
    """How many chunks of n samples to compute at the same time, and of how many samples each."""
    threads = min(_threads_for(model, device), max(1, min(n, MOST * batch_size) // LEAST))
    most = min(batch_size, MOST * batch_size // threads)
    return threads, math.ceil(n / (threads * math.ceil(n / (threads * most)))) if n else batch_size


def _threads_for(model: nn.Module, device: torch.device) -> int:
    """How many threads can call it at once; 1 of a model that may mind."""
    # What a caller has switched on for his own thread, others do not have.
    if device.type != "cpu" or torch.is_autocast_enabled("cpu") or _has_global_hooks():
        return 1
    if not all(map(_is_stateless, model.modules())):
        return 1
    return torch.get_num_threads()


def _has_global_hooks() -> bool:
    """Whether there are hooks that hold for all modules."""
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return any(getattr(hooked, f"_global_{kind}", None) for kind in kinds)


def _is_stateless(module: nn.Module) -> bool:
    """Whether two threads can call it at once, and it draws nothing: no user's class, and no user's hooks."""
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    known = type(module).__module__.startswith(KNOWN) and not isinstance(module, RANDOM)
    plain = "forward" not in vars(module) and module._compiled_call_impl is None
    return known and plain and all(is_quick(hook) for hooks in kinds for hook in hooks.values())


def run_in_threads(tasks: Sequence[Task], meter: Meter, threads: int) -> Generator[Tensor, None, None]:
    """What the tasks return, in their order, as soon as it is there; `meter` counts their passes of the model.

    Where one fails, or the caller stops iterating, all stop at their next call of the model.
    """
    if threads == 1:
        yield from (task(meter) for task in tasks)
        return

    stop, before = Event(), torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(before // threads,))
    try:
        owns = [Meter(meter.model, meter.dtype, stop, meter.largest) for _ in tasks]
        futures = deque((pool.submit(task, own), own) for task, own in zip(tasks, owns, strict=True))
        while futures:
            future, own = futures.popleft()
            while not wait([future], SECONDS).done:
                meter.on_pass([own, *(other for _, other in futures)])
            made = future.result()
            meter.forwards += own.forwards
            meter.backwards += own.backwards
            yield made
    finally:
        stop.set()
        try:
            pool.shutdown(cancel_futures=True)
        finally:
            torch.set_num_threads(before)  # for threads that begin later; this one has kept its own
