"""The flags that commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

METHOD = "Method"
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
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
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
        help="Samples computed at once (default 128); it changes speed only.",
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
        help="float32 (default) or bfloat16: of activations while images are made; they are judged in float32.",
        rich_help_panel=COMPUTE,
        show_default=False,
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", help="Also write the results, per sample, to this file.", rich_help_panel=OUTPUT, show_default=False
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

# --- Of `evaluate` alone

FailUnder = Annotated[
    str | None,
    typer.Option(
        "--fail-under",
        help="Exit with 4 unless the 95 % interval of each row lies at or above this accuracy in per cent.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
JUnit = Annotated[
    Path | None,
    typer.Option(
        "--junit", help="Also write the rows as JUnit XML to this file.", rich_help_panel=OUTPUT, show_default=False
    ),
]

# --- Of `train` alone

MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="vanilla (default), fgsm, pgd, batchout or gaussian.",
        rich_help_panel=METHOD,
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="mnist-cnn or cifar-cnn; by the images if left out.", rich_help_panel=METHOD, show_default=False
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="A YAML file of keys; flags override it.", rich_help_panel=METHOD, show_default=False
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="KEY=VALUE for any key: optimizer, schedule, augment, weight_decay, momentum, validation, dtype, or an "
        "option of the method, such as method.steps=7. May be repeated.",
        rich_help_panel=METHOD,
        show_default=False,
    ),
]
TrainBatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Samples a step (default 128).", rich_help_panel=METHOD, show_default=False),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", help="Passes over the training images (default 12).", rich_help_panel=METHOD, show_default=False
    ),
]
LearningRate = Annotated[
    str | None, typer.Option("--lr", help="Learning rate (default 0.001).", rich_help_panel=METHOD, show_default=False)
]
Eta = Annotated[
    str | None,
    typer.Option(
        "--eta",
        help="Magnitude of batchout or gaussian: one, or one a slot; 0.1 or U[0,0.1].",
        rich_help_panel=METHOD,
        show_default=False,
    ),
]
Fraction = Annotated[
    str | None,
    typer.Option(
        "--fraction",
        help="Share of each batch that is augmented or attacked.",
        rich_help_panel=METHOD,
        show_default=False,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers", help="Slots to fill, such as c1,c2,f1; all if left out.", rich_help_panel=METHOD, show_default=False
    ),
]
TrainEps = Annotated[
    str | None,
    typer.Option("--eps", help="Budget of fgsm or pgd training.", rich_help_panel=METHOD, show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="The checkpoint's file; named after the run in checkpoints/ if left out.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Let --output replace a file.", rich_help_panel=OUTPUT)]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Go on with the run of an incomplete checkpoint.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
