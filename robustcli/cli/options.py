"""The flags that commands share, each written once, and the groups that a command takes them in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from robustcli.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

DATA = "Data"
ATTACK = "Attack"
OUTPUT = "Output"
COMPUTE = "Compute"

Checkpoint = Annotated[
    Path | None,
    typer.Argument(
        help="A checkpoint file or zoo:NAME; the newest complete one in checkpoints/ if left out.", show_default=False
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Checkpoint files or zoo:NAME (`robustcli list zoo`); from checkpoints/ if left out.", show_default=False
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Its name (see `robustcli list datasets`), an .npz file or a folder of class folders.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]


def _folder(text: str) -> Path:
    if not text.strip():  # `Path("")` would be the folder that one is in
        raise ConfigError(f"--data-dir '{text}': is empty (an unset variable of the shell?); should be a folder")
    return Path(text)


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        parser=_folder,
        metavar="<path>",
        help="Where data sets lie; else $ROBUSTCLI_DATA, else the user's cache folder.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
NoSample = Annotated[
    bool,
    typer.Option("--no-sample", help="Do not fall back on the bundled 5 000 digits.", rich_help_panel=DATA),
]
Split = Annotated[
    str | None,
    typer.Option("--split", help="train or test (default).", rich_help_panel=DATA, show_default=False),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", help="Take the first N samples, in stored order.", rich_help_panel=DATA, show_default=False
    ),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help="A SPEC: a name with options, such as pgd:eps=8/255,steps=50. May be repeated. "
        "FGSM, PGD-20 and DeepFool-5 if left out.",
        rich_help_panel=ATTACK,
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="quick (FGSM, PGD-20, DeepFool-5), paper (the BatchOut paper's budgets of FGSM, DeepFool without a box) "
        "or standard (AutoAttack).",
        rich_help_panel=ATTACK,
        show_default=False,
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(
        "--eps",
        help="Budgets in pixel units, such as 0.1,0.2,8/255. For 28x28 grey images 0.1,0.3, else 2/255,8/255.",
        rich_help_panel=ATTACK,
        show_default=False,
    ),
]
Norm = Annotated[
    str | None,
    typer.Option("--norm", help="linf, l2 or l1.", rich_help_panel=ATTACK, show_default=False),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Steps of a gradient attack.", rich_help_panel=ATTACK, show_default=False),
]
Iters = Annotated[
    int | None,
    typer.Option("--iters", help="Iterations of a minimal-norm attack.", rich_help_panel=ATTACK, show_default=False),
]
Eot = Annotated[
    int | None,
    typer.Option(
        "--eot",
        help="For a randomised model: passes that gradients and predictions are averaged over.",
        rich_help_panel=ATTACK,
        show_default=False,
    ),
]
EightBit = Annotated[
    bool,
    typer.Option(
        "--eight-bit",
        help="Also tell the accuracy once images are rounded to 8 bits inside the ball; one more pass a broken sample.",
        rich_help_panel=ATTACK,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        help="Samples a chunk, of which the CPU may do two at once (default 128); it changes speed and memory only.",
        rich_help_panel=COMPUTE,
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Of every random draw (default 0).", rich_help_panel=COMPUTE, show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto (default), cpu, cuda or cuda:N.", rich_help_panel=COMPUTE, show_default=False),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Of activations while images are made: float32 (default) or bfloat16, slow where the processor "
        "or GPU lacks it. They are judged in float32.",
        rich_help_panel=COMPUTE,
        show_default=False,
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Also write the results, per sample, to this file. For JSON on stdout: --format json.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Format = Annotated[
    str,
    typer.Option("--format", help="table, json, csv, markdown or latex, on stdout.", rich_help_panel=OUTPUT),
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Keep results in this file and compute only what is not there (default results/robustcli.db).",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
NoStore = Annotated[
    bool, typer.Option("--no-store", help="Compute everything anew and keep nothing.", rich_help_panel=OUTPUT)
]
KeepAdversarials = Annotated[
    bool,
    typer.Option(
        "--keep-adversarials",
        help="Keep the image of every broken sample in the store, not of a row's first 16.",
        rich_help_panel=OUTPUT,
    ),
]
Checks = Annotated[
    str,
    typer.Option(
        "--checks",
        help="What stands behind the verdict under the table: quick (a look at the model, and what the rows say), full "
        "(more attacks on the survivors; minutes) or off.",
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Run although the checks say INVALID.", rich_help_panel=OUTPUT),
]


def _attack(
    eps: Eps = None,
    norm: Norm = None,
    steps: Steps = None,
    iters: Iters = None,
    eot: Eot = None,
) -> None:
    """What fills in a SPEC."""


def _run(
    dataset: Dataset = None,
    data_dir: DataDir = None,
    split: Split = None,
    limit: Limit = None,
    no_sample: NoSample = False,
    batch_size: BatchSize = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    json_file: JsonFile = None,
    style: Format = "table",
    store: Store = None,
    no_store: NoStore = False,
    keep_adversarials: KeepAdversarials = False,
    checks: Checks = "quick",
    force: Force = False,
) -> None:
    """On which images, how, and where the result goes."""


def with_shared(command: Command) -> Command:
    """Give attack, evaluate or compare the flags that they share, in the place of its `**flags`.

    The parser reads a function's signature; the values come as keywords.
    """
    hints: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for function in (command, _attack, _run):
        hints |= get_type_hints(function, include_extras=True)
        parameters += [
            one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for one in inspect.signature(function).parameters.values()
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
