"""What a check is: one decorated function, which says all of it. To write one is all that it takes to add one.

A function takes one value, whose type says when it runs: an `Inspection` of the model or a `Setup` (before the run),
`Results` (from the rows), the `Survivors` of a budget or a `Measurement` (by more attacks, `--checks full`); of a
`Pair` of rows of two checkpoints the check says it. It answers with one finding, several, or none where there is
nothing to judge: then it counts as not run. Checks run in the order in which they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Literal, TypeVar, get_type_hints

from robustcli.errors import AttackError, OutOfMemoryError

Level = Literal["OK", "INFO", "WARN", "SUSPECT", "INVALID"]
LEVELS: tuple[Level, ...] = ("OK", "INFO", "WARN", "SUSPECT", "INVALID")
"""From the best to the worst."""

When = Literal["preflight", "reuse", "full", "compare"]
"""Before the run; from its rows; by more attacks (`--checks full`); for two checkpoints."""

RESERVED = ("R1",)
"""Ids that are not given again: R1 was of images outside ball or box, which the engine itself refuses."""

CARLINI = "Carlini et al. 2019"
AUTOATTACK = "Croce & Hein 2020"
PINTOR = "Pintor et al. 2022"


@dataclass(frozen=True)
class Finding:
    """What one check says.

    Attributes:
        level: OK where it has nothing against the number.
        message: what was seen, then the most likely cause, in one line.
        value: the number that was held against the criterion.
        budget: the norm and budget that it is about, such as `Linf 0.3`; None where it is about the whole.
        id: of the check, a key of `CHECKS`, which sets it.
    """

    level: Level
    message: str
    value: float | None = None
    budget: str | None = None
    id: str = ""

    @property
    def rank(self) -> int:
        """How bad it is: 0 for OK."""
        return LEVELS.index(self.level)

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON holds it, with its check's title and criterion."""
        check = CHECKS[self.id]
        plain = {"id": self.id, "title": check.title, "level": self.level, "message": self.message}
        more = {"criterion": check.criterion, "budget": self.budget, "value": self.value}
        return plain | {key: value for key, value in more.items() if value is not None}


Answer = Finding | Iterable[Finding] | None
V = TypeVar("V")


@dataclass(frozen=True)
class Check:
    """What a check is, apart from the functions that judge: these are its rules.

    Attributes:
        id, title: its name in tables.
        criterion: when it speaks up, with its thresholds.
        level: the worst that it says.
        when: where it runs.
        source: who proposed it; `ours` where the threshold is our own.
        bars: whether a WARN of it already bars the word RELIABLE.
    """

    id: str
    title: str
    criterion: str
    level: Level
    when: When
    source: str
    bars: bool


@dataclass(frozen=True)
class Rule:
    """One function of a check: of which one by its id, when it runs, and the type of the value that it judges."""

    check: str
    when: When
    takes: type
    judge: Callable[[Any], list[Finding]]


CHECKS: dict[str, Check] = {}
"""Every check by its id, in order."""

RULES: list[Rule] = []
"""Every function of every check, as they are written."""


def check(
    name: str,
    title: str,
    criterion: str,
    *,
    level: Level,
    source: str,
    when: When | None = None,
    bars: bool = False,
) -> Callable[[Callable[[V], Answer]], Callable[[V], list[Finding]]]:
    """Declare the check of this name, its id, and make a function its rule; the arguments are those of `Check`."""
    assert name not in RESERVED, name
    assert name not in CHECKS, name

    def decorated(judge: Callable[[V], Answer]) -> Callable[[V], list[Finding]]:
        rule = _add_rule(name, judge, when)
        CHECKS[name] = Check(name, title, criterion, level, rule.when, source, bars)
        for other in sorted(CHECKS, key=lambda other: (other[0], int(other[1:]))):
            CHECKS[other] = CHECKS.pop(other)
        return rule.judge

    return decorated


def also(name: str, *, when: When | None = None) -> Callable[[Callable[[V], Answer]], Callable[[V], list[Finding]]]:
    """Make a function another rule of the check of this name: it runs at another time, or on other values."""
    return lambda judge: _add_rule(name, judge, when).judge


def _add_rule(name: str, judge: Callable[[V], Answer], when: When | None) -> Rule:
    @wraps(judge)
    def judged(value: V) -> list[Finding]:
        return with_id(name, judge(value))

    hints = [hint for parameter, hint in get_type_hints(judge).items() if parameter != "return"]
    assert hints, f"{judge.__name__} does not say what it takes"
    rule = Rule(name, when or hints[0].when, hints[0], judged)
    RULES.append(rule)
    return rule


def with_id(name: str, answer: Answer) -> list[Finding]:
    """The findings of a check under its id."""
    found = [answer] if isinstance(answer, Finding) else list(answer or ())
    for finding in found:
        assert finding.rank <= LEVELS.index(CHECKS[name].level), f"{name} says {finding.level}"
    return [replace(finding, id=name) for finding in found]


def rules_for(value: object, when: When) -> list[Rule]:
    """The rules that run at this time on such a value."""
    return [rule for rule in RULES if rule.when == when and isinstance(value, rule.takes)]


def findings(value: object, when: When) -> Iterator[Finding]:
    """What they all say; one that the model gives nothing to work with counts as not run."""
    for rule in rules_for(value, when):
        try:
            found = rule.judge(value)
        except (AttackError, OutOfMemoryError):
            continue
        yield from found


def at_least(found: Iterable[Finding], level: Level) -> list[Finding]:
    """Those at a level or above, the worst first."""
    least = LEVELS.index(level)
    return sorted((one for one in found if one.rank >= least), key=lambda one: -one.rank)


def scientific(value: float) -> str:
    """`1e-4`."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def spaced(count: int) -> str:
    """`1 000`."""
    return f"{count:,}".replace(",", " ")
