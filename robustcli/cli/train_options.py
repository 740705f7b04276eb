"""The flags of `train` alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from robustcli.cli import options
from robustcli.errors import ConfigError
from robustcli.models import zoo

METHOD = "Method"


def output_file(text: str) -> Path:
    """What `--output` names.

    Raises:
        ConfigError: no file can have that name, or none that is found again.
    """
    path = Path(text)
    if str(path).startswith(zoo.PREFIX):
        raise ConfigError(f"--output {text}: '{zoo.PREFIX}' is what networks of the package begin with; name a file")
    if not path.name or text.endswith(("/", os.sep)):
        raise ConfigError(f"--output {text}: is a folder; should be a file, such as model.pt")
    return path


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
BatchSize = Annotated[
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
Eps = Annotated[
    str | None,
    typer.Option("--eps", help="Budget of fgsm or pgd training.", rich_help_panel=METHOD, show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        parser=output_file,
        metavar="PATH",
        help="The checkpoint's file; named after the run in checkpoints/ if left out.",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Let --output replace a file.", rich_help_panel=options.OUTPUT)]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Go on with the run of an incomplete checkpoint.",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]
