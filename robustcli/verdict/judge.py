"""From findings to a word."""

from __future__ import annotations

from collections.abc import Sequence

from robustcli.attacks.norms import L1
from robustcli.evaluation.results import Row
from robustcli.verdict.effort import MANY_QUERIES, is_iterative, parts
from robustcli.verdict.findings import Finding, Verdict, Word, at_least
from robustcli.verdict.table import CHECKS, When

IN_ONE_RUN: tuple[When, ...] = ("preflight", "reuse", "full")


def judge(
    checkpoint: str,
    findings: Sequence[Finding],
    rows: Sequence[Row] = (),
    *,
    full: bool = False,
    interrupted: bool = False,
) -> Verdict:
    """The verdict on one checkpoint.

    INVALID and SUSPECT follow from the worst finding. RELIABLE takes, beyond their absence, an attack that is not weak
    (R23), a black-box attack beside the others (R12), a random search (R13, or Square's own with many queries), and
    that the checks came to their end.

    Args:
        checkpoint: whose numbers these are.
        findings: of all checks that ran.
        rows: the numbers.
        full: whether all checks were asked for.
        interrupted: whether Ctrl-C cut the checks short.
    """
    ran = {finding.id for finding in findings}
    not_run = tuple(name for name, check in CHECKS.items() if check.when in IN_ONE_RUN and name not in ran)
    missing = [CHECKS[name].title for name in ("R12", "R13") if name not in ran and not _searched(name, rows)]
    word, reason = _word(findings)
    if word == "RELIABLE" and not rows:
        word, reason = "PRELIMINARY", "nothing was measured"
    elif word == "RELIABLE" and interrupted:
        word, reason = "PRELIMINARY", "the checks were cut short"
    elif word == "RELIABLE" and missing:
        reason = f"{'could not run' if full else 'not run'}: {', '.join(missing)}; {_way(rows, full)}"
        word = "PRELIMINARY"
    return Verdict(checkpoint, word, reason, tuple(findings), not_run, interrupted)


def _way(rows: Sequence[Row], full: bool) -> str:
    """How the checks that a verdict misses can be run: they go on from an attack of many steps at a budget."""
    if full or not any(is_iterative(row.attack) and not isinstance(row.attack.norm, L1) for row in rows):
        return "an attack of many steps in Linf or L2 has to run at a budget"
    return "--checks full runs them, --preset standard has them"


def _word(findings: Sequence[Finding]) -> tuple[Word, str]:
    """What the findings alone say."""
    bad = at_least(findings, "SUSPECT")
    if bad:
        word: Word = "INVALID" if bad[0].level == "INVALID" else "SUSPECT"
        more = len({finding.id for finding in bad}) - 1
        return word, f"{bad[0].id}: {bad[0].message}" + (f" (and {more} more)" if more else "")
    weak = [finding for finding in findings if finding.id == "R23" and finding.level != "OK"]
    if weak:
        return "PRELIMINARY", weak[0].message
    return "RELIABLE", "for this threat model: nothing speaks against it"


def _searched(check: str, rows: Sequence[Row]) -> bool:
    """Whether Square, with queries enough, did R13's random search."""
    attacks = [one for row in rows for one in parts(row.attack)]
    return check == "R13" and any(
        one.name == "square" and int(getattr(one, "queries", 0)) >= MANY_QUERIES for one in attacks
    )
