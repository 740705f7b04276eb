"""What attack, evaluate and compare share: read the flags, open the models, measure, deliver the document."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from robustcli.cli.console import advance, fail, notice, out, progress, warn
from robustcli.cli.outputs import check_outputs
from robustcli.config import EvalSpec, field_names, shown, validated
from robustcli.disk import file_hash, write_whole
from robustcli.errors import CheckpointError, ConfigError, DataError, RobustCliError, memory_guard, unknown
from robustcli.text import short_paths, visible

if TYPE_CHECKING:
    from robustcli.data.images import Images
    from robustcli.measure.anytime import Goal
    from robustcli.measure.evaluate import Result
    from robustcli.measure.record import Record
    from robustcli.measure.session import Session
    from robustcli.measure.transfer import Matrix
    from robustcli.store.cache import Cache

CHECKPOINTS = Path("checkpoints")
STORE = Path("results/robustcli.db")

GREY_DIGITS = (1, 28, 28)
"""Any shape: whether SPECs and flags are right does not depend on it."""

INVALID = 5
"""The exit code where a verdict says so."""

WITHOUT_EFFECT = frozenset({"checkpoint", "style", "json_file", "batch_size", "store", "no_store"})
"""Flags that do not change what is found."""

ALWAYS_MEASURED = (
    "no_store",
    "keep_adversarials",
    "fail_under",
    "junit",
    "curve_plot",
    "gallery",
    "save",
    "budget",
    "until_ci",
)
"""Flags whose work is more than to print a document that is kept."""


@dataclass(frozen=True)
class Measured:
    """The records that were finished, and what cut them short: Ctrl-C, an error, or nothing."""

    records: list[Record]
    stopped_by: KeyboardInterrupt | RobustCliError | None


class Request:
    """One call of a command. Making it looks at what would be written and where results are kept.

    Args:
        command: its name.
        flags: as the parser gives them.

    Raises:
        RobustCliError: a file or a store that cannot be used so.
    """

    def __init__(self, command: str, flags: Mapping[str, Any]) -> None:
        check_outputs(flags)
        self.command, self.flags = command, flags
        self.path = store_path(flags)
        self.notes: list[tuple[str, str]] = []

    @property
    def style(self) -> str:
        """The format on stdout."""
        return str(self.flags["style"])

    @cached_property
    def spec(self) -> EvalSpec:
        """The spec that the flags mean; a mistake in any of them is told before anything is opened."""
        return read_flags(self.flags)

    def tell(self, text: str, kind: str = "notice") -> None:
        """Tell the user, and whoever asks the same again; `kind` is `notice`, `bold`, `warning` or `error`."""
        self.notes.append((kind, text))
        tell(text, kind)

    def checkpoints(self) -> list[Path]:
        """The checkpoints that were given, or the newest complete one in checkpoints/.

        Raises:
            CheckpointError: none is given and none is there.
        """
        if given := _named(self.flags):
            return list(dict.fromkeys(given))
        from robustcli.models import checkpoint

        path = checkpoint.newest(CHECKPOINTS)
        if path is None:
            raise CheckpointError(f"{CHECKPOINTS}/: holds no complete checkpoint; train one, such as `robustcli train`")
        self.tell(f"checkpoint: {path}")
        return [path]

    def open(self, checkpoints: Sequence[Path]) -> Session:
        """The models and their images, with nothing computed yet.

        Raises:
            RobustCliError: something is missing or does not fit.
        """
        from robustcli.measure.session import open_session

        session = open_session(checkpoints, self.spec)
        check_outputs(self.flags, data_of(session))
        return session

    @cached_property
    def key(self) -> str | None:
        """What a kept document is found by; None where it has to be made anew."""
        from robustcli.store.documents import request_key, stamps

        if self.path is None or any(self.flags.get(flag) for flag in ALWAYS_MEASURED):
            return None
        named = _named(self.flags)
        try:
            files = [(str(one), sha256_of(Path(one))) for one in named] or stamps(sorted(CHECKPOINTS.glob("*.pt")))
        except (OSError, CheckpointError):  # it will be told where the checkpoint is opened
            return None
        decisive = {key: value for key, value in self.flags.items() if key not in WITHOUT_EFFECT}
        return request_key(self.command, decisive, files)

    def answer_from_store(self) -> None:
        """Print the document that is kept, where one is and still holds, and end the command. No torch here."""
        from robustcli.report.formats import FORMATS
        from robustcli.store.documents import find

        if self.path is None or self.key is None or self.style not in FORMATS:
            return
        try:
            found = find(self.path, self.key)
            if found is None:
                return
            rows = [row | {"cached": row["n"]} for row in found["rows"]]
            document = found | {"rows": rows}
            code = exit_code(document)
            notes = [(str(kind), str(text)) for kind, text in document["notes"]]
            print_result(document, self.style, self.flags["json_file"], notes)
        except (DataError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if type(error) in (ValueError, DataError) else "its document is another one"
            warn(f"--store {self.path}: holds an answer that cannot be read ({reason}); it is made anew")
            return
        raise typer.Exit(code)

    def measure(
        self,
        session: Session,
        *,
        keep_images: bool = False,
        goal: Goal | None = None,
        on_result: Callable[[Result], None] = lambda _: None,
        matrix: Matrix | None = None,
    ) -> Measured:
        """Run a session with a progress bar; Ctrl-C or a model that fails leaves the records that are finished.

        Args:
            session: what to run; the store recalls what is known and keeps the rest.
            keep_images: keep the adversarial images in the results.
            goal: when to stop, where not all samples have to be reached.
            on_result: told each result as it is there.
            matrix: takes each result with its images.
        """
        from robustcli.attacks.base import MinimalAttack
        from robustcli.device import keep_freed_memory
        from robustcli.store.cache import Cache

        keep_freed_memory()
        if not all(isinstance(planned.attack, MinimalAttack) for item in session.items for planned in item.plan):
            warn_of_slow(session.spec.dtype, session.device)
        for images in {item.images.name: item.images for item in session.items}.values():
            announce_sample(images, self.tell)
        for line in session.warnings():
            self.tell(line, "warning")
        if self.path is None:
            return _run(session, None, goal, keep_images, on_result, matrix)
        keep_all = bool(self.flags.get("keep_adversarials"))
        with Cache(self.path, lambda: origin_of(session), keep_all=keep_all) as cache:
            _warn_of(cache)
            measured = _run(session, cache, goal, keep_images, on_result, matrix)
        _warn_of(cache)
        return measured

    def deliver(self, session: Session, measured: Measured, **parts: Any) -> int:
        """Make the document, write the JSON file and print it; what is finished is delivered whatever happens.

        Args:
            session: what was run.
            measured: its records.
            parts: what was made of them, as `make_document` takes it.

        Returns:
            The exit code: 130 where Ctrl-C cut the run or its checks short, 5 where a verdict is INVALID, else 0.

        Raises:
            RobustCliError: what cut the run short, or why the file could not be written.
        """
        from robustcli.measure.document import make_document

        document = make_document(self.command, measured.records, origin_of(session), notes=self.notes, **parts)
        print_result(document, self.style, self.flags["json_file"])
        verdict = document["verdict"] or {"checkpoints": []}
        unchecked = any(one["interrupted"] for one in verdict["checkpoints"])
        if measured.stopped_by is None and not unchecked:
            self._keep(session, document)
        if isinstance(measured.stopped_by, RobustCliError):
            raise measured.stopped_by
        if measured.stopped_by is not None or unchecked:
            on = "" if self.path is None else "; the same command goes on from there"
            cut = "" if measured.stopped_by is not None else "; the checks were cut short"
            done = f"{len(measured.records)} of {session.rows} rows were finished and are kept{cut}{on}"
            fail(done, "interrupted")
            return 130
        return exit_code(document)

    def _keep(self, session: Session, document: Mapping[str, Any]) -> None:
        """Keep a document for whoever asks the same again."""
        if self.path is None or self.key is None:
            return
        from robustcli.data.load import data_folder
        from robustcli.measure.session import images_for
        from robustcli.store.documents import SHORT_SECONDS, data_files, remember, stamps

        wanted = [images_for(item.target, session.spec) for item in session.items]
        files = [path for spec in wanted for path in data_files(spec.dataset, data_folder(spec.data_dir))]
        stands_in = any(item.images.note for item in session.items)
        until = time.time() + SHORT_SECONDS if stands_in else None
        remember(self.path, self.key, document, stamps(dict.fromkeys(files)), until)


def _named(flags: Mapping[str, Any]) -> list[Path]:
    """The checkpoints that were given."""
    given = flags["checkpoint"]
    return [Path(given)] if isinstance(given, str | Path) else list(given or ())


def _run(
    session: Session,
    cache: Cache | None,
    goal: Goal | None,
    keep_images: bool,
    on_result: Callable[[Result], None],
    matrix: Matrix | None,
) -> Measured:
    from robustcli.attacks import label
    from robustcli.measure.anytime import evaluate_towards
    from robustcli.measure.evaluate import evaluate

    records: list[Record] = []
    names = short_paths(item.target.name for item in session.items)
    weights = session.weights()
    bar = progress()
    with bar:
        task = bar.add_task("", total=session.total + (matrix.total if matrix else 0))

        def on_progress(checkpoint: str, planned: Any, done: float, spared: float) -> None:
            weight = weights[planned]
            advance(bar, task, weight * done, weight * spared, visible(f"{names[checkpoint]}: {label(planned.attack)}"))

        try:
            if goal is None:
                keep = keep_images or matrix is not None
                results = evaluate(session, keep_images=keep, on_progress=on_progress, cache=cache)
            else:
                results = evaluate_towards(goal, session, on_progress=on_progress, cache=cache)
            with memory_guard():
                for result in results:
                    records.append(result.record)
                    on_result(result)
                    for n in matrix.take(result) if matrix else ():
                        advance(bar, task, 0, n)
        except (KeyboardInterrupt, RobustCliError) as reason:
            return Measured(records, reason)
    return Measured(records, None)


def print_result(
    document: Mapping[str, Any], style: str, json_file: Path | None, notes: Sequence[tuple[str, str]] = ()
) -> None:
    """Write the JSON file, tell the notes and print the document; each also where another cannot be written."""
    from robustcli.report.formats import print_document

    for kind, text in notes:
        tell(text, kind)
    with ExitStack() as after:
        after.callback(print_document, document, style, out())
        if json_file is not None:
            write_whole(json_file, (json.dumps(document, allow_nan=False) + "\n").encode(), "--json")


def exit_code(document: Mapping[str, Any]) -> int:
    """5 where the verdict is INVALID, else 0."""
    verdict = document["verdict"]
    return INVALID if verdict is not None and verdict["word"] == "INVALID" else 0


def read_flags(flags: Mapping[str, Any]) -> EvalSpec:
    """The spec that a command's flags mean.

    Raises:
        ConfigError: names the flag.
    """
    from robustcli.report.formats import FORMATS

    given = given_flags(flags)
    if flags["style"] not in FORMATS:
        raise unknown("--format", flags["style"], FORMATS)
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


def store_path(flags: Mapping[str, Any]) -> Path | None:
    """Where results are kept; None for `--no-store`.

    Raises:
        ConfigError: two flags that exclude each other, or a file that is no store.
        DataError: a store that someone has altered.
    """
    if not flags.get("no_store"):
        given = flags.get("store")
        if given:
            _check_store(Path(given))
        return Path(given or STORE)
    for flag, other in (("store", "--store"), ("keep_adversarials", "--keep-adversarials")):
        if flags.get(flag):
            raise ConfigError(f"--no-store: cannot be given together with {other}")
    return None


def _check_store(path: Path) -> None:
    """A file that was named to keep results in, and cannot do so, is told before hours of work and not after.

    What may pass, such as another process's lock or a full disk, costs no result: a warning says so later.
    """
    from robustcli.store.database import StoreError, connect

    if str(path) == ":memory:":
        raise ConfigError("--store :memory:: would keep nothing; give a file, or --no-store")
    try:
        connect(path, make=False, wait=0.5).close()
    except StoreError as error:
        if error.kind in ("other", "altered"):
            raise (ConfigError if error.kind == "other" else DataError)(f"--store {path}: {error}") from None


def sha256_of(path: Path) -> str:
    """A checkpoint's hash, without reading what is in it.

    Raises:
        OSError: it cannot be read.
        CheckpointError: the zoo has none of that name.
    """
    from robustcli.models.zoo import locate

    return file_hash(locate(path))


def tell(text: str, kind: str = "notice") -> None:
    """A line on stderr; `kind` is `notice`, `bold`, `warning` or `error`."""
    if kind in ("warning", "error"):
        (warn if kind == "warning" else fail)(text)
    else:
        notice(text, bold=kind == "bold")


def _warn_of(cache: Cache) -> None:
    """A line for each trouble with the store; the result is printed all the same."""
    for line in cache.troubles():
        warn(line)


def warn_of_slow(dtype: str, device: str) -> None:
    """Warn of a type that a device has no instructions for."""
    from robustcli.device import multiplies

    if not multiplies(dtype, device):
        what = "processor" if device == "cpu" else "GPU"
        warn(f"{dtype} is slow here: this {what} has no instructions for it; float32 is quicker")


def announce_sample(images: Images, tell: Callable[[str, str], None] = tell) -> None:
    """Say in bold that the bundled sample stands in for MNIST, and why; and what of a folder was not read."""
    for line in images.notices:
        tell(line, "notice")
    if images.name == "mnist-sample":
        why = f" ({images.note})" if images.note else ""
        tell(f"mnist-sample: the bundled 5 000 digits, not MNIST itself; numbers are rough{why}", "bold")


def data_of(session: Session) -> list[Path]:
    """The data sets that a session's checkpoints are measured on, as they are named."""
    from robustcli.measure.session import images_for

    return [Path(images_for(item.target, session.spec).dataset) for item in session.items]


def origin_of(session: Session) -> dict[str, Any]:
    """Where a session's numbers come from."""
    from robustcli.provenance import provenance

    fingerprint = ",".join(dict.fromkeys(item.images.fingerprint for item in session.items))
    return provenance(
        seed=session.spec.seed, device=session.device, data_fingerprint=fingerprint, spec=session.resolved()
    )
