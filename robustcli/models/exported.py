"""Networks that come whole in one file: `.pt2` of torch.export and TorchScript."""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.disk import open_regular
from robustcli.errors import CheckpointError
from robustcli.models import tensorfile
from robustcli.models.logits import logits_of
from robustcli.models.tensorfile import refusals

OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|torch\.(sym_(int|float|max|min|not|sum|ite|sqrt)|_sym_sqrt)"
    r"|(math|_operator)\.[a-z]+"
)
"""What a graph may call. torch looks any other name up in its own modules, down to `torch.os.system`."""

OPENS_FILES = re.compile(r"aten\.\w*file")
SYMBOL = re.compile(r"Symbol\('(s|u|zuf)\d+'(, \w+=(True|False|None))*\)|\b(s|u|zuf)\d+\b")
FUNCTIONS = frozenset(
    {"Add", "Mul", "Integer", "Rational", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv"}
    | {"Abs", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Where", "ToFloat", "TruncToInt"}
    | {"FloatTrueDiv", "IntTrueDiv", "True", "False", "oo", "int_oo", "evaluate"}
)
"""Of what a size may be made. sympy evaluates it as Python, so that nothing else passes; powers could be endless."""

CONTAINERS = frozenset(
    (None, "None", "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", "LeafSpec")
)
"""What a graph's inputs and outputs may be held in; other kinds import a module by its name."""

MANY = 2**31
"""Images, that no batch has."""


class FixedBatch(nn.Module):
    """A network that takes batches of certain sizes only: larger ones are split, smaller ones filled up.

    Args:
        network: returns logits first, as `logits_of` takes them.
        low, high: the smallest and the largest batch.
    """

    def __init__(self, network: nn.Module, low: int, high: int) -> None:
        super().__init__()
        self.network, self.low, self.high = network, low, high

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) to logits (n, classes)."""
        parts = []
        for chunk in torch.split(x, self.high):
            lacking = max(0, self.low - len(chunk))
            filled = torch.cat([chunk, chunk[:1].expand(lacking, *chunk.shape[1:])]) if lacking else chunk
            parts.append(logits_of(self.network(filled), filled)[: len(chunk)])
        return torch.cat(parts)


def load_torchscript(path: Path) -> nn.Module | None:
    """The network of a TorchScript file, on the CPU; None for another file.

    Its code, which lies beside its tensors, runs when it is called: whoever names it trusts it.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if not any("/code/" in name for name in names) or not any(name.endswith("/constants.pkl") for name in names):
        return None
    with refusals(path, "is no TorchScript file that can be read: {}"), warnings.catch_warnings(action="ignore"):
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def load_exported(path: Path) -> tuple[nn.Module, tuple[int, int] | None]:
    """The network of a `.pt2` file, and the (h, w) that it takes, where they are fixed.

    `torch.export.load` unpickles what `weights_only` refuses and evaluates the sizes of a graph as Python: so every
    part of the archive is checked first, and what could run anything is refused.

    Raises:
        CheckpointError: the file is damaged, of another kind, or holds an object, a foreign operator or other code.
    """
    with refusals(path, "is no .pt2 file that can be read: {}"):
        with open_regular(path) as file:
            data = file.read()
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        program = torch.export.load(_checked_archive(data, path))
        try:
            module = program.module(check_guards=False)
        except TypeError:  # before torch 2.9
            module = program.module()
        names = program.graph_signature.user_inputs
        if len(names) != 1:
            raise CheckpointError(f"{path}: takes {len(names)} inputs; should take one batch of images")
        node = next(node for node in program.graph.nodes if node.name == names[0])
        batch, *rest = node.meta["val"].shape
        low, high = 1, MANY
        if isinstance(batch, int):
            low, high = batch, batch
        elif (limits := program.range_constraints.get(batch.node.expr)) is not None:
            low, high = max(1, int(limits.lower)), int(min(limits.upper, MANY))
    size = (rest[1], rest[2]) if len(rest) == 3 and all(isinstance(one, int) for one in rest) else None
    return (FixedBatch(module, low, high) if low > 1 or high < MANY else module), size


def _checked_archive(data: bytes, path: Path) -> BytesIO:
    """The archive, written anew from the parts that were checked: torch reads no other, whatever its reader finds.

    Raises:
        CheckpointError: a part could run code, or unpack to more than the file's size.
    """
    archive = zipfile.ZipFile(BytesIO(data))
    entries = archive.infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in entries) or len(data) < sum(
        one.file_size for one in entries
    ):
        raise CheckpointError(f"{path}: is compressed, which no .pt2 file is: it may unpack to any size")
    if len({one.filename.casefold() for one in entries}) < len(entries):
        raise CheckpointError(f"{path}: holds two parts of one name")
    parts = {one.filename: archive.read(one) for one in entries}
    pickled = set()
    for name, content in parts.items():
        inner = name.partition("/")[2]
        where = f"{path}: {inner}"
        if inner.startswith("data/aotinductor") or inner.endswith((".so", ".py", ".cubin", ".o")):
            raise CheckpointError(f"{where}: is compiled code; save the network with torch.export.save")
        if inner.endswith(".json") or inner.startswith("models/"):
            found = json.loads(content)
            _check_json(found, where)
            folder = inner.rpartition("/")[0]
            pickled |= {f"{folder}/{one}" for one in _payloads(found)}
    for name, content in parts.items():
        inner = name.partition("/")[2]
        if content and (inner in pickled or inner.startswith("data/sample_inputs/") or inner.endswith(".pt")):
            with refusals(f"{path}: {inner}", "is refused: it holds a pickled object, which could run code"):
                tensorfile.read(BytesIO(content), tensors=True)
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as copy:
        for name, content in parts.items():
            copy.writestr(name, content)
    written.seek(0)
    return written


def _payloads(config: Any) -> list[str]:
    """The files of a payload config that are pickled tensors."""
    entries = config.get("config") if isinstance(config, dict) else None
    found = entries.values() if isinstance(entries, dict) else []
    return [str(one.get("path_name")) for one in found if isinstance(one, dict) and one.get("use_pickle")]


def _check_json(content: Any, where: str) -> None:
    for key, value in _strings(content):
        if key == "expr_str" and not _is_size(value):
            raise CheckpointError(f"{where}: is refused: the size {value[:60]!r} could run code")
        if key in ("target", "as_operator") and (not OPERATORS.fullmatch(value) or OPENS_FILES.search(value)):
            raise CheckpointError(f"{where}: is refused: its graph calls {value[:60]!r}")
        if key == "path_name" and not re.fullmatch(r"[\w.]+", value):
            raise CheckpointError(f"{where}: is refused: it names the file {value[:60]!r}")
        if key == "path_name" and value.startswith(("custom_obj", "opaque_obj")):
            raise CheckpointError(f"{where}: is refused: it holds a pickled object, which could run code")
        if key in ("in_spec", "out_spec") and value:
            for inner, kind in _strings(json.loads(value)):
                if inner == "type" and kind not in CONTAINERS:
                    raise CheckpointError(f"{where}: its inputs or outputs are a {kind[:60]}, which cannot be read")


def _is_size(text: str) -> bool:
    plain = SYMBOL.sub("1", text)
    names = re.findall(r"[A-Za-z_]\w*", plain)
    return (
        len(text) < 2000
        and "**" not in plain
        and re.fullmatch(r"[\w\s+\-*/%(),.<>=&|~]*", plain) is not None
        and FUNCTIONS.issuperset(names)
        and not re.search(r"\.\D|\d{20}", plain + " 1")
    )


def _strings(content: Any) -> Iterator[tuple[str, str]]:
    """Each text in nested JSON with the key that it is under."""
    todo: list[tuple[str, Any]] = [("", content)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += value.items()
        elif isinstance(value, list):
            todo += [(key, one) for one in value]
        elif isinstance(value, str):
            yield key, value
