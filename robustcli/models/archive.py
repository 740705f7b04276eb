"""A `.pt2` archive that anybody may have made, checked part by part before torch reads it.

torch unpickles some parts, evaluates a graph's sizes, and makes Python source of its names. So all that is not on a
list is refused: what parts there may be, what a graph may call, and what a text in it may look like.
"""

from __future__ import annotations

import ast
import json
import math
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from robustcli import tensorfile
from robustcli.errors import CheckpointError

GRAPH = "models/model.json"
CONFIGS = {
    "data/weights/model_weights_config.json": "data/weights/",
    "data/constants/model_constants_config.json": "data/constants/",
}
"""Each lists the tensors of its folder."""

PICKLED = ("data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt")
"""Files of torch's within the archive."""

PARTS = re.compile(
    "|".join(map(re.escape, (GRAPH, *CONFIGS, *PICKLED)))
    + r"|data/weights/weight_\d+|data/constants/tensor_\d+"
    + r"|archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id|\.format_version"
    + r"|\.storage_alignment"
)
"""All parts that there may be, below the one root."""

OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|torch\.(sym_(int|float|max|min|not|sum|ite|sqrt)|_sym_sqrt)"
    r"|(math|_operator)\.[a-z]+"
)
"""What a graph may call. torch looks any other name up in its own modules, down to `torch.os.system`."""

SILENT = re.compile(r"_assert\w*|sym_constrain\w*")
"""Operators that return nothing and change nothing; the others that return nothing print, warn or write."""

SYMBOL = re.compile(r"Symbol\('(s|u|zuf)\d+'(, \w+=(True|False|None))*\)|\b(s|u|zuf)\d+\b")
FUNCTIONS = frozenset(
    {"Add", "Mul", "Integer", "Rational", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv"}
    | {"Abs", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Where", "ToFloat", "TruncToInt"}
    | {"FloatTrueDiv", "IntTrueDiv", "True", "False", "oo", "int_oo", "evaluate"}
)
"""What a size may call. sympy evaluates it as Python, so that nothing else passes; powers could be endless."""

SIZES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.Call, ast.keyword, ast.Load),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd),
    *(ast.Invert, ast.BitAnd, ast.BitOr, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
"""Of what a size is made: no tuples, which a product makes as long as it likes."""

PRODUCTS = frozenset({"Mul", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv", "FloatTrueDiv"})
LONGEST, MOST_PRODUCTS = 2000, 10
"""Characters of a size, and products in it, which sympy multiplies out; four networks for images of any size have 3."""

CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
"""What inputs and outputs may be held in; other kinds import a module by its name."""

NAME = re.compile(r"[A-Za-z_]\w*")
DOTTED = re.compile(r"[\w.\-]*")
DOTTED_KEYS = frozenset({"fqn", "parameter_name", "buffer_name", "tensor_constant_name", "buffer_to_mutate"})
VALUES = re.compile(r"[\w.+\-:]*")
"""Of a version, a device, a kind."""

CONSTANTS = frozenset({"as_string", "as_strings"})
"""Texts that an operator is given, such as an equation of einsum: written as literals, whatever is in them."""

ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2}
"""Of a tensor's type, by the number that torch.export gives it."""


def checked_archive(data: bytes, path: Path) -> BytesIO:
    """The archive, written anew from the parts that were checked: torch reads no other, whatever its reader finds.

    What a graph says of the source that it was made from, and its guards, which are Python, are left out.

    Raises:
        CheckpointError: a part could run code, read another file, or unpack to more than the file's size.
    """
    archive = zipfile.ZipFile(BytesIO(data))
    entries = archive.infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in entries) or len(data) < sum(
        one.file_size for one in entries
    ):
        raise CheckpointError(f"{path}: is compressed, which no .pt2 file is: it may unpack to any size")
    roots = {one.filename.partition("/")[0] for one in entries}
    parts = {one.filename.partition("/")[2]: archive.read(one) for one in entries}
    if len({one.casefold() for one in parts}) < len(entries) or len(roots) != 1 or not NAME.fullmatch(min(roots)):
        raise CheckpointError(f"{path}: holds two parts of one name, or more than one archive")
    for name in parts:
        if not PARTS.fullmatch(name):
            raise CheckpointError(f"{path}: is refused: it holds {name[:60]!r}, which no network needs")
    if parts.get("archive_format") != b"pt2" or GRAPH not in parts:
        raise CheckpointError(f"{path}: is none of torch.export.save, or of an old version: save it again")
    graph = json.loads(parts[GRAPH])
    _drop_source(graph)
    _check(graph, f"{path}: {GRAPH}")
    parts[GRAPH] = json.dumps(graph).encode()
    pickled = set(PICKLED)
    for config, folder in CONFIGS.items():
        if config in parts:
            pickled |= _check_tensors(json.loads(parts[config]), parts, folder, f"{path}: {config}")
    for name in pickled & parts.keys():
        if parts[name]:
            _check_pickle(parts[name], f"{path}: {name}")
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as copy:
        for name, content in parts.items():
            copy.writestr(f"{min(roots)}/{name}", content)
    written.seek(0)
    return written


def _drop_source(content: Any) -> None:
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            if isinstance(value.get("metadata"), dict):
                value["metadata"] = {}
            if "guards_code" in value:
                value["guards_code"] = []
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def _check(content: Any, where: str) -> None:
    """Refuse a graph with any text that is not of its kind."""
    for key, value in _texts(content):
        if key == "expr_str":
            good = _is_size(value)
        elif key in ("target", "as_operator"):
            good = bool(OPERATORS.fullmatch(value)) and (not value.startswith("torch.ops.") or _is_pure(value))
        elif key in ("in_spec", "out_spec"):
            good = not value or _is_spec(json.loads(value))
        elif key in CONSTANTS:
            good = True
        elif key in DOTTED_KEYS:
            good = bool(DOTTED.fullmatch(value))
        elif key in ("name", "forward_arg_names"):
            good = not value or bool(NAME.fullmatch(value))
        else:
            good = bool(VALUES.fullmatch(value))
        if not good and key in ("target", "as_operator"):
            raise CheckpointError(f"{where}: is refused: its graph calls {value[:60]!r}")
        if not good:
            raise CheckpointError(f"{where}: is refused: {key or 'the key'} {value[:60]!r} could run code")


def _check_tensors(config: Any, parts: dict[str, bytes], folder: str, where: str) -> set[str]:
    """The parts that are pickled tensors; refuses what claims more values than the archive holds."""
    pickled = set()
    for name, entry in config["config"].items():
        part = f"{folder}{entry['path_name']}"
        if not DOTTED.fullmatch(name) or part not in parts:
            raise CheckpointError(
                f"{where}: is refused: it names {str(entry['path_name'])[:60]!r}, a pickled object or none"
            )
        if entry["use_pickle"]:
            pickled.add(part)
            continue
        meta = entry["tensor_meta"]
        sizes, strides = ([one["as_int"] for one in meta[key]] for key in ("sizes", "strides"))
        held = len(parts[part]) // ITEM_BYTES[meta["dtype"]]
        last = meta["storage_offset"]["as_int"] + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
        if min((*sizes, *strides, 0)) < 0 or math.prod(sizes) > held or (math.prod(sizes) and last >= held):
            raise CheckpointError(f"{where}: is refused: {name} claims {sizes} values, and the file holds {held}")
    return pickled


def _check_pickle(content: bytes, where: str) -> None:
    try:
        tensorfile.read(BytesIO(content), tensors=True)
    except Exception:  # whatever it holds, torch would go on and unpickle it
        raise CheckpointError(f"{where}: is refused: it holds a pickled object, which could run code") from None


def _is_pure(target: str) -> bool:
    """Whether an operator of torch's makes tensors or numbers, of its arguments alone."""
    _, _, namespace, packet, *overload = target.split(".")
    if namespace == "torchvision":
        import torchvision  # noqa: F401 - which brings its operators
    if namespace == "higher_order":
        return True
    try:
        schema = getattr(getattr(getattr(torch.ops, namespace), packet), (*overload, "default")[0])._schema
    except AttributeError:
        return False
    returns = bool(schema.returns) or bool(SILENT.fullmatch(packet))
    return returns and not any("file" in argument.name for argument in schema.arguments)


def _is_spec(content: Any) -> bool:
    """Whether JSON describes nested containers, with nothing that torch looks up by its name."""
    todo = [content[1]] if isinstance(content, list) and len(content) == 2 else [None]
    while todo:
        node = todo.pop()
        if not isinstance(node, dict) or node.keys() != {"type", "context", "children_spec"}:
            return False
        keys = json.loads(node["context"] or "null")
        if node["type"] not in CONTAINERS or not all(isinstance(key, str | int) for key in keys or ()):
            return False
        if not isinstance(keys, list | None):
            return False
        todo += node["children_spec"]
    return True


def _is_size(text: str) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(SYMBOL.sub("1", text), mode="eval"))) if len(text) < LONGEST else [None]
    except (SyntaxError, RecursionError, MemoryError):
        return False
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    numbers = [node.value for node in nodes if isinstance(node, ast.Constant)]
    factors = [len(node.args) for node in nodes if isinstance(node, ast.Call) and _called(node) in PRODUCTS]
    products = sum(isinstance(node, ast.Mult | ast.Mod | ast.FloorDiv) for node in nodes) + sum(factors) - len(factors)
    return (
        all(isinstance(node, SIZES) for node in nodes)
        and names <= FUNCTIONS
        and {node.arg for node in nodes if isinstance(node, ast.keyword)} <= {"evaluate"}
        and all(isinstance(number, int | float) and abs(number) < 2**63 for number in numbers)
        and products <= MOST_PRODUCTS
    )


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _texts(content: Any) -> Iterator[tuple[str, str]]:
    """Each text in nested JSON with the key that it is under; each key itself, under `name`."""
    todo: list[tuple[str, Any]] = [("", content)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            yield from (("", one) for one in value)
            todo += value.items()
        elif isinstance(value, list):
            todo += [(key, one) for one in value]
        elif isinstance(value, str):
            yield key, value
