"""`robustcli attack`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.console import notice
from robustcli.cli.measure import chosen, deliver, measure, read_flags
from robustcli.errors import ConfigError

if TYPE_CHECKING:
    from robustcli.evaluation.evaluate import Result, Session

Spec = Annotated[
    str,
    typer.Option(
        "--attack",
        help="A SPEC: a name with options, such as pgd:eps=8/255,steps=50.",
        rich_help_panel=options.ATTACK,
        show_default=False,
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        help="Write x, x_adv, y, pred, pred_after and ids to this .npz.",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]
Gallery = Annotated[
    Path | None,
    typer.Option(
        "--gallery",
        help="Draw originals, adversarials and perturbations into this .png.",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]


def attack(
    context: typer.Context,
    attack: Spec,
    checkpoint: options.Checkpoint = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    steps: options.Steps = None,
    iters: options.Iters = None,
    eot: options.Eot = None,
    save: Save = None,
    gallery: Gallery = None,
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
    """Run one attack on one checkpoint, and keep its images.

    Example: `robustcli attack --attack fgsm --eps 0.3 --gallery fgsm.png`
    """
    spec = read_flags(context.params)

    from robustcli.evaluation.evaluate import open_session
    from robustcli.reporting.tables import evaluation_sheet

    session = open_session(chosen([checkpoint] if checkpoint else None), spec)
    keep = save is not None or gallery is not None
    budgets = sum(planned.runs for planned in session.items[0].plan)
    if keep and budgets > 1:
        flag = "--save" if save else "--gallery"
        raise ConfigError(f"{flag}: takes the images of one budget, not of {budgets}; give one, such as --eps 0.3")
    results: list[Result] = []
    measured = measure(session, keep_images=keep, on_result=results.append)
    sheets = [evaluation_sheet(measured.rows)] if measured.rows else []
    with ExitStack() as after:  # it runs them all, also where another file could not be written
        if results and gallery is not None:
            after.callback(_draw, session, results[-1], gallery)
        if results and save is not None:
            after.callback(_save, session, results[-1], save)
        code = deliver(measured, session, sheets, style, json_file)
    raise typer.Exit(code)


def _save(session: Session, result: Result, path: Path) -> None:
    from robustcli.reporting.images import save_images

    save_images(session.items[0].images, result.outcome, path)
    notice(f"images: {path}")


def _draw(session: Session, result: Result, path: Path) -> None:
    from robustcli.attacks import label
    from robustcli.reporting.gallery import save_gallery
    from robustcli.reporting.images import choose_pictures

    item = session.items[0]
    row = result.row
    budget = row.attack.norm.label if row.eps is None else f"{row.attack.norm.label} {row.eps}"
    title = (
        f"{label(row.attack)}, {budget}, on {row.subject.method} {row.subject.model}: "
        f"{row.correct} of {row.n} right after the attack"
    )
    save_gallery(choose_pictures(item.candidate.model, item.images, result.outcome), title, path)
    notice(f"gallery: {path}")
