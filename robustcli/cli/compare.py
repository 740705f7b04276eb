"""`robustcli compare`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.answers import Asked, ask
from robustcli.cli.checks import Checks, Force, look_first, read_level
from robustcli.cli.choice import CHECKPOINTS, chosen
from robustcli.cli.delivery import Delivery, deliver
from robustcli.cli.measure import data_of, read_flags
from robustcli.cli.outputs import check_outputs
from robustcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from robustcli.measure.evaluate import Session
    from robustcli.measure.transfer import Matrix

Transfer = Annotated[
    bool,
    typer.Option(
        "--transfer",
        help="Also ask each checkpoint about the adversarial images of each other one: a table for every budget.",
        rich_help_panel=options.ATTACK,
    ),
]


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
    transfer: Transfer = False,
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
    store: options.Store = None,
    no_store: options.NoStore = False,
    keep_adversarials: options.KeepAdversarials = False,
    checks: Checks = "quick",
    force: Force = False,
) -> None:
    """Measure several checkpoints on the same samples, and say which of them can be told apart.

    A checkpoint is a row, an attack and budget a column. Below, pair by pair: the difference with its interval, and
    McNemar's exact test. Without checkpoints: all in checkpoints/ that share the newest one's data set.
    """
    check_outputs(context.params)
    asked = ask("compare", context.params)
    asked.reply(style, json_file)
    spec = read_flags(context.params)
    read_level(checks)

    from robustcli.measure.evaluate import open_session
    from robustcli.measure.pairs import pairs
    from robustcli.measure.seeds import contests, families
    from robustcli.report.pairs import pairs_sheet, seeds_sheet
    from robustcli.report.tables import compare_sheet
    from robustcli.report.transfer import transfer_sheets

    paths = chosen(checkpoint) if checkpoint else _siblings(chosen(None, asked.tell)[0], asked)
    session = open_session(paths, spec)
    check_outputs(context.params, data_of(session))
    names = list(dict.fromkeys(item.images.name for item in session.items))
    if len({item.images.fingerprint for item in session.items}) > 1:
        raise DataError(
            f"compare: checkpoints must be measured on the same images; these ask for {' and '.join(names)}"
        )
    matrix = _matrix(session) if transfer else None
    checking = look_first(session, asked, checks, force)
    measured = checking.measure(keep_all=keep_adversarials, matrix=matrix)
    whole = [row for row in measured.rows if row.ensemble is None]  # of an ensemble, the worst case alone
    groups = [list(rows) for _, rows in groupby(whole, key=lambda row: row.subject)]
    found = pairs(groups)
    sheets = [compare_sheet(groups)] if groups else []
    sheets += [pairs_sheet(found, groups)] if found else []
    sheets += transfer_sheets(matrix.cells, groups) if matrix else []
    specs = {item.candidate.subject: item.candidate.saved.spec for item in session.items}
    recipes = families(groups, [specs[rows[0].subject] for rows in groups])
    rivals = contests(recipes)
    sheets += [seeds_sheet(recipes, rivals, found)] if recipes else []
    verdicts = checking.verdicts(measured, found, matrix.cells if matrix else ())
    delivery = Delivery(sheets, [*found, *rivals], (), matrix, verdicts, checks)
    raise typer.Exit(deliver(measured, session, delivery, style, json_file, asked))


def _matrix(session: Session) -> Matrix:
    """Where the images of budget attacks are asked of the other checkpoints.

    Raises:
        ConfigError: there is no other, or no budget.
    """
    from robustcli.measure.transfer import Matrix

    if len(session.items) < 2:
        raise ConfigError("--transfer: takes two checkpoints or more")
    if not any(planned.budgets for planned in session.items[0].plan):
        raise ConfigError("--transfer: takes images of attacks with a budget; none is run here")
    return Matrix(session)


def _siblings(newest: Path, asked: Asked) -> list[Path]:
    """All complete checkpoints in checkpoints/ that share the newest one's data set."""
    from robustcli.models import checkpoint

    paths = checkpoint.same_data(CHECKPOINTS, checkpoint.peek(newest).data["name"])
    asked.tell(f"and all that share its data set, {len(paths)} in all")
    return paths
