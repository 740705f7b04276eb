"""What a check found, and the word for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robustcli.verdict.table import CHECKS, Level

LEVELS: tuple[Level, ...] = ("OK", "INFO", "WARN", "SUSPECT", "INVALID")
"""From the best to the worst."""

Word = Literal["RELIABLE", "PRELIMINARY", "SUSPECT", "INVALID"]
WORDS: tuple[Word, ...] = ("RELIABLE", "PRELIMINARY", "SUSPECT", "INVALID")
"""From the best to the worst."""

BOUND = "an upper bound; an adaptive attack may lower it"
"""What is true of every number, whatever the word."""


@dataclass(frozen=True)
class Finding:
    """What one check says.

    Attributes:
        id: of the check, a key of `CHECKS`.
        level: OK where it has nothing against the number.
        message: what was seen, then the most likely cause, in one line.
        value: the number that was held against the criterion.
        budget: the norm and budget that it is about, such as `Linf 0.3`; None where it is about the whole.
    """

    id: str
    level: Level
    message: str
    value: float | None = None
    budget: str | None = None

    def __post_init__(self) -> None:
        assert self.id in CHECKS, self.id

    @property
    def criterion(self) -> str:
        """When the check speaks up."""
        return CHECKS[self.id].criterion

    @property
    def rank(self) -> int:
        """How bad it is: 0 for OK."""
        return LEVELS.index(self.level)

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON holds it."""
        told = {"id": self.id, "level": self.level, "message": self.message, "criterion": self.criterion}
        more = {"budget": self.budget, "value": self.value}
        return told | {key: value for key, value in more.items() if value is not None}


def at_least(findings: Iterable[Finding], level: Level) -> list[Finding]:
    """Those at a level or above, the worst first."""
    least = LEVELS.index(level)
    return sorted((one for one in findings if one.rank >= least), key=lambda one: -one.rank)


@dataclass(frozen=True)
class Verdict:
    """How far the numbers of one checkpoint can be believed.

    Attributes:
        checkpoint: whose.
        word: the verdict.
        reason: why it is no better, in one line.
        findings: all, OK ones too.
        not_run: ids of the checks that had nothing to judge, or were not asked for.
        interrupted: whether Ctrl-C cut the checks short; asked again, they may find more.
    """

    checkpoint: str
    word: Word
    reason: str
    findings: tuple[Finding, ...]
    not_run: tuple[str, ...]
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON holds it."""
        return {
            "checkpoint": self.checkpoint,
            "word": self.word,
            "reason": self.reason,
            "findings": [finding.as_dict() for finding in self.findings],
            "not_run": list(self.not_run),
            "interrupted": self.interrupted,
        }


def worst(verdicts: Iterable[Verdict]) -> Word:
    """The word of a table: that of its worst checkpoint."""
    return max((verdict.word for verdict in verdicts), key=WORDS.index)


def as_document(verdicts: Iterable[Verdict], checks: str) -> dict[str, Any] | None:
    """The verdicts of a run as its JSON document holds them, or None where no checkpoint was judged.

    Args:
        verdicts: one a checkpoint.
        checks: which checks were asked for, `quick` or `full`.
    """
    told = list(verdicts)
    if not told:
        return None
    return {
        "word": worst(told),
        "checks": checks,
        "note": BOUND,
        "checkpoints": [verdict.as_dict() for verdict in told],
    }


def from_document(told: Mapping[str, Any]) -> list[Verdict]:
    """The verdicts that `as_document` told of."""
    return [
        Verdict(
            one["checkpoint"],
            one["word"],
            one["reason"],
            tuple(
                Finding(each["id"], each["level"], each["message"], each.get("value"), each.get("budget"))
                for each in one["findings"]
            ),
            tuple(one["not_run"]),
            one["interrupted"],
        )
        for one in told["checkpoints"]
    ]
