"""Tensors and plain values from a file of torch's that anybody may have made: nothing in it is believed unseen."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from robustcli.errors import CheckpointError, RobustCliError, one_line

VALUES, DEPTH, BITS = 1_000_000, 32, 256
"""More values, deeper nesting and larger integers than any run of ours has. A list may be in itself many times over."""

GROWS = re.compile(rb"bytearray|_codecs")
"""What torch's safe unpickler lets a pickle call, and that makes gigabytes of a few bytes."""

ENTRIES, PICKLE_BYTES = 10_000, 2_000_000
"""More tensors, and more bytes for what is beside them, than any run has; 64 bytes of memory may come of each one."""


ADVICE = "save the network's weights alone: torch.save(model.state_dict(), FILE)"
"""What to do about a file that holds an object."""


TO_ANY_SIZE = "is refused: it may unpack to any size"


class FlawError(ValueError):
    """A part that no file of ours has; says which and why."""


@contextmanager
def refusals(
    path: Path | str, damaged: str, advice: str = "", kind: type[RobustCliError] = CheckpointError
) -> Iterator[None]:
    """Whatever a reader of the file raises becomes an error of one line.

    Args:
        path: of the file, or a part's name.
        damaged: said of a file that the reader makes nothing of; `{}` in it becomes the reader's message.
        advice: what to do where it holds an object.
        kind: of the error.
    """
    try:
        yield
        return
    except RobustCliError:
        raise
    except FileNotFoundError:
        reason = "no such file"
    except OSError as error:
        reason = f"cannot be read: {error.strerror or one_line(error)}"
    except FlawError as error:
        reason = str(error)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        name = found[1] if found else "unknown"
        reason = f"is refused: it holds a pickled object ({name}), which could run code{advice}"
    except Exception as error:  # whatever zipfile, zlib, torch, safetensors, protobuf make of a damaged or foreign file
        reason = damaged.format(one_line(error))
    raise kind(f"{path}: {reason}")


def read(file: BinaryIO, *, tensors: bool) -> Any:
    """The object in a file that `torch.save` wrote, on the CPU, every byte compared with its checksum.

    Args:
        file: at its beginning.
        tensors: False leaves their values out, and gives shapes on the device `meta`.

    Raises:
        FlawError: it could unpack to more than the file's size.
        UnpicklingError: it holds an object.
        Exception: whatever zipfile, zlib and torch make of a damaged file, or one of another kind.
    """
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise FlawError("is compressed, which no checkpoint is: it may unpack to any size")
    if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
        raise FlawError("claims to hold more than its size")
    beside = max((entry.file_size for entry in entries if entry.filename.endswith("data.pkl")), default=0)
    if len(entries) > ENTRIES or beside > PICKLE_BYTES:
        raise FlawError("has too many parts")
    if any(GROWS.search(archive.read(entry)) for entry in entries if entry.filename.endswith("data.pkl")):
        raise FlawError(TO_ANY_SIZE)
    # torch compares no checksums, and gives uninitialised memory for an entry whose folder bit (16) is set: a flipped
    # bit would pass for a weight.
    if tensors and (archive.testzip() or any(entry.external_attr & 16 for entry in entries)):
        raise zipfile.BadZipFile
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):
        return torch.load(file, map_location="cpu" if tensors else "meta", weights_only=True)


def check(content: Any, name: str, *, tensors: bool, meta: bool) -> None:
    """Refuse what is neither a plain value nor, where `tensors` allows one, a dense tensor that the file holds whole.

    Args:
        content: what `read` gave, or a part of it.
        name: its name in messages.
        tensors: whether tensors may be in it, and integers among its keys.
        meta: whether the tensors were read without their values.

    Raises:
        FlawError: names the part.
    """
    todo, seen = [(name, content, 0)], 0
    while todo:
        where, value, depth = todo.pop()
        seen += 1
        if depth > DEPTH or seen > VALUES:
            raise FlawError(f"{name}: is nested too deeply, or has too many values")
        if isinstance(value, Tensor):
            reason = _reason(value, meta) if tensors else "is a tensor, not a plain value"
            if reason:
                raise FlawError(f"{where}: {reason}")
        elif isinstance(value, dict):
            if bad := [key for key in value if not isinstance(key, str | int if tensors else str)]:
                raise FlawError(f"{where}: has a key that is a {type(bad[0]).__name__}")
            todo += [(f"{where}.{key}"[:200], item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            todo += [(f"{where}[{index}]"[:200], item, depth + 1) for index, item in enumerate(value)]
        elif isinstance(value, int) and value.bit_length() > BITS:
            raise FlawError(f"{where}: is too large a number")
        elif not isinstance(value, str | int | float | None):
            raise FlawError(f"{where}: is a {type(value).__name__}, not a tensor or a plain value")


def _reason(tensor: Tensor, meta: bool) -> str:
    """Why a tensor is not one of ours, or nothing."""
    if type(tensor) not in (Tensor, nn.Parameter) or vars(tensor):
        return f"is a {type(tensor).__name__} with attributes of its own, not a plain tensor"
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.").replace("_", " ")
        return f"is a {kind} tensor, should be a dense one"
    if tensor.is_quantized:
        return "is a quantised tensor, should be one of float32"
    if tensor.is_meta and not meta:
        return "is a tensor without values"
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    # One value, expanded to as many as one likes, would be written out by the first copy.
    return f"claims {tensor.numel()} values, but the file holds {held}" if tensor.numel() > held else ""
