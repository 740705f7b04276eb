"""`robustcli compare`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.measurement import Measurement
from robustcli.cli.options import ATTACK, option
from robustcli.cli.request import CHECKPOINTS, Request, begin
from robustcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from robustcli.measure.session import Session
    from robustcli.measure.transfer import Matrix

Transfer = Annotated[
    bool,
    option(
        "--transfer",
        ATTACK,
        "Also ask each checkpoint about the adversarial images of each other one: a table for every budget.",
    ),
]


@options.with_common_flags
def compare(
    context: typer.Context,
    checkpoint: options.Checkpoints = None,
    attack: options.Attacks = None,
    preset: options.Preset = None,
    shard: options.Shard = None,
    transfer: Transfer = False,
    **flags: Any,
) -> None:
    """Measure several checkpoints on the same samples, and say which of them can be told apart.

    A checkpoint is a row, an attack and budget a column. Below, pair by pair: the difference with its interval, and
    McNemar's exact test. Without checkpoints: all in checkpoints/ that share the newest one's data set.
    """
    request = begin("compare", context.params, context.obj)

    from robustcli.measure.compare import contests, families, pairs

    given = request.checkpoints()
    measurement = Measurement(request, given if checkpoint else _siblings(given[0], request))
    items = measurement.session.items
    if len({item.images.fingerprint for item in items}) > 1:
        names = " and ".join(dict.fromkeys(item.images.name for item in items))
        raise DataError(
            f"compare: checkpoints must be measured on the same images; these ask for {names}; name one: --dataset"
        )
    matrix = _matrix(measurement.session) if transfer else None
    measured = measurement.run(matrix=matrix)
    whole = [record for record in measured.records if record.ensemble is None]  # of an ensemble, the worst case alone
    groups = [list(records) for _, records in groupby(whole, key=lambda record: record.subject)]
    between = pairs(groups)
    origins = {item.subject: item.target.origin for item in items}
    trained = [(records, origin.recipe) for records in groups if (origin := origins[records[0].subject]) is not None]
    recipes = families([records for records, _ in trained], [recipe for _, recipe in trained])
    verdict = measurement.verdict(measured, between, matrix.cells if matrix else ())
    code = measurement.deliver(
        measured,
        pairs=[*(pair.as_dict() for pair in between), *(contest.as_dict() for contest in contests(recipes))],
        families=[recipe.as_dict() for recipe in recipes],
        transfer=matrix.as_dicts(measured.records) if matrix else (),
        verdict=verdict,
    )
    raise typer.Exit(code)


def _matrix(session: Session) -> Matrix:
    """How the images of budget attacks transfer to the other checkpoints.

    Raises:
        ConfigError: there is no other, or no budget.
    """
    from robustcli.measure.transfer import Matrix

    if len(session.items) < 2:
        raise ConfigError("--transfer: takes two checkpoints or more")
    if not any(planned.budgets for planned in session.items[0].plan):
        raise ConfigError(
            "--transfer: takes images of attacks with a budget; none is run here; add one, such as --attack pgd"
        )
    return Matrix(session)


def _siblings(newest: Path, request: Request) -> list[Path]:
    """All complete checkpoints in checkpoints/ that share the newest one's data set."""
    from robustcli.models import checkpoint

    paths = checkpoint.same_data(CHECKPOINTS, checkpoint.peek(newest).data["name"])
    request.tell(f"and all that share its data set, {len(paths)} in all")
    return paths
