"""Where images come from: a data folder, a download, the bundled sample, a path."""

from __future__ import annotations

import http.client
import os
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import platformdirs
import torch

from robustcli.config import DataSpec
from robustcli.data.arrays import Stored, channels_first, read_npz, read_pt
from robustcli.data.folders import Listing, list_folder, printable, read_files
from robustcli.data.images import Images, overlap, split_validation
from robustcli.data.index import Progress
from robustcli.data.lists import list_rows
from robustcli.data.named import (
    ARRAYS,
    DATASETS,
    LISTS,
    SAMPLE,
    Dataset,
    Torchvision,
    expand,
    known,
    known_name,
    locate,
)
from robustcli.data.torchvision_sets import host_of, open_set, read_set, set_class
from robustcli.disk import file_hash
from robustcli.errors import DataError, one_line
from robustcli.internet import reachable

__all__ = ["DATASETS", "SAMPLE", "SAMPLE_FILE", "Images", "data_folder", "load", "overlap", "split_validation"]

T = TypeVar("T")

_MAX_BYTES = 1 << 30
"""Of a file in torchvision's layout, each of which is read whole: MNIST's largest has 47 MB."""
_TORCHVISION = (OSError, RuntimeError, ValueError, TypeError, LookupError, EOFError, AssertionError, MemoryError)
"""What torchvision raises of files that are missing or damaged."""
SAMPLE_FILE = Path(__file__).parents[1] / "assets" / "mnist-sample.npz"


def load(spec: DataSpec, index: Path | None = None, progress: Progress = lambda *_: None) -> Images:
    """The images of a spec, in stored order, of folders in turn from each class, cut to its `limit`.

    `mnist` falls back on the bundled sample where neither MNIST nor a network is there and `spec.allow_sample` allows
    it; the result's `name` is then `mnist-sample` and its `note` the reason, for the caller to say so.

    Args:
        spec: which images.
        index: the folder where what is known of image files is kept, so that they are opened once.
        progress: is told how many files of how many have been opened for it.

    Raises:
        ConfigError: the name is unknown.
        DataError: the data set is missing (with the ways to get it) or unusable, or `spec.data_dir` is no folder and
            cannot be made by a download.
    """
    name = known_name(spec.dataset)
    try:
        if name is not None and known(name).shape:
            return (_sample(spec.split) if name == SAMPLE else _named(spec)).take(slice(spec.count))
        found = _find(spec)
        stored, digest = read_files(found, spec, index, progress) if isinstance(found, Listing) else (found, "")
        if name is None:
            path = expand(Path(spec.dataset), "--dataset")
            name, digest = printable(path.resolve().stem), digest or file_hash(path)
        else:
            digest = name
    except OSError as error:  # such as a folder that may not be entered
        raise DataError(f"--dataset {spec.dataset}: {error.filename}: {error.strerror or error}") from None
    return _images(stored, name, f"{digest}/{spec.split}").take(slice(spec.count))


def list_files(spec: DataSpec) -> Listing | None:
    """The image files of a data set, the broken ones included; None where it holds its images in arrays.

    Raises:
        RobustCliError: as `load` does.
    """
    name = known_name(spec.dataset)
    found = None if name is not None and known(name).shape else _find(spec)
    return found if isinstance(found, Listing) else None


def _find(spec: DataSpec) -> Stored | Listing:
    """What is at a path, or what torchvision's class of a name knows."""
    path = locate(spec.dataset)
    if path is None:
        return _of_torchvision(spec, str(known_name(spec.dataset)))
    if path.is_dir():
        return list_folder(path, spec.split)
    if path.suffix.lower() in LISTS:
        return list_rows(path, spec.split)
    return (read_npz if path.suffix.lower() == ".npz" else read_pt)(path, spec.split, spec.count)


def is_here(dataset: str, data_dir: Path | None) -> bool:
    """Whether a data set of `DATASETS` can be loaded without a download."""
    root, layout = data_folder(data_dir), known(dataset).torchvision
    if layout is not None and not known(dataset).shape and any((root / place).exists() for place in layout.files):
        return True
    return layout is None or _all_files(root, layout.files) or (root / f"{dataset}.npz").is_file()


def data_folder(data_dir: Path | None) -> Path:
    """`data_dir`, else `$ROBUSTCLI_DATA`, else the user's cache folder."""
    chosen = data_dir or os.environ.get("ROBUSTCLI_DATA") or platformdirs.user_cache_dir("robustcli")
    return expand(Path(chosen), "--data-dir")


def _images(stored: Stored, name: str, source: str) -> Images:
    ids = torch.arange(len(stored.y)) if stored.ids is None else stored.ids
    population = tuple(torch.bincount(stored.labels, minlength=len(stored.classes)).tolist())
    found = Images(stored.x, stored.y, ids, stored.classes, name, source, population=population, notices=stored.notices)
    return replace(found, content=stored.content, fit=stored.fit)


def _sample(split: str) -> Images:
    """The bundled digits, with their indices in MNIST's training set as ids."""
    images = _images(read_npz(SAMPLE_FILE, split), SAMPLE, "mnist/train")
    with np.load(SAMPLE_FILE) as arrays:
        return replace(images, ids=torch.from_numpy(arrays[f"ids_{split}"].astype(np.int64)))


def _named(spec: DataSpec) -> Images:
    """A data set of `DATASETS`: torchvision's layout, then NAME.npz, then a download, then the sample."""
    name, root, described = spec.dataset, data_folder(spec.data_dir), known(spec.dataset)
    assert described.torchvision is not None, "the bundled sample is not looked for"
    npz = root / f"{name}.npz"
    absent = spec.data_dir is not None and not root.is_dir()  # before the download, which may leave a folder
    if _all_files(root, described.torchvision.files):
        stored = _read_layout(described.torchvision, root, spec)
    elif npz.is_file():
        stored = read_npz(npz, spec.split, spec.count)
    else:
        try:
            stored = _download(described.torchvision, root, spec)
        except ConnectionError as error:
            if absent:
                raise DataError(f"--data-dir {root}: no such folder, and {error}") from None
            reason = f"{_absence(described.torchvision, root)}, and {error}"
            if name == "mnist" and spec.allow_sample:
                return replace(_sample(spec.split), note=f"MNIST is {reason}")
            raise DataError(_ways_out(name, described.torchvision, reason)) from None
    return _images(_check(stored, described, name, root), name, f"{name}/{spec.split}")


def _read_layout(layout: Torchvision, root: Path, spec: DataSpec) -> Stored:
    """The files that torchvision would read, through torchvision."""
    for file in layout.files:
        if (root / file).stat().st_size > _MAX_BYTES:
            raise DataError(f"{root / file}: has {(root / file).stat().st_size} bytes; at most {_MAX_BYTES} are read")
    _check_legacy(root / layout.loader / "processed")
    try:
        return _torchvision(layout, root, spec, download=False)
    except _TORCHVISION as error:
        _check_sums(layout, root, layout.files)
        where = (root / layout.files[0]).parent
        raise DataError(f"{where}: a file is damaged, delete it to get it again ({one_line(error)})") from None


def _of_torchvision(spec: DataSpec, name: str) -> Stored | Listing:
    """A data set that torchvision's class knows: its layout, then NAME.npz, then a download."""
    root, layout = data_folder(spec.data_dir), known(name).torchvision
    assert layout is not None
    kind, npz = set_class(layout.loader, f"--dataset {name}"), root / f"{name}.npz"

    def read(download: bool) -> Stored | Listing:
        data = open_set(layout.loader, root, name, spec.split, download=download)
        return read_set(data, spec, root, root / layout.files[0])

    if name == "imagenet" and (root / name).is_dir():
        return list_folder(root / name, spec.split)
    reason = f"is not in {root} (--data-dir)"
    if any((root / place).exists() for place in (*layout.files, *["meta.bin"] * (name == "imagenet"))):
        try:
            return read(download=False)
        except _TORCHVISION as error:
            reason = f"cannot be read from {root} ({one_line(error)})"
    if npz.is_file():
        return read_npz(npz, spec.split, spec.count)
    try:
        host = host_of(kind)
        if host is None:
            raise ConnectionError("torchvision does not download it")
        return _connected(host, root, lambda: read(download=True))
    except ConnectionError as error:
        raise DataError(_ways_out(name, layout, f"{reason}, and {error}")) from None


def _download(layout: Torchvision, root: Path, spec: DataSpec) -> Stored:
    """The data set from its mirror, or from the archives of an earlier download.

    Raises:
        ConnectionError: no route to the mirror, or it does not deliver.
    """
    _check_sums(layout, root, layout.archives)
    host = "" if _all_files(root, layout.archives) else layout.host
    return _connected(host, root, lambda: _torchvision(layout, root, spec, download=True))


def _connected(host: str, root: Path, download: Callable[[], T]) -> T:
    """What a download gives.

    Raises:
        ConnectionError: no route to the host, where there is one, or it does not deliver.
    """
    if host and not reachable(host):
        raise ConnectionError(f"there is no network ({host.partition(':')[0]} does not answer)")
    try:
        return download()
    except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, (urllib.error.URLError, TimeoutError, ConnectionError)):
            raise DataError(f"--data-dir {root}: cannot be written: {error.strerror or error}") from None
        raise ConnectionError(f"the download failed ({one_line(error)})") from None


def _torchvision(layout: Torchvision, root: Path, spec: DataSpec, download: bool) -> Stored:
    loaded = open_set(layout.loader, root, spec.dataset, spec.split, download=download)
    labels = torch.as_tensor(loaded.targets)
    return Stored(channels_first(np.asarray(loaded.data)), labels, (), labels)


def _check_sums(layout: Torchvision, root: Path, files: Sequence[str]) -> None:
    """Refuse a file that is there and not as it was published, where torchvision knows its checksum.

    Raises:
        DataError: names the file and both checksums.
    """
    there = [root / file for file in files if (root / file).is_file()]
    loader = set_class(layout.loader, layout.loader) if there else None
    published = [*getattr(loader, "resources", ()), (getattr(loader, "filename", ""), getattr(loader, "tgz_md5", ""))]
    published += [*getattr(loader, "train_list", ()), *getattr(loader, "test_list", ())]
    sums = dict(published)
    for file in there:
        found = file_hash(file, "md5")
        if found != sums.get(file.name, found):
            raise DataError(
                f"{file}: its checksum (MD5 {found}) is not that of the published file ({sums[file.name]}): "
                f"delete it to get it again{', or unpack it where you trust it' * (file.suffix == '.gz')}"
            )


def check_published(spec: DataSpec) -> list[str]:
    """A line for each of torchvision's files that is not as it was published, where that is known."""
    name = known_name(spec.dataset)
    layout = known(name).torchvision if name else None
    lines = []
    for file in (*layout.files, *layout.archives) if layout and name and known(name).shape else ():
        try:
            _check_sums(layout, data_folder(spec.data_dir), [file]) if layout else None
        except DataError as error:
            lines.append(str(error))
    return lines


def _check_legacy(folder: Path) -> None:
    """Refuse what is no tensors where torchvision before 0.9 kept MNIST, although nothing there is used.

    Raises:
        DataError: names the file.
    """
    for file in (folder / name for name in ("training.pt", "test.pt")):
        if file.is_file():
            try:
                torch.load(file, map_location="meta", weights_only=True)
            except Exception:  # UnpicklingError, BadZipFile, RuntimeError, EOFError and others
                raise DataError(
                    f"{file}: is damaged or holds a pickled object, which is never opened; delete it, "
                    "MNIST is read from the folder raw beside"
                ) from None


def _absence(layout: Torchvision, root: Path) -> str:
    """Where a data set is not, and which file it lacks where others are there."""
    missing = [file for file in layout.files if not (root / file).is_file() and not (root / f"{file}.gz").is_file()]
    partly = len(missing) < len(layout.files)
    return f"not {'whole ' * partly}in {root} (--data-dir{f': {missing[0]} is missing' * partly})"


def _ways_out(name: str, layout: Torchvision, reason: str) -> str:
    # Not MNIST's sample: whoever gets here refused it, or measures a model that was trained on its digits.
    where = f"{Path(layout.files[0]).parent}/..." if layout.host else " and ".join(layout.files)
    return (
        f"--dataset {name}: {reason}: put torchvision's layout there ({where}), or {name}.npz ({', '.join(ARRAYS)}), "
        "or connect to a network for the download"
    )


def _check(stored: Stored, described: Dataset, name: str, root: Path) -> Stored:
    """`stored` with its data set's class names, once shape and labels fit."""
    (n, *shape), top = stored.x.shape, int(stored.y.max()) if len(stored.y) else -1
    if tuple(shape) != described.shape or not 0 < n == len(stored.y) or top >= len(described.classes):
        raise DataError(
            f"{root}: '{name}' there holds {n} images of {tuple(shape)} and {len(stored.y)} labels up to {top}; "
            f"{name} has images of {described.shape} and labels up to {len(described.classes) - 1}; "
            "remove it, or give another --data-dir"
        )
    return stored._replace(classes=described.classes)


def _all_files(root: Path, files: Sequence[str]) -> bool:
    return all((root / file).is_file() for file in files)
