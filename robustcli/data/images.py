"""Labelled images, in memory or decoded when they are indexed, and how they are divided."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from robustcli.config import Fit
from robustcli.errors import DataError, listed

CHUNK = 4096
"""Images that are read together where all have to be."""

CHUNK_BYTES = 1 << 26
"""And those that are decoded together."""


class Pixels(Protocol):
    """Images (n, c, h, w), uint8, that are read from `files` (n) when they are indexed."""

    files: Sequence[str]

    @property
    def shape(self) -> torch.Size:
        """(n, c, h, w)."""
        ...

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """The chosen images."""
        ...

    def read(self, index: Tensor | slice) -> tuple[Tensor, dict[int, str]]:
        """The chosen images, and why, by position in `index`, some cannot be read; these are zeros."""
        ...

    def take(self, index: Tensor | slice) -> Pixels:
        """The chosen images, not read yet."""
        ...


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Args:
        x: (n, c, h, w) uint8, from 0 to 255, or what reads them when they are indexed.
        y: (n,) int64, from 0 to the number of classes - 1.
        ids: (n,) int64, unique within `source`.
        classes: the classes' names, by label; empty where only a model knows how many there are.
        name: a data set's name or a path's stem.
        source: the namespace of the ids, such as `mnist/train`: equal source and id is the same image.
        population: how many images of each class there are before a limit; empty where that is not known.
        note: why these are not the images of the data set that the spec names, as one clause; empty where they are.
        notices: lines that say what was left out or changed as they were read.
        content: (n,) int64, 8 bytes of the BLAKE2 of each image's file and of `fit`; None where they are of no files.
        fit: how images were made one size as they were decoded; None where they have one.
    """

    x: Tensor | Pixels
    y: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    name: str
    source: str
    note: str = ""
    population: tuple[int, ...] = ()
    notices: tuple[str, ...] = ()
    content: Tensor | None = None
    fit: Fit | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.x.shape[1:]
        return c, h, w

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images (of their files, where they have some) and labels, their shapes and order included.

        Names do not matter.
        """
        digest = hashlib.sha256(f"{tuple(self.x.shape)} torch.uint8;".encode())
        if self.content is not None:
            digest.update(b"files;" + self.content.numpy().tobytes())
        else:
            for start in range(0, len(self), CHUNK):
                digest.update(self.x[start : start + CHUNK].flatten().numpy().data)
        digest.update(f"{tuple(self.y.shape)} {self.y.dtype};".encode())
        digest.update(self.y.numpy().data)
        return digest.hexdigest()

    @cached_property
    def hashes(self) -> Tensor:
        """(n,) int64: 8 bytes of each image's BLAKE2, of its (h, w, c) and its pixels in that order.

        Equal images have equal hashes, in whatever file and under whatever label they are. One that cannot be decoded
        is black.
        """
        start = hashlib.blake2b(repr((*self.shape[1:], self.shape[0])).encode(), digest_size=8)
        found = bytearray()
        chunk = CHUNK if isinstance(self.x, Tensor) else max(1, CHUNK_BYTES // math.prod(self.shape))
        for first in range(0, len(self), chunk):
            part = slice(first, first + chunk)
            pixels = self.x[part] if isinstance(self.x, Tensor) else self.x.read(part)[0]
            for image in pixels.permute(0, 2, 3, 1).contiguous().numpy():
                digest = start.copy()
                digest.update(image.data)
                found += digest.digest()
        return torch.frombuffer(found, dtype=torch.int64)

    def batch(self, index: Tensor | slice, device: str | torch.device = "cpu") -> Tensor:
        """The chosen images as float32 in [0, 1], on `device`."""
        return self.x[index].to(device).float() / 255

    def take(self, index: Tensor | slice) -> Images:
        """The chosen images, in the order of `index`."""
        x = self.x[index] if isinstance(self.x, Tensor) else self.x.take(index)
        content = None if self.content is None else self.content[index]
        return replace(self, x=x, y=self.y[index], ids=self.ids[index], content=content)

    def sample(self, index: Tensor | slice) -> Images:
        """The chosen images in memory, but for those that cannot be decoded, which a notice names.

        Raises:
            DataError: none can.
        """
        chosen = self.take(index)
        if isinstance(chosen.x, Tensor):
            return chosen
        x, broken = chosen.x.read(slice(None))
        found = replace(chosen, x=x)
        if not broken:
            return found
        line = describe_broken(self.name, {chosen.x.files[i]: reason for i, reason in broken.items()}, len(x))
        if len(broken) == len(x):
            raise DataError(line)
        readable = torch.tensor([i for i in range(len(x)) if i not in broken])
        return replace(found.take(readable), notices=(*self.notices, line))

    def in_memory(self) -> Images:
        """All images, as `sample` reads them; what tells them apart is their pixels."""
        return replace(self.sample(slice(None)), content=None)


def split_validation(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """(train, validation): a random `fraction` is set aside, the same for the same n, fraction and seed.

    Both parts keep the stored order; at least one image stays for training.
    """
    count = min(round(len(images) * fraction), len(images) - 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.take(order[count:].sort().values), images.take(order[:count].sort().values)


def describe_broken(name: str, broken: Mapping[str, str], n: int) -> str:
    """A line that says which of n images are left out, and why."""
    reasons = listed(f"{file} ({reason})" for file, reason in broken.items())
    return f"{name}: {len(broken)} of {n} images cannot be read and are left out: {reasons}"


def overlap(source: str, ids: Tensor, images: Images) -> int:
    """How many of `images` lie in a training set with these ids of `source`."""
    return int(torch.isin(images.ids, ids).sum()) if source == images.source else 0


def repeats(hashes: Tensor | None, images: Images) -> int:
    """How many of `images` have the content of a training image, of which these are the hashes; 0 where none are."""
    return 0 if hashes is None else int(torch.isin(images.hashes, hashes).sum())
