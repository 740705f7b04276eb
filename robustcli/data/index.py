"""What is known of a data set's image files: the digest of each one's bytes and its header, read once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple

import pydantic
from pydantic import StrictBool, StrictInt, StrictStr

from robustcli.data.decoding import is_passing, read_header, why
from robustcli.disk import open_regular, write_whole
from robustcli.errors import ConfigError, DataError

MAX_BYTES = 128 << 20
"""The most bytes that an image's file may have: 32 million pixels in colour, as they are, take 92 MiB."""
Progress = Callable[[int, int], None]
"""Is told how many files of how many are read."""


class Entry(NamedTuple):
    """One file. `sha256` is empty where its bytes cannot be read, `error` where its header says an image."""

    bytes: StrictInt
    mtime_ns: StrictInt
    sha256: Annotated[str, pydantic.Field(strict=True, pattern="^([0-9a-f]{64})?$")] = ""
    width: StrictInt = 0
    height: StrictInt = 0
    grey: StrictBool = True
    frames: StrictBool = False
    error: StrictStr = ""


class _Kept(pydantic.BaseModel):
    """The index's file; that of another Pillow, which may read other images, is not used."""

    schema_: int = pydantic.Field(alias="schema")
    pillow: str
    files: dict[str, Entry]


def read_index(
    root: Path, names: Sequence[str], path: Path, folder: Path | None = None, progress: Progress = lambda *_: None
) -> tuple[list[Entry], list[str]]:
    """The entry of each file; only those whose size or time has changed since they were kept are opened.

    Args:
        root: a folder.
        names: of the files below it.
        path: the data set's own, which its index is found by.
        folder: of the indices; None keeps none.
        progress: is called as files are read.

    Returns:
        The entries, in the order of `names`, and lines that the user should know.
    """
    place = None if folder is None else folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]}.json"
    kept = {} if place is None else _read(place)
    entries, fresh = [], 0
    for number, name in enumerate(names):
        file, key = os.path.join(root, name), _as_key(name)  # noqa: PTH118
        try:
            found = os.stat(file)  # noqa: PTH116
            entry = kept.get(key)
            if entry is None or (entry.bytes, entry.mtime_ns) != (found.st_size, found.st_mtime_ns):
                entry = _examine(file, found)
                kept[key], fresh = entry, fresh + 1
                progress(number, len(names))
        except OSError as error:
            if is_passing(error):
                raise
            entry = Entry(0, 0, error=error.strerror or str(error))  # not kept: permissions change no time
        entries.append(entry)
    if place is None or not fresh:
        return entries, []
    return entries, _write(place, {key: one for key, one in kept.items() if (root / _as_name(key)).exists()})


def _as_key(name: str) -> str:
    """A file's name as text that JSON takes, whatever its bytes are."""
    return os.fsencode(name).decode("latin-1")


def _as_name(key: str) -> str:
    return os.fsdecode(key.encode("latin-1"))


def _examine(file: str, found: os.stat_result) -> Entry:
    """What a file holds, which is opened once.

    Raises:
        OSError: it cannot be opened.
    """
    start = Entry(found.st_size, found.st_mtime_ns)
    if found.st_size > MAX_BYTES:
        reason = f"it has {found.st_size} bytes; at most {MAX_BYTES} ({MAX_BYTES >> 20} MiB) an image are read"
        return start._replace(error=reason)
    with open_regular(Path(file)) as opened:
        content = opened.read(MAX_BYTES + 1)
    start = start._replace(sha256=hashlib.sha256(content).hexdigest())
    if not content:
        return start._replace(error="it is empty")
    try:
        (width, height), grey, frames = read_header(file, content)
    except DataError as error:
        return start._replace(error=why(error, file))
    return start._replace(width=width, height=height, grey=grey, frames=frames)


def _read(place: Path) -> dict[str, Entry]:
    """The entries that are kept; none where the file is missing, damaged or another Pillow's."""
    with suppress(OSError, ValueError, RecursionError), open_regular(place) as file:
        kept = _Kept.model_validate(json.load(file))
        return kept.files if (kept.schema_, kept.pillow) == (1, version("pillow")) else {}
    return {}


def _write(place: Path, files: dict[str, Entry]) -> list[str]:
    content = json.dumps({"schema": 1, "pillow": version("pillow"), "files": files}).encode()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, content, "index")
    except (OSError, ConfigError) as error:
        reason = getattr(error, "strerror", None) or error
        return [f"{place}: the index of images cannot be kept, so that a next run reads all of them again: {reason}"]
    return []
