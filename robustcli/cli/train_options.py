"""The flags of `train` alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from robustcli.cli.options import DATA, OUTPUT, option
from robustcli.config import TrainSpec
from robustcli.errors import ConfigError
from robustcli.models import zoo

METHOD = "Method"


def output_file(text: str) -> Path:
    """What `--output` names.

    Raises:
        ConfigError: no file can have that name, or none that a later command could open.
    """
    path = Path(text)
    if str(path).startswith(zoo.PREFIX):
        raise ConfigError(f"--output {text}: '{zoo.PREFIX}' is what networks of the package begin with; name a file")
    if not path.name or text.endswith(("/", os.sep)):
        raise ConfigError(f"--output {text}: is a folder; should be a file, such as model.pt")
    return path


MethodName = Annotated[str | None, option("--method", METHOD, "vanilla (default), fgsm, pgd, batchout or gaussian.")]
Model = Annotated[str | None, option("--model", METHOD, TrainSpec)]
Config = Annotated[
    Path | None, option("--config", METHOD, "A YAML file of keys (`robustcli init` writes one); flags override it.")
]
Settings = Annotated[
    list[str] | None,
    option(
        "--set",
        METHOD,
        "KEY=VALUE for any key: optimizer, schedule, augment, weight_decay, momentum, validation, dtype, or an "
        "option of the method, such as method.steps=7. May be repeated.",
    ),
]
BatchSize = Annotated[int | None, option("--batch-size", METHOD, TrainSpec)]
Epochs = Annotated[int | None, option("--epochs", METHOD, TrainSpec)]
Limit = Annotated[int | None, option("--limit", DATA, TrainSpec)]
LearningRate = Annotated[str | None, option("--lr", METHOD, TrainSpec)]
Eta = Annotated[
    str | None, option("--eta", METHOD, "Magnitude of batchout or gaussian: one, or one a slot; 0.1 or U[0,0.1].")
]
Fraction = Annotated[str | None, option("--fraction", METHOD, "Share of each batch that is augmented or attacked.")]
Layers = Annotated[str | None, option("--layers", METHOD, "Slots to fill, such as c1,c2,f1; all if left out.")]
Eps = Annotated[str | None, option("--eps", METHOD, "Budget of fgsm or pgd training.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        parser=output_file,
        metavar="PATH",
        help="The checkpoint's file; named after the run in checkpoints/ if left out.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Force = Annotated[bool, option("--force", OUTPUT, "Let --output replace a file.")]
TensorBoard = Annotated[
    Path | None,
    option(
        "--tensorboard",
        OUTPUT,
        "Also write losses, accuracies, learning rate and seconds of each epoch into this folder, in a folder named "
        "after the checkpoint (pip install 'robustcli[tensorboard]').",
    ),
]
Resume = Annotated[Path | None, option("--resume", OUTPUT, "Go on with the run of an incomplete checkpoint.")]
