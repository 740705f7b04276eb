"""From findings to a word."""

from __future__ import annotations

from collections.abc import Sequence

from robustcli.attacks.norms import L1
from robustcli.measure.record import Row
from robustcli.verdict.effort import MANY_QUERIES, parts
from robustcli.verdict.findings import Finding, Verdict, Word, at_least
from robustcli.verdict.table import CHECKS, When

CUT_SHORT = "the checks were cut short"

IN_ONE_RUN: tuple[When, ...] = ("preflight", "reuse", "full")


FIRST = {"R23": 0, "R24": 1}
"""The checks whose warning is the reason where several bar the word: what ran, then the number to quote."""


def judge(
    checkpoint: str,
    findings: Sequence[Finding],
    rows: Sequence[Row] = (),
    *,
    full: bool = False,
    interrupted: bool = False,
) -> Verdict:
    """The verdict on one checkpoint.

    INVALID and SUSPECT follow from the worst finding. RELIABLE means that an ensemble of AutoAttack's grade takes at
    most about a point more from these samples: it takes, beyond the absence of those, that such an ensemble ran at
    each budget, on all samples or on the survivors (R24), that no check at WARN bars the word, that there was a
    black-box attack beside the others (R12) and a random search (R13, or Square's own with many queries), and that the
    checks came to their end.

    Args:
        checkpoint: whose numbers these are.
        findings: of all checks that ran.
        rows: the numbers.
        full: whether all checks were asked for.
        interrupted: whether Ctrl-C cut the checks short.
    """
    ran = {finding.id for finding in findings}
    not_run = tuple(name for name, check in CHECKS.items() if check.when in IN_ONE_RUN and name not in ran)
    missing = [CHECKS[name].title for name in ("R12", "R13") if name not in ran and not _covered(name, rows)]
    if unasked := _without_reference(findings, rows):
        missing.insert(0, f"{CHECKS['R24'].title} at {', '.join(unasked)}")
    if "P5" not in ran:
        missing.insert(0, "the preflight")
    word, reason = _word(findings, interrupted)
    if word == "RELIABLE" and not rows:
        word, reason = "PRELIMINARY", "nothing was measured"
    elif word == "RELIABLE" and interrupted:
        word, reason = "PRELIMINARY", CUT_SHORT
    elif word == "RELIABLE" and missing:
        reason = f"{'could not run' if full else 'not run'}: {', '.join(missing)}; {_way(rows, full)}"
        word = "PRELIMINARY"
    return Verdict(checkpoint, word, reason, tuple(findings), not_run, interrupted)


def _way(rows: Sequence[Row], full: bool) -> str:
    """How the checks that a verdict misses can be run: they go on from an attack at a budget."""
    if full or not any(row.eps is not None and not isinstance(row.attack.norm, L1) for row in rows):
        return "an attack of many steps in Linf or L2 has to run at a budget"
    members = {row.ensemble for row in rows if row.ensemble}
    if members - {row.attack.name for row in rows}:  # an ensemble that was interrupted
        return f"--checks full runs them; or let {', '.join(sorted(members))} finish"
    return "--checks full runs them, --preset standard has them"


def _word(findings: Sequence[Finding], interrupted: bool) -> tuple[Word, str]:
    """What the findings alone say."""
    bad = at_least(findings, "SUSPECT")
    if bad:
        word: Word = "INVALID" if bad[0].level == "INVALID" else "SUSPECT"
        more = len({finding.id for finding in bad}) - 1
        return word, f"{bad[0].id}: {bad[0].message}" + (f" (and {more} more)" if more else "")
    warnings = at_least(findings, "WARN")
    barring = sorted((one for one in warnings if CHECKS[one.id].bars), key=lambda one: FIRST.get(one.id, len(FIRST)))
    if barring:
        return "PRELIMINARY", CUT_SHORT if interrupted and barring[0].id != "R23" else barring[0].message
    if warnings:
        named = ", ".join(dict.fromkeys(finding.id for finding in warnings))
        return "RELIABLE", f"for this threat model, an ensemble of AutoAttack's grade agrees; {named} warn"
    return "RELIABLE", "for this threat model: nothing speaks against it"


def _without_reference(findings: Sequence[Finding], rows: Sequence[Row]) -> list[str]:
    """The budgets at which no ensemble of AutoAttack's grade ran, neither on all samples nor on the survivors."""
    asked = {finding.budget for finding in findings if finding.id == "R24"}
    names = dict.fromkeys(f"{row.attack.norm.label} {row.eps}" for row in rows if row.eps is not None)
    return [name for name in names if name not in asked]


def _covered(check: str, rows: Sequence[Row]) -> bool:
    """Whether Square, with queries enough, did R13's random search; or there is no black-box attack, as in L1 (R12)."""
    attacks = [one for row in rows for one in parts(row.attack)]
    if check == "R12":
        return bool(attacks) and all(isinstance(one.norm, L1) and hasattr(one, "eps") for one in attacks)
    return any(one.name == "square" and int(getattr(one, "queries", 0)) >= MANY_QUERIES for one in attacks)
