"""What is in a data set, by split and class, and what is wrong with it, as plain values."""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

from robustcli.config import DataSpec, Fit
from robustcli.data.decoding import decode, why
from robustcli.data.folders import Listing, printable
from robustcli.data.images import Images
from robustcli.data.index import Entry, read_index
from robustcli.data.load import check_published, list_files, load
from robustcli.errors import DataError

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
_FEW = 2000
"""So many files are decoded sooner than other processes have begun."""


def inspect(spec: DataSpec, index: Path | None = None, *, every: bool = False) -> dict[str, Any]:
    """Images by class, shape, bytes, source, and what was left out, of each split; of one that is missing the reason.

    With `every`, each image is read: what is broken, what is there more than once, and which test images are in train.

    Raises:
        DataError: none of the splits can be read.
    """
    found: dict[str, Any] = {}
    names: dict[str, dict[object, list[str]]] = {}
    for split in SPLITS:
        one = spec.model_copy(update={"split": split, "fit": Fit(resize=256)})
        try:
            images, listing = load(one, index), list_files(one)
        except DataError as error:
            found[split] = {"images": 0, "reason": str(error)}
            continue
        entries = read_index(listing.root, listing.names, listing.path, index)[0] if listing else []
        found[split] = {
            "images": len(images),
            "shape": "x".join(map(str, images.shape)),
            "fit": None if images.fit is None else str(images.fit),
            "format": "files" if listing else "arrays",
            "bytes": sum(entry.bytes for entry in entries) or images.x.shape.numel(),
            "source": images.source,
            "classes": dict(zip(images.classes, images.population, strict=True)),
            "notices": list(images.notices),
        }
        if every:
            faults, names[split] = _read(images, listing, entries)
            found[split] |= faults
    if all("reason" in said for said in found.values()):
        raise DataError(found["test"]["reason"])
    document = {"schema": 1, "dataset": spec.dataset, "splits": found}
    if every:
        train, test = (names.get(split, {}) for split in SPLITS)
        both = [[name, train[key][0]] for key, group in test.items() if key in train for name in group]
        document |= {"test_in_train": both, "checksums": check_published(spec)}
    return document


def _read(
    images: Images, listing: Listing | None, entries: Sequence[Entry]
) -> tuple[dict[str, Any], dict[object, list[str]]]:
    """What is wrong with a split, and the names of its images by their content."""
    broken: dict[str, str] = {}
    if listing is None:
        rows = list(zip((f"#{i}" for i in images.ids.tolist()), images.y.tolist(), images.hashes.tolist(), strict=True))
    else:
        sums = (entry.sha256 for entry in entries)
        rows = list(zip(map(printable, listing.names), listing.labels, sums, strict=True))
        files = [os.path.join(listing.root, name) for name in listing.names]  # noqa: PTH118
        if len(files) < _FEW:
            reasons = list(map(fault, files))
        else:
            with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
                reasons = list(pool.map(fault, files, chunksize=32))
        known = (entry.error or printable(reason) for entry, reason in zip(entries, reasons, strict=True))
        broken = {name: reason for (name, *_), reason in zip(rows, known, strict=True) if reason}
    names, labels = defaultdict[object, list[str]](list), defaultdict[object, set[int]](set)
    for name, label, key in rows:
        if name not in broken:
            names[key].append(name)
            labels[key].add(label)
    equal = [key for key, group in names.items() if len(group) > 1]
    same, several = ([names[key] for key in equal if (len(labels[key]) > 1) == more] for more in (False, True))
    return {"broken": broken, "same_class": same, "several_classes": several}, names


def fault(file: str) -> str:
    """Why an image cannot be decoded; empty where it can."""
    try:
        decode(file)
    except DataError as error:
        return why(error, file)
    return ""
