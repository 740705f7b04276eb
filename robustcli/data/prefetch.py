"""Images that memory does not hold, decoded in worker processes while the caller computes on those before."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustcli.data.folders import Files
from robustcli.data.images import Images

BLOCK = 192 << 20
"""Bytes of the images that are held at once where all attacks look at them block by block: 1 337 of 3x224x224."""

AHEAD = 128 << 20
"""Bytes that are decoded ahead, at most; half of the shared memory where that is less, as in many containers."""

PIECE = 16
"""Images that a worker decodes at a time."""

WORKERS = 8
"""At most, where nobody says how many."""

SHARED = Path("/dev/shm")  # noqa: S108 - where the kernel keeps shared memory

Part = tuple[Tensor, dict[int, str]]
"""Pixels (k, c, h, w) uint8, and for each place among them that cannot be decoded why: its pixels are zeros."""


def default_workers() -> int:
    """A process a core that this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(WORKERS, cores)


class _Pieces(Dataset[Part]):
    def __init__(self, files: Files, pieces: Sequence[Tensor]) -> None:
        self.files, self.pieces = files, pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, i: int) -> Part:
        return self.files.read(self.pieces[i])


def _prepare_worker(_: int) -> None:
    """Leave Ctrl-C and errors to the process that asked, which ends its workers.

    One that SIGTERM ends, as `timeout` and batch systems send it to all, ends well: torch calls others a failure.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is wrong with a file comes back with its block


def read_ahead(files: Files, parts: Sequence[Tensor], workers: int) -> Iterator[Part]:
    """The parts in turn, each as soon as it is decoded; so many worker processes go on with the next ones.

    Args:
        files: the images.
        parts: positions (k,) among them.
        workers: processes; with 0, or of few images, a part is decoded when it is asked for.
    """
    pieces = [piece for part in parts for piece in torch.split(part, PIECE)]
    if len(pieces) <= workers or not workers:
        return map(files.read, parts)
    room = min(AHEAD, shutil.disk_usage(SHARED).free // 2) if SHARED.is_dir() else AHEAD
    loader = DataLoader(
        _Pieces(files, pieces),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=max(1, min(len(pieces), room // (workers * PIECE * math.prod(files.shape[1:])))),
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # else it draws a seed from the global one
    )
    return _join(iter(loader), [len(part) for part in parts], files)  # the processes start here, in this thread


def _join(pieces: Iterator[Part], sizes: Sequence[int], files: Files) -> Iterator[Part]:
    """Pieces as the parts, of these sizes, that they were cut from."""
    for size in sizes:
        x, broken, start = torch.empty(size, *files.shape[1:], dtype=torch.uint8), dict[int, str](), 0
        while start < size:
            pixels, reasons = next(pieces)
            x[start : start + len(pixels)] = pixels
            broken |= {start + i: reason for i, reason in reasons.items()}
            start += len(pixels)
        yield x, broken


def fits_a_block(images: Images) -> bool:
    """Whether all of them may be held at once."""
    return len(images) * math.prod(images.shape) <= BLOCK


def blocks_of(images: Images, workers: int) -> Generator[tuple[Images, dict[str, str]]]:
    """The images in memory, block by block, and the files of each block that cannot be decoded: they are left out."""
    assert isinstance(images.x, Files)
    parts = torch.split(torch.arange(len(images)), max(1, BLOCK // math.prod(images.shape)))
    for part, (x, broken) in zip(parts, read_ahead(images.x, parts, workers), strict=True):
        block = replace(images.take(part), x=x)
        readable = torch.tensor([i not in broken for i in range(len(block))])
        yield block.take(readable) if broken else block, {images.x.files[int(part[i])]: broken[i] for i in broken}
