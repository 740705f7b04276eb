"""The data sets that have a name. No torch here: `robustcli list datasets` answers at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from robustcli.errors import ConfigError, DataError, nearest

SAMPLE = "mnist-sample"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""What an `.npz` holds."""


@dataclass(frozen=True)
class Torchvision:
    """How torchvision keeps a data set below the data folder, and the `host:port` that it downloads it from."""

    loader: str
    files: tuple[str, ...]
    archives: tuple[str, ...]
    host: str


@dataclass(frozen=True)
class Dataset:
    """A data set with a name. `shape` is (c, h, w); `torchvision` is None for what is bundled."""

    description: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    torchvision: Torchvision | None


def _idx(loader: str, host: str) -> Torchvision:
    """The four files of MNIST and of what imitates it."""
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    files = tuple(f"{loader}/raw/{name}" for name in names)
    return Torchvision(loader, files, tuple(f"{file}.gz" for file in files), host)


def _batches(loader: str, folder: str, archive: str, host: str) -> Torchvision:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    return Torchvision(loader, tuple(f"{folder}/{name}" for name in names), (archive,), host)


_DIGITS = tuple("0123456789")
_CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
_OBJECTS = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"

DATASETS = {
    "mnist": Dataset(
        "handwritten digits, 60000 for training and 10000 for testing",
        _DIGITS,
        (1, 28, 28),
        _idx("MNIST", "ossci-datasets.s3.amazonaws.com:443"),
    ),
    SAMPLE: Dataset(
        "bundled: 5000 of MNIST's training images, 4000 for training and 1000 for testing",
        _DIGITS,
        (1, 28, 28),
        None,
    ),
    "fashion-mnist": Dataset(
        "articles of clothing, 60000 for training and 10000 for testing",
        tuple(_CLOTHES.split(",")),
        (1, 28, 28),
        _idx("FashionMNIST", "fashion-mnist.s3-website.eu-central-1.amazonaws.com:80"),
    ),
    "cifar10": Dataset(
        "small colour photographs, 50000 for training and 10000 for testing",
        tuple(_OBJECTS.split(",")),
        (3, 32, 32),
        _batches("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz", "www.cs.toronto.edu:443"),
    ),
}


def locate(dataset: str) -> Path | None:
    """The `.npz` or the folder that `--dataset` means; None for a name of `DATASETS`.

    Raises:
        ConfigError: it is empty, or neither a name nor a path.
        DataError: it is a path, and what is there is missing, of another kind or cannot be accessed.
    """
    if dataset in DATASETS:
        return None
    allowed = f"{', '.join(sorted(DATASETS))}, an .npz file or a folder of class folders"
    if not dataset.strip():
        raise ConfigError(f"--dataset '{dataset}': is empty; allowed: {allowed}")
    path = expand(Path(dataset), "--dataset")
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:  # such as a name that is too long, or below a folder that may not be entered
        raise DataError(f"--dataset {dataset}: {error.strerror}") from None
    if folder or (there and path.suffix.lower() == ".npz"):
        return path
    if there:
        arrays = ", ".join(ARRAYS)
        raise DataError(f"--dataset {dataset}: is neither an .npz file ({arrays}) nor a folder of class folders")
    near = nearest(path.name, [*DATASETS, *_beside(path)])
    if {os.sep, "/"} & set(dataset) or dataset.startswith("~") or path.suffix:
        raise DataError(f"--dataset {dataset}: no such file or folder (allowed: {allowed}){near}")
    raise ConfigError(f"--dataset '{dataset}' is unknown, and no file or folder here (allowed: {allowed}){near}")


def _beside(path: Path) -> list[str]:
    """The names next to a path that might have been meant."""
    try:
        others = [other for other in path.parent.iterdir() if other.suffix.lower() == ".npz" or other.is_dir()]
        return [other.name for other in others if other.name != path.name]  # it is there as a link to nothing
    except OSError:
        return []


def expand(path: Path, flag: str) -> Path:
    """A path with `~` and `~user` replaced.

    Raises:
        DataError: there is no such user; names `flag`.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise DataError(f"{flag} {path}: no user of that name has a home folder here") from None
