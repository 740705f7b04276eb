"""A user's list of image files: lines of `path,label`, perhaps with a third column `split`."""

from __future__ import annotations

import csv
import io
import os
import re
import stat
from collections import defaultdict
from pathlib import Path

from robustcli.data.folders import VALIDATION, Listing, describe_left_out, is_inside, printable
from robustcli.data.index import MAX_BYTES
from robustcli.disk import open_regular
from robustcli.errors import DataError

_SPLITS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(VALIDATION, "val")


def read_rows(path: Path) -> list[tuple[str, str, str | None]]:
    """(path, label, split) of each line; the split is None where the list has no such column.

    Raises:
        DataError: it cannot be read, is no text, or its lines have no two columns.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES or b"\0" in content:
        what = "holds bytes 0: it is no text in UTF-8" if b"\0" in content else f"has more than {MAX_BYTES} bytes"
        raise DataError(f"{path}: {what}")
    # Bytes that are no UTF-8 may still be a file's name.
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    start = text.partition("\n")[0]
    delimiter = next((one for one in ",\t; " if one in start), ",")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [[cell.strip() for cell in row] for row in lines]
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as lines of path,label: line {lines.line_num}: {error}") from None
    rows = [row for row in rows if any(row)]
    head = [cell.lower() for cell in rows[0]] if rows else []
    first, second, third = 0, 1, 2 if rows and min(map(len, rows)) > 2 else None
    if {"path", "label"} <= set(head):
        rows, (first, second) = rows[1:], (head.index("path"), head.index("label"))
        third = head.index("split") if "split" in head else None
    if not rows or max(map(len, rows)) < 2:
        raise DataError(f"{path}: holds no line of path,label")
    longest = max(first, second, third or 0) + 1
    rows = [row + [""] * (longest - len(row)) for row in rows]
    return [(row[first], row[second], None if third is None else row[third]) for row in rows]


def list_rows(path: Path, split: str) -> Listing:
    """The files of a split, by their paths from the list's folder on; nothing outside of it is read.

    Without a column `split`, all are test images. Labels that are all integers are in the order of these.

    Raises:
        DataError: the list cannot be read, or leaves nothing of the split.
    """
    rows, root, left_out = read_rows(path), os.path.realpath(path.parent), defaultdict[str, list[str]](list)
    if split == "train" and all(part is None for *_, part in rows):
        raise DataError(f"{path}: has no column 'split', so that all are test images; --split train needs one")
    found: dict[str, tuple[str, str, str]] = {}
    labels_of, folders = defaultdict[str, set[str]](set), dict[str, str]()
    for name, label, written in rows:
        folder, base = os.path.split(os.path.join(root, name))  # noqa: PTH118
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        place = os.path.normpath(os.path.join(folders[folder], base))  # noqa: PTH118
        part = "test" if written is None else _SPLITS.get(written.lower(), "")
        try:
            link = stat.S_ISLNK(os.lstat(place).st_mode)
        except OSError:
            link = None
        if not name or not label:
            left_out["with an empty path or label"].append(name or label)
        elif not part:
            left_out["of no split train, test or val"].append(name)
        elif not is_inside(place, root, resolve=bool(link)):
            left_out["that lead outside its folder"].append(name)
        elif link is None:
            left_out["missing"].append(name)
        else:
            labels_of[place].add(label)
            if place in found:
                left_out["named before"].append(name)
            found.setdefault(place, (os.path.relpath(place, root), label, part))
    for place in [place for place, labels in labels_of.items() if len(labels) > 1]:
        left_out["with several labels"].append(found.pop(place)[0])
    notices = [describe_left_out(path, left_out, len(rows), "lines")] if left_out else []
    if odd := sum(printable(name + label) != name + label for name, label, _ in rows):
        notices.append(f"{path}: {odd} lines are no UTF-8")
    parts, names = {part for *_, part in found.values()}, {label for _, label, _ in found.values()}
    held_out = "val" if "test" not in parts else "test"
    if split == "test" and held_out in parts & {"val"}:
        notices.append(f"{path}: val is the test split: no line is of test")
    chosen = [
        (name, label) for name, label, part in found.values() if part == ("train" if split == "train" else held_out)
    ]
    if not chosen or len(names) < 2:
        reason = "; ".join(
            [f"holds {len(chosen)} {split} images and {len(names)} classes; at least 2 are needed", *notices]
        )
        raise DataError(f"{path}: {reason}")
    whole = all(re.fullmatch("-?[0-9]{1,18}", name) for name in names)
    classes = sorted(names, key=lambda name: (int(name) if whole else 0, name))
    numbers = {label: number for number, label in enumerate(classes)}
    labels = [numbers[label] for _, label in chosen]
    return Listing(path.parent, [name for name, _ in chosen], labels, tuple(classes), path, tuple(notices))
