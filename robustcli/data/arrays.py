"""Images from a user's own `.npz` of arrays, or `.pt` of tensors."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustcli import tensorfile
from robustcli.config import Fit
from robustcli.data.images import Pixels
from robustcli.data.named import ARRAYS
from robustcli.disk import open_regular
from robustcli.errors import DataError, RobustCliError, nearest, one_line

Array = npt.NDArray[Any]
T = TypeVar("T")

CLASSES = "classes"
MAX_PIXELS = 32_000_000
"""The most pixels that an image may have: what decodes one needs some 20 bytes a pixel."""
MAX_LABELS = 1 << 24
_MAX_NAMES = 1 << 26
"""The most bytes that the names of classes may take."""
_HEADER = 10_240
"""Bytes in which an array's header has to lie; numpy refuses one of more than 10 000."""
_CHUNK = 1 << 26
"""Bytes of an array that are decompressed at a time, where an image has no more."""
_ROUNDING = 1e-4
"""How far a float may lie from k/255 and still be that pixel: 40 times less than half a grey level."""
_PIXELS = "allowed: uint8 from 0 to 255, or floats k/255 in [0, 1]"


class Stored(NamedTuple):
    """One split as it was read, up to a limit.

    x: (n, c, h, w) uint8, or what reads them; y: (n,) int64; labels: those of the whole split; notices: what the user
    should know of it; ids, content, fit: as those of `Images`; without ids, they are places.
    """

    x: Tensor | Pixels
    y: Tensor
    classes: tuple[str, ...]
    labels: Tensor
    notices: tuple[str, ...] = ()
    ids: Tensor | None = None
    content: Tensor | None = None
    fit: Fit | None = None


def channels_first(x: Array) -> Tensor:
    """(n, h, w) or (n, h, w, c) pixels as an (n, c, h, w) tensor."""
    return torch.from_numpy(np.ascontiguousarray(x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)))


def allocate(shape: tuple[int, int, int, int], path: Path) -> Array:
    """Pixels (n, c, h, w), uint8, to be filled.

    Raises:
        DataError: an image is larger than `MAX_PIXELS`, or all of them take more memory than there is.
    """
    n, _, h, w = shape
    if h * w > MAX_PIXELS:
        raise DataError(f"{path}: has images of {w}x{h} pixels; at most {MAX_PIXELS} pixels an image are read")
    try:
        if not _memory_holds(prod(shape)):
            raise MemoryError
        return np.empty(shape, np.uint8)
    except MemoryError:
        needed = f"{prod(shape) / 1e9:.1f} GB"
        raise DataError(
            f"{path}: {n} images of {w}x{h} pixels take {needed}, which this machine has not free: "
            "--limit N reads the first N"
        ) from None


def _memory_holds(size: int) -> bool:
    return not hasattr(os, "sysconf") or size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_npz(path: Path, split: str, limit: int | None = None) -> Stored:
    """The split `train` or `test` of an `.npz` that holds `x_train, y_train, x_test, y_test`, and perhaps `classes`.

    Images are uint8, (n, h, w) or (n, h, w, c) with 1 or 3 channels; floats pass where they are k/255 exactly.
    Labels are integers, (n,) or (n, 1), from 0 to the largest one in `y_train`, which holds each of them: a stray label
    would make a network of as many classes. Where `classes` names them, there are as many as it has names, and not
    each needs an image. Of the images only the first `limit` are decompressed, and a part of them at a time.

    Raises:
        DataError: names the file, the array, what was found and what is allowed.
    """
    return _with_npz(path, lambda arrays: _read_split(arrays, split, limit))


def _with_npz(path: Path, read: Callable[[_Arrays], T]) -> T:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive, warnings.catch_warnings(action="ignore"):
            return read(_Arrays(path, archive))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except RobustCliError:
        raise
    except Exception as error:  # what a damaged zip raises: BadZipFile, zlib.error, EOFError, struct.error and others
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: cannot be read as an .npz file (a zip of arrays): {reason}") from None


def _read_split(arrays: _Arrays, split: str, limit: int | None) -> Stored:
    arrays.require(ARRAYS)
    x_name, y_name = f"x_{split}", f"y_{split}"
    shapes = {name: arrays.image_shape(name) for name in ("x_train", "x_test")}
    if shapes["x_train"] != shapes["x_test"]:
        raise arrays.error("x_test", f"holds images of {shapes['x_test']}, but x_train of {shapes['x_train']}")
    given, y = arrays.class_names(), {name: arrays.labels(name) for name in dict.fromkeys(("y_train", y_name))}
    names = given or _number_classes(arrays, y["y_train"])
    for name, labels in y.items():
        if labels.max() >= len(names):
            source = f"the names in {CLASSES} are for 0" if given else "the labels of y_train go from 0"
            raise arrays.error(name, f"holds the label {labels.max()}, but {source} to {len(names) - 1}")
    count = arrays.header(x_name).shape[0]
    if count != len(y[y_name]):
        raise arrays.error(x_name, f"holds {count} images, but {y_name} {len(y[y_name])} labels")
    x = arrays.pixels(x_name, limit)
    all_labels = torch.from_numpy(y[y_name].astype(np.int64))
    return Stored(torch.from_numpy(x), all_labels[: len(x)], names, all_labels)


def _number_classes(arrays: _Arrays, labels: Array) -> tuple[str, ...]:
    """The labels of `y_train` as names, once each up to the largest has a training image."""
    present = np.unique(labels).tolist()
    if len(present) < 2:
        raise arrays.error("y_train", "holds one class only; at least 2 are needed, labelled 0 to K-1")
    gaps, following = [], 0
    for label in present:
        if label > following:
            gaps.append(f"{following} to {label - 1}" if label - 1 > following else str(following))
        following = label + 1
    if gaps:
        listed = ", ".join(gaps[:3]) + ", ..." * (len(gaps) > 3)
        raise arrays.error(
            "y_train",
            f"holds labels up to {present[-1]}, but not {listed}: labels should be 0 to K-1, each with a training "
            "image",
        )
    return tuple(map(str, present))


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Arrays of an `.npz`, or tensors of a `.pt`, whole; nothing is unpickled.

    Raises:
        DataError: one is missing, damaged, or an object, or they take more memory than there is.
    """
    if path.suffix != ".pt":
        return _with_npz(path, lambda arrays: arrays.read_all(names))
    with (
        tensorfile.refusals(path, "cannot be read as a file that torch.save wrote: {}", kind=DataError),
        open_regular(path) as file,
    ):
        content = tensorfile.read(file, tensors=True)
        tensorfile.check(content, "it", tensors=True, meta=False)
        held = content if isinstance(content, dict) else {}
        found = {str(name): value.detach().numpy() for name, value in held.items() if isinstance(value, Tensor)}
        return _Arrays(path, found).read_all(names)


class _Header(NamedTuple):
    """What an array's header says, and how many bytes it takes itself."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    length: int


def read_pt(path: Path, split: str, limit: int | None = None) -> Stored:
    """The split of a `.pt`: a dict of tensors that are what an `.npz` holds; images are (n, h, w) or (n, c, h, w).

    Raises:
        DataError: names the file, the tensor, what was found and what is allowed.
    """
    with (
        tensorfile.refusals(path, "cannot be read as a file that torch.save wrote: {}", kind=DataError),
        open_regular(path) as file,
    ):
        content = tensorfile.read(file, tensors=True)
        if not isinstance(content, dict) or not any(name in content for name in ARRAYS):
            what = "a model's checkpoint or weights" if isinstance(content, dict) else f"a {type(content).__name__}"
            raise tensorfile.FlawError(f"holds {what}, and no images: a .pt of images is a dict of {', '.join(ARRAYS)}")
        tensorfile.check(content, "it", tensors=True, meta=False)
        names = [name for name in (*ARRAYS, CLASSES) if name in content]
        arrays = {name: _channels_last(path, name, content[name]) for name in names}
        return _read_split(_Arrays(path, arrays), split, limit)


def _channels_last(path: Path, name: str, value: object) -> Array:
    """A value of a `.pt` as the array of an `.npz`."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return np.array(value, dtype=np.str_)
    if not isinstance(value, Tensor):
        raise DataError(
            f"{path}: '{name}' is a {type(value).__name__}; should be a tensor, or text in a list of classes"
        )
    array: Array = (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
    if array.ndim == 4 and array.shape[1] not in (1, 3):
        allowed = "(n, h, w) or (n, c, h, w) with c = 1 or 3"
        raise DataError(f"{path}: '{name}' has the shape {array.shape}; allowed: {allowed}")
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


class _Arrays(NamedTuple):
    """The arrays in an open `.npz`, or those of a `.pt`, checked as they are read."""

    path: Path
    archive: zipfile.ZipFile | dict[str, Array]

    def error(self, name: str, reason: str) -> DataError:
        return DataError(f"{self.path}: array '{name}' {reason}")

    def names(self) -> list[str]:
        if isinstance(self.archive, dict):
            return list(self.archive)
        return [member.removesuffix(".npy") for member in self.archive.namelist() if member.endswith(".npy")]

    def require(self, names: Sequence[str]) -> None:
        found = self.names()
        for name in names:
            if name not in found:
                listed = ", ".join(found) or "nothing"
                near = nearest(name, set(found) - set(names))
                raise self.error(name, f"is missing (the file holds {_truncate(listed)}){near}")
        for name in (*names, CLASSES):
            if found.count(name) > 1:
                raise self.error(name, "is in the file more than once")

    def header(self, name: str) -> _Header:
        """The header, once the array holds as many bytes as it says, and no pickles."""
        if isinstance(self.archive, dict):
            return _Header(self.archive[name].shape, False, self.archive[name].dtype, 0)
        info = self.archive.getinfo(f"{name}.npy")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others decompress without a bound
            raise self.error(name, "is compressed in a way that numpy does not write; allowed: deflate, or none")
        with self.archive.open(info) as file:
            start = io.BytesIO(file.read(_HEADER))
        try:
            version = np.lib.format.read_magic(start)
            if version not in ((1, 0), (2, 0), (3, 0)):
                raise ValueError(f"its format {version} is unknown")
            read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(start)
            shape = tuple(map(int, shape))
            text = f"{shape} {dtype}"
        except Exception as error:  # of numpy's parser: ValueError, SyntaxError, MemoryError, RecursionError and others
            raise self.error(name, f"cannot be read: {one_line(error)}") from None
        if min(shape, default=0) < 0 or len(text) > 1000:
            raise self.error(name, f"has a damaged header: {_truncate(text)}")
        if dtype.hasobject:
            raise self.error(name, "cannot be read: Object arrays hold pickles, which are never opened")
        there = info.file_size - start.tell()
        if there != prod(shape) * dtype.itemsize:
            raise self.error(name, f"cannot be read: its header says {text}, and {there} bytes follow")
        return _Header(shape, fortran, dtype, start.tell())

    def read_whole(self, name: str) -> Array:
        """The array; for those whose header says that they are small."""
        if isinstance(self.archive, dict):
            return self.archive[name]
        with self.archive.open(f"{name}.npy") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array

    def read_all(self, names: Sequence[str]) -> dict[str, Array]:
        """Arrays by name, all that memory holds."""
        self.require(names)
        if not _memory_holds(sum(prod(header.shape) * header.dtype.itemsize for header in map(self.header, names))):
            raise self.error(names[0], "and the others take more memory than this machine has")
        return {name: self.read_whole(name) for name in names}

    def blocks(self, name: str, rows: int, columns: int) -> Iterator[Array]:
        """The first `rows` rows of `columns` items, in the order of the file: (m, columns) a block."""
        header = self.header(name)
        step = max(1, _CHUNK // (columns * header.dtype.itemsize))
        if isinstance(self.archive, dict):
            parts = (self.archive[name][start : min(start + step, rows)] for start in range(0, rows, step))
            yield from (part.reshape(len(part), columns) for part in parts)
            return
        with self.archive.open(f"{name}.npy") as file:
            file.read(header.length)
            for start in range(0, rows, step):
                m = min(step, rows - start)
                yield np.frombuffer(file.read(m * columns * header.dtype.itemsize), header.dtype).reshape(m, columns)

    def image_shape(self, name: str) -> tuple[int, ...]:
        """(h, w, c) of the images in `name`."""
        shape = self.header(name).shape
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
            raise self.error(name, f"has the shape {shape}; allowed: (n, h, w) or (n, h, w, c) with c = 1 or 3")
        if 0 in shape:
            raise self.error(name, f"is empty: its shape is {shape}")
        return (*shape[1:], 1)[:3]

    def labels(self, name: str) -> Array:
        """(n,) integers, none of them negative."""
        shape, _, dtype, _ = self.header(name)
        if dtype.kind not in "iu" or len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
            hint = "; rows of one-hot labels become integers by y.argmax(1)" if len(shape) == 2 and shape[1] > 1 else ""
            raise self.error(name, f"has the shape {shape} and holds {dtype}; allowed: (n,) or (n, 1) integers{hint}")
        if not shape[0]:
            raise self.error(name, "is empty")
        if shape[0] > MAX_LABELS:
            raise self.error(name, f"holds {shape[0]} labels; at most {MAX_LABELS} are read")
        y = self.read_whole(name).reshape(-1)
        if y.min() < 0:
            raise self.error(name, f"holds the label {y.min()}; labels start at 0")
        return y

    def class_names(self) -> tuple[str, ...]:
        """What `classes` holds; nothing where it is missing."""
        if CLASSES not in self.names():
            return ()
        shape, _, dtype, _ = self.header(CLASSES)
        allowed = "allowed: (k,) strings, a name for each label from 0 on"
        if len(shape) != 1 or dtype.kind not in "US":
            raise self.error(CLASSES, f"has the shape {shape} and holds {dtype}; {allowed}")
        if shape[0] * dtype.itemsize > _MAX_NAMES:
            raise self.error(CLASSES, f"takes {shape[0] * dtype.itemsize} bytes; at most {_MAX_NAMES} are read")
        found = self.read_whole(CLASSES).tolist()
        try:
            names = [name.decode() if isinstance(name, bytes) else name.encode().decode() for name in found]
        except ValueError:
            raise self.error(CLASSES, f"holds what is no text in UTF-8; {allowed}") from None
        if len(names) < 2 or not all(names):
            raise self.error(CLASSES, f"holds {len(names)} names{', some of them empty' * (len(names) > 1)}; {allowed}")
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise self.error(CLASSES, f"holds the name '{_truncate(twice)}' more than once; {allowed}")
        return tuple(names)

    def pixels(self, name: str, limit: int | None) -> Array:
        """The first `limit` images, (n, c, h, w) uint8."""
        (total, *_), fortran, dtype, _ = self.header(name)
        if dtype != np.uint8 and dtype.kind != "f":
            raise self.error(name, f"holds {dtype}; {_PIXELS}")
        h, w, c = self.image_shape(name)
        n = min(total, limit or total)
        x = allocate((n, c, h, w), self.path)
        if fortran:  # the image's index runs fastest: a row holds one pixel of all images
            rows = [self.to_uint8(name, block[:, :n]) for block in self.blocks(name, c * w * h, total)]
            x[:] = np.concatenate(rows).reshape(c, w, h, n).transpose(3, 0, 2, 1)
            return x
        start = 0
        for block in self.blocks(name, n, h * w * c):
            images = self.to_uint8(name, block).reshape(-1, h, w, c)
            x[start : start + len(images)] = images.transpose(0, 3, 1, 2)
            start += len(images)
        return x

    def to_uint8(self, name: str, x: Array) -> Array:
        """Pixels of any kind that is allowed as uint8."""
        if x.dtype == np.uint8:
            return x
        low, high = x.min(), x.max()
        if not (low >= 0 and high <= 1):  # also where one is nan
            raise self.error(name, f"holds {x.dtype} from {low:g} to {high:g}; {_PIXELS}")
        levels: Array = np.rint(x * 255)
        off = float(np.abs(x - levels / 255).max())
        if off > _ROUNDING:
            raise self.error(name, f"holds {x.dtype} that are not k/255 (one is {off:.2g} off); {_PIXELS}")
        return np.asarray(levels, dtype=np.uint8)


def _truncate(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."
