"""`--checks` and `--force`: the checks around a run, and the verdict that comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robustcli.cli.console import err
from robustcli.cli.request import Measured, Request
from robustcli.errors import unknown

if TYPE_CHECKING:
    from robustcli.measure.compare import Pair
    from robustcli.measure.session import Session
    from robustcli.measure.transfer import Transferred
    from robustcli.verdict.check import Finding

CHOICES = ("quick", "full", "off")


@dataclass(frozen=True)
class Checking:
    """The checks of one command.

    Attributes:
        session: what runs.
        request: for what.
        preflights: what was found before, by checkpoint.
        stopped: whether the run must not start.
    """

    session: Session
    request: Request
    preflights: dict[str, list[Finding]] = field(default_factory=dict)
    stopped: bool = False

    def measure(self, **how: Any) -> Measured:
        """The session's records, as `Request.measure` has them; none where the run must not start."""
        return Measured([], None) if self.stopped else self.request.measure(self.session, **how)

    def verdict(
        self, measured: Measured, pairs: Sequence[Pair] = (), cells: Sequence[Transferred] = ()
    ) -> dict[str, Any] | None:
        """The verdict on each checkpoint, as the document holds it; of a run that was cut short without probes.

        Args:
            measured: the records.
            pairs: of two checkpoints under one attack, where they were compared.
            cells: of the transfer matrix, where it was asked for.
        """
        level = self.request.flags["checks"]
        if level == "off":
            return None

        from robustcli.verdict.judge import as_document, verdicts

        full = level == "full" and measured.stopped_by is None and not self.stopped
        with err().status("checking") if full and err().is_terminal else nullcontext():
            found = verdicts(self.session, measured.records, self.preflights, full=full, pairs=pairs, cells=cells)
        return as_document(found, level)


def look_first(session: Session, request: Request) -> Checking:
    """The checks before a run; what is INVALID is told at once, a line each, and stops it unless `--force`."""
    force = request.flags["force"]
    if request.flags["checks"] == "off":
        return Checking(session, request)

    from robustcli.verdict.judge import before

    preflights = before(session)
    invalid = [(name, one) for name, found in preflights.items() for one in found if one.level == "INVALID"]
    for name, finding in invalid:
        request.tell(f"{name}: INVALID {finding.id}: {finding.message}", "warning" if force else "error")
    if invalid and not force:
        request.tell("nothing was measured; --force measures all the same, --checks off asks nothing")
    return Checking(session, request, preflights, stopped=bool(invalid) and not force)


def read_level(text: str) -> str:
    """What `--checks` means.

    Raises:
        ConfigError: none of the choices.
    """
    if text not in CHOICES:
        raise unknown("--checks", text, CHOICES)
    return text
