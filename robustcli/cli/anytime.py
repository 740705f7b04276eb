"""The flags of an evaluation that may stop early: `--budget` and `--until-ci`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

from robustcli.cli.options import COMPUTE, option
from robustcli.errors import ConfigError

if TYPE_CHECKING:
    from robustcli.cli.measurement import Measurement
    from robustcli.measure.anytime import Goal
    from robustcli.measure.record import Record

Budget = Annotated[
    str | None,
    option(
        "--budget",
        COMPUTE,
        "Stop after this time, such as 60s, 5m or 2h: cheap attacks first, samples in a random order.",
    ),
]
UntilCI = Annotated[
    str | None,
    option(
        "--until-ci",
        COMPUTE,
        "Stop each attack when its 95 % interval reaches so many points to each side, such as 1.0.",
    ),
]

SECONDS = {"s": 1, "m": 60, "h": 3600}


def read_goal(budget: str | None, until_ci: str | None) -> Goal | None:
    """What the two flags mean; None where neither is given.

    Raises:
        ConfigError: a value that is not allowed.
    """
    if budget is None and until_ci is None:
        return None
    seconds = None if budget is None else _seconds(budget)
    points = None if until_ci is None else _points(until_ci)

    from robustcli.measure.anytime import Goal

    return Goal(seconds, points)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh])", text.strip())
    if match is None or not float(match[1]):
        raise ConfigError(f"--budget {text}: should be a time above 0 with its unit, such as 60s, 5m or 2h")
    return float(match[1]) * SECONDS[match[2]]


def _points(text: str) -> float:
    match = re.fullmatch(r"\d+\.?\d*|\.\d+", text.strip())
    if match is None or not 0 < float(match[0]) < 50:
        raise ConfigError(f"--until-ci {text}: should be points of accuracy above 0 and below 50, such as 1.0")
    return float(match[0])


def never_run(part: Mapping[str, Any] | None) -> list[str]:
    """The attacks that no sample met: they have no row, and a gate must not pass without them."""
    left_out = [] if part is None else part["left_out"]
    return [f"{one['checkpoint']}: {one['attack']} {one['budget']}" for one in left_out if not one["reached"]]


def report_left_out(goal: Goal | None, measurement: Measurement, records: Sequence[Record]) -> dict[str, Any] | None:
    """What a run towards a goal left out: as JSON holds it, and a line a checkpoint on stderr."""
    if goal is None:
        return None
    from robustcli.measure.anytime import left_out

    request = measurement.request
    missing = left_out(measurement.session, records)
    on = "; a later call goes on" if request.store is not None else ""
    for checkpoint, parts in groupby(missing, key=lambda part: part.checkpoint):
        request.tell(f"{checkpoint}: left out: {', '.join(map(str, parts))}{on}", "bold")
    return {
        "budget_s": goal.seconds,
        "until_ci": goal.half_width,
        "left_out": [asdict(part) for part in missing],
    }
