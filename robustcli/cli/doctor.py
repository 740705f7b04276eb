"""`robustcli doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.completion import complete_models
from robustcli.cli.console import result
from robustcli.cli.options import ATTACK, DATA, argument, option
from robustcli.cli.request import given_flags, has_budget, read_flags
from robustcli.errors import ConfigError

if TYPE_CHECKING:
    from robustcli.config import EvalSpec
    from robustcli.doctor import Finding

STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}
WRONG = 3

Checked = Annotated[
    Path | None,
    argument(
        "A model, as evaluate takes it: does --attack find on it what is planted there (binarisation test)?",
        complete_models,
    ),
]
Attack = Annotated[
    str | None, option("--attack", ATTACK, "A SPEC with a budget, for the binarisation test (default pgd).")
]
Planted = Annotated[
    int | None, option("--limit", DATA, "Take the first N samples for the binarisation test (default 32).")
]


def doctor(
    context: typer.Context,
    checkpoint: Checked = None,
    attack: Attack = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    weights: options.Weights = None,
    normalize: options.Normalize = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    dataset: options.Dataset = None,
    limit: Planted = None,
    data_dir: options.DataDir = None,
    seed: options.Seed = None,
    device: options.Device = None,
) -> None:
    """Check this installation: versions, attacks on models with a known answer, draws, shipped networks, data.

    With a checkpoint also whether an attack finds there what is planted, which it should before its numbers count.
    Exit code 3 where something is wrong; what is merely missing is a note.
    """
    spec = _read(context.params)

    from robustcli.doctor import examine, examine_checkpoint

    planted: Iterator[Finding] = iter(()) if checkpoint is None else examine_checkpoint(checkpoint, spec)
    wrong = 0
    for finding in chain(examine(data_dir), planted):
        wrong += finding.state == "wrong"
        result(f"{finding.state:<5} {finding.what:<14} {finding.message}", (5, STYLES[finding.state]), 21)
    result("")
    result(f"{wrong} wrong" if wrong else "all is well")
    raise typer.Exit(WRONG if wrong else 0)


def _read(flags: dict[str, Any]) -> EvalSpec:
    """What the binarisation test runs; a mistake is an error before anything else is examined."""
    given = given_flags(flags)
    unused = [flag for flag in given if flag not in ("checkpoint", "data_dir")]
    if flags["checkpoint"] is None and unused:
        raise ConfigError(f"--{unused[0]}: is of the binarisation test, which takes a checkpoint")
    spec = read_flags(flags | {"attack": "pgd", "limit": 32} | given | {"style": "table", "checks": "off"})
    if not has_budget(spec):
        raise ConfigError(f"--attack {flags['attack']}: has no budget; the binarisation test takes one, such as pgd")
    return spec
