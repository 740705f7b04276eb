"""What attack, evaluate and compare do: open models and images, check, measure, judge, and deliver the document."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from robustcli import __version__
from robustcli.cli.console import Advance, err, fail, moving_bar, notice, out, tell, warn
from robustcli.cli.outputs import check_outputs
from robustcli.cli.request import Request, exit_code
from robustcli.cli.signals import INTERRUPTED, ignore_signals
from robustcli.errors import ConfigError, ModelError, ProcessError, RobustCliError, memory_guard, one_line
from robustcli.text import short_paths, visible

if TYPE_CHECKING:
    from robustcli.data.images import Images
    from robustcli.measure.anytime import Goal
    from robustcli.measure.compare import Pair
    from robustcli.measure.evaluate import Result
    from robustcli.measure.plan import Planned
    from robustcli.measure.record import Record
    from robustcli.measure.session import Session
    from robustcli.measure.transfer import Matrix, Transferred
    from robustcli.store.cache import Cache
    from robustcli.verdict.check import Finding


@contextmanager
def foreign_code() -> Iterator[None]:
    """Within it a network may print and warn, which goes to stderr, and its `sys.exit` is an error like any other."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: warn(one_line(message))
        try:
            yield
        except SystemExit as error:
            raise ModelError(f"the model ended the program: sys.exit({error.code!r})") from error


@dataclass(frozen=True)
class Measured:
    """The records that were finished, and what cut them short: Ctrl-C, an error, or nothing."""

    records: list[Record]
    stopped_by: KeyboardInterrupt | RobustCliError | None


class Measurement:
    """A request whose models and images are open, with nothing computed yet.

    Args:
        request: what to measure, and where the result goes.
        checkpoints: the models.

    Raises:
        RobustCliError: something is missing or does not fit.
    """

    def __init__(self, request: Request, checkpoints: Sequence[Path]) -> None:
        from robustcli.measure.session import images_for, open_session
        from robustcli.measure.shard import take_shard

        self.request = request
        with foreign_code():
            session = open_session(checkpoints, request.spec, request.index)
            self.session = take_shard(session) if request.spec.shard else session
        request.answer_for(self.session)
        self.preflights: dict[str, list[Finding]] = {}
        self.refused = False
        specs = [images_for(item.target, request.spec) for item in self.session.items]
        if request.leads:
            check_outputs(request.flags, [Path(spec.dataset) for spec in specs])

    def run(
        self,
        *,
        keep_images: bool = False,
        goal: Goal | None = None,
        on_result: Callable[[Result], None] = lambda _: None,
        matrix: Matrix | None = None,
    ) -> Measured:
        """Check the models and measure them under a progress bar.

        Ctrl-C or a model that fails leaves the records that are finished; a model that the checks refuse leaves none.

        Args:
            keep_images: keep the adversarial images in the results.
            goal: when to stop, where not all samples have to be reached.
            on_result: called with each result as soon as it is there.
            matrix: takes each result with its images.
        """
        from robustcli.attacks.base import MinimalAttack
        from robustcli.device import keep_freed_memory
        from robustcli.measure.shard import ELSEWHERE

        leads, ranks = self.request.leads, self.request.ranks
        if ranks is not None:
            if goal is not None:
                raise ConfigError("--budget, --until-ci: are of one process, and here are several; leave out torchrun")
            items, spec = self.session.items, self.session.resolved()
            plan = {key: value for key, value in spec.items() if key not in ELSEWHERE}
            pixels, models = [item.images.fingerprint for item in items], [item.target.key for item in items]
            ranks.agree({"models": models, "images": pixels, "flags": plan, "versions": __version__})
        if leads and not self.request.flags["dry_run"]:
            with foreign_code():
                self._preflight()
        if self.refused:
            return Measured([], None)
        session = self.session
        keep_freed_memory()
        if not all(isinstance(planned.attack, MinimalAttack) for item in session.items for planned in item.plan):
            warn_of_slow(session.spec.dtype, session.device)
        for images in {item.images.name: item.images for item in session.items}.values():
            announce_sample(images, self.request.tell)
        if session.shard is not None:
            self.request.tell(f"{session.shard['text']}; its table and verdict are those of a part", "bold")
        for line in session.notices():
            self.request.tell(line)
        for line in session.warnings():
            self.request.tell(line, "warning")

        if self.request.flags["dry_run"]:
            if leads:
                self._print_costs(keep_images or matrix is not None)
            raise typer.Exit

        records: list[Record] = []
        total = session.total + (matrix.total if matrix else 0)
        with self._cache() as cache, moving_bar(total) as advance:
            try:
                with memory_guard(), foreign_code():
                    for result in self._results(cache, goal, keep_images or matrix is not None, advance):
                        records.append(result.record)
                        show_row(result.record, several=len(session.items) > 1)
                        on_result(result)
                        for n in matrix.take(result) if matrix else ():
                            advance(0, n)
            except (KeyboardInterrupt, RobustCliError) as reason:
                if not leads:
                    raise
                failed = ranks.failed() if ranks is not None else None
                if failed or isinstance(reason, ProcessError):
                    ignore_signals()  # torchrun sends SIGTERM where a process has died: what is left is to say so
                return Measured(records, failed or reason)
        if not leads:
            raise typer.Exit
        return Measured(records, None)

    def _preflight(self) -> None:
        """The checks before a run; what is INVALID is a line each, and refuses the run unless `--force`."""
        flags, tell = self.request.flags, self.request.tell
        if flags["checks"] == "off":
            return
        from robustcli.verdict.judge import before

        self.preflights = before(self.session)
        invalid = [(name, one) for name, found in self.preflights.items() for one in found if one.level == "INVALID"]
        for name, finding in invalid:
            kind = "warning" if flags["force"] else "error"
            tell(f"{name}: INVALID {finding.id}: {finding.message}", kind)
        self.refused = bool(invalid) and not flags["force"]
        if self.refused:
            tell("nothing was measured; --force measures all the same, --checks off asks nothing")

    def _print_costs(self, keep_images: bool) -> None:
        """What the run would take, in the place of the run."""
        from robustcli.measure.costs import forecast
        from robustcli.report.formats import print_tables
        from robustcli.report.views import cost_tables

        style = self.request.flags["style"]
        if style == "csv":
            raise ConfigError("--format csv: a plan has none; table, json, markdown or latex show it")
        with self._cache() as cache, memory_guard(), foreign_code():
            document = forecast(self.session, cache, self.request.command, keep_images)
        if style == "json":
            out().file.write(json.dumps(document) + "\n")
        else:
            print_tables(cost_tables(document), style, out())

    @contextmanager
    def _cache(self) -> Iterator[Cache | None]:
        """The store's samples; trouble with it is a warning, and the result is printed all the same."""
        from robustcli.store.cache import Cache

        if self.request.store is None:
            yield None
            return
        keep_all = self.request.flags["keep_adversarials"]
        with Cache(self.request.store, self.session.provenance, keep_all=keep_all) as cache:
            for line in cache.troubles():
                warn(line)
            yield cache
        for line in cache.troubles():
            warn(line)

    def _results(self, cache: Cache | None, goal: Goal | None, keep_images: bool, advance: Advance) -> Iterator[Result]:
        from robustcli.measure.anytime import evaluate_towards
        from robustcli.measure.evaluate import evaluate

        on_progress = progress_of(self.session, advance)

        def on_notice(line: str) -> None:
            if ("warning", line) not in self.request.notes:  # of several models on the same images
                self.request.tell(line, "warning")

        if goal is None:
            return evaluate(
                self.session,
                keep_images=keep_images,
                on_progress=on_progress,
                cache=cache,
                on_notice=on_notice,
                ranks=self.request.ranks,
                on_judged=lambda name, counts: advance(0, 0, standing=(name, counts)),
            )
        return evaluate_towards(goal, self.session, on_progress=on_progress, cache=cache, on_notice=on_notice)

    def verdict(
        self, measured: Measured, pairs: Sequence[Pair] = (), cells: Sequence[Transferred] = ()
    ) -> dict[str, Any] | None:
        """The verdict on each checkpoint, as the document holds it; of a run that was cut short without probes."""
        level = self.request.flags["checks"]
        if level == "off":
            return None

        from robustcli.verdict.judge import as_document, verdicts

        full = level == "full" and measured.stopped_by is None and not self.refused
        status = err().status("checking") if full and err().is_terminal else nullcontext()
        with foreign_code(), status:
            found = verdicts(self.session, measured.records, self.preflights, full=full, pairs=pairs, cells=cells)
        return as_document(found, level)

    def deliver(self, measured: Measured, **parts: Any) -> int:
        """Make the document, write the JSON file and print it; what is finished is delivered whatever happens.

        Args:
            measured: the records.
            parts: what was made of them, as `make_document` takes it.

        Returns:
            The exit code: 130 where Ctrl-C cut the run or its checks short, 5 where a verdict is INVALID, else 0.

        Raises:
            RobustCliError: what cut the run short, or why the file could not be written.
        """
        from robustcli.measure.document import make_document

        request, stopped_by = self.request, measured.stopped_by
        origin = self.session.provenance()
        parts |= {"training": self.session.training(), "notes": request.notes}
        document = make_document(request.command, measured.records, origin, **parts)
        request.write(document)
        verdict = document["verdict"] or {"checkpoints": []}
        unchecked = any(one["interrupted"] for one in verdict["checkpoints"])
        if stopped_by is None and not unchecked:
            request.remember(document, self.session)
            return exit_code(document)
        cut = "; the checks were cut short" if stopped_by is None else ""
        on = "; the same command goes on from there" if request.store is not None else ""
        sizes = {item.subject: len(item.images) for item in self.session.items}
        partial = [record for record in measured.records if record.n < sizes[record.subject]]
        finished = len(measured.records) - len(partial)
        part = f", {len(partial)} on {partial[0].n} of {sizes[partial[0].subject]} samples," if partial else ""
        done = f"{finished} of {self.session.rows} rows were finished{part} and are kept{cut}{on}"
        if isinstance(stopped_by, ProcessError):
            raise ProcessError(f"{stopped_by}; {done}")
        if isinstance(stopped_by, RobustCliError):
            raise stopped_by
        why = "by Ctrl-C, or by torchrun, which stops all where one has died; " if request.ranks else ""
        fail(f"{why}{done}", "interrupted")
        return INTERRUPTED


def show_row(record: Record, several: bool) -> None:
    """One line for a row as soon as it is there, where somebody looks on; the table comes at the end."""
    from robustcli.report.table import interval, percent

    if err().is_terminal:
        whose = f"{record.subject.checkpoint}: " if several else ""
        rate = f"{percent(record.correct, record.n):>5} %  {interval(record.correct, record.n):<14}"
        notice(f"{f'{whose}{record.name} {record.ball}':<36} {rate} {record.seconds:7.1f} s")


def progress_of(session: Session, advance: Advance) -> Callable[[str, Planned, float, float], None]:
    """What `evaluate` calls on its way, to move a bar of `session.total` and name the checkpoint and the attack."""
    from robustcli.attacks import label

    names = short_paths(item.target.name for item in session.items)
    weights = session.weights()

    def on_progress(checkpoint: str, planned: Planned, done: float, spared: float) -> None:
        weight, name = weights[planned], visible(f"{names[checkpoint]}: {label(planned.attack)}")
        advance(weight * done, weight * spared, name, (done + spared) / planned.rows)

    return on_progress


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
