"""`robustcli reproduce`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.completion import words
from robustcli.cli.console import fail, moving_bar, notice, out, result, warn
from robustcli.cli.measurement import progress_of
from robustcli.cli.options import OUTPUT, argument, option
from robustcli.cli.outputs import check_output
from robustcli.cli.signals import INTERRUPTED
from robustcli.cli.train import train_with_bar
from robustcli.errors import ConfigError, TrainingError, unknown
from robustcli.studies.batchout import PARTS

if TYPE_CHECKING:
    from robustcli.measure.record import Record
    from robustcli.measure.session import Session
    from robustcli.store.cache import Cache
    from robustcli.studies.batchout.experiments import Part
    from robustcli.studies.batchout.study import Study

ALL = "all"
FOLDER, QUICK_FOLDER = Path("results/reproduction"), Path("results/reproduction-quick")

What = Annotated[str, argument(f"{', '.join(PARTS)}, or all.", words(*PARTS, ALL))]
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
    option(
        "--out",
        OUTPUT,
        f"The folder for checkpoints, JSON, tables and pictures (default {FOLDER}, {QUICK_FOLDER} if quick).",
    ),
]
Report = Annotated[
    Path | None,
    option("--report", OUTPUT, "The page that says, claim by claim, what holds (default report.md in --out)."),
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
    from robustcli.report.table import to_rich
    from robustcli.studies.batchout.experiments import FULL, QUICK, parts
    from robustcli.studies.batchout.paper_tables import make_table
    from robustcli.studies.batchout.report import read_speed, write_report
    from robustcli.studies.batchout.reproduction import check_replaceable, reproduce_part
    from robustcli.studies.batchout.study import Study

    keep_freed_memory()
    scale = QUICK if quick else FULL
    scale = scale if seeds is None else replace(scale, seeds=seeds)
    study = Study(folder, scale, data_dir, device or "auto", not no_zoo, train_with_bar, _measure, notice)
    every = parts(scale)
    if quick:
        notice(f"a quick look at {scale.mnist}: {scale.limit} images, {scale.epochs} epochs, not the paper's numbers")
    available = _skip_without_data(list(every.values()) if what == ALL else [every[what]], study)
    _check_outputs(folder, report)
    if (folder / "measured").is_dir():
        notice(f"{folder / 'measured'}: is of an earlier version, and not read; what it held is measured anew")
    read_speed(folder)
    for part in available:
        check_replaceable(part, study)
    failed = False
    console = out()
    try:
        for part in available:
            notice(f"{part.name}: {part.title} ({part.source})", bold=True)
            results = reproduce_part(part, study)
            failed = failed or any("reason" in entry for entry in results.missing)
            console.print(to_rich(make_table(results), console.width))
            result(f"{folder / part.name}.json .md .png .svg")
            result("")
    except KeyboardInterrupt:
        fail("what was finished is kept; the same command goes on", "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if (page := write_report(folder, report)) is not None:
            notice(f"report: {page}")
    if failed:
        raise TrainingError("some networks failed; they are named above and in the tables, with the reason")


def _check_outputs(folder: Path, report: Path | None) -> None:
    """Make the folder; refuse what could not be written before anything is trained."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror or error}") from None
    check_output(folder / f"{PARTS[0]}.json", "--out")
    check_output(report, "--report")


def _skip_without_data(parts: list[Part], study: Study) -> list[Part]:
    """The parts whose data are there; without CIFAR-10, `all` goes on with the others and says so."""
    from robustcli.studies.batchout.reproduction import available_parts

    available, problem = available_parts(parts, study)
    missing = [part for part in parts if part not in available]
    if problem is not None and (not available or any(part.dataset != "cifar10" for part in missing)):
        raise problem
    if problem is not None:
        warn(f"{', '.join(part.name for part in missing)}: skipped: {problem}")
    return available


def _measure(session: Session, cache: Cache) -> Iterator[Record]:
    """A session's records, under a progress bar."""
    from robustcli.measure.evaluate import evaluate

    with moving_bar(session.total) as advance:
        for measured in evaluate(session, cache=cache, on_progress=progress_of(session, advance)):
            yield measured.record
