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

from robustcli.cli.request import STORE
from robustcli.config import EvalSpec, choices
from robustcli.data.named import DATASETS, FILES
from robustcli.models import zoo

VARIABLE = "_ROBUSTCLI_COMPLETE"
ROOT = Path(__file__).parents[1]
HARMLESS = re.compile(r"[\w./:@=,+%~-]+")
"""What no shell reads as anything else; other names are not offered."""

MODELS = (".pt", ".pth", ".pt2", ".onnx", ".py")
NORMS = ("linf", "l2", "l1")


def answer(command: Any, instruction: str) -> int:
    """Print what a shell asks for by an instruction such as `complete_bash`; returns the exit code."""
    cut, printed, code = "", io.StringIO(), 1
    os.environ["COLUMNS"] = "10000"  # typer wraps what it says of a flag, and fish would take the rest for a word
    with suppress(Exception), redirect_stdout(printed), redirect_stderr(io.StringIO()):
        if instruction == "complete_bash":  # which ends a word at each `:` and `=`, and completes what comes after
            words = "\n".join(os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1])
            joined = re.sub(r"\n?([:=]+)\n?", r"\1", words).split("\n")
            os.environ |= {"COMP_WORDS": "\n".join(joined), "COMP_CWORD": str(len(joined) - 1)}
            typed = re.sub(r"^--[\w-]+=", "", joined[-1])
            cut = re.sub(r"[^:=]*$", "", typed)
        code = shell_complete(command, {}, "robustcli", VARIABLE, instruction)
    typer.echo("\n".join(line.removeprefix(cut) for line in printed.getvalue().splitlines()))
    return code


def declared(table: str, folder: str) -> dict[str, dict[str, str]]:
    """The names of a table of classes, such as ATTACKS, with their fields and defaults, read from the sources."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / folder).glob("*.py"))]
    nodes = [node for tree in trees for node in tree.body]
    fields = {node.name: dict(_fields(node)) for node in nodes if isinstance(node, ast.ClassDef)}
    named = [node.value for node in nodes if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table]
    (entries,) = (value for value in named if isinstance(value, ast.Dict))
    pairs = zip(entries.keys, entries.values, strict=True)
    return {ast.literal_eval(key): fields[ast.unparse(value)] for key, value in pairs if key is not None}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation):
            value = line.value.value if isinstance(line.value, ast.Constant) else None
            yield ast.unparse(line.target), "" if value is None else str(value).lower()


def _attacks(typed: str) -> Iterable[str]:
    """Names; after a colon the keys that are not given yet, each also with its default, or of `norm` the norms."""
    (name, colon, rest), known = typed.partition(":"), declared("ATTACKS", "attacks")
    if not colon:
        return known
    before = f"{name}:{rest[: rest.rfind(',') + 1]}"
    keys = {key: ("", *(NORMS if key == "norm" else [usual])) for key, usual in known[name].items()}
    return [f"{before}{key}={end}" for key, ends in keys.items() if f"{key}=" not in before for end in ends]


def _models(typed: str) -> Iterable[str]:
    here = map(str, sorted(Path("checkpoints").glob("*.pt")))
    return [*here, *(f"{zoo.PREFIX}{name}" for name in zoo.entries()), "tv:", "timm:", "hf:", *_paths(typed, MODELS)]


def _paths(typed: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Files of these kinds in the folder that is typed, and folders, which may go on."""
    start = typed[: typed.rfind("/") + 1]
    for path in sorted(Path(start).expanduser().glob("[!.]*")):
        if path.suffix.lower() in suffixes or path.is_dir():
            yield f"{start}{path.name}{'/' * path.is_dir()}"


def complete_rows(context: typer.Context) -> list[tuple[str, str]]:
    """The rows of the store that the command line names, with what each is, which zsh and fish show."""
    from robustcli.store.browse import read
    from robustcli.store.database import StoreError, connect

    try:
        lines = read(connect(Path(context.params.get("store") or STORE), make=False)).lines
    except StoreError:
        return []
    about = {str(line.id): f"{line.checkpoint} {line.name} {line.budget}" for line in lines}
    return [(number, re.sub(r"[^\w ./=,+%-]", "", text)) for number, text in about.items()]


def complete_kept(context: typer.Context, incomplete: str) -> list[Any]:
    """What `replay` takes: rows of the store, files of images, models."""
    return [*complete_rows(context), *complete_models(incomplete), *_arrays(incomplete)]


def offer(find: Callable[[str], Iterable[str]]) -> Callable[..., list[str]]:
    """A completer of what `find` makes of the word that is typed so far."""

    def complete(incomplete: str) -> list[str]:  # typer keeps what begins so
        return [word for word in dict.fromkeys(find(incomplete)) if HARMLESS.fullmatch(word)]

    return complete


def words(*allowed: str) -> Callable[..., list[str]]:
    """A completer of these words."""
    return offer(lambda typed: allowed)


complete_models = offer(_models)
_arrays = offer(lambda typed: _paths(typed, (".npz",)))

COMPLETERS = {
    "--attack": offer(_attacks),
    "--dataset": offer(lambda typed: [*DATASETS, *_paths(typed, FILES)]),
    "--method": offer(lambda typed: declared("METHODS", "training")),
    "--model": words("mnist-cnn", "cifar-cnn"),
    "--norm": words(*NORMS),
    "--device": words("auto", "cpu", "cuda"),
    "--format": words("table", "json", "csv", "markdown", "latex"),
    "--checks": words("quick", "full", "off"),
    "--for": words("train", "evaluate"),
    **{f"--{key}": words(*choices(EvalSpec.model_fields[key].annotation)) for key in ("preset", "split", "dtype")},
}
"""By flag."""
