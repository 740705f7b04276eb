"""What is in a data set: its images by class, and what is wrong with them."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robustcli.config import DataSpec, Fit
from robustcli.data.decoding import decode, why
from robustcli.data.folders import printable
from robustcli.data.index import read_index
from robustcli.data.load import check_published, list_files, load
from robustcli.errors import DataError

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
_FEW = 2000
"""So many files are decoded sooner than other processes have begun."""


@dataclass(frozen=True)
class _Part:
    """One split: for each image its name, its label and what is equal where its content is; and what is broken."""

    names: Sequence[str]
    labels: Sequence[int]
    content: Sequence[object]
    broken: Mapping[str, str]


def describe(spec: DataSpec, index: Path | None = None) -> dict[str, Any]:
    """What is in a data set: splits, images by class, shape, bytes, source, and what was left out; plain values.

    Raises:
        RobustCliError: none of its splits can be read.
    """
    splits, failed = {}, list[DataError]()
    for split in SPLITS:
        one = spec.model_copy(update={"split": split, "fit": spec.fit or Fit(resize=256), "allow_sample": False})
        try:
            images, listing = load(one, index), list_files(one)
        except DataError as error:
            failed.append(error)
            splits[split] = {"images": 0, "reason": str(error)}
            continue
        files = [os.path.join(listing.root, name) for name in listing.names] if listing else []  # noqa: PTH118
        splits[split] = {
            "images": len(images),
            "shape": list(images.shape),
            "fit": None if images.fit is None else str(images.fit),
            "classes": dict(zip(images.classes, images.population, strict=True)),
            "format": "files" if listing else "arrays",
            "bytes": sum(os.path.getsize(file) for file in files if os.path.exists(file)) or images.x.shape.numel(),  # noqa: PTH110, PTH202
            "source": images.source,
            "notices": list(images.notices),
        }
    if len(failed) == len(SPLITS):
        raise failed[-1]
    return {"schema": 1, "dataset": spec.dataset, "splits": splits}


def verify(spec: DataSpec, index: Path | None = None) -> dict[str, Any]:
    """Read every image: what is broken, what is there more than once, and which test images are in train; plain values.

    Raises:
        RobustCliError: none of its splits can be read.
    """
    parts, failed = dict[str, _Part](), list[DataError]()
    checksums = check_published(spec)
    for split in SPLITS:
        one = spec.model_copy(update={"split": split, "allow_sample": False})
        try:
            parts[split] = _read(one, index)
        except DataError as error:
            failed.append(error)
    if not parts:
        raise failed[-1]
    splits = {split: _faults(part) for split, part in parts.items()}
    both: list[list[str]] = []
    if len(parts) == len(SPLITS):
        in_train = {key: name for key, name in zip(parts["train"].content, parts["train"].names, strict=True) if key}
        test = zip(parts["test"].content, parts["test"].names, strict=True)
        both = [[name, in_train[key]] for key, name in test if key in in_train]
    missing = [str(error) for error in failed]
    return {"schema": 1, "dataset": spec.dataset, "splits": splits, "test_in_train": both} | {
        "checksums": checksums,
        "missing": missing,
    }


def _read(spec: DataSpec, index: Path | None) -> _Part:
    listing = list_files(spec)
    if listing is None:
        images = load(spec)
        return _Part([f"#{i}" for i in images.ids.tolist()], images.y.tolist(), images.hashes.tolist(), {})
    entries, _ = read_index(listing.root, listing.names, listing.path, index)
    broken = {name: entry.error for name, entry in zip(listing.names, entries, strict=True) if entry.error}
    good = [name for name in listing.names if name not in broken]
    files = [os.path.join(listing.root, name) for name in good]  # noqa: PTH118
    if len(files) < _FEW:
        found = list(map(fault, files))
    else:
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            found = list(pool.map(fault, files, chunksize=256))
    broken |= {name: reason for name, reason in zip(good, found, strict=True) if reason}
    return _Part(listing.names, listing.labels, [entry.sha256 for entry in entries], broken)


def fault(file: str) -> str:
    """Why an image cannot be decoded; empty where it can."""
    try:
        decode(file)
    except DataError as error:
        return why(error, file)
    return ""


def _faults(part: _Part) -> dict[str, Any]:
    equal: dict[object, list[int]] = defaultdict(list)
    for i, key in enumerate(part.content):
        if key and part.names[i] not in part.broken:
            equal[key].append(i)
    groups = [group for group in equal.values() if len(group) > 1]
    shown = {len({part.labels[i] for i in group}) > 1: list[list[str]]() for group in groups} | {True: [], False: []}
    for group in groups:
        shown[len({part.labels[i] for i in group}) > 1].append([printable(part.names[i]) for i in group])
    broken = [{"file": printable(name), "reason": printable(reason)} for name, reason in part.broken.items()]
    return {"images": len(part.names), "broken": broken, "same_class": shown[False], "several_classes": shown[True]}
