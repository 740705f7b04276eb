"""Labelled images as tensors in memory, and how they are divided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory.

    Args:
        x: (n, c, h, w) uint8, from 0 to 255.
        y: (n,) int64, from 0 to the number of classes - 1.
        ids: (n,) int64, unique within `source`.
        classes: the classes' names, by label.
        name: a data set's name or a path's stem.
        source: the namespace of the ids, such as `mnist/train`: equal source and id is the same image.
        population: how many images of each class there are before a limit; empty where that is not known.
        note: why these are not the images that were asked for, as one clause; empty where they are.
        notices: lines that say what was left out or changed as they were read.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    name: str
    source: str
    note: str = ""
    population: tuple[int, ...] = ()
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.x.shape[1:]
        return c, h, w

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of images and labels, their shapes and order included; names do not matter."""
        digest = hashlib.sha256()
        for tensor in (self.x, self.y):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype};".encode())
            digest.update(tensor.flatten().numpy().data)
        return digest.hexdigest()

    @cached_property
    def hashes(self) -> Tensor:
        """(n,) int64: 8 bytes of each image's BLAKE2, of its (h, w, c) and its pixels in that order.

        Equal images have equal hashes, in whatever file and under whatever label they are.
        """
        start = hashlib.blake2b(repr((*self.shape[1:], self.shape[0])).encode(), digest_size=8)
        found = bytearray()
        for part in torch.split(self.x, 4096):
            for image in part.permute(0, 2, 3, 1).contiguous().numpy():
                digest = start.copy()
                digest.update(image.data)
                found += digest.digest()
        return torch.frombuffer(found, dtype=torch.int64)

    def pixels(self, index: Tensor | slice, device: str | torch.device = "cpu") -> Tensor:
        """The chosen images as float32 in [0, 1], on `device`."""
        return self.x[index].to(device).float() / 255

    def take(self, index: Tensor | slice) -> Images:
        """The chosen images, in the order of `index`."""
        return replace(self, x=self.x[index], y=self.y[index], ids=self.ids[index])


def split_validation(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """(train, validation): a random `fraction` is set aside, the same for the same n, fraction and seed.

    Both parts keep the stored order; at least one image stays for training.
    """
    count = min(round(len(images) * fraction), len(images) - 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.take(order[count:].sort().values), images.take(order[:count].sort().values)


def overlap(source: str, ids: Tensor, images: Images) -> int:
    """How many of `images` lie in a training set with these ids of `source`."""
    return int(torch.isin(images.ids, ids).sum()) if source == images.source else 0


def repeats(hashes: Tensor | None, images: Images) -> int:
    """How many of `images` have the content of a training image, of which these are the hashes; 0 where none are."""
    return 0 if hashes is None else int(torch.isin(images.hashes, hashes).sum())
