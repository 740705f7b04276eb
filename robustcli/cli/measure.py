"""What attack, evaluate and compare share: from flags to rows, with progress, and to the chosen format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustcli.cli.console import err, notice, out, progress, warn
from robustcli.config import EvalSpec, field_names, validated
from robustcli.errors import CheckpointError, ConfigError, RobustCliError, unknown

if TYPE_CHECKING:
    from robustcli.data import Images
    from robustcli.evaluation.curve import Curve
    from robustcli.evaluation.evaluate import Result, Session
    from robustcli.evaluation.pairs import Pair
    from robustcli.evaluation.results import Row
    from robustcli.evaluation.seeds import Contest
    from robustcli.reporting.tables import Sheet
    from robustcli.verdict.findings import Verdict

CHECKPOINTS = Path("checkpoints")
GREY_DIGITS = (1, 28, 28)
"""Any shape: whether SPECs and flags are right does not depend on it."""
FORMATS = ("table", "json", "csv", "markdown", "latex")


def read_flags(flags: Mapping[str, Any]) -> EvalSpec:
    """The spec that a command's flags mean; a mistake in any of them is told before anything is opened."""
    style, given = flags["style"], given_flags(flags)
    if style not in FORMATS:
        raise unknown("--format", style, FORMATS)
    for flag in ("gallery", "curve_plot", "json_file"):
        check_output(given.get(flag), f"--{flag.removesuffix('_file').replace('_', '-')}")
    values = {key: value for key, value in given.items() if key in field_names(EvalSpec)}
    if "no_sample" in given:
        values["allow_sample"] = False
    if "curve_plot" in given:
        values["curve"] = True
    if "attack" in given:
        values["attacks"] = (given["attack"],) if isinstance(given["attack"], str) else tuple(given["attack"])
    spec = validated(EvalSpec, values, "", flags=frozenset(values))

    from robustcli.evaluation.plan import make_plan

    make_plan(spec, GREY_DIGITS)
    return spec


def given_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that the user gave; a repeatable one that was not given comes as an empty list or tuple."""
    return {
        key: value
        for key, value in flags.items()
        if value is not None and value is not False and not (isinstance(value, list | tuple) and not value)
    }


def check_output(path: Path | None, flag: str) -> None:
    """Refuse an output that could not be written, before hours of work and not after.

    Raises:
        ConfigError: its folder is missing or not writable, or it is a folder itself.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{flag} {path}: is a folder; should be a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{flag} {path}: its folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{flag} {path}: its folder {path.parent} is not writable")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{flag} {path}: is there already and is not writable")


def chosen(given: Sequence[Path] | None) -> list[Path]:
    """The checkpoints to measure: those given, or the newest complete one in checkpoints/, which is said.

    Raises:
        CheckpointError: none is given and none is there.
    """
    if given:
        return list(dict.fromkeys(given))

    from robustcli import checkpoint

    path = checkpoint.newest(CHECKPOINTS)
    if path is None:
        raise CheckpointError(f"{CHECKPOINTS}/: holds no complete checkpoint; train one, such as `robustcli train`")
    notice(f"checkpoint: {path}")
    return [path]


@dataclass(frozen=True)
class Measured:
    """The rows that were finished, and what cut them short: Ctrl-C, an error, or nothing."""

    rows: list[Row]
    stopped_by: KeyboardInterrupt | RobustCliError | None


def measure(
    session: Session, *, keep_images: bool = False, on_result: Callable[[Result], None] = lambda _: None
) -> Measured:
    """Run a session with a progress bar; Ctrl-C or a model that fails leaves the rows that are finished."""
    from robustcli.attacks import label
    from robustcli.device import keep_freed_memory
    from robustcli.evaluation.evaluate import evaluate

    keep_freed_memory()
    for images in {item.images.name: item.images for item in session.items}.values():
        announce_sample(images)
    for line in session.warnings():
        warn(line)
    rows: list[Row] = []
    bar = progress()
    with bar:
        task = bar.add_task("", total=session.total)

        def on_progress(checkpoint: str, planned: Any, n: int) -> None:
            bar.update(task, advance=n, description=f"{Path(checkpoint).stem}: {label(planned.attack)}")

        try:
            for result in evaluate(session, keep_images=keep_images, on_progress=on_progress):
                rows.append(result.row)
                on_result(result)
        except (KeyboardInterrupt, RobustCliError) as reason:
            return Measured(rows, reason)
    return Measured(rows, None)


def announce_sample(images: Images) -> None:
    """Say in bold that the bundled sample stands in for MNIST, and why."""
    if images.name == "mnist-sample":
        why = f" ({images.note})" if images.note else ""
        notice(f"mnist-sample: the bundled 5 000 digits, not MNIST itself; numbers are rough{why}", bold=True)


def deliver(
    measured: Measured,
    session: Session,
    sheets: Sequence[Sheet],
    style: str,
    json_file: Path | None,
    pairs: Sequence[Pair | Contest] = (),
    curves: Sequence[tuple[Curve, Sequence[float]]] = (),
    verdicts: Sequence[Verdict] = (),
    checks: str = "off",
) -> int:
    """Write the JSON file and print the result; what is finished is delivered whatever happens to either.

    Args:
        measured: the rows.
        session: what was run.
        sheets: the rows as tables.
        style: the format on stdout.
        json_file: where to write the JSON document too.
        pairs: what tells the checkpoints apart.
        curves: the rows' curves and the budgets to show each at, where they were asked for.
        verdicts: on each checkpoint.
        checks: which were asked for.

    Returns:
        The exit code: 130 where Ctrl-C cut the run short, else 0.

    Raises:
        RobustCliError: what cut the run short, or why the file could not be written.
    """
    from robustcli.evaluation.results import document
    from robustcli.provenance import provenance
    from robustcli.reporting.files import write_whole
    from robustcli.verdict.findings import as_document

    fingerprint = ",".join(dict.fromkeys(item.images.fingerprint for item in session.items))
    origin = provenance(
        seed=session.spec.seed, device=session.device, data_fingerprint=fingerprint, spec=session.resolved()
    )
    tested = [pair.as_dict() for pair in pairs]
    drawn = [curve.as_dict(budgets) for curve, budgets in curves]
    word = as_document(verdicts, checks)
    text = json.dumps(document(measured.rows, origin, tested, drawn, word), allow_nan=False) + "\n"
    with ExitStack() as after:
        if style == "json":
            after.callback(out().file.write, text)
        elif measured.rows:
            after.callback(print_verdicts, verdicts, style)
            after.callback(print_sheets, sheets, _to_csv(measured.rows, curves) if style == "csv" else "", style)
        if json_file is not None:
            write_whole(json_file, text.encode(), "--json")
    if isinstance(measured.stopped_by, RobustCliError):
        raise measured.stopped_by
    if measured.stopped_by is not None:
        err().print(f"[bold red]interrupted:[/] {len(measured.rows)} of {session.rows} rows were finished and are kept")
        return 130
    return 0


def _to_csv(rows: Sequence[Row], curves: Sequence[tuple[Curve, Sequence[float]]]) -> str:
    from robustcli.reporting.curves import curves_csv
    from robustcli.reporting.tables import to_csv

    return curves_csv(curves) if curves else to_csv(rows)


def print_sheets(sheets: Sequence[Sheet], csv: str, style: str) -> None:
    """The sheets in one of the human formats, or the lines of `csv`."""
    from robustcli.reporting.tables import to_rich, to_text

    console = out()
    if style == "csv":
        console.file.write(csv + "\n")
        return
    for sheet in sheets:
        if style == "table":
            console.print(to_rich(sheet, console.width))
            console.print()
        else:
            console.file.write(to_text(sheet, style) + "\n\n")


def print_verdicts(verdicts: Sequence[Verdict], style: str) -> None:
    """The verdicts under the sheets; CSV, which holds rows only, has none."""
    if verdicts and style != "csv":
        from robustcli.reporting.verdict import verdict_text

        console = out()
        console.file.write(verdict_text(verdicts, style, console.width) + "\n\n")
