"""One training run in one file: written whole or not at all, and read without executing anything in it.

Where a checkpoint is read, `zoo:NAME` is one that ships with the package.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import warnings
import zipfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, ConfigDict, SkipValidation, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli import __version__, zoo
from robustcli.errors import CheckpointError, nearest

SCHEMA = 1


def _data(value: dict[str, Any]) -> dict[str, Any]:
    if missing := {"name", "source", "classes", "fingerprint", "n_train", "n_validation"} - set(value):
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    return value


def _ids(value: Tensor) -> Tensor:
    if value.dim() != 1 or value.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"should be one-dimensional int32 or int64, not {value.dim()}-dimensional {value.dtype}")
    return value


# Strict types are what makes a foreign or an altered file fail here, by name, and not deep inside a run.
@dataclass(frozen=True, eq=False, config=ConfigDict(arbitrary_types_allowed=True, strict=True, extra="forbid"))
class Checkpoint:
    """One training run in one file: tensors on the CPU and plain values."""

    spec: dict[str, Any]  # the resolved TrainSpec
    model: dict[str, Any]  # the ModelSpec that builds the network
    data: Annotated[dict[str, Any], AfterValidator(_data)]  # what the network was trained on
    train_ids: Annotated[
        Tensor, AfterValidator(_ids)
    ]  # (n,) within data["source"]: all images seen, validation included
    state_dict: dict[str, Tensor]  # the weights that evaluate loads
    history: list[dict[str, SkipValidation[float]]]  # the numbers of each epoch
    metrics: dict[str, SkipValidation[float]]  # the numbers of these weights
    provenance: dict[str, Any]
    complete: bool  # False where training was interrupted
    resume: dict[str, Any] | None  # what training goes on from: optimiser, RNG, last weights


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a file that was there is replaced at the last instant, or left as it was.

    Raises:
        CheckpointError: the file cannot be written, or `checkpoint` holds what could not be read back.
    """
    try:
        values = {field.name: _plain(getattr(checkpoint, field.name), field.name) for field in fields(Checkpoint)}
        _writable_file(path)
        _write(path, {"schema": SCHEMA, **values})
    except (OSError, RuntimeError, TypeError) as error:
        raise _unwritable(path, error) from None


def check_writable(path: Path) -> None:
    """Refuse a path that `save` could not write, before hours of work and not after.

    Raises:
        CheckpointError: says why.
    """
    try:
        _writable_file(path)
        probe = _temporary(path)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, every byte checked against its checksum.

    Raises:
        CheckpointError: the file is missing, cut off, damaged, of another kind or schema, or holds an object.
    """
    return _checked(path, _read(path, tensors=True))


def peek(path: Path) -> Checkpoint:
    """As `load`, but the tensors have shapes and no values: quick at any size, and blind to damage in them."""
    return _checked(path, _read(path, tensors=False))


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with zoo.locate(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {_reason(error)}") from None


def newest(folder: Path) -> Path | None:
    """The complete checkpoint that was written last; None where `folder` has none."""
    by_time = sorted(_files(folder), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return next((path for path in by_time if _complete(path)), None)


def same_data(folder: Path, dataset_name: str) -> list[Path]:
    """All complete checkpoints trained on that data set, sorted by file name."""
    found = [(path, _complete(path)) for path in _files(folder)]
    return [path for path, checkpoint in found if checkpoint and checkpoint.data["name"] == dataset_name]


def default_path(folder: Path, dataset: str, method: str, model: str, seed: int) -> Path:
    """`DATASET-METHOD-MODEL-seedN.pt` in `folder`, with -2, -3 and so on where that is taken."""
    stem = re.sub(r"[^\w.-]+", "_", f"{dataset}-{method}-{model}-seed{seed}").lstrip("._")
    path, number = folder / f"{stem}.pt", 2
    while os.path.lexists(path):
        path, number = folder / f"{stem}-{number}.pt", number + 1
    return path


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.pt") if path.is_file())


def _complete(path: Path) -> Checkpoint | None:
    """What `peek` says, or None: a folder may hold unfinished runs and files of other programs."""
    try:
        checkpoint = peek(path)
    except CheckpointError:
        return None
    return checkpoint if checkpoint.complete else None


def _plain(value: Any, key: str) -> Any:
    """A copy that `weights_only` reads back: tensors contiguous on the CPU, and JSON's types with tuples."""
    if isinstance(value, Tensor):
        # A clone, since a view would carry its whole storage into the file.
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {_plain(name, f"{key}.{name}"): _plain(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{key}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(f"{key} is a {type(value).__name__}, not a tensor or a plain value")


def _writable_file(path: Path) -> None:
    """Make the file's folder; refuse to put a file in the place of a device such as /dev/null."""
    if path.exists() and not path.is_file():
        raise OSError("it is a folder" if path.is_dir() else "it is not a regular file")
    path.parent.mkdir(parents=True, exist_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _unwritable(path: Path, error: Exception) -> CheckpointError:
    reason = "its folder is a file" if isinstance(error, FileExistsError) else _reason(error)
    return CheckpointError(f"{path}: cannot be written: {reason}")


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write beside `path`, then rename: a reader finds the old file or the new one, never a part."""
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # Some systems cannot sync a folder. Only the new name is at stake then: the file itself is safe.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _reason(error: BaseException) -> str:
    """One line. torch reports a failed write as a RuntimeError; the system's own words are behind it."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, OSError):
        cause = cause.__context__
    return getattr(cause, "strerror", None) or " ".join(str(cause or error).split())[:200]


def _read(path: Path, *, tensors: bool) -> Any:
    try:
        with zoo.locate(path).open("rb") as file, warnings.catch_warnings(action="ignore"):
            # torch compares no checksums, and gives uninitialised memory for an entry whose folder bit (16) is
            # set: a flipped bit would pass for a weight.
            archive = zipfile.ZipFile(file)
            if tensors and (archive.testzip() or any(entry.external_attr & 16 for entry in archive.infolist())):
                raise zipfile.BadZipFile
            file.seek(0)
            return torch.load(file, map_location="cpu" if tensors else "meta", weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError:
        reason = f"no such checkpoint{nearest(path.name, [found.name for found in _files(path.parent)])}"
    except OSError as error:
        reason = f"cannot be read: {_reason(error)}"
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"is refused: it holds a pickled object ({found[1] if found else 'unknown'}), which could run code"
    except Exception:  # whatever a damaged or foreign file makes zipfile, zlib and torch raise
        reason = "is not a robustcli checkpoint, or is empty, cut off or damaged"
    raise CheckpointError(f"{path}: {reason}")


def _checked(path: Path, content: Any) -> Checkpoint:
    if not isinstance(content, dict) or type(content.get("schema")) is not int:
        raise CheckpointError(f"{path}: is not a robustcli checkpoint: it names no schema, as bare weights do not")
    if content["schema"] != SCHEMA:
        raise CheckpointError(f"{path}: has schema {content['schema']}; robustcli {__version__} reads schema {SCHEMA}")
    try:
        return Checkpoint(**{str(key): value for key, value in content.items() if key != "schema"})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{path}: {key}: {message[0].lower()}{message[1:]}") from None
