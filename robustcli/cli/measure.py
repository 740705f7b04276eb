"""What attack, evaluate and compare share: from flags to rows, with progress, and to the chosen format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustcli.cli.console import err, notice, out, progress, warn
from robustcli.config import EvalSpec, field_names, shown, validated
from robustcli.errors import CheckpointError, ConfigError, unknown

if TYPE_CHECKING:
    from robustcli.evaluation.evaluate import Result, Session
    from robustcli.evaluation.results import Row
    from robustcli.reporting.tables import Sheet

CHECKPOINTS = Path("checkpoints")
FORMATS = ("table", "json", "csv", "markdown", "latex")


def eval_spec(flags: Mapping[str, Any]) -> EvalSpec:
    """The spec that a command's flags mean; those that are not given keep their defaults."""
    flags = given_flags(flags)
    given = {key: value for key, value in flags.items() if key in field_names(EvalSpec)}
    if "no_sample" in flags:
        given["allow_sample"] = False
    if "attack" in flags:
        given["attacks"] = (flags["attack"],) if isinstance(flags["attack"], str) else tuple(flags["attack"])
    return validated(EvalSpec, given, "", flags=frozenset(given))


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


def check_format(name: str) -> None:
    """Refuse an unknown `--format`."""
    if name not in FORMATS:
        raise unknown("--format", name, FORMATS)


def newest_checkpoint() -> Path:
    """The newest complete checkpoint in checkpoints/, told to the user.

    Raises:
        CheckpointError: there is none.
    """
    from robustcli import checkpoint

    path = checkpoint.newest(CHECKPOINTS)
    if path is None:
        raise CheckpointError(f"{CHECKPOINTS}/: holds no complete checkpoint; train one, such as `robustcli train`")
    return path


@dataclass(frozen=True)
class Measured:
    """Rows, and whether Ctrl-C cut them short."""

    rows: list[Row]
    interrupted: bool


def measure(
    session: Session, *, keep_images: bool = False, on_result: Callable[[Result], None] = lambda _: None
) -> Measured:
    """Run a session with a progress bar; Ctrl-C keeps the rows that are finished."""
    from robustcli.attacks import label
    from robustcli.evaluation.evaluate import evaluate

    for name in dict.fromkeys(item.images.name for item in session.items):
        announce_sample(name)
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
        except KeyboardInterrupt:
            return Measured(rows, interrupted=True)
    return Measured(rows, interrupted=False)


def announce_sample(name: str) -> None:
    """Say in bold that the bundled sample stands in for MNIST."""
    if name == "mnist-sample":
        notice(
            "mnist-sample: the bundled 5 000 digits, not MNIST itself; n = 1 000 at most, so numbers are rough",
            bold=True,
        )


def deliver(
    measured: Measured, spec: EvalSpec, session: Session, sheets: Sequence[Sheet], style: str, json_file: Path | None
) -> int:
    """Print the result, then write the JSON file: what is finished is on stdout whatever happens to the file.

    Returns:
        The exit code: 130 where Ctrl-C cut the run short, else 0.
    """
    from robustcli.evaluation.results import document
    from robustcli.provenance import provenance
    from robustcli.reporting.files import write_whole

    fingerprint = ",".join(dict.fromkeys(item.images.fingerprint for item in session.items))
    origin = provenance(seed=spec.seed, device=session.device, data_fingerprint=fingerprint, spec=spec.as_dict())
    text = json.dumps(document(measured.rows, origin), allow_nan=False)
    if style == "json":
        out().file.write(text + "\n")
    elif measured.rows:
        print_sheets(sheets, measured.rows, style)
    if json_file is not None:
        write_whole(json_file, f"{text}\n".encode(), "--json")
    if measured.interrupted:
        err().print(f"[bold red]interrupted:[/] {len(measured.rows)} of {session.rows} rows were finished and are kept")
        return 130
    return 0


def print_sheets(sheets: Sequence[Sheet], rows: Sequence[Row], style: str) -> None:
    """The sheets in one of the human formats, or the rows as CSV."""
    from robustcli.reporting.tables import to_csv, to_rich, to_text

    console = out()
    if style == "csv":
        console.file.write(to_csv(rows) + "\n")
        return
    for sheet in sheets:
        if style == "table":
            console.print(to_rich(sheet))
            console.print()
        else:
            console.file.write(to_text(sheet, style) + "\n\n")


def say_which(paths: Sequence[Path]) -> None:
    """Name the checkpoints that were picked for the user."""
    notice(f"checkpoint: {shown([str(path) for path in paths])}")
