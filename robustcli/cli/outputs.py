"""What a command is given, checked before any work: values that are empty, and files that it would replace."""

from __future__ import annotations

import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

from robustcli.config import shown
from robustcli.data.named import expand, known_name
from robustcli.disk import open_regular
from robustcli.errors import ConfigError

Read = tuple[str, Path]
"""What a command reads: its name in a message, such as "the checkpoint", and where it lies."""

JSON_HINT = "--json takes the file to write; for JSON on stdout use --format json"

LONGEST = 255
"""Bytes of a file's name, on the file systems of today."""

ARRAY_FILES = (".npz", ".pt")
"""What `--save` writes images into as arrays or tensors; a name with no ending is a folder's."""

FLAGS = {"json_file": "--json", "junit": "--junit", "gallery": "--gallery", "curve_plot": "--curve-plot"}
FLAGS |= {"save": "--save", "store": "--store"}
"""The flags of attack, evaluate and compare that name a file to write, by the parameter's name."""


def check_given(command: Any, arguments: Sequence[str]) -> None:
    """Refuse values that are empty, as of a variable that is not set, and options that stand in for a value.

    Args:
        command: the parser's.
        arguments: the command line.

    Raises:
        ConfigError: names the flag.
    """
    rest = list(arguments)
    while rest and rest[0] in (inner := getattr(command, "commands", {})):
        command, rest = inner[rest.pop(0)], rest
    options = [parameter for parameter in command.params if parameter.opts[0].startswith("-")]
    names = {name for parameter in options for name in parameter.opts}
    valued = {name for parameter in options if not parameter.is_flag for name in parameter.opts}
    positional = next((one.name.upper() for one in command.params if one not in options), "an argument")
    flag = ""
    for part in rest:
        name, equals, value = part.partition("=")
        if flag:
            _check_value(flag, part, names)
            flag = ""
        elif name in valued and equals:
            _check_value(name, value, set())
        elif name in valued:
            flag = name
        elif not part.startswith("-"):
            _check_value(f"{command.name}: {positional}", part, set())


def _check_value(flag: str, value: str, options: set[str]) -> None:
    hint = f"; {JSON_HINT}" if flag == "--json" else ""
    if not value.strip():
        raise ConfigError(f"{flag} '{value}': is empty, perhaps a shell variable that is not set{hint}")
    if flag != "--set" and max(map(len, map(os.fsencode, Path(value).parts)), default=0) > LONGEST:
        raise ConfigError(f"{flag} {shown(value)}: has a name of more than {LONGEST} bytes, too long for a file")
    if value in options:
        raise ConfigError(f"{flag} {value}: should be a value; {value} is an option{hint}")


def check_outputs(flags: Mapping[str, Any], also_read: Iterable[Path] = ()) -> None:
    """Refuse files to write that a command reads, or that are of another kind, before hours of work and not after.

    Args:
        flags: of attack, evaluate or compare.
        also_read: the data sets that the checkpoints name.

    Raises:
        ConfigError: names the flag, the file and why.
    """
    data = [one for one in (flags.get("dataset"), *map(str, also_read)) if one and not known_name(one)]
    reads = [("the checkpoint", path) for path in given_checkpoints(flags)]
    reads += [("the config", flags["config"])] if flags.get("config") else []
    reads += [("the data set", expand(Path(one), "--dataset")) for one in data]
    named = {flag: Path(flags[key]) for key, flag in FLAGS.items() if flags.get(key)}
    for flag, path in named.items():
        if flag == "--save" and path.suffix not in ARRAY_FILES:
            check_folder(path, flag, reads)
        elif flag == "--store":
            _check_store(path, reads)
        else:
            check_output(path, flag, reads)
    for (flag, path), (other, same) in combinations(named.items(), 2):
        if _same(path, same) and not (path.exists() and not path.is_file()):  # a device takes both
            raise ConfigError(f"{other} {shown(same)}: is the file of {flag} too; give each its own")


def given_checkpoints(flags: Mapping[str, Any]) -> list[Path]:
    """The checkpoints on the command line; `attack` takes one, the others a list."""
    given = flags["checkpoint"]
    return [given] if isinstance(given, Path) else list(given or ())


def _check_store(path: Path, reads: Iterable[Read]) -> None:
    """Refuse a store where a command reads; what else is there is checked where it is opened."""
    _refuse_read(path, "--store", reads)
    try:
        path.with_name(f"{path.name}-journal").exists()  # SQLite's longest name beside it
    except (OSError, ValueError) as error:
        raise ConfigError(f"--store {shown(path)}: {getattr(error, 'strerror', None) or error}") from None


def read_by(config: Path | None, dataset: str) -> list[Read]:
    """What a training reads."""
    data = [] if known_name(dataset) else [("the data set", expand(Path(dataset), "--dataset"))]
    return data + ([("the config", config)] if config else [])


def check_output(path: Path | None, flag: str, reads: Iterable[Read] = (), kind: str = "") -> None:
    """Refuse an output that could not be written, or would replace what it should not.

    Args:
        path: the file, or a link to it.
        flag: that names it.
        reads: what the command reads.
        kind: a key of `KINDS`; that of the flag if left out.

    Raises:
        ConfigError: its folder is missing or not writable, it is a folder itself, what the command reads, or there
            already and of another kind.
    """
    if path is None:
        return
    if flag == "--json" and (str(path) == "-" or re.search(r"^zoo:|\.(pt|pth|npz|png|xml|db|ya?ml)$", str(path))):
        raise ConfigError(f"{flag} {shown(path)}: is no name for a JSON file; {JSON_HINT}")
    try:
        if path.is_dir():
            raise ConfigError(f"{flag} {shown(path)}: is a folder; should be a file")
        if path.is_fifo() and not path.is_relative_to("/dev"):  # which a shell's >(...) is
            raise ConfigError(f"{flag} {shown(path)}: is a pipe; should be a file")
        if (kind or flag) != "--output":  # whose folder is made
            _check_folder_of(path, flag)
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError(f"{flag} {shown(path)}: is there already and is not writable")
        _refuse_read(path, flag, reads)
        if path.is_file() and path.stat().st_size:
            what, fits = KINDS.get(kind or flag, ("", lambda _: True))
            if not fits(path):
                hint = f"; {JSON_HINT}" if flag == "--json" else "; give another name"
                raise ConfigError(f"{flag} {shown(path)}: is there already and is not {what}{hint}")
    except (OSError, RuntimeError, ValueError) as error:  # such as a name that is too long, or a link to itself
        raise ConfigError(f"{flag} {shown(path)}: {getattr(error, 'strerror', None) or error}") from None


def check_folder(path: Path, flag: str, reads: Iterable[Read] = ()) -> None:
    """Refuse a folder to write images to that is not new or empty.

    Raises:
        ConfigError: says what it is.
    """
    try:
        if path.suffix or path.is_file():
            raise ConfigError(f"{flag} {shown(path)}: should be an .npz or .pt file, or a folder for PNG files")
        if path.is_dir() and any(path.iterdir()):
            raise ConfigError(
                f"{flag} {shown(path)}: is a folder with files in it; give a new one, or an .npz or .pt file"
            )
        if not path.is_dir():
            _check_folder_of(path, flag)
        if path.is_symlink() and not path.exists():
            raise ConfigError(f"{flag} {shown(path)}: is a link to nothing")
        _refuse_read(path, flag, reads)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{flag} {shown(path)}: {getattr(error, 'strerror', None) or error}") from None


def _check_folder_of(path: Path, flag: str) -> None:
    folder = path.resolve().parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        raise ConfigError(f"{flag} {shown(path)}: its folder {shown(folder)} does not exist")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{flag} {shown(path)}: its folder {shown(folder)} is not writable")


def _refuse_read(path: Path, flag: str, reads: Iterable[Read]) -> None:
    """Refuse what the command reads under any name of it, and what lies in a folder that it reads."""
    for what, read in reads:
        if _same(path, read):
            raise ConfigError(f"{flag} {shown(path)}: is {what} that this command reads; give another name")
        if read.is_dir() and path.resolve().is_relative_to(read.resolve()):
            raise ConfigError(f"{flag} {shown(path)}: lies in {what} that this command reads, {shown(read)}")


def _same(path: Path, other: Path) -> bool:
    """Whether two names are of one file: through links, hard ones too, and other spellings."""
    try:
        return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))
    except (OSError, RuntimeError, ValueError):  # an error where the file is opened
        return False


def _head(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(4096).lstrip()


def _is_json(path: Path) -> bool:
    return re.match(rb'\{\s*["}]|\[\s*[\[{"\d\]]', _head(path)) is not None


def _archive(path: Path) -> list[str]:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _arrays_in(path: Path) -> set[str]:
    """The names of the arrays in an .npz, or all texts in the pickle of a .pt, which is not loaded."""
    names = _archive(path)
    for pickled in (name for name in names if name.endswith("data.pkl")):
        with suppress(Exception), open_regular(path) as file, zipfile.ZipFile(file) as archive:  # of a damaged one
            operations = pickletools.genops(archive.open(pickled).read(1 << 20))
            return {text for _, text, _ in operations if isinstance(text, str)}
    return {name.removesuffix(".npy") for name in names}


def _is_export(path: Path) -> bool:
    return any(re.fullmatch(r"\d+_ids", name) for name in _arrays_in(path))


def _is_checkpoint(path: Path) -> bool:
    names = _archive(path)  # of one that was cut off, none
    return any(name.endswith("data.pkl") for name in names) or (not names and _head(path).startswith(b"PK\3\4"))


Kind = tuple[str, Callable[[Path], bool]]

PAGE = rb"(?s)<!doctype html>.{,400}<meta name=\"generator\" content=\"robustcli "
PNG: Kind = ("a PNG", lambda path: _head(path).startswith(b"\x89PNG\r\n"))
KINDS: dict[str, Kind] = {
    "--json": ("a JSON file", _is_json),
    "--junit": ("JUnit XML", lambda path: re.match(rb"(<\?xml[^>]*>\s*)?<testsuite", _head(path)) is not None),
    "--gallery": PNG,
    "--curve-plot": PNG,
    "--save": ("what --save writes", lambda path: {"x_adv", "pred_after"} <= _arrays_in(path)),
    "--output": ("a checkpoint", _is_checkpoint),
    "--report": ("the report", lambda path: _head(path).startswith(b"# The BatchOut paper")),
    "config": ("a config", lambda path: re.search(rb"^(method|attacks):", path.read_bytes(), re.MULTILINE) is not None),
    ".html": ("a page that robustcli made", lambda path: re.match(PAGE, _head(path)) is not None),
    ".png": PNG,
    ".svg": ("an SVG", lambda path: b"<svg" in _head(path)),
    ".pdf": ("a PDF", lambda path: _head(path).startswith(b"%PDF-")),
    ".tex": ("a LaTeX document", lambda path: _head(path).startswith(b"\\documentclass")),
    ".md": ("a model card", lambda path: re.match(rb"(---\nmodel-index:|# Adversarial rob)", _head(path)) is not None),
    ".yaml": ("evaluation results", lambda path: _head(path).startswith(b"# For .eval_results/")),
    ".json": ("a JSON file", _is_json),
    ".csv": ("an export of rows", lambda path: _head(path).startswith(b"row,checkpoint,")),
    ".npz": ("an export of rows", _is_export),
    ".pt": ("an export of rows", _is_export),
}
"""What each flag writes, and whether a file is of that kind; of `results export` by the file's suffix."""
