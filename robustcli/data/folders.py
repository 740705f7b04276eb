"""Images from a user's own folder of class folders; where they are many, each is decoded when it is indexed."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from robustcli.data.arrays import MAX_PIXELS, Array, Stored, allocate
from robustcli.disk import open_regular
from robustcli.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may read. It knows more, and starts Ghostscript for one of them, whatever a file's suffix says."""
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_BYTES = 128 << 20
"""The most bytes that an image's file may have: 32 million pixels in colour, as they are, take 92 MiB."""
_VALIDATION = ("val", "valid", "validation")
_GREY = ("1", "L", "LA", "La", "I", "F")  # and I;16, in several orders of bytes
IN_MEMORY = 64 << 20
"""Up to so many bytes, decoded, the images of a folder are read at once: a damaged one is then found at once."""


class Files:
    """The pixels of image files, (n, c, h, w) uint8, each file decoded when it is indexed.

    Args:
        files: the n files.
        shape: (c, h, w) of each.
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, int, int]) -> None:
        self.files = files
        self.shape = torch.Size((len(files), *shape))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: torch.Tensor | slice) -> torch.Tensor:
        """The chosen images.

        Raises:
            DataError: names the file that cannot be read, or is not what its header said.
        """
        chosen = self.take(index)
        x = allocate((len(chosen), *self.shape[1:]), chosen.files[0].parent if chosen.files else Path())
        for i, file in enumerate(chosen.files):
            pixels = _decode(file)
            if pixels.shape[1:] != tuple(self.shape[2:]) or len(pixels) > self.shape[1]:
                raise DataError(f"{file}: has pixels of {pixels.shape}, which its header does not say")
            x[i] = pixels
        return torch.from_numpy(x)

    def read(self, index: torch.Tensor) -> tuple[torch.Tensor, dict[int, str]]:
        chosen = self.take(index)
        x, bad = torch.zeros(len(chosen), *self.shape[1:], dtype=torch.uint8), {}
        for i, file in enumerate(chosen.files):
            try:
                pixels = _decode(file)
                if pixels.shape[1:] != tuple(self.shape[2:]) or len(pixels) > self.shape[1]:
                    raise DataError(f"{file}: has pixels of {pixels.shape}, which its header does not say")
                x[i] = torch.from_numpy(np.array(pixels))
            except DataError as error:
                bad[i] = str(error).removeprefix(f"{file}: ")
        return x, bad

    def take(self, index: torch.Tensor | slice) -> Files:
        """The chosen images, with nothing decoded."""
        chosen = self.files[index] if isinstance(index, slice) else [self.files[i] for i in index.tolist()]
        c, h, w = self.shape[1:]
        return Files(chosen, (c, h, w))


class _Header(NamedTuple):
    """What an image's header says: its (width, height) as it is shown, whether it is grey, whether frames follow."""

    size: tuple[int, int]
    grey: bool
    frames: bool


def read_folder(path: Path, split: str, limit: int | None = None) -> tuple[Stored, str]:
    """The images of a split and a digest of all its files (their names and bytes).

    Either `path/train/CLASS/*.png` and `path/test/CLASS/*.png` (or `val` where `test` has no class folders), or
    `path/CLASS/*.png` alone: then every fifth image of a class, sorted by name, is a test image. Classes take turns, so
    that the first `limit` images are balanced.

    Images are made 8-bit, upright as their EXIF says, and grey, or RGB as soon as one file of the split is in colour.

    Raises:
        DataError: names the folder or file that is missing, empty, unreadable or unlike the first one.
    """
    try:
        groups, notices = _class_files(path, split)
        turns = sorted((turn, label) for label, files in enumerate(groups.values()) for turn in range(len(files)))
        by_label = list(groups.values())
        files = [by_label[label][turn] for turn, label in turns]
        digest = hashlib.sha256()
        for file in files:
            digest.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0" + _hash(file))
        found, changes = _pixels(files[:limit], files[len(files[:limit]) :])
        x = found[:] if math.prod(found.shape) <= IN_MEMORY else found
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror or one_line(error)}") from None
    labels = torch.tensor([label for _, label in turns])
    notices += [f"{path}: {change}" for change in changes]
    names, lines = (tuple(map(printable, texts)) for texts in (groups, notices))
    return Stored(x, labels[: len(x)], names, labels, lines), digest.hexdigest()


def printable(name: str) -> str:
    r"""A file's name as text that can be encoded: bytes that are no UTF-8 are written as `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _hash(file: Path) -> bytes:
    """SHA-256 of a file that is an image's size."""
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if not size:
            raise DataError(f"{file}: cannot be read as an image: it is empty")
        if size > MAX_BYTES:
            raise DataError(f"{file}: has {size} bytes; at most {MAX_BYTES} ({MAX_BYTES >> 20} MiB) an image are read")
        return hashlib.file_digest(opened, "sha256").digest()


# Which files


def _class_files(path: Path, split: str) -> tuple[dict[str, list[Path]], list[str]]:
    """The split's files by class, both sorted, and what the user should know of them."""
    places, notices = {"train": path / "train", "test": path / "test"}, []
    by_split = {name: _folders(place) for name, place in places.items()}
    own_layout = any(by_split.values())
    held_out = next((name for name in _VALIDATION if _folders(path / name)), None)
    if own_layout and not by_split["test"] and held_out:
        places["test"], by_split["test"] = path / held_out, _folders(path / held_out)
        if split == "test":
            notices.append(f"{path}: {held_out}/ is the test split: there are no class folders in test/")
    folders, where = (by_split[split], places[split]) if own_layout else (_folders(path), path)
    if len(folders) < 2:
        raise DataError(
            f"{where}: holds {len(folders)} class folders; at least 2 are needed, such as {where}/CLASS/1.png"
        )
    train, test = ({folder.name for folder in by_split[name]} for name in ("train", "test"))
    if train and test and train != test:
        raise DataError(
            f"{path}: class folder '{min(train ^ test)}' is in only one of train and {places['test'].name}; "
            "both need all classes"
        )
    groups = {}
    for folder in folders:
        files = _images_in(folder)
        if not files:
            raise DataError(f"{folder}: this class folder holds no image ({', '.join(sorted(SUFFIXES))})")
        if not own_layout:
            files = [file for i, file in enumerate(files) if (i % 5 == 4) == (split == "test")]
        if not files:
            raise DataError(f"{folder}: every fifth image of a class is a test image, and this one has fewer than 5")
        groups[folder.name] = files
    return groups, notices + _describe_unread(path, folders, {*by_split["train"], *by_split["test"], *folders})


def _folders(path: Path) -> list[Path]:
    visible = (child for child in path.iterdir() if not child.name.startswith(".")) if path.is_dir() else ()
    return sorted((child for child in visible if child.is_dir()), key=attrgetter("name"))


def _images_in(folder: Path) -> list[Path]:
    """The image files in a class folder, not in folders below it."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_image(entry.name) and not entry.is_dir()]
    return [folder / name for name in sorted(names)]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _describe_unread(path: Path, folders: Sequence[Path], known: set[Path]) -> list[str]:
    """A line that says what is not read: other files in the class folders, and images elsewhere.

    Args:
        path: the data set's folder.
        folders: the split's class folders.
        known: all class folders.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    read = 0
    for folder in folders:
        for place, _, names in os.walk(folder):  # links to folders are not followed, so that it comes to an end
            for name in names:
                if Path(place) != folder:
                    reasons["in sub-folders"].append(str(Path(place).relative_to(path)))
                elif _is_image(name):
                    read += 1
                elif name.startswith("."):
                    reasons["hidden"].append(name)
                else:
                    reasons["of another suffix"].append(Path(name).suffix or name)
    for place, children, names in os.walk(path):
        children[:] = [child for child in children if Path(place, child) not in known]
        where = str(Path(place).relative_to(path))
        if outside := [name if where == "." else where for name in names if _is_image(name)]:
            reasons["elsewhere"] += outside
    count = sum(map(len, reasons.values()))
    listed = ", ".join(f"{len(found)} {reason} ({_abbreviate(found)})" for reason, found in reasons.items())
    return [f"{path}: {count} of {count + read} files left out: {listed}"] if count else []


def _abbreviate(names: Sequence[str]) -> str:
    different = sorted(set(names))
    return ", ".join(different[:3]) + ", ..." * (len(different) > 3)


# What is in them


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Nothing on stderr, where libtiff itself writes what it then raises."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _is_grey(image: Image) -> bool:
    """Whether it has one channel and perhaps transparency, or a palette of greys."""
    if image.mode not in ("P", "PA"):
        return image.mode.partition(";")[0] in _GREY
    colours = np.reshape(image.getpalette() or (), (-1, 3))
    return bool((colours == colours[:, :1]).all())


def _pixels(files: Sequence[Path], rest: Sequence[Path]) -> tuple[Files, list[str]]:
    """The pixels of files whose headers agree, and what is changed of them; one in colour among `rest` counts too."""
    headers: list[_Header] = []
    for file in files:
        headers.append(_header(file))
        if headers[-1].size != headers[0].size:
            sizes = ["{}x{} pixels".format(*header.size) for header in (headers[-1], headers[0])]
            raise DataError(f"{file}: has {sizes[0]}, but {files[0]} has {sizes[1]}")
    colour = not all(header.grey for header in headers) or any(map(_in_colour, rest))
    grey, longer = sum(header.grey for header in headers), sum(header.frames for header in headers)
    changes = []
    if grey and colour:
        changes.append(f"{grey} of {len(files)} images are grey and were made RGB, as others are in colour")
    if longer:
        changes.append(f"{longer} of {len(files)} images have more than one frame: the first is read")
    width, height = headers[0].size
    return Files(files, (3 if colour else 1, height, width)), changes


def _in_colour(file: Path) -> bool:
    """Whether an image is in colour; one that cannot be read is not."""
    try:
        return not _header(file).grey
    except DataError:
        return False


def _header(file: Path) -> _Header:
    with _open_image(file) as image:
        width, height = image.size
        if image.mode in ("P", "PA"):
            image.load()  # its palette
        on_its_side = _orientation(image) in range(5, 9)
        size = (height, width) if on_its_side else (width, height)
        return _Header(size, _is_grey(image), bool(getattr(image, "is_animated", False)))


def _decode(file: Path) -> Array:
    """An image as (c, h, w) uint8 with 1 or 3 channels."""
    with _open_image(file) as image:
        image.load()
        return _to_uint8(_rotate(image))


@contextmanager
def _open_image(file: Path) -> Iterator[Image]:
    """An image of a size and a mode that are read; whatever goes wrong with it within is a DataError.

    What Pillow warns of and logs is kept off the terminal.
    """
    from PIL import Image, UnidentifiedImageError

    log = logging.getLogger("PIL")
    if not log.handlers:  # else the errors that it logs are printed, beside those that it raises
        log.addHandler(logging.NullHandler())
    try:
        with (
            open_regular(file) as opened,
            warnings.catch_warnings(action="ignore"),
            Image.open(opened, formats=FORMATS) as image,
            _no_stderr() if image.format == "TIFF" else nullcontext(),
        ):
            width, height = image.size
            if not 0 < width * height <= MAX_PIXELS:
                raise DataError(f"{file}: has {width}x{height} pixels; at most {MAX_PIXELS} an image are read")
            if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
                raise DataError(f"{file}: has pixels of mode {image.mode}; allowed: 8 or 16 bits a channel")
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{file}: has too many pixels; at most {MAX_PIXELS} an image are read") from None
    except UnidentifiedImageError:
        listed = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataError(f"{file}: cannot be read as an image: it is no {listed}, or is damaged") from None
    except Exception as error:  # Pillow's readers raise nearly everything, such as struct.error
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{file}: cannot be read as an image: {reason}") from None


def _orientation(image: Image) -> int:
    """What its EXIF says of how it is turned, from 1 to 8; EXIF that is damaged says nothing."""
    from PIL import ExifTags

    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _rotate(image: Image) -> Image:
    """The image turned as its EXIF says."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_uint8(image: Image) -> Array:
    """(c, h, w) uint8 of an image in any mode: grey stays grey, transparency is dropped, 16 bits become 8."""
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image).astype(np.uint32)
        return np.asarray((values + 128) // 257, dtype=np.uint8)[None]  # to the nearest: 65535 is 257 * 255
    if mode in ("RGBa", "La"):  # their colours were multiplied by alpha, and are divided by it again
        image = image.convert(mode.upper())
    wanted = "L" if _is_grey(image) else "RGB"
    if image.mode != wanted:
        image = image.convert(wanted)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
