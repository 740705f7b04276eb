"""`robustcli attack`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.console import notice
from robustcli.cli.measurement import Measurement
from robustcli.cli.options import ATTACK, OUTPUT, option
from robustcli.cli.outputs import ARRAY_FILES
from robustcli.cli.request import begin
from robustcli.errors import ConfigError

if TYPE_CHECKING:
    from robustcli.measure.evaluate import Result
    from robustcli.measure.session import Session

Spec = Annotated[
    str | None,
    option("--attack", ATTACK, "A SPEC: a name with options, such as pgd:eps=8/255,steps=50; else that of --config."),
]
Save = Annotated[
    Path | None,
    option(
        "--save",
        OUTPUT,
        "Write x, x_adv, y, pred, pred_after and ids to this .npz, or as tensors to this .pt; or into this folder a "
        "PNG for each broken sample, 8-bit and still fooling. `robustcli replay FILE` judges an .npz or .pt again.",
    ),
]
Gallery = Annotated[
    Path | None, option("--gallery", OUTPUT, "Draw originals, adversarials and perturbations into this .png.")
]


@options.with_common_flags
def attack(
    context: typer.Context,
    attack: Spec = None,
    checkpoint: options.Checkpoint = None,
    eight_bit: options.EightBit = False,
    save: Save = None,
    gallery: Gallery = None,
    **flags: Any,
) -> None:
    """Run one attack on one checkpoint, and keep its images.

    Example: `robustcli attack --attack fgsm --eps 0.3 --gallery fgsm.png`
    """
    request = begin("attack", context.params)
    if (count := len(request.spec.attacks)) != 1:
        raise ConfigError(f"attack: runs one attack, and {count} are named; give --attack SPEC")
    measurement = Measurement(request, request.checkpoints())
    keep = save is not None or gallery is not None
    budgets = sum(planned.runs for planned in measurement.session.items[0].plan)
    if keep and budgets > 1:
        flag = "--save" if save else "--gallery"
        raise ConfigError(f"{flag}: takes the images of one budget, not of {budgets}; give one, such as --eps 0.3")
    results: list[Result] = []
    measured = measurement.run(keep_images=keep, on_result=results.append)
    verdict = measurement.verdict(measured)
    with ExitStack() as after:  # it runs them all, also where another file could not be written
        if results and gallery is not None:
            after.callback(_draw, measurement.session, results[-1], gallery)
        if results and save is not None:
            after.callback(_save, measurement.session, results[-1], save)
        code = measurement.deliver(measured, verdict=verdict)
    raise typer.Exit(code)


def _save(session: Session, result: Result, path: Path) -> None:
    item, outcome = session.items[0], result.outcome
    if path.suffix in ARRAY_FILES:
        from robustcli.report.image_files import save_images

        save_images(result.images, outcome, path)
        notice(f"images: {path}")
        return

    from robustcli.measure.eightbit import round_to_8bit
    from robustcli.report.image_files import save_pngs
    from robustcli.report.table import percent

    rounded = round_to_8bit(item.target.module, result.images, outcome, session.batch_size)
    written = save_pngs(item.target.module, result.images, rounded, path)
    n, before = result.record.n, result.record.correct
    after = before + len(rounded.index) - len(written)
    notice(
        f"images: {path}{os.sep}: {len(written)} of {len(rounded.index)} broken samples still fool as 8-bit PNG, read "
        f"back; accuracy after rounding {percent(after, n)} %, before {percent(before, n)} %"
    )


def _draw(session: Session, result: Result, path: Path) -> None:
    from robustcli.report.pictures import choose_pictures, save_gallery

    item = session.items[0]
    record = result.record
    split = "" if record.split == "test" else f", {record.split} split"
    network = " ".join(filter(None, (record.subject.method, record.subject.model))) or item.target.name
    title = f"{record.label}, {record.ball}, on {network}{split}: {record.correct} of {record.n} right after the attack"
    save_gallery(choose_pictures(item.target.module, result.images, result.outcome), title, path)
    notice(f"gallery: {path}")
