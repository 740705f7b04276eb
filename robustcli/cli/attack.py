"""`robustcli attack`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.answers import ask
from robustcli.cli.checks import Checks, Force, look_first, read_level
from robustcli.cli.choice import chosen
from robustcli.cli.console import notice
from robustcli.cli.delivery import Delivery, deliver
from robustcli.cli.measure import data_of, read_flags
from robustcli.cli.outputs import check_outputs
from robustcli.errors import ConfigError

if TYPE_CHECKING:
    from robustcli.measure.evaluate import Result, Session

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
        help="Write x, x_adv, y, pred, pred_after and ids to this .npz; or into this folder a PNG for each broken "
        "sample, 8-bit and still fooling.",
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
    eight_bit: options.EightBit = False,
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
    store: options.Store = None,
    no_store: options.NoStore = False,
    keep_adversarials: options.KeepAdversarials = False,
    checks: Checks = "quick",
    force: Force = False,
) -> None:
    """Run one attack on one checkpoint, and keep its images.

    Example: `robustcli attack --attack fgsm --eps 0.3 --gallery fgsm.png`
    """
    check_outputs(context.params)
    asked = ask("attack", context.params)
    asked.reply(style, json_file)
    spec = read_flags(context.params)
    read_level(checks)

    from robustcli.measure.evaluate import open_session
    from robustcli.report.tables import evaluation_sheet

    session = open_session(chosen([checkpoint] if checkpoint else None, asked.tell), spec)
    check_outputs(context.params, data_of(session))
    keep = save is not None or gallery is not None
    budgets = sum(planned.runs for planned in session.items[0].plan)
    if keep and budgets > 1:
        flag = "--save" if save else "--gallery"
        raise ConfigError(f"{flag}: takes the images of one budget, not of {budgets}; give one, such as --eps 0.3")
    results: list[Result] = []
    checking = look_first(session, asked, checks, force)
    measured = checking.measure(keep_images=keep, keep_all=keep_adversarials, on_result=results.append)
    verdicts = checking.verdicts(measured)
    sheets = [evaluation_sheet(measured.rows)] if measured.rows else []
    with ExitStack() as after:  # it runs them all, also where another file could not be written
        if results and gallery is not None:
            after.callback(_draw, session, results[-1], gallery)
        if results and save is not None:
            after.callback(_save, session, results[-1], save)
        found = Delivery(sheets, verdicts=verdicts, checks=checks)
        code = deliver(measured, session, found, style, json_file, asked)
    raise typer.Exit(code)


def _save(session: Session, result: Result, path: Path) -> None:
    item, outcome = session.items[0], result.outcome
    if path.suffix == ".npz":
        from robustcli.report.images import save_images

        save_images(item.images, outcome, path)
        notice(f"images: {path}")
        return

    from robustcli.measure.eightbit import round_to_8bit
    from robustcli.report.png import save_pngs
    from robustcli.report.tables import percent

    rounded = round_to_8bit(item.candidate.model, item.images, outcome, session.spec.batch_size)
    written = save_pngs(item.candidate.model, item.images, rounded, path)
    n, before = result.row.n, result.row.correct
    after = before + len(rounded.index) - len(written)
    notice(
        f"images: {path}{os.sep}: {len(written)} of {len(rounded.index)} broken samples still fool as 8-bit PNG, read "
        f"back; accuracy after rounding {percent(after, n)} %, before {percent(before, n)} %"
    )


def _draw(session: Session, result: Result, path: Path) -> None:
    from robustcli.attacks import label
    from robustcli.report.gallery import save_gallery
    from robustcli.report.images import choose_pictures

    item = session.items[0]
    row = result.row
    budget = row.attack.norm.label if row.eps is None else f"{row.attack.norm.label} {row.eps}"
    split = "" if row.split == "test" else f", {row.split} split"
    title = (
        f"{label(row.attack)}, {budget}, on {row.subject.method} {row.subject.model}{split}: "
        f"{row.correct} of {row.n} right after the attack"
    )
    save_gallery(choose_pictures(item.candidate.model, item.images, result.outcome), title, path)
    notice(f"gallery: {path}")
