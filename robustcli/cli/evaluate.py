"""`robustcli evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustcli.cli import options
from robustcli.cli.answers import ask
from robustcli.cli.anytime import Budget, UntilCI, never_run, read_goal, told
from robustcli.cli.checks import Checks, Force, look_first, read_level
from robustcli.cli.choice import chosen
from robustcli.cli.console import fail, notice
from robustcli.cli.curves import Curved, CurvePlot, curves_of, draw_curves, sheets_of
from robustcli.cli.delivery import Delivery, deliver
from robustcli.cli.measure import GREY_DIGITS, data_of, read_flags
from robustcli.cli.outputs import check_outputs
from robustcli.errors import ConfigError
from robustcli.fields import parse_number

if TYPE_CHECKING:
    from robustcli.config import EvalSpec
    from robustcli.measure.record import Row

BELOW_THE_BAR = 4

FailUnder = Annotated[
    str | None,
    typer.Option(
        "--fail-under",
        help="Exit with 4 unless the 95 % interval of each row with a budget lies at or above this accuracy in per "
        "cent.",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]
JUnit = Annotated[
    Path | None,
    typer.Option(
        "--junit",
        help="Also write the rows as JUnit XML to this file.",
        rich_help_panel=options.OUTPUT,
        show_default=False,
    ),
]


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
    eight_bit: options.EightBit = False,
    curve: Curved = False,
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
    curve_plot: CurvePlot = None,
    style: options.Format = "table",
    store: options.Store = None,
    no_store: options.NoStore = False,
    keep_adversarials: options.KeepAdversarials = False,
    budget: Budget = None,
    until_ci: UntilCI = None,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    checks: Checks = "quick",
    force: Force = False,
) -> None:
    """Measure checkpoints under attacks: accuracy with its interval, an attack and budget a row.

    Example: `robustcli evaluate --attack fgsm --attack deepfool --eps 0.1,0.3 --iters 5`
    """
    check_outputs(context.params)
    asked = ask("evaluate", context.params)
    asked.reply(style, json_file)
    spec = read_flags(context.params)
    read_level(checks)
    bar = read_bar(fail_under)
    if bar is not None and not spec.curve:
        _refuse_nothing_to_judge(spec)
    goal = read_goal(budget, until_ci)
    if spec.eight_bit and goal is not None:
        raise ConfigError(f"{'--budget' if budget else '--until-ci'}: cannot be given together with --eight-bit")
    if spec.curve and goal is not None:
        raise ConfigError(f"{'--budget' if budget else '--until-ci'}: cannot be given together with --curve")
    if spec.curve and (fail_under or junit):
        raise ConfigError(f"{'--fail-under' if fail_under else '--junit'}: judges rows with a budget; --curve has none")

    from robustcli.measure.evaluate import open_session
    from robustcli.report.tables import evaluation_sheet

    session = open_session(chosen(checkpoint, asked.tell), spec)
    check_outputs(context.params, data_of(session))
    checking = look_first(session, asked, checks, force)
    measured = checking.measure(keep_all=keep_adversarials, goal=goal)
    verdicts = checking.verdicts(measured)
    curves = curves_of(session, measured.rows) if spec.curve else []
    sheets = [evaluation_sheet(list(rows)) for _, rows in groupby(measured.rows, key=lambda row: row.subject)]
    part = told(goal, session, measured.rows, asked.path is not None)
    not_run = never_run(part)
    with ExitStack() as after:  # it runs them all, also where another file could not be written
        if junit is not None:
            stopped = measured.stopped_by
            cut_short = "" if stopped is None else str(stopped) or "interrupted"
            after.callback(_write_junit, measured.rows, bar, junit, cut_short, not_run)
        if curves and curve_plot is not None:
            after.callback(draw_curves, curves, curve_plot)
        found = Delivery(sheets_of(curves) or sheets, (), curves, None, verdicts, checks, part)
        code = deliver(measured, session, found, style, json_file, asked)
    raise typer.Exit(code or _judge(measured.rows, bar, not_run))


def read_bar(text: str | None) -> float | None:
    """What `--fail-under` means, in per cent.

    Raises:
        ConfigError: it is no accuracy, or a share of 1 where per cent are meant.
    """
    if text is None:
        return None
    try:
        value = parse_number(text.strip().removesuffix("%").strip())
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise ConfigError(f"--fail-under {text}: should be an accuracy in per cent, 0 to 100")
    if 0 < value <= 1 and "%" not in text:
        raise ConfigError(f"--fail-under {text}: is in per cent; did you mean {100 * value:g}, or {text}%?")
    return value


def _refuse_nothing_to_judge(spec: EvalSpec) -> None:
    from robustcli.measure.plan import make_plan

    if not any(planned.budgets for planned in make_plan(spec, GREY_DIGITS)):
        raise ConfigError("--fail-under: judges rows with a budget; none of the attacks here has one")


def _judge(rows: Sequence[Row], bar: float | None, not_run: Sequence[str]) -> int:
    """The exit code that the bar asks for; each row below it is told, and each attack that --budget left no time."""
    if bar is None:
        return 0
    from robustcli.report.gate import below, judged, told
    from robustcli.report.tables import row_name

    spared = dict.fromkeys(row_name(row) for row in rows if row not in judged(rows))
    if spared:
        notice(f"--fail-under judges rows with a budget, so not those of {', '.join(spared)}")
    failed = [f"{told(row)}: the interval begins below --fail-under {bar:g} %" for row in below(rows, bar)]
    failed += [f"{name}: was not run, so nothing shows --fail-under {bar:g} %" for name in not_run]
    for line in failed:
        fail(line)
    return BELOW_THE_BAR if failed else 0


def _write_junit(rows: Sequence[Row], bar: float | None, path: Path, cut_short: str, not_run: Sequence[str]) -> None:
    from robustcli.disk import write_whole
    from robustcli.report.gate import junit

    write_whole(path, junit(rows, bar, cut_short, not_run), "--junit")
    notice(f"JUnit: {path}")
