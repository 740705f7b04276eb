"""`robustcli evaluate`."""

from __future__ import annotations

from itertools import groupby

import typer

from robustcli.cli import options
from robustcli.cli.measure import chosen, deliver, measure, read_flags


def evaluate(
    context: typer.Context,
    checkpoint: options.Checkpoints = None,
    attack: options.Attacks = None,
    preset: options.Preset = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    steps: options.Steps = None,
    iters: options.Iters = None,
    eot: options.Eot = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    split: options.Split = None,
    limit: options.Limit = None,
    no_sample: options.NoSample = False,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    json_file: options.JsonFile = None,
    style: options.Format = "table",
) -> None:
    """Measure checkpoints under attacks: accuracy with its interval, an attack and budget a row.

    Example: `robustcli evaluate --attack fgsm --attack deepfool --eps 0.1,0.3 --iters 5`
    """
    spec = read_flags(context.params)

    from robustcli.evaluation.evaluate import open_session
    from robustcli.reporting.tables import evaluation_sheet

    session = open_session(chosen(checkpoint), spec)
    measured = measure(session)
    sheets = [evaluation_sheet(list(rows)) for _, rows in groupby(measured.rows, key=lambda row: row.subject)]
    raise typer.Exit(deliver(measured, session, sheets, style, json_file))
