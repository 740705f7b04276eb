"""Images in files, such as those of class folders; where they are many, each is decoded when it is indexed."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count as count_up
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from robustcli.config import DataSpec, Fit
from robustcli.data.arrays import Stored, allocate
from robustcli.data.decoding import decode, why
from robustcli.data.images import describe_broken
from robustcli.data.index import Entry, Progress, read_index
from robustcli.disk import NOT_REGULAR
from robustcli.errors import DataError, one_line

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
VALIDATION = ("val", "valid", "validation")
IN_MEMORY = 64 << 20
"""Up to so many bytes, decoded, the images of a folder are read at once: a damaged one is then found at once."""


class Files:
    """The pixels of image files, (n, c, h, w) uint8, each file decoded when it is indexed.

    Args:
        files: the paths of the n files.
        shape: (c, h, w) of each.
        fit: how they are made one size, where they are not.
    """

    def __init__(self, files: Sequence[str], shape: tuple[int, int, int], fit: Fit | None = None) -> None:
        self.files, self.fit = files, fit
        self.shape = torch.Size((len(files), *shape))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """The chosen images.

        Raises:
            DataError: names the first file that cannot be read, or is not what its header said.
        """
        x, broken = self.read(index)
        for at, reason in sorted(broken.items()):
            raise DataError(f"{self.take(index).files[at]}: cannot be read as an image: {reason}")
        return x

    def read(self, index: Tensor | slice) -> tuple[Tensor, dict[int, str]]:
        """The chosen images (k, c, h, w), and why, by position in `index`, some cannot be read; these are zeros."""
        chosen, broken = self.take(index), {}
        x = allocate((len(chosen), *self.shape[1:]), Path(chosen.files[0]).parent if chosen.files else Path())
        for i, file in enumerate(chosen.files):
            try:
                pixels = decode(file, self.fit)
                if pixels.shape[1:] != tuple(self.shape[2:]) or len(pixels) > self.shape[1]:
                    raise DataError(f"{file}: it has pixels of {pixels.shape}, which its header does not say")
                x[i] = pixels
            except DataError as error:
                x[i], broken[i] = 0, why(error, file)
        return torch.from_numpy(x), broken

    def take(self, index: Tensor | slice) -> Files:
        """The chosen images, with nothing decoded."""
        chosen = self.files[index] if isinstance(index, slice) else [self.files[i] for i in index.tolist()]
        c, h, w = self.shape[1:]
        return Files(chosen, (c, h, w), self.fit)


class Listing(NamedTuple):
    """The files of one split.

    root: a folder; names: of the files below it, in stored order; labels: of each; classes: by label; path: the data
    set's own; notices: what the user should know of it.
    """

    root: Path
    names: Sequence[str]
    labels: Sequence[int]
    classes: tuple[str, ...]
    path: Path
    notices: tuple[str, ...] = ()


def read_files(
    listing: Listing, spec: DataSpec, index: Path | None = None, progress: Progress = lambda *_: None
) -> tuple[Stored, str]:
    """The images of a listing, and a digest of all its files (their names and bytes).

    Classes take turns, so that the first `limit` images are balanced; an id is a file's place among all files in this
    order, the broken ones included. Images are made 8-bit, upright as their EXIF says, and grey, or RGB as soon as one
    file of the split is in colour; where their sizes differ, each becomes of one as `spec.fit` says. Files that cannot
    be read are left out; of those that are not decoded yet, only the headers are known.

    Args:
        listing: of a split.
        spec: says how many and how they are made of one size.
        index: the folder where what is known of the files is kept.
        progress: is told of the files that are read for it.

    Raises:
        DataError: no file can be read, or their sizes differ and nothing says what to do.
    """
    root, path = listing.root, listing.path
    turns: dict[int, Iterator[int]] = defaultdict(count_up)
    order = [place for *_, place in sorted((next(turns[label]), label, i) for i, label in enumerate(listing.labels))]
    names, labels = [listing.names[i] for i in order], [listing.labels[i] for i in order]
    files = [os.path.join(root, name) for name in names]  # noqa: PTH118
    try:
        entries, trouble = read_index(root, names, path, index, progress)
        digest = hashlib.sha256()
        for name, entry in zip(names, entries, strict=True):
            digest.update(os.fsencode(name.replace(os.sep, "/")) + b"\0" + bytes.fromhex(entry.sha256))
        broken = {i: entry.error for i, entry in enumerate(entries) if entry.error}
        good = [i for i in range(len(files)) if i not in broken]
        if not good:
            raise DataError(_describe(path, broken, names))
        fit, notice = _fit(path, {i: entries[i] for i in good}, files, spec.fit)
        height, width = fit.crop if fit else (entries[good[0]].height, entries[good[0]].width)
        shape = (1 if all(entries[i].grey for i in good) else 3, height, width)
        wanted = good if spec.limit is None or isinstance(spec.limit, int) else sorted(good, key=order.__getitem__)
        count = min(spec.count or len(good), len(good))
        lazy = Files([files[i] for i in wanted], shape, fit)
        small = count * prod(shape) <= IN_MEMORY
        x, kept = _decode_all(lazy, wanted, count, broken) if small else (lazy.take(slice(count)), wanted[:count])
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read: {error.strerror or one_line(error)}") from None
    said = [_describe(path, broken, names)] if broken else []
    if not kept:
        raise DataError(said[0])
    said += _remarks(path, [entries[i] for i in kept], [labels[i] for i in kept], shape[0] == 3)
    content = b"".join(hashlib.blake2b(f"{entries[i].sha256} {fit}".encode(), digest_size=8).digest() for i in kept)
    every = torch.tensor(labels)
    classes, lines = (
        tuple(map(printable, texts)) for texts in (listing.classes, [*listing.notices, *trouble, *notice, *said])
    )
    stored = Stored(
        x,
        every[kept],
        classes,
        every[[i for i in range(len(files)) if i not in broken]],
        lines,
        ids=torch.tensor(kept),
        content=torch.frombuffer(bytearray(content), dtype=torch.int64),
        fit=fit,
    )
    return stored, digest.hexdigest()


def _decode_all(
    files: Files, places: Sequence[int], count: int, broken: dict[int, str]
) -> tuple[Tensor | Files, list[int]]:
    """The first `count` images that can be decoded, and their places; those that cannot are added to `broken`."""
    parts, kept, at = list[Tensor](), list[int](), 0
    while len(kept) < count and at < len(files):
        step = min(count - len(kept), len(files) - at)
        x, failed = files.read(slice(at, at + step))
        fine = [i for i in range(step) if i not in failed]
        broken |= {places[at + i]: reason for i, reason in failed.items()}
        parts, kept, at = [*parts, x[fine]], [*kept, *(places[at + i] for i in fine)], at + step
    return torch.cat(parts), kept


def _describe(path: Path, broken: Mapping[int, str], names: Sequence[str]) -> str:
    return describe_broken(str(path), {names[i]: broken[i] for i in sorted(broken)}, len(names))


def _fit(
    name: Path, entries: Mapping[int, Entry], files: Sequence[str], fit: Fit | None
) -> tuple[Fit | None, list[str]]:
    """How images are made one size; None where they have one."""
    first: dict[tuple[int, int], int] = {}
    for i, entry in entries.items():
        first.setdefault((entry.width, entry.height), i)
    if len(first) == 1:
        return None, []
    if fit is not None:
        return fit, [f"{name}: images have {len(first)} sizes: each is {fit} as it is decoded; eps is of these pixels"]
    (one, i), (other, k) = list(first.items())[:2]
    raise DataError(
        f"{files[k]}: has {other[0]}x{other[1]} pixels, but {files[i]} has {one[0]}x{one[1]} pixels: attack, "
        "evaluate and compare make images one size (--resize, --crop); to train on them, resize the files before"
    )


def _remarks(path: Path, entries: Sequence[Entry], labels: Sequence[int], colour: bool) -> list[str]:
    """What is odd about the images that are read, a line each."""
    n, grey, longer = len(entries), sum(entry.grey for entry in entries), sum(entry.frames for entry in entries)
    classes: dict[str, set[int]] = defaultdict(set)
    for entry, label in zip(entries, labels, strict=True):
        classes[entry.sha256].add(label)
    odd = sum(len(classes[entry.sha256]) > 1 for entry in entries)
    said = {
        f"{odd} of {n} images lie under more than one class, byte for byte: these contradict each other": odd,
        f"{grey} of {n} images are grey and were made RGB, as others are in colour": grey and colour,
        f"{longer} of {n} images have more than one frame: the first is read": longer,
    }
    return [f"{path}: {line}" for line, true in said.items() if true]


def printable(name: str) -> str:
    r"""A file's name as text that can be encoded: bytes that are no UTF-8 are written as `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# Folders


def list_folder(path: Path, split: str) -> Listing:
    """The images of a split of a folder.

    Either `path/train/CLASS/*.png` and `path/test/CLASS/*.png` (or `val` where `test` has no class folders), or
    `path/CLASS/*.png` alone: then every fifth image of a class, sorted by name, is a test image. Links that lead out of
    the folder are not followed.

    Raises:
        DataError: names the folder that is missing or empty.
    """
    try:
        return _class_files(path, split)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror or one_line(error)}") from None


def _class_files(path: Path, split: str) -> Listing:
    root, outside, notices = os.path.realpath(path), set[str](), list[str]()

    def folders_in(place: Path) -> list[Path]:
        visible = (child for child in place.iterdir() if not child.name.startswith(".")) if place.is_dir() else ()
        found = sorted((child for child in visible if child.is_dir()), key=attrgetter("name"))
        outside.update(str(child.relative_to(path)) for child in found if not is_inside(child, root))
        return [child for child in found if str(child.relative_to(path)) not in outside]

    places = {"train": path / "train", "test": path / "test"}
    by_split = {name: folders_in(place) for name, place in places.items()}
    own_layout = any(by_split.values())
    held_out = next((name for name in VALIDATION if folders_in(path / name)), None)
    if held_out and not by_split["test"] and (own_layout or len(folders_in(path)) == 1):
        places["test"], by_split["test"] = path / held_out, folders_in(path / held_out)
        own_layout = True
        if split == "test":
            notices.append(f"{path}: {held_out}/ is the test split: there are no class folders in test/")
    folders, where = (by_split[split], places[split]) if own_layout else (folders_in(path), path)
    if len(folders) < 2:
        links = f" ({len(outside)} links that lead outside {path} are left out)" if outside else ""
        raise DataError(
            f"{where}: holds {len(folders)} class folders{links}; at least 2 are needed, such as {where}/CLASS/1.png"
        )
    train, test = ({folder.name for folder in by_split[name]} for name in ("train", "test"))
    if train and test and train != test:
        raise DataError(
            f"{path}: class folder '{min(train ^ test)}' is in only one of train and {places['test'].name}; "
            "both need all classes"
        )
    names, labels, read = list[str](), list[int](), 0
    for label, folder in enumerate(folders):
        files = _images_in(folder, path, root, outside)
        read += len(files)
        if not files:
            raise DataError(f"{folder}: this class folder holds no image ({', '.join(sorted(SUFFIXES))}); remove it")
        if not own_layout:
            files = [file for i, file in enumerate(files) if (i % 5 == 4) == (split == "test")]
        if not files:
            raise DataError(
                f"{folder}: every fifth image of a class is a test image, and this one has fewer than 5; add some"
            )
        names += files
        labels += [label] * len(files)
    left_out = {"links that lead outside": sorted(outside)} if outside else {}
    left_out |= _unread(path, folders, {*by_split["train"], *by_split["test"], *folders})
    if count := sum(map(len, left_out.values())):
        notices.append(describe_left_out(path, left_out, count + read, "files"))
    return Listing(path, names, labels, tuple(folder.name for folder in folders), path, tuple(notices))


def is_inside(path: str | Path, root: str, resolve: bool = True) -> bool:
    """Whether what a path leads to, all links followed, lies below a folder, which is no link."""
    return (os.path.realpath(path) if resolve else str(path)).startswith(root.rstrip(os.sep) + os.sep)


def describe_left_out(path: Path, left_out: Mapping[str, Sequence[str]], of: int, what: str) -> str:
    """A line that says what of a data set is left out: the names by the reason."""
    count = sum(map(len, left_out.values()))
    listed = ", ".join(f"{len(found)} {reason} ({_abbreviate(found)})" for reason, found in left_out.items())
    return f"{path}: {count} of {of} {what} left out: {listed}"


def _images_in(folder: Path, path: Path, root: str, outside: set[str]) -> list[str]:
    """The image files in a class folder, not in folders below it, by their names from `path` on.

    Raises:
        DataError: one is a pipe, a socket or a device, or a link to one: no set of images has that.
    """
    found, start = list[str](), f"{folder.relative_to(path)}{os.sep}"
    with os.scandir(folder) as entries:
        for entry in entries:
            link = entry.is_symlink()
            # Of a link in a circle, is_dir is an error.
            if _is_image(entry.name) and not (os.path.isdir(entry.path) if link else entry.is_dir()):  # noqa: PTH112
                fine = not link or is_inside(entry.path, root)
                if not (os.path.isfile(entry.path) if link else entry.is_file()) and os.path.exists(entry.path):  # noqa: PTH110, PTH113
                    raise DataError(f"{entry.path}: {NOT_REGULAR}")
                (found.append if fine else outside.add)(start + entry.name)
    return sorted(found)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")  # noqa: PTH122


def _unread(path: Path, folders: Sequence[Path], known: set[Path]) -> dict[str, list[str]]:
    """What is not read, by the reason: other files in the class folders, and images elsewhere.

    Args:
        path: the data set's folder.
        folders: the split's class folders.
        known: all class folders.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        for place, _, names in os.walk(folder):  # links to folders are not followed, so that it comes to an end
            below = Path(place) != folder
            for name in names:
                if below:
                    reasons["in sub-folders"].append(str(Path(place).relative_to(path)))
                elif not _is_image(name):
                    reason = "hidden" if name.startswith(".") else "of another suffix"
                    reasons[reason].append(name if reason == "hidden" else Path(name).suffix or name)
    for place, children, names in os.walk(path):
        children[:] = [child for child in children if Path(place, child) not in known]
        where = str(Path(place).relative_to(path))
        if elsewhere := [name if where == "." else where for name in names if _is_image(name)]:
            reasons["elsewhere"] += elsewhere
    return reasons


def _abbreviate(names: Sequence[str]) -> str:
    different = sorted({name if len(name) <= 100 else f"{name[:100]}..." for name in names})
    return ", ".join(different[:3]) + ", ..." * (len(different) > 3)
