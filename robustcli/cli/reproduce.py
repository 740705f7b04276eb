"""`robustcli reproduce`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.console import advance, fail, notice, out, progress, result, warn
from robustcli.cli.outputs import check_output
from robustcli.errors import ConfigError, TrainingError, unknown
from robustcli.studies.batchout import PARTS
from robustcli.text import visible

if TYPE_CHECKING:
    from robustcli.measure.record import Record
    from robustcli.measure.session import Session
    from robustcli.models.checkpoint import Checkpoint
    from robustcli.store.cache import Cache
    from robustcli.studies.batchout.experiments import Part
    from robustcli.studies.batchout.part_results import PartResults
    from robustcli.studies.batchout.study import Study
    from robustcli.training.loop import Run
    from robustcli.training.train import Prepared

ALL = "all"
FOLDER, QUICK_FOLDER = Path("results/reproduction"), Path("results/reproduction-quick")

What = Annotated[str, typer.Argument(help=f"{', '.join(PARTS)}, or all.", show_default=False)]
Quick = Annotated[
    bool, typer.Option("--quick", help="A look in minutes, on the bundled digits: few images, few epochs.")
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        help="Of the headline networks on MNIST and of section 6.1 (default 3; 1 if quick).",
        show_default=False,
    ),
]
NoZoo = Annotated[
    bool, typer.Option("--no-zoo", help="Train here also the networks that ship with the package (zoo:NAME).")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help=f"The folder for checkpoints, JSON, tables and pictures (default {FOLDER}, {QUICK_FOLDER} if quick).",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="The page that says, claim by claim, what holds (default report.md in --out).",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]


def reproduce(
    what: What,
    quick: Quick = False,
    seeds: Seeds = None,
    no_zoo: NoZoo = False,
    data_dir: options.DataDir = None,
    device: options.Device = None,
    folder: Out = None,
    report: Report = None,
) -> None:
    """Make a result of the BatchOut paper again: train what is missing, measure, write JSON, table, picture and page.

    Checkpoints and measurements are kept: the same command goes on where it was stopped.

    Example: `robustcli reproduce all --quick`
    """
    if what not in (ALL, *PARTS):
        raise unknown("reproduce:", what, (*PARTS, ALL))
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds {seeds}: should be at least 1")
    folder = folder or (QUICK_FOLDER if quick else FOLDER)

    from dataclasses import replace

    from robustcli.device import keep_freed_memory
    from robustcli.studies.batchout.experiments import FULL, QUICK, parts
    from robustcli.studies.batchout.report import read_speed
    from robustcli.studies.batchout.reproduction import check_replaceable, reproduce_part
    from robustcli.studies.batchout.study import Study

    keep_freed_memory()
    scale = QUICK if quick else FULL
    scale = scale if seeds is None else replace(scale, seeds=seeds)
    study = Study(folder, scale, data_dir, device or "auto", not no_zoo, _train, _measure, notice)
    every = parts(scale)
    wanted = list(every.values()) if what == ALL else [every[what]]
    if quick:
        notice(f"a quick look at {scale.mnist}: {scale.limit} images, {scale.epochs} epochs, not the paper's numbers")
    made = _skip_without_data(wanted, study)
    _check_outputs(folder, report)
    if (folder / "measured").is_dir():
        notice(f"{folder / 'measured'}: is of an earlier version, and not read; what it held is measured anew")
    read_speed(folder)
    for part in made:
        check_replaceable(part, study)
    failed = False
    try:
        for part in made:
            notice(f"{part.name}: {part.title} ({part.source})", bold=True)
            results = reproduce_part(part, study)
            failed = failed or any("reason" in entry for entry in results.missing)
            _print(results)
            result(f"{folder / part.name}.json .md .png .svg")
            result("")
    except KeyboardInterrupt:
        fail("what was finished is kept; the same command goes on", "interrupted")
        raise typer.Exit(130) from None
    finally:
        _report(folder, report)
    if failed:
        raise TrainingError("some networks failed; they are named above and in the tables, with the reason")


def _report(folder: Path, report: Path | None) -> None:
    from robustcli.studies.batchout.report import write_report

    page = write_report(folder, report)
    if page is not None:
        notice(f"report: {page}")


def _check_outputs(folder: Path, report: Path | None) -> None:
    """Make the folder; refuse what could not be written before anything is trained."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror or error}") from None
    check_output(folder / f"{PARTS[0]}.json", "--out")
    check_output(report, "--report")


def _skip_without_data(wanted: list[Part], study: Study) -> list[Part]:
    """The parts whose data are there; without CIFAR-10, `all` goes on with the others and says so."""
    from robustcli.studies.batchout.reproduction import available_parts

    there, problem = available_parts(wanted, study)
    left_out = [part for part in wanted if part not in there]
    if problem is not None and (not there or any(part.dataset != "cifar10" for part in left_out)):
        raise problem
    if problem is not None:
        warn(f"{', '.join(part.name for part in left_out)}: skipped: {problem}")
    return there


def _print(results: PartResults) -> None:
    from robustcli.report.table import to_rich
    from robustcli.studies.batchout.paper_tables import make_table

    console = out()
    console.print(to_rich(make_table(results), console.width))


def _train(prepared: Prepared, path: Path, run: Run) -> Checkpoint:
    from robustcli.cli.train import watched

    return watched(prepared, path, run)


def _measure(session: Session, cache: Cache) -> Iterator[Record]:
    """A session's records, under a progress bar."""
    from robustcli.attacks import label
    from robustcli.measure.evaluate import evaluate

    bar = progress()
    with bar:
        task = bar.add_task("", total=session.total)
        for result in evaluate(
            session,
            cache=cache,
            on_progress=lambda checkpoint, planned, done, spared: advance(
                bar, task, done, spared, visible(f"{Path(checkpoint).stem}: {label(planned.attack)}")
            ),
        ):
            yield result.record
