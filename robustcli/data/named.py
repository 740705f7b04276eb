"""The data sets that have a name. No torch here: `robustcli list datasets` answers at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from robustcli.errors import ConfigError, DataError, nearest

SAMPLE = "mnist-sample"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""What an `.npz` or a `.pt` holds."""
LISTS = (".csv", ".txt")
"""The suffixes of lists of `path,label`."""
FILES = (".npz", ".pt", ".pth", *LISTS)


@dataclass(frozen=True)
class Torchvision:
    """How torchvision keeps a data set below the data folder, and the `host:port` that it downloads it from.

    Of most data sets torchvision's class itself knows how; `files` are then where it lies, and `host` is empty.
    """

    loader: str
    files: tuple[str, ...]
    archives: tuple[str, ...] = ()
    host: str = ""


@dataclass(frozen=True)
class Dataset:
    """A data set with a name. `shape` is (c, h, w); `torchvision` is None for what is bundled.

    Where torchvision's class says what is in it, `shape` and `classes` are empty.
    """

    description: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
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

_OTHERS = """
Caltech101   caltech101                        photographs of 101 kinds of objects
Caltech256   caltech256                        photographs of 257 kinds of objects
CIFAR100     cifar-100-python                  small colour photographs of 100 classes, 32x32
CLEVRClassification clevr                      rendered scenes, by the number of objects
Country211   country211                        photographs, by country
DTD          dtd                               textures, 47 classes
EMNIST       EMNIST/raw                        handwritten characters, 28x28: emnist:balanced, byclass, letters, ...
EuroSAT      eurosat                           satellite images, 10 classes, 64x64
FER2013      fer2013                           faces, 7 expressions, 48x48
FGVCAircraft fgvc-aircraft-2013b               aircraft, 100 variants
Flowers102   flowers-102                       flowers, 102 classes
Food101      food-101                          dishes, 101 classes
GTSRB        gtsrb                             traffic signs, 43 classes
Imagenette   imagenette2                       ten easy classes of ImageNet
ImageNet     imagenet                          photographs, 1000 classes (imagenet/val/CLASS/*.JPEG will do)
KMNIST       KMNIST/raw                        handwritten Japanese characters, 10 classes, 28x28
OxfordIIITPet oxford-iiit-pet                  cats and dogs, 37 breeds
PCAM         pcam                              slides of lymph nodes, 2 classes, 96x96
QMNIST       QMNIST/raw                        MNIST with 60000 test digits
RenderedSST2 rendered-sst2                     rendered sentences, 2 classes
SEMEION      semeion.data                      handwritten digits, 16x16
StanfordCars stanford_cars                     cars, 196 classes
STL10        stl10_binary                      photographs, 10 classes, 96x96
SUN397       SUN397                            scenes, 397 classes
SVHN         train_32x32.mat,test_32x32.mat    house numbers, 10 digits, 32x32
USPS         usps.bz2,usps.t.bz2               digits of envelopes, 16x16
"""
for _line in _OTHERS.strip().splitlines():
    _loader, _places, _text = _line.split(maxsplit=2)
    DATASETS[_loader.lower()] = Dataset(_text, (), (), Torchvision(_loader, tuple(_places.split(","))))

_NO_CLASSIFICATION = """CarlaStereo CelebA Cityscapes CocoCaptions CocoDetection CREStereo ETH3DStereo FakeData
FallingThingsStereo Flickr30k Flickr8k FlyingChairs FlyingThings3D HD1K HMDB51 INaturalist InStereo2k Kinetics Kitti
Kitti2012Stereo Kitti2015Stereo KittiFlow LFWPairs LFWPeople LSUN LSUNClass Middlebury2014Stereo MovingMNIST Omniglot
PhotoTour Places365 SBDataset SBU SceneFlowStereo Sintel SintelStereo UCF101 VOCDetection VOCSegmentation WIDERFace"""


def known_name(dataset: str) -> str | None:
    """A data set's name as it is written here, in small letters and perhaps with a variant; None of anything else."""
    if dataset in DATASETS:
        return dataset
    name, colon, variant = dataset.strip().lower().partition(":")
    found = DATASETS.get(name)
    if found is None or found.shape or (colon and not (name == "emnist" and variant)):
        return None
    return f"{name}{colon}{variant}"


def known(dataset: str) -> Dataset:
    """The data set of a `known_name`."""
    return DATASETS[dataset.partition(":")[0]]


def locate(dataset: str) -> Path | None:
    """The file or the folder that `--dataset` means; None for a name of `DATASETS`.

    Raises:
        ConfigError: it is empty, or neither a name nor a path.
        DataError: it is a path, and what is there is missing, of another kind or cannot be accessed.
    """
    if known_name(dataset):
        return None
    kinds = "an .npz or .pt file of arrays, a .csv or .txt list of path,label or a folder of class folders"
    allowed = f"a name such as mnist or cifar10 (`robustcli list datasets`), {kinds}"
    if not dataset.strip():
        raise ConfigError(f"--dataset '{dataset}': is empty; allowed: {allowed}")
    path = expand(Path(dataset), "--dataset")
    try:
        there, folder = path.exists(), path.is_dir()
    except OSError as error:  # such as a name that is too long, or below a folder that may not be entered
        raise DataError(f"--dataset {dataset}: {error.strerror}") from None
    if folder or (there and path.suffix.lower() in FILES):
        return path
    if there:
        raise DataError(f"--dataset {dataset}: is neither {kinds.replace(' or a folder', ' nor a folder')}")
    if dataset.lower() in _NO_CLASSIFICATION.lower().split():
        raise ConfigError(f"--dataset {dataset}: has not one class for each image and two splits of the same classes")
    near = nearest(path.name, [*DATASETS, *_beside(path)])
    if {os.sep, "/"} & set(dataset) or dataset.startswith("~") or path.suffix:
        raise DataError(f"--dataset {dataset}: no such file or folder (allowed: {allowed}){near}")
    raise ConfigError(f"--dataset '{dataset}' is unknown, and no file or folder here (allowed: {allowed}){near}")


def _beside(path: Path) -> list[str]:
    """The names next to a path that might have been meant."""
    try:
        others = [other for other in path.parent.iterdir() if other.suffix.lower() in FILES or other.is_dir()]
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
