"""Images from a user's own files: an `.npz` of arrays, or a folder of class folders."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustcli.errors import DataError, nearest

Array = npt.NDArray[Any]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_ROUNDING = 1e-4
"""How far a float may lie from k/255 and still be that pixel: 40 times less than half a grey level."""


class Stored(NamedTuple):
    """One split as it was read. x: (n, c, h, w) uint8; y: (n,) int64."""

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]


def channels_first(x: Array) -> Tensor:
    """(n, h, w) or (n, h, w, c) pixels as an (n, c, h, w) tensor."""
    return torch.from_numpy(np.ascontiguousarray(x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)))


def read_npz(path: Path, split: str) -> Stored:
    """The split `train` or `test` of an `.npz` that holds `x_train, y_train, x_test, y_test`.

    Images are uint8, (n, h, w) or (n, h, w, c) with 1 or 3 channels; floats pass where they are k/255 exactly.
    Labels are integers from 0 to the largest one in `y_train`, which holds each of them: a stray label would make a
    network of as many classes. Only what the split needs is decompressed.

    Raises:
        DataError: names the file, the array, what was found and what is allowed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_split(_Arrays(path, archive), split)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, MemoryError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file (a zip of arrays): {one_line(error)}") from None


def _read_split(arrays: _Arrays, split: str) -> Stored:
    arrays.require(ARRAYS)
    x_name, y_name = f"x_{split}", f"y_{split}"
    shapes = {name: arrays.image_shape(name) for name in ("x_train", "x_test")}
    if shapes["x_train"] != shapes["x_test"]:
        raise arrays.error("x_test", f"holds images of {shapes['x_test']}, but x_train of {shapes['x_train']}")
    top = _last_class(arrays)
    y = arrays.labels(y_name)
    if y.max() > top:
        raise arrays.error(y_name, f"holds the label {y.max()}, but the labels of y_train go from 0 to {top}")
    if arrays.shape(x_name)[0] != len(y):
        raise arrays.error(x_name, f"holds {arrays.shape(x_name)[0]} images, but {y_name} {len(y)} labels")
    x = arrays.pixels(x_name)
    names = tuple(str(label) for label in range(top + 1))
    return Stored(channels_first(x), torch.from_numpy(y.astype(np.int64)), names)


def _last_class(arrays: _Arrays) -> int:
    """The largest label of `y_train`, once each class up to it has a training image."""
    present = np.unique(arrays.labels("y_train")).tolist()
    if len(present) < 2:
        raise arrays.error("y_train", "holds one class only; at least 2 are needed, labelled 0 to K-1")
    top = int(present[-1])
    if top >= len(present):
        gaps = [(a + 1, b - 1) for a, b in pairwise([-1, *present]) if b - a > 1]
        listed = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in gaps[:3]) + ", ..." * (len(gaps) > 3)
        raise arrays.error(
            "y_train",
            f"holds labels up to {top}, but not {listed}: labels should be 0 to K-1, each with a training image",
        )
    return top


class _Arrays(NamedTuple):
    """The arrays in an open `.npz`, checked as they are read."""

    path: Path
    archive: zipfile.ZipFile

    def error(self, name: str, reason: str) -> DataError:
        return DataError(f"{self.path}: array '{name}' {reason}")

    def require(self, names: Sequence[str]) -> None:
        found = [member.removesuffix(".npy") for member in self.archive.namelist() if member.endswith(".npy")]
        for name in names:
            if name not in found:
                listed = ", ".join(found) or "nothing"
                raise self.error(name, f"is missing (the file holds {listed}){nearest(name, found)}")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape from the header alone."""
        with self.archive.open(f"{name}.npy") as file:
            try:
                version = np.lib.format.read_magic(file)
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                return header(file)[0]
            except ValueError as error:
                raise self.error(name, f"cannot be read: {one_line(error)}") from None

    def image_shape(self, name: str) -> tuple[int, ...]:
        """(h, w, c) of the images in `name`."""
        shape = self.shape(name)
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
            raise self.error(name, f"has the shape {shape}; allowed: (n, h, w) or (n, h, w, c) with c = 1 or 3")
        if 0 in shape:
            raise self.error(name, f"is empty: its shape is {shape}")
        return (*shape[1:], 1)[:3]

    def read(self, name: str) -> Array:
        with self.archive.open(f"{name}.npy") as file:
            try:
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
            except ValueError as error:
                raise self.error(name, f"cannot be read: {one_line(error)}") from None
        return array

    def labels(self, name: str) -> Array:
        y = self.read(name)
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise self.error(name, f"has the shape {y.shape} and holds {y.dtype}; allowed: (n,) integers")
        if not len(y):
            raise self.error(name, "is empty")
        if y.min() < 0:
            raise self.error(name, f"holds the label {y.min()}; labels start at 0")
        return y

    def pixels(self, name: str) -> Array:
        x = self.read(name)
        if x.dtype == np.uint8:
            return x
        allowed = "allowed: uint8 from 0 to 255, or floats k/255 in [0, 1]"
        if x.dtype.kind != "f":
            raise self.error(name, f"holds {x.dtype}; {allowed}")
        low, high = x.min(), x.max()
        if not (low >= 0 and high <= 1):  # also where one is nan
            raise self.error(name, f"holds {x.dtype} from {low:g} to {high:g}; {allowed}")
        levels: Array = np.rint(x * 255)
        off = float(np.abs(x - levels / 255).max())
        if off > _ROUNDING:
            raise self.error(name, f"holds {x.dtype} that are not k/255 (one is {off:.2g} off); {allowed}")
        return np.asarray(levels, dtype=np.uint8)


def read_folder(path: Path, split: str, limit: int | None = None) -> tuple[Stored, str]:
    """The images of a split and a digest of all its files (their names and bytes).

    Either `path/train/CLASS/*.png` and `path/test/CLASS/*.png`, or `path/CLASS/*.png` alone: then every fifth image
    of a class, sorted by name, is a test image. Classes take turns, so that the first `limit` images are balanced.

    Raises:
        DataError: names the folder or file that is missing, empty, unreadable or unlike the first one.
    """
    try:
        groups = _class_files(path, split)
        turns = sorted((turn, label) for label, files in enumerate(groups.values()) for turn in range(len(files)))
        by_label = list(groups.values())
        files = [by_label[label][turn] for turn, label in turns]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None
    x = _read_images(files[:limit])
    y = torch.tensor([label for _, label in turns[:limit]])
    return Stored(channels_first(x), y, tuple(groups)), digest.hexdigest()


def _folders(path: Path) -> list[Path]:
    visible = (child for child in path.iterdir() if not child.name.startswith(".")) if path.is_dir() else ()
    return sorted((child for child in visible if child.is_dir()), key=attrgetter("name"))


def _class_files(path: Path, split: str) -> dict[str, list[Path]]:
    """The split's files by class, both sorted."""
    by_split = {name: _folders(path / name) for name in ("train", "test")}
    own_layout = any(by_split.values())
    folders = by_split[split] if own_layout else _folders(path)
    where = path / split if own_layout else path
    if len(folders) < 2:
        raise DataError(
            f"{where}: holds {len(folders)} class folders; at least 2 are needed, such as {where}/CLASS/1.png"
        )
    other = "test" if split == "train" else "train"
    lonely = {f.name for f in by_split[split]} ^ {f.name for f in by_split[other]}
    if own_layout and by_split[other] and lonely:
        raise DataError(f"{path}: class folder '{min(lonely)}' is in only one of train and test; both need all classes")
    groups = {}
    for folder in folders:
        files = sorted((f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES), key=attrgetter("name"))
        if not files:
            raise DataError(f"{folder}: this class folder holds no image ({', '.join(sorted(SUFFIXES))})")
        if not own_layout:
            files = [file for i, file in enumerate(files) if (i % 5 == 4) == (split == "test")]
        if not files:
            raise DataError(f"{folder}: every fifth image of a class is a test image, and this one has fewer than 5")
        groups[folder.name] = files
    return groups


def _read_images(files: Sequence[Path]) -> Array:
    """(n, h, w) or (n, h, w, 3) uint8."""
    from PIL import Image

    images: list[Array] = []
    first: tuple[str, tuple[int, int]] | None = None
    for file in files:
        try:
            with Image.open(file) as image:
                kind, pixels = (image.mode, image.size), np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:  # PIL's reader of PNG raises SyntaxError
            raise DataError(f"{file}: cannot be read as an image: {one_line(error)}") from None
        first = first or kind
        found = f"{kind[1][0]}x{kind[1][1]} pixels of mode {kind[0]}"
        if kind[0] not in ("L", "RGB"):
            raise DataError(f"{file}: has {found}; allowed modes: L (grey) and RGB")
        if kind != first:
            raise DataError(f"{file}: has {found}, but {files[0]} has {first[1][0]}x{first[1][1]} of mode {first[0]}")
        images.append(pixels)
    return np.stack(images)


def one_line(error: BaseException) -> str:
    """An exception's text, or its name where it has none, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
