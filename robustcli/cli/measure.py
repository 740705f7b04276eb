"""What attack, evaluate and compare share: from flags to rows, with progress."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustcli.cli.answers import Asked
from robustcli.cli.console import advance, progress, warn
from robustcli.config import EvalSpec, field_names, shown, validated
from robustcli.errors import ConfigError, RobustCliError, memory_guard, unknown
from robustcli.text import short_paths, visible

if TYPE_CHECKING:
    from robustcli.data.images import Images
    from robustcli.measure.anytime import Goal
    from robustcli.measure.evaluate import Result, Session
    from robustcli.measure.record import Row
    from robustcli.measure.shelf import Memory
    from robustcli.measure.transfer import Matrix
    from robustcli.store.keeper import Keeper

GREY_DIGITS = (1, 28, 28)
"""Any shape: whether SPECs and flags are right does not depend on it."""
FORMATS = ("table", "json", "csv", "markdown", "latex")


def read_flags(flags: Mapping[str, Any]) -> EvalSpec:
    """The spec that a command's flags mean; a mistake in any of them is told before anything is opened."""
    style, given = flags["style"], given_flags(flags)
    if style not in FORMATS:
        raise unknown("--format", style, FORMATS)
    refuse_decimal_commas(given.get("eps"))
    values = {key: value for key, value in given.items() if key in field_names(EvalSpec)}
    if "no_sample" in given:
        values["allow_sample"] = False
    if "curve_plot" in given:
        values["curve"] = True
    if "attack" in given:
        values["attacks"] = (given["attack"],) if isinstance(given["attack"], str) else tuple(given["attack"])
    spec = validated(EvalSpec, values, "", flags=frozenset(values))

    from robustcli.measure.plan import make_plan

    make_plan(spec, GREY_DIGITS)
    return spec


def given_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that the user gave; a repeatable one that was not given comes as an empty list or tuple."""
    return {
        key: value
        for key, value in flags.items()
        if value is not None and value is not False and not (isinstance(value, list | tuple) and not value)
    }


def refuse_decimal_commas(eps: str | None) -> None:
    """Ask back where budgets look like numbers with a decimal comma, such as `0,1`.

    Raises:
        ConfigError: says what may be meant.
    """
    parts = [part.strip() for part in (eps or "").split(",")]
    meant: list[str] = []
    for before, part in zip(["", *parts], parts, strict=False):
        if before == "0" and meant[-1] == "0" and re.fullmatch(r"\d+", part):
            meant[-1] = f"0.{part}"
        else:
            meant.append(part)
    if len(meant) < len(parts):
        listed = ",".join("0.0" if part == "0" else part for part in parts)
        raise ConfigError(
            f"--eps {shown(eps)}: is a list of {len(parts)} budgets, as commas separate; did you mean "
            f"{','.join(meant)}? (for the list write {listed})"
        )


@dataclass(frozen=True)
class Measured:
    """The rows that were finished, and what cut them short: Ctrl-C, an error, or nothing."""

    rows: list[Row]
    stopped_by: KeyboardInterrupt | RobustCliError | None


def measure(
    session: Session,
    asked: Asked | None = None,
    *,
    keep_images: bool = False,
    keep_all: bool = False,
    goal: Goal | None = None,
    on_result: Callable[[Result], None] = lambda _: None,
    matrix: Matrix | None = None,
) -> Measured:
    """Run a session with a progress bar; Ctrl-C or a model that fails leaves the rows that are finished.

    Args:
        session: what to run.
        asked: for what; its store recalls what is known and keeps the rest.
        keep_images: keep the adversarial images in the results.
        keep_all: keep them in the store, for every broken sample.
        goal: when to stop, where not all samples have to be reached.
        on_result: told each result as it is there.
        matrix: takes each result with its images.
    """
    from robustcli.attacks.base import MinimalAttack
    from robustcli.device import keep_freed_memory
    from robustcli.measure.shelf import Memory
    from robustcli.store.keeper import Keeper

    keep_freed_memory()
    if not all(isinstance(planned.attack, MinimalAttack) for item in session.items for planned in item.plan):
        warn_of_slow(session.spec.dtype, session.device)
    asked = asked or Asked(None, None)
    for images in {item.images.name: item.images for item in session.items}.values():
        announce_sample(images, asked)
    for line in session.warnings():
        asked.tell(line, "warning")
    if asked.path is None:
        return _run(session, None, goal, keep_images, on_result, matrix)
    with Keeper(asked.path, lambda: origin_of(session)) as keeper:
        warn_of(keeper)
        measured = _run(session, Memory(keeper, keep_all), goal, keep_images, on_result, matrix)
    warn_of(keeper)
    return measured


def _run(
    session: Session,
    memory: Memory | None,
    goal: Goal | None,
    keep_images: bool,
    on_result: Callable[[Result], None],
    matrix: Matrix | None,
) -> Measured:
    from robustcli.attacks import label
    from robustcli.measure.anytime import evaluate_towards
    from robustcli.measure.evaluate import evaluate

    rows: list[Row] = []
    names = short_paths(item.candidate.subject.checkpoint for item in session.items)
    bar = progress()
    with bar:
        task = bar.add_task("", total=session.total + (matrix.total if matrix else 0))

        weights = session.weights()

        def on_progress(checkpoint: str, planned: Any, done: float, spared: float) -> None:
            weight = weights[planned]
            advance(bar, task, weight * done, weight * spared, visible(f"{names[checkpoint]}: {label(planned.attack)}"))

        try:
            if goal is None:
                keep = keep_images or matrix is not None
                results = evaluate(session, keep_images=keep, on_progress=on_progress, memory=memory)
            else:
                results = evaluate_towards(goal, session, on_progress=on_progress, memory=memory)
            with memory_guard():
                for result in results:
                    rows.append(result.row)
                    on_result(result)
                    for n in matrix.take(result) if matrix else ():
                        advance(bar, task, 0, n)
        except (KeyboardInterrupt, RobustCliError) as reason:
            return Measured(rows, reason)
    return Measured(rows, None)


def warn_of(keeper: Keeper) -> None:
    """A line for each trouble with the store; the result is printed all the same."""
    for line in keeper.troubles():
        warn(line)


def warn_of_slow(dtype: str, device: str) -> None:
    """Warn of a type that a device has no instructions for."""
    from robustcli.device import multiplies

    if not multiplies(dtype, device):
        what = "processor" if device == "cpu" else "GPU"
        warn(f"{dtype} is slow here: this {what} has no instructions for it; float32 is quicker")


def announce_sample(images: Images, asked: Asked | None = None) -> None:
    """Say in bold that the bundled sample stands in for MNIST, and why; and what of a folder was not read."""
    for line in images.notices:
        (asked or Asked(None, None)).tell(line)
    if images.name == "mnist-sample":
        why = f" ({images.note})" if images.note else ""
        text = f"mnist-sample: the bundled 5 000 digits, not MNIST itself; numbers are rough{why}"
        (asked or Asked(None, None)).tell(text, "bold")


def data_of(session: Session) -> list[Path]:
    """The data sets that a session's checkpoints are measured on, as they are named."""
    from robustcli.measure.evaluate import images_for

    return [Path(images_for(item.candidate, session.spec).dataset) for item in session.items]


def origin_of(session: Session) -> dict[str, Any]:
    """Where a session's numbers come from."""
    from robustcli.provenance import provenance

    fingerprint = ",".join(dict.fromkeys(item.images.fingerprint for item in session.items))
    return provenance(
        seed=session.spec.seed, device=session.device, data_fingerprint=fingerprint, spec=session.resolved()
    )
