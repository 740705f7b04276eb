"""`robustcli evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustcli.cli import options
from robustcli.cli.anytime import Budget, UntilCI, never_run, read_goal, report_left_out
from robustcli.cli.console import annotate, fail, notice
from robustcli.cli.measurement import Measurement
from robustcli.cli.options import ATTACK, OUTPUT, option
from robustcli.cli.request import begin, has_budget
from robustcli.config import EvalSpec
from robustcli.errors import ConfigError
from robustcli.fields import parse_number

if TYPE_CHECKING:
    from robustcli.measure.curve import Curve
    from robustcli.measure.record import Record
    from robustcli.measure.session import Session

BELOW_THRESHOLD = 4

FailUnder = Annotated[
    str | None,
    option(
        "--fail-under",
        OUTPUT,
        "Exit with 4 unless the 95 % interval of each row with a budget lies at or above this accuracy in per cent.",
    ),
]
JUnit = Annotated[Path | None, option("--junit", OUTPUT, "Also write the rows as JUnit XML to this file.")]
Curved = Annotated[bool, option("--curve", ATTACK, EvalSpec)]
CurvePlot = Annotated[Path | None, option("--curve-plot", OUTPUT, "Also draw the curves into this .png.")]


@options.with_common_flags
def evaluate(
    context: typer.Context,
    checkpoint: options.Checkpoints = None,
    attack: options.Attacks = None,
    preset: options.Preset = None,
    shard: options.Shard = None,
    eight_bit: options.EightBit = False,
    curve: Curved = False,
    curve_plot: CurvePlot = None,
    budget: Budget = None,
    until_ci: UntilCI = None,
    fail_under: FailUnder = None,
    junit: JUnit = None,
    **flags: Any,
) -> None:
    """Measure checkpoints under attacks: accuracy with its interval, an attack and budget a row.

    Example: `robustcli evaluate --attack fgsm --attack deepfool --eps 0.1,0.3 --iters 5`
    """
    request = begin("evaluate", context.params, context.obj)
    spec = request.spec
    threshold = read_threshold(fail_under)
    if threshold is not None and not spec.curve and not has_budget(spec):
        raise ConfigError("--fail-under: judges rows with a budget; none of the attacks here has one")
    goal = read_goal(budget, until_ci)
    for other in ("eight_bit", "curve"):
        if goal is not None and getattr(spec, other):
            flag = "--budget" if budget else "--until-ci"
            raise ConfigError(f"{flag}: cannot be given together with --{other.replace('_', '-')}")
    if spec.curve and (fail_under or junit):
        raise ConfigError(f"{'--fail-under' if fail_under else '--junit'}: judges rows with a budget; --curve has none")

    measurement = Measurement(request, request.checkpoints())
    measured = measurement.run(goal=goal)
    records = measured.records
    verdict = measurement.verdict(measured)
    curves = _curves(measurement.session, records) if spec.curve else []
    part = report_left_out(goal, measurement, records)
    not_run = never_run(part)
    with ExitStack() as after:  # it runs them all, also where another file could not be written
        if junit is not None:
            stopped = measured.stopped_by
            cut_short = "" if stopped is None else str(stopped) or "interrupted"
            after.callback(_write_junit, records, threshold, junit, cut_short, not_run)
        if curves and curve_plot is not None:
            after.callback(_draw_curves, curves, curve_plot)
        shown = [curve.as_dict(budgets) for curve, budgets in curves]
        code = measurement.deliver(measured, curves=shown, verdict=verdict, anytime=part)
    raise typer.Exit(code or _judge(records, threshold, not_run))


def _curves(session: Session, records: Sequence[Record]) -> list[tuple[Curve, Sequence[float]]]:
    """The curves of each checkpoint, and the budgets to show each at."""
    from robustcli.measure.curve import budgets_of, curves

    made = []
    for item in session.items:
        own = [record for record in records if record.subject == item.subject]
        made += curves(own, item.images.classes)
    budgets = budgets_of(made, session.spec.eps)
    return [(curve, budgets[curve.norm]) for curve in made]


def _draw_curves(curves: Sequence[tuple[Curve, Sequence[float]]], path: Path) -> None:
    from robustcli.report.pictures import save_curves

    save_curves(curves, path)
    notice(f"curves: {path}")


def read_threshold(text: str | None) -> float | None:
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


def _judge(records: Sequence[Record], threshold: float | None, not_run: Sequence[str]) -> int:
    """The exit code for the threshold, with a line for each row below it and each attack that --budget left no time.

    Where GitHub runs the command, each line is an annotation too.
    """
    if threshold is None:
        return 0
    from robustcli.report.junit import below, describe, with_budget

    unjudged = dict.fromkeys(record.name for record in records if record not in with_budget(records))
    if unjudged:
        notice(f"--fail-under judges rows with a budget, so not those of {', '.join(unjudged)}")
    failed = [
        (f"{record.subject.checkpoint}: {record.name} {record.ball}", describe(record), "the interval begins below")
        for record in below(records, threshold)
    ]
    failed += [(name, name, "was not run, so nothing shows") for name in not_run]
    for title, row, why in failed:
        fail(line := f"{row}: {why} --fail-under {threshold:g} %")
        annotate(title, line)
    return BELOW_THRESHOLD if failed else 0


def _write_junit(
    records: Sequence[Record], threshold: float | None, path: Path, cut_short: str, not_run: Sequence[str]
) -> None:
    from robustcli.disk import write_whole
    from robustcli.report.junit import junit

    write_whole(path, junit(records, threshold, cut_short, not_run), "--junit")
    notice(f"JUnit: {path}")
