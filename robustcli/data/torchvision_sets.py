"""Torchvision's data sets, whatever their class: opened by its signature, read by what it holds."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustcli.config import DataSpec
from robustcli.data.arrays import Stored, channels_first
from robustcli.data.decoding import fitted, to_8_bits
from robustcli.data.folders import Listing
from robustcli.errors import ConfigError, DataError, one_line

_FILES = ("samples", "imgs", "_samples", "_image_files", "_images")
_LABELS = ("targets", "labels", "_labels")
_MOST_BYTES = 2 << 30
"""Of images that can only be read one by one, and are all kept as they are."""


def torchvision_datasets(where: str) -> ModuleType:
    """Torchvision's data sets.

    Raises:
        DataError: it cannot be imported, as where it does not match torch; names `where` and what to do.
    """
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError, OSError) as error:
        raise DataError(
            f"{where}: torchvision cannot be imported ({one_line(error)}): install the pair that matches torch: "
            "pip install --upgrade torch torchvision"
        ) from None
    found: ModuleType = datasets
    return found


def set_class(loader: str, where: str) -> type[Any]:
    """Torchvision's class of a data set.

    Raises:
        DataError: there is no torchvision, or not in this version.
    """
    found: type[Any] | None = getattr(torchvision_datasets(where), loader, None)
    if found is None:
        raise DataError(f"{where}: this torchvision has no {loader}: pip install --upgrade torch torchvision")
    return found


def host_of(kind: type[Any]) -> str | None:
    """The `host:port` that a class downloads from; None where it downloads nothing."""
    if "download" not in _parameters(kind):
        return None
    code = inspect.getsource(kind).replace(kind.__doc__ or "", "")
    found = re.search(r"(https?)://([\w.-]+)", code)
    return f"{found[2]}:{443 if found[1] == 'https' else 80}" if found else "drive.google.com:443"


def open_set(loader: str, root: Path, dataset: str, split: str, *, download: bool) -> Any:
    """A data set of torchvision's, for one split; of `NAME:VARIANT` (EMNIST) that variant.

    Raises:
        ConfigError: there is no such variant.
        Exception: whatever torchvision makes of a set that is missing or damaged.
    """
    kind, variant = set_class(loader, f"--dataset {dataset}"), dataset.partition(":")[2]
    parameters = _parameters(kind)
    given: dict[str, Any] = {"download": download} if "download" in parameters else {}
    options: Sequence[str] = ("train", "trainval") if split == "train" else ("test", "val", "valid")
    if "train" in parameters:
        given["train"], options = split == "train", (variant or "balanced",)
    # MNIST/processed/*.pt, which torchvision wrote before 0.9, would else replace MNIST/raw without a word.
    made = type(loader, (kind,), {"_check_legacy_exist": lambda self: False})
    # stdout is for results: torchvision prints there. numpy deprecates what CIFAR-10's old pickles make it do.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for option in options if "split" in parameters else ("",):
            try:
                return made(str(root), **given, **({"split": option} if option else {}))
            except ValueError as error:
                if "Valid values are" not in str(error) or option == options[-1]:
                    raise ConfigError(f"--dataset {dataset}: {one_line(error)}") if variant else error from None
    raise AssertionError("the last option returns or raises")


def read_set(data: Any, spec: DataSpec, root: Path, path: Path) -> Stored | Listing:
    """What a data set of torchvision's holds: its arrays, its files, or else its items, read one by one.

    One without splits is divided as a folder is: every fifth image of a class, in its order, is a test image.

    Args:
        data: the set.
        spec: says the split, how many items, and how they are made one size.
        root: the data folder, that files lie below.
        path: what it is called in messages.

    Raises:
        DataError: it holds no images with a class each.
    """
    divided, turns = bool({"train", "split"} & _parameters(type(data))), Counter[int]()

    def mine(label: int) -> bool:
        turns[label] += 1
        return divided or (turns[label] % 5 == 0) == (spec.split == "test")

    labels = next((found for name in _LABELS if (found := getattr(data, name, None)) is not None), None)
    files = next((found for name in _FILES if isinstance(found := getattr(data, name, None), list) and found), None)
    if labels is not None:
        labels = torch.as_tensor(np.asarray(labels)).long()
        labels = (labels[:, 0] if labels.ndim == 2 else labels).tolist()  # QMNIST's say more than the class
    array = getattr(data, "data", None)
    if isinstance(array, np.ndarray | Tensor) and labels is not None:
        x = np.asarray(array)
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or len(x) != len(labels):
            raise DataError(f"{path}: holds {x.dtype} of the shape {x.shape} and {len(labels)} labels")
        own = [i for i, label in enumerate(labels) if mine(label)]
        pixels = torch.from_numpy(x) if x.ndim == 4 and x.shape[3] not in (1, 3) else channels_first(x)
        y = torch.tensor(labels)[own]
        return Stored(pixels[own] if len(own) < len(pixels) else pixels, y, _classes(data, labels), y)
    pairs = files or ()
    if files and labels is not None and isinstance(files[0], str | Path):
        pairs = list(zip(files, labels, strict=True))
    if pairs and isinstance(pairs[0], tuple) and isinstance(pairs[0][0], str | Path) and isinstance(pairs[0][1], int):
        chosen = [(os.path.relpath(file, root), label) for file, label in pairs if mine(label)]
        names, of = [name for name, _ in chosen], [label for _, label in chosen]
        return Listing(root, names, of, _classes(data, [label for _, label in pairs]), path)
    return _read_items(data, spec, path, mine)


def _read_items(data: Any, spec: DataSpec, path: Path, mine: Any) -> Stored:
    images, y, size = [], list[int](), 0
    for i in range(len(data)):
        image, label = data[i][:2]
        if isinstance(label, bool) or not hasattr(image, "mode") or not hasattr(label, "__index__"):
            raise DataError(f"{path}: its items are no images with the number of a class each")
        if not mine(int(label)):
            continue
        images.append(to_8_bits(image))
        y.append(int(label))
        size += image.size[0] * image.size[1] * 3
        if size > _MOST_BYTES:
            raise DataError(f"{path}: can only be read one by one into memory, and has too many images: --limit N")
        if len(y) == spec.count:
            break
    if not y:
        raise DataError(f"{path}: holds no images")
    several = len({image.size for image in images}) > 1
    fit = spec.fit if several else None
    if several and fit is None:
        raise DataError(f"{path}: images have different sizes; attack, evaluate and compare make them one size")
    mode = "RGB" if any(image.mode == "RGB" for image in images) else "L"
    pixels = np.stack([np.asarray(fitted(one.convert(mode), fit) if fit else one.convert(mode)) for one in images])
    labels = torch.tensor(y)
    return Stored(channels_first(pixels), labels, _classes(data, y), labels, fit=fit)


def _classes(data: Any, labels: Sequence[int]) -> tuple[str, ...]:
    """Torchvision's names of the classes, of several the lot; else the numbers up to the largest."""
    names = getattr(data, "classes", None) or getattr(data, "categories", None) or ()
    if not names or max(labels) >= len(names):
        return tuple(map(str, range(max(labels) + 1)))
    return tuple(name if isinstance(name, str) else ", ".join(map(str, name)) for name in names)


def _parameters(kind: type[Any]) -> set[str]:
    """What a class and those that it is built on take."""
    made = [vars(part)["__init__"] for part in kind.__mro__ if "__init__" in vars(part) and part is not object]
    return {name for function in made for name in inspect.signature(function).parameters}
