"""What a shell offers at the TAB key: found without torch, and never an error."""

from __future__ import annotations

import ast
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import typer
from typer.completion import shell_complete

from robustcli.config import EvalSpec, choices
from robustcli.data.named import DATASETS, FILES
from robustcli.models import zoo

VARIABLE = "_ROBUSTCLI_COMPLETE"
ROOT = Path(__file__).parents[1]
HARMLESS = re.compile(r"[\w./:@=,+%~-]+")
"""What no shell reads as anything else; other names are not offered."""

MODELS = (".pt", ".pth", ".pt2", ".onnx", ".py")
NORMS = ("linf", "l2", "l1")

Found = Iterable[tuple[str, str]]
"""Words with what each is, which zsh and fish show."""


def answer(command: Any, instruction: str) -> int:
    """Print what a shell asks for by an instruction such as `complete_bash`; returns the exit code."""
    cut, printed, code = "", io.StringIO(), 1
    with suppress(Exception), redirect_stdout(printed), redirect_stderr(io.StringIO()):
        if instruction == "complete_bash":
            words = _as_typed(os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1])
            os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
            typed = re.sub(r"^--[\w-]+=", "", words[-1])
            cut = typed[: max(typed.rfind(":"), typed.rfind("=")) + 1]
        code = shell_complete(command, {}, "robustcli", VARIABLE, instruction)
    typer.echo("\n".join(line.removeprefix(cut) for line in printed.getvalue().splitlines()))
    return code


def _as_typed(words: Iterable[str]) -> list[str]:
    """Bash's words as they were typed: it ends one at each `:` and `=`, which are words of their own."""
    return re.sub(r"\n?([:=]+)\n?", r"\1", "\n".join(words)).split("\n")


def declared(table: str, folder: str) -> dict[str, dict[str, str]]:
    """The names of a table of classes, such as ATTACKS, with their fields and defaults, read from the sources."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / folder).glob("*.py"))]
    nodes = [node for tree in trees for node in tree.body]
    fields = {node.name: dict(_fields(node)) for node in nodes if isinstance(node, ast.ClassDef)}
    tables = [node.value for node in nodes if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table]
    (entries,) = (entry for entry in tables if isinstance(entry, ast.Dict))
    pairs = zip(entries.keys, entries.values, strict=True)
    return {ast.literal_eval(key): fields[ast.unparse(value)] for key, value in pairs if key is not None}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation):
            known = isinstance(line.value, ast.Constant) and line.value.value is not None
            yield ast.unparse(line.target), ast.unparse(line.value).strip("'").lower() if known and line.value else ""


def _attacks(context: typer.Context, typed: str) -> Found:
    """Names; after a colon the keys that are not given yet, each also with its default; after `norm=` the norms."""
    name, colon, rest = typed.partition(":")
    known = declared("ATTACKS", "attacks")
    if not colon:
        return [(attack, "") for attack in known]
    before = f"{name}:{rest[: rest.rfind(',') + 1]}"
    keys = {key: value for key, value in known[name].items() if f"{key}=" not in before}
    plain = [f"{before}{key}={end}" for key, value in keys.items() for end in dict.fromkeys(("", value))]
    return [(word, "") for word in (*plain, *(f"{before}norm={norm}" for norm in NORMS if "norm" in keys))]


def _models(context: typer.Context, typed: str) -> Found:
    return [
        *((str(path), "checkpoint") for path in sorted(Path("checkpoints").glob("*.pt"))),
        *((f"{zoo.PREFIX}{name}", "ships with robustcli") for name in zoo.entries()),
        *((prefix, "a network of that library") for prefix in ("tv:", "timm:", "hf:")),
        *_paths(typed, MODELS),
    ]


def _datasets(context: typer.Context, typed: str) -> Found:
    return [*((name, known.description) for name, known in DATASETS.items()), *_paths(typed, FILES)]


def _paths(typed: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Files of these kinds in the folder that is typed, and folders, which may go on."""
    start = typed[: typed.rfind("/") + 1]
    for path in sorted(Path(start).expanduser().iterdir()):
        if path.suffix.lower() in suffixes or (path.is_dir() and not path.name.startswith(".")):
            yield f"{start}{path.name}{'/' * path.is_dir()}", ""


def _rows(context: typer.Context, typed: str) -> Found:
    from robustcli.store.browse import read
    from robustcli.store.database import connect

    found = read(connect(Path(context.params["store"]), make=False)).lines
    return [(str(line.id), f"{line.checkpoint} {line.name} {line.budget}") for line in found]


def _offer(find: Callable[[typer.Context, str], Found]) -> Callable[..., list[tuple[str, str]]]:
    """For typer, which keeps what begins as typed: what is found that a shell takes as it is."""

    def complete(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        found = dict(find(context, incomplete))
        return [(word, re.sub(r"[^\w ./=,+%-]", "", found[word])) for word in found if HARMLESS.fullmatch(word)]

    return complete


def _words(*words: str) -> Callable[..., list[tuple[str, str]]]:
    return _offer(lambda context, typed: [(word, "") for word in words])


complete_models, complete_rows = _offer(_models), _offer(_rows)

COMPLETERS = {
    "--attack": _offer(_attacks),
    "--dataset": _offer(_datasets),
    "--method": _offer(lambda context, typed: [(name, "") for name in declared("METHODS", "training")]),
    "--model": _words("mnist-cnn", "cifar-cnn"),
    "--norm": _words(*NORMS),
    "--device": _words("auto", "cpu", "cuda"),
    "--format": _words("table", "json", "csv", "markdown", "latex"),
    "--checks": _words("quick", "full", "off"),
    "--for": _words("train", "evaluate"),
} | {f"--{key}": _words(*choices(EvalSpec.model_fields[key].annotation)) for key in ("preset", "split", "dtype")}
"""By flag."""
