"""`robustcli compare`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.checks import look_first, read_level
from robustcli.cli.request import CHECKPOINTS, Request
from robustcli.errors import ConfigError, DataError

if TYPE_CHECKING:
    from robustcli.measure.session import Session
    from robustcli.measure.transfer import Matrix

Transfer = Annotated[
    bool,
    typer.Option(
        "--transfer",
        help="Also ask each checkpoint about the adversarial images of each other one: a table for every budget.",
        rich_help_panel=options.ATTACK,
    ),
]


@options.with_shared
def compare(
    context: typer.Context,
    checkpoint: options.Checkpoints = None,
    attack: options.Attacks = None,
    preset: options.Preset = None,
    transfer: Transfer = False,
    **flags: Any,
) -> None:
    """Measure several checkpoints on the same samples, and say which of them can be told apart.

    A checkpoint is a row, an attack and budget a column. Below, pair by pair: the difference with its interval, and
    McNemar's exact test. Without checkpoints: all in checkpoints/ that share the newest one's data set.
    """
    request = Request("compare", context.params)
    request.answer_from_store()
    _ = request.spec
    read_level(flags["checks"])

    from robustcli.measure.compare import contests, families, pairs

    given = request.checkpoints()
    session = request.open(given if checkpoint else _siblings(given[0], request))
    names = list(dict.fromkeys(item.images.name for item in session.items))
    if len({item.images.fingerprint for item in session.items}) > 1:
        raise DataError(
            f"compare: checkpoints must be measured on the same images; these ask for {' and '.join(names)}"
        )
    matrix = _matrix(session) if transfer else None
    checking = look_first(session, request)
    measured = checking.measure(matrix=matrix)
    whole = [record for record in measured.records if record.ensemble is None]  # of an ensemble, the worst case alone
    groups = [list(records) for _, records in groupby(whole, key=lambda record: record.subject)]
    between = pairs(groups)
    origins = {item.subject: item.target.origin for item in session.items}
    trained = [(records, origin.recipe) for records in groups if (origin := origins[records[0].subject]) is not None]
    recipes = families([records for records, _ in trained], [recipe for _, recipe in trained])
    verdict = checking.verdict(measured, between, matrix.cells if matrix else ())
    code = request.deliver(
        session,
        measured,
        pairs=[*(pair.as_dict() for pair in between), *(contest.as_dict() for contest in contests(recipes))],
        families=[recipe.as_dict() for recipe in recipes],
        transfer=matrix.as_dicts(measured.records) if matrix else (),
        verdict=verdict,
    )
    raise typer.Exit(code)


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


def _siblings(newest: Path, request: Request) -> list[Path]:
    """All complete checkpoints in checkpoints/ that share the newest one's data set."""
    from robustcli.models import checkpoint

    paths = checkpoint.same_data(CHECKPOINTS, checkpoint.peek(newest).data["name"])
    request.tell(f"and all that share its data set, {len(paths)} in all")
    return paths
