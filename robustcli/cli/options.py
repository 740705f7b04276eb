"""The flags that commands share, each written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from robustcli.cli.completion import COMPLETERS, complete_models
from robustcli.config import EvalSpec, Spec, about

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = "Model"
DATA = "Data"
ATTACK = "Attack"
OUTPUT = "Output"
COMPUTE = "Compute"


def option(flag: str, panel: str, text: str | type[Spec], complete: Callable[..., list[str]] | None = None) -> Any:
    """A flag, the panel of `--help` that it stands in, and its line there, which says what holds if it is left out.

    In the place of the line stands the spec whose field of that name says it; `complete` in that of the flag's words.
    """
    said = text if isinstance(text, str) else about(text, flag.removeprefix("--").replace("-", "_"))
    complete = complete or COMPLETERS.get(flag)
    return typer.Option(flag, help=said, rich_help_panel=panel, show_default=False, autocompletion=complete)


def argument(text: str, complete: Callable[..., Any] | None = None) -> Any:
    """An argument, its line in `--help`, and what a shell is offered for it."""
    return typer.Argument(help=text, show_default=False, autocompletion=complete)


Checkpoint = Annotated[
    Path | None,
    argument(
        "A checkpoint, zoo:NAME, FILE.py:FUNCTION, tv:, timm: or hf:NAME, a .pt2, TorchScript or .onnx file, "
        "perhaps with @WEIGHTS; the newest complete checkpoint in checkpoints/ if left out.",
        complete_models,
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    argument(
        "Checkpoints, zoo:NAME (`robustcli list zoo`), FILE.py:FUNCTION, tv:, timm: or hf:NAME, .pt2, TorchScript "
        "or .onnx files, each perhaps with @WEIGHTS; from checkpoints/ if left out.",
        complete_models,
    ),
]
Weights = Annotated[Path | None, option("--weights", MODEL, EvalSpec)]
Normalize = Annotated[str | None, option("--normalize", MODEL, EvalSpec)]
Resize = Annotated[str | None, option("--resize", MODEL, EvalSpec)]
Crop = Annotated[str | None, option("--crop", MODEL, EvalSpec)]
Dataset = Annotated[str | None, option("--dataset", DATA, EvalSpec)]
DataDir = Annotated[Path | None, option("--data-dir", DATA, EvalSpec)]
NoSample = Annotated[bool, option("--no-sample", DATA, "Do not fall back on the bundled 5 000 digits.")]
BatchSize = Annotated[str | None, option("--batch-size", COMPUTE, EvalSpec)]
Shard = Annotated[str | None, option("--shard", DATA, EvalSpec)]
Attacks = Annotated[
    list[str] | None,
    option(
        "--attack",
        ATTACK,
        "A SPEC: a name with options, such as pgd:eps=8/255,steps=50. May be repeated. "
        "FGSM, PGD-20 and DeepFool-5 if left out.",
    ),
]
Preset = Annotated[str | None, option("--preset", ATTACK, EvalSpec)]
Eps = Annotated[str | None, option("--eps", ATTACK, EvalSpec)]
Norm = Annotated[str | None, option("--norm", ATTACK, EvalSpec)]
EightBit = Annotated[bool, option("--eight-bit", ATTACK, EvalSpec)]
Seed = Annotated[int | None, option("--seed", COMPUTE, EvalSpec)]
Device = Annotated[str | None, option("--device", COMPUTE, EvalSpec)]
Format = Annotated[str, option("--format", OUTPUT, "table (default), json, csv, markdown or latex, on stdout.")]


def _common_flags(
    eps: Eps = None,
    norm: Norm = None,
    steps: Annotated[int | None, option("--steps", ATTACK, EvalSpec)] = None,
    iters: Annotated[int | None, option("--iters", ATTACK, EvalSpec)] = None,
    eot: Annotated[int | None, option("--eot", ATTACK, EvalSpec)] = None,
    weights: Weights = None,
    normalize: Normalize = None,
    resize: Resize = None,
    crop: Crop = None,
    dataset: Dataset = None,
    data_dir: DataDir = None,
    split: Annotated[str | None, option("--split", DATA, EvalSpec)] = None,
    limit: Annotated[str | None, option("--limit", DATA, EvalSpec)] = None,
    no_sample: NoSample = False,
    batch_size: BatchSize = None,
    workers: Annotated[int | None, option("--workers", COMPUTE, EvalSpec)] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Annotated[str | None, option("--dtype", COMPUTE, EvalSpec)] = None,
    json_file: Annotated[
        Path | None,
        option(
            "--json", OUTPUT, "Also write the results, per sample, to this file. For JSON on stdout: --format json."
        ),
    ] = None,
    style: Format = "table",
    store: Annotated[
        Path | None,
        option(
            "--store",
            OUTPUT,
            "Keep results in this file and compute only what is not there (default results/robustcli.db).",
        ),
    ] = None,
    no_store: Annotated[bool, option("--no-store", OUTPUT, "Compute everything anew and keep nothing.")] = False,
    keep_adversarials: Annotated[
        bool,
        option(
            "--keep-adversarials",
            OUTPUT,
            "Keep the image of every broken sample in the store, not of a row's first 16.",
        ),
    ] = False,
    checks: Annotated[
        str,
        option(
            "--checks",
            OUTPUT,
            "What stands behind the verdict under the table: quick (a look at the model and at the rows; default), "
            "full (more attacks on the survivors; minutes) or off.",
        ),
    ] = "quick",
    force: Annotated[bool, option("--force", OUTPUT, "Run although the checks say INVALID.")] = False,
    config: Annotated[
        Path | None,
        option("--config", OUTPUT, "A YAML file of keys (`robustcli init --for evaluate`); flags override it."),
    ] = None,
    dry_run: Annotated[
        bool,
        option("--dry-run", OUTPUT, "Print what would run, with passes, time and memory; measure and keep nothing."),
    ] = False,
) -> None:
    """What fills in a SPEC, on which images, how, and where the result goes."""


def with_common_flags(command: Command) -> Command:
    """Give attack, evaluate or compare the flags that they share, in the place of its `**flags`.

    The parser reads a function's signature; the values come as keywords.
    """
    hints: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for function in (command, _common_flags):
        hints |= get_type_hints(function, include_extras=True)
        parameters += [
            one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for one in inspect.signature(function).parameters.values()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
