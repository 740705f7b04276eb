"""One training run in one file: written whole or not at all, and read without executing anything in it.

Where a checkpoint is read, `zoo:NAME` is one that ships with the package.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import torch
from filelock import FileLock, Timeout
from pydantic import AfterValidator, ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli import tensorfile
from robustcli.disk import file_hash, open_regular
from robustcli.errors import CheckpointError, ConfigError, nearest
from robustcli.models import zoo

ZOO = "; `robustcli list zoo` names some that ship"
BARE = (
    "is not a robustcli checkpoint: it names no schema, as bare weights do not; they go with a network: "
    "FILE.py:FUNCTION@WEIGHTS"
)

SCHEMA = 1
NAME_BYTES = 200
"""Of a file's name, at most; what is written beside it has a name that is longer, and a file system takes 255."""


class InUseError(ConfigError):
    """A checkpoint that another run is writing."""


def _data(value: dict[str, Any]) -> dict[str, Any]:
    kinds = {"name": str, "source": str, "classes": list, "fingerprint": str, "n_train": int, "n_validation": int}
    if missing := kinds.keys() - value.keys():
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    for key, kind in kinds.items():
        if type(value[key]) is not kind:
            raise ValueError(f"{key} should be a {kind.__name__}, not a {type(value[key]).__name__}")
    if not all(isinstance(name, str) for name in value["classes"]):
        raise ValueError("classes should be names")
    return value


def _ids(value: Tensor) -> Tensor:
    if value.dim() != 1 or value.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"should be one-dimensional int32 or int64, not {value.dim()}-dimensional {value.dtype}")
    return value


_Ids = Annotated[Tensor, AfterValidator(_ids)]


# Strict types are what makes a foreign or an altered file fail here, by name, and not deep inside a run.
@dataclass(frozen=True, eq=False, config=ConfigDict(arbitrary_types_allowed=True, strict=True, extra="forbid"))
class Checkpoint:
    """One training run in one file: tensors on the CPU and plain values."""

    spec: dict[str, Any]  # the resolved TrainSpec
    model: dict[str, Any]  # the ModelSpec that builds the network
    data: Annotated[dict[str, Any], AfterValidator(_data)]  # what the network was trained on
    train_ids: _Ids  # (n,) within data["source"]: all images seen, validation included
    state_dict: dict[str, Tensor]  # the weights that evaluate loads
    history: list[dict[str, int | float]]  # the numbers of each epoch
    metrics: dict[str, int | float]  # the numbers of these weights
    provenance: dict[str, Any]
    complete: bool  # False where training was interrupted
    resume: dict[str, Any] | None  # what training goes on from: optimiser, RNG, last weights
    train_hashes: _Ids | None = None  # (n,) `Images.hashes` of all images seen, sorted; older files have none


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a file that was there is replaced at the last instant, or left as it was.

    Raises:
        CheckpointError: the file cannot be written, or `checkpoint` holds what could not be read back.
    """
    try:
        values = {field.name: _plain(getattr(checkpoint, field.name), field.name) for field in fields(Checkpoint)}
        target = _writable_file(path)
        _write(target, {"schema": SCHEMA, **values})
    except (OSError, RuntimeError, TypeError) as error:
        raise _write_error(path, error) from None


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Keep other runs from writing `path`, and remove what a killed one left half written.

    Raises:
        InUseError: another run writes it now.
        CheckpointError: it cannot be written.
    """
    try:
        hidden = _hidden(_writable_file(path), "lock")
        lock = FileLock(hidden, timeout=0)
        lock.acquire()
    except Timeout:
        raise InUseError(f"{path}: another run is writing it") from None
    except (OSError, RuntimeError) as error:
        raise _write_error(path, error) from None
    try:
        if not hidden.exists():  # whoever held it has just ended, and a third may have begun
            raise InUseError(f"{path}: another run was writing it until now")
        sweep(path)
        yield
    finally:
        with suppress(OSError):
            hidden.unlink()  # while it is held, so that it is nobody else's
        lock.release()


@contextmanager
def claim_first(paths: Iterable[Path]) -> Iterator[Path]:
    """The first of `paths` that is neither there nor being written, claimed.

    Raises:
        CheckpointError: it cannot be written.
    """
    for path in paths:
        if os.path.lexists(path):
            with suppress(InUseError, CheckpointError), claim(path):
                pass  # which removes what a killed run has left
            continue
        with ExitStack() as stack:
            try:
                stack.enter_context(claim(path))
            except InUseError:
                continue
            if not os.path.lexists(path):  # or a run that wrote it has ended in between
                yield path
                return


def sweep(path: Path) -> None:
    """Remove the temporary files of runs that were killed while they wrote `path`; for its only writer to call."""
    target = _target(path)
    stale = re.compile(re.escape(f".{_short(target.name)}.") + r"[0-9a-f]{8}\.tmp")
    with suppress(OSError):
        for found in target.parent.iterdir():
            if stale.fullmatch(found.name):
                found.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, every byte checked against its checksum.

    Raises:
        CheckpointError: the file is missing, cut off, damaged, of another kind or schema, or holds an object.
    """
    return _read(path, tensors=True)


def peek(path: Path) -> Checkpoint:
    """As `load`, but the tensors have shapes and no values: quick at any size, and blind to damage in them."""
    return _read(path, tensors=False)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return file_hash(zoo.locate(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {_reason(error)}") from None


def newest(folder: Path) -> Path | None:
    """The complete checkpoint that was written last; None where `folder` has none."""
    times = {}
    for path in _files(folder):
        with suppress(OSError):  # another run may have removed it in between
            times[path] = path.stat().st_mtime_ns
    return next((path for path in sorted(times, key=times.__getitem__, reverse=True) if _complete(path)), None)


def same_data(folder: Path, dataset_name: str) -> list[Path]:
    """All complete checkpoints trained on that data set, sorted by file name."""
    found = [(path, _complete(path)) for path in _files(folder)]
    return [path for path, checkpoint in found if checkpoint and checkpoint.data["name"] == dataset_name]


def default_paths(folder: Path, dataset: str, method: str, model: str, seed: int) -> Iterator[Path]:
    """`DATASET-METHOD-MODEL-seedN.pt` in `folder`, then the same with -2, -3 and so on; a long DATASET is cut."""
    rest = f"-{method}-{model}-seed{seed}"
    name = re.sub(r"[^\w.-]+", "_", dataset).encode()[: NAME_BYTES - len(rest) - 20].decode(errors="ignore")
    stem = re.sub(r"[^\w.-]+", "_", f"{name}{rest}").lstrip("._")
    yield folder / f"{stem}.pt"
    yield from (folder / f"{stem}-{number}.pt" for number in itertools.count(2))


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


def _target(path: Path) -> Path:
    """The file behind a link, which is what is replaced, and not the link."""
    return path.resolve() if path.is_symlink() else path


def _writable_file(path: Path) -> Path:
    """Its target, in a folder that is made if need be; a device such as /dev/null is not replaced by a file."""
    target = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():
        raise OSError("it is a folder" if target.is_dir() else "it is not a regular file")
    return target


def _hidden(target: Path, ending: str) -> Path:
    """A file beside `target` that belongs to it."""
    return target.with_name(f".{_short(target.name)}.{ending}")


def _short(name: str) -> str:
    """The name, or its hash where something longer would not be a file's name any more."""
    raw = os.fsencode(name)
    return name if len(raw) <= NAME_BYTES else hashlib.sha256(raw).hexdigest()


def _write_error(path: Path, error: Exception) -> CheckpointError:
    reason = "its folder is a file" if isinstance(error, FileExistsError) else _reason(error)
    return CheckpointError(f"{path}: cannot be written: {reason}")


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write beside `path`, then rename: a reader finds the old file or the new one, never a part."""
    temporary = _hidden(path, f"{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """One line. torch reports a failed write as a RuntimeError; the system's own words are behind it."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, OSError):
        cause = cause.__context__
    return getattr(cause, "strerror", None) or " ".join(str(cause or error).split())[:200]


def _read(path: Path, *, tensors: bool) -> Checkpoint:
    damaged = "is not a robustcli checkpoint, or is empty, cut off or damaged"
    if path.suffix == ".safetensors":
        damaged = BARE
    with tensorfile.refusals(path, damaged, advice=f"; {tensorfile.ADVICE}"):
        try:
            file = open_regular(zoo.locate(path))
        except FileNotFoundError:
            near = nearest(path.name, [found.name for found in _files(path.parent)])
            raise CheckpointError(f"{path}: no such checkpoint{near or ZOO}") from None
        with file:
            return _check(path, tensorfile.read(file, tensors=tensors), tensors)


def _check(path: Path, content: Any, tensors: bool) -> Checkpoint:
    if not isinstance(content, dict) or type(content.get("schema")) is not int:
        raise CheckpointError(f"{path}: {BARE}")
    if content["schema"] != SCHEMA:
        raise CheckpointError(
            f"{path}: has schema {content['schema']}; this version reads {SCHEMA}; take the one that wrote it"
        )
    for key, value in content.items():
        allowed = key in ("state_dict", "train_ids", "train_hashes", "resume")
        tensorfile.check(value, str(key), tensors=allowed, meta=not tensors)
    try:
        return Checkpoint(**{str(key): value for key, value in content.items() if key != "schema"})
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{path}: {key}: {message[0].lower()}{message[1:]}") from None
