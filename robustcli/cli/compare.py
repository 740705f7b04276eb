"""`robustcli compare`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import typer

from robustcli.cli import options
from robustcli.cli.checks import Checks, Force, exit_code, look_first, read_level
from robustcli.cli.console import notice
from robustcli.cli.measure import CHECKPOINTS, chosen, deliver, read_flags
from robustcli.errors import DataError


def compare(
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
    checks: Checks = "quick",
    force: Force = False,
) -> None:
    """Measure several checkpoints on the same samples, and say which of them can be told apart.

    A checkpoint is a row, an attack and budget a column. Below, pair by pair: the difference with its interval, and
    McNemar's exact test. Without checkpoints: all in checkpoints/ that share the newest one's data set.
    """
    spec = read_flags(context.params)
    read_level(checks)

    from robustcli.evaluation.evaluate import open_session
    from robustcli.evaluation.pairs import pairs
    from robustcli.evaluation.seeds import contests, families
    from robustcli.reporting.pairs import pairs_sheet, seeds_sheet
    from robustcli.reporting.tables import compare_sheet

    session = open_session(chosen(checkpoint) if checkpoint else _siblings(*chosen(None)), spec)
    names = list(dict.fromkeys(item.images.name for item in session.items))
    if len({item.images.fingerprint for item in session.items}) > 1:
        raise DataError(
            f"compare: checkpoints must be measured on the same images; these ask for {' and '.join(names)}"
        )
    checking = look_first(session, checks, force)
    measured = checking.measure()
    whole = [row for row in measured.rows if row.ensemble is None]  # of an ensemble, the worst case alone
    groups = [list(rows) for _, rows in groupby(whole, key=lambda row: row.subject)]
    found = pairs(groups)
    sheets = [compare_sheet(groups)] if groups else []
    sheets += [pairs_sheet(found, groups)] if found else []
    specs = {item.candidate.subject: item.candidate.saved.spec for item in session.items}
    recipes = families(groups, [specs[rows[0].subject] for rows in groups])
    rivals = contests(recipes)
    sheets += [seeds_sheet(recipes, rivals)] if recipes else []
    verdicts = checking.verdicts(measured, found)
    code = deliver(measured, session, sheets, style, json_file, [*found, *rivals], (), verdicts, checks)
    raise typer.Exit(code or exit_code(verdicts))


def _siblings(newest: Path) -> list[Path]:
    """All complete checkpoints in checkpoints/ that share the newest one's data set."""
    from robustcli import checkpoint

    paths = checkpoint.same_data(CHECKPOINTS, checkpoint.peek(newest).data["name"])
    notice(f"and all that share its data set, {len(paths)} in all")
    return paths
