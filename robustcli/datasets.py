"""The data sets that have a name. No torch here: `robustcli list datasets` answers at once."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE = "mnist-sample"


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
