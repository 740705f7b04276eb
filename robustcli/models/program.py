"""`FILE.py:FUNCTION`: a network that a user's own program builds. The program is run: whoever names it trusts it."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustcli.disk import file_hash
from robustcli.errors import CheckpointError, nearest, one_line


def build_network(path: Path, function: str, seed: int = 0) -> tuple[nn.Module, str]:
    """The network that a function without arguments returns, and the hash of the files it is made by.

    Its weights, where the function draws them, are drawn from `seed`; the global RNG and the default type are left as
    they were. What the program prints goes to stderr. Its folder is the first that it imports from.

    Raises:
        CheckpointError: the file or the function is missing, the program fails, or what it returns is no module.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with _imports_from(path.parent) as imported, redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        default = torch.get_default_dtype()
        try:
            network = _function_of(path, function)()
        except CheckpointError:
            raise
        except (Exception, SystemExit) as error:
            raise CheckpointError(f"{path}:{function}: failed: {_reason(error, path)}") from error
        finally:
            torch.set_default_dtype(default)
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"{path}:{function}: returned a {type(network).__name__}; should be a torch.nn.Module")
    network = network.module if isinstance(network, nn.DataParallel) else network
    digest = hashlib.sha256(function.encode())
    for file in sorted({path.resolve(), *imported}):
        digest.update(f"{file.name} {file_hash(file)}".encode())
    return network, digest.hexdigest()


def _function_of(path: Path, name: str) -> Callable[[], Any]:
    """The function of that name, once the program has run."""
    spec = importlib.util.spec_from_file_location(f"robustcli_program_{path.stem}", path.resolve())
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up; `_imports_from` takes it out again
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise CheckpointError(f"{path}: has no function '{name}'{nearest(name, names)}")
    found: Callable[[], Any] = function
    return found


@contextmanager
def _imports_from(folder: Path) -> Iterator[set[Path]]:
    """Within it, imports look into `folder` first; afterwards the set holds the files imported from there."""
    before, place, files = set(sys.modules), str(folder.resolve()), set[Path]()
    sys.path.insert(0, place)  # and it stays, for what a forward pass may import
    try:
        yield files
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).is_relative_to(place):
                files.add(Path(file))
                del sys.modules[name]  # the next program may have a module of that name beside it


def _reason(error: BaseException, path: Path) -> str:
    """The error's kind, its message and, where it came from the user's file, the line."""
    frames, file = traceback.extract_tb(error.__traceback__), str(path.resolve())
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{type(error).__name__}: {one_line(error)}" + (f" (line {lines[-1]})" if lines else "")
