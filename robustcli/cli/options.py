"""The flags that commands share, each written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = "Model"
DATA = "Data"
ATTACK = "Attack"
OUTPUT = "Output"
COMPUTE = "Compute"


def option(flag: str, panel: str, text: str) -> Any:
    """A flag, the panel of `--help` that it stands in, and its line there, which says what holds if it is left out."""
    return typer.Option(flag, help=text, rich_help_panel=panel, show_default=False)


Checkpoint = Annotated[
    Path | None,
    typer.Argument(
        help="A checkpoint, zoo:NAME, FILE.py:FUNCTION, tv:, timm: or hf:NAME, a .pt2, TorchScript or .onnx file, "
        "perhaps with @WEIGHTS; the newest complete checkpoint in checkpoints/ if left out.",
        show_default=False,
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Checkpoints, zoo:NAME (`robustcli list zoo`), FILE.py:FUNCTION, tv:, timm: or hf:NAME, .pt2, TorchScript "
        "or .onnx files, each perhaps with @WEIGHTS; from checkpoints/ if left out.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    option("--weights", MODEL, "A state_dict for the one model that is named: .pt, .pth, .bin or .safetensors."),
]
Normalize = Annotated[
    str | None,
    option(
        "--normalize",
        MODEL,
        "Of pixels in [0, 1], before a network from elsewhere: auto (default: its own, or what fits best), none, "
        "imagenet, cifar10, half, bytes, mnist or mean=..,std=..",
    ),
]
Resize = Annotated[
    str | None, option("--resize", MODEL, "Of the images' shorter side, before a network from elsewhere: N or none.")
]
Crop = Annotated[str | None, option("--crop", MODEL, "The centre of the resized images, N x N, or none.")]
Dataset = Annotated[
    str | None,
    option("--dataset", DATA, "Its name (see `robustcli list datasets`), an .npz file or a folder of class folders."),
]
DataDir = Annotated[
    Path | None, option("--data-dir", DATA, "Where data sets lie; else $ROBUSTCLI_DATA, else the user's cache folder.")
]
NoSample = Annotated[bool, option("--no-sample", DATA, "Do not fall back on the bundled 5 000 digits.")]
Split = Annotated[str | None, option("--split", DATA, "train or test (default).")]
Limit = Annotated[
    str | None,
    option(
        "--limit",
        DATA,
        "Take the first N samples, in stored order; of folders and lists from each class in turn (first:N: not so).",
    ),
]
Shard = Annotated[
    str | None,
    option(
        "--shard",
        DATA,
        "i/n: measure every n-th sample from the i-th on, into a store of its own; `robustcli results merge` joins "
        "them. slurm: as its array or its tasks say.",
    ),
]
Attacks = Annotated[
    list[str] | None,
    option(
        "--attack",
        ATTACK,
        "A SPEC: a name with options, such as pgd:eps=8/255,steps=50. May be repeated. "
        "FGSM, PGD-20 and DeepFool-5 if left out.",
    ),
]
Preset = Annotated[
    str | None,
    option(
        "--preset",
        ATTACK,
        "quick (FGSM, PGD-20, DeepFool-5), paper (the BatchOut paper's budgets of FGSM, DeepFool without a box), "
        "standard (AutoAttack) or fast (the same, its last two attacks on a sample of what the others leave).",
    ),
]
Eps = Annotated[
    str | None,
    option(
        "--eps",
        ATTACK,
        "Budgets in pixel units, such as 0.1,0.2,8/255. For 28x28 grey images 0.1,0.3, else 2/255,8/255.",
    ),
]
Norm = Annotated[str | None, option("--norm", ATTACK, "linf, l2 or l1.")]
Steps = Annotated[int | None, option("--steps", ATTACK, "Steps of a gradient attack.")]
Iters = Annotated[int | None, option("--iters", ATTACK, "Iterations of a minimal-norm attack.")]
Eot = Annotated[
    int | None,
    option("--eot", ATTACK, "For a randomised model: passes that gradients and predictions are averaged over."),
]
EightBit = Annotated[
    bool,
    option(
        "--eight-bit",
        ATTACK,
        "Also tell the accuracy once images are rounded to 8 bits inside the ball; one more pass a broken sample.",
    ),
]
BatchSize = Annotated[
    str | None,
    option(
        "--batch-size",
        COMPUTE,
        "Samples a chunk, of which the CPU may do two at once (default 128, fewer of large images), or auto: what the "
        "memory holds. It changes speed and memory only; once memory has run out it is halved.",
    ),
]
Workers = Annotated[
    int | None,
    option(
        "--workers",
        COMPUTE,
        "Processes that decode image files while the network computes, where memory does not hold all of them (default "
        "one a core, at most 8); 0 for none.",
    ),
]
Seed = Annotated[int | None, option("--seed", COMPUTE, "Of every random draw (default 0).")]
Device = Annotated[str | None, option("--device", COMPUTE, "auto (default), cpu, cuda or cuda:N.")]
Dtype = Annotated[
    str | None,
    option(
        "--dtype",
        COMPUTE,
        "Of activations while images are made: float32 (default) or bfloat16, slow where the processor "
        "or GPU lacks it. They are judged in float32.",
    ),
]
JsonFile = Annotated[
    Path | None,
    option("--json", OUTPUT, "Also write the results, per sample, to this file. For JSON on stdout: --format json."),
]
Format = Annotated[
    str, typer.Option("--format", help="table, json, csv, markdown or latex, on stdout.", rich_help_panel=OUTPUT)
]
Store = Annotated[
    Path | None,
    option(
        "--store",
        OUTPUT,
        "Keep results in this file and compute only what is not there (default results/robustcli.db).",
    ),
]
NoStore = Annotated[bool, option("--no-store", OUTPUT, "Compute everything anew and keep nothing.")]
KeepAdversarials = Annotated[
    bool,
    option(
        "--keep-adversarials", OUTPUT, "Keep the image of every broken sample in the store, not of a row's first 16."
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
Force = Annotated[bool, option("--force", OUTPUT, "Run although the checks say INVALID.")]


def _common_flags(
    eps: Eps = None,
    norm: Norm = None,
    steps: Steps = None,
    iters: Iters = None,
    eot: Eot = None,
    weights: Weights = None,
    normalize: Normalize = None,
    resize: Resize = None,
    crop: Crop = None,
    dataset: Dataset = None,
    data_dir: DataDir = None,
    split: Split = None,
    limit: Limit = None,
    no_sample: NoSample = False,
    batch_size: BatchSize = None,
    workers: Workers = None,
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
