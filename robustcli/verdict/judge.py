"""The verdict on a run: its checks, before it, from its rows and by more attacks; and from their findings to a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from robustcli.attacks.base import Attack, BudgetAttack, at_budgets, parts
from robustcli.attacks.norms import L1
from robustcli.errors import AttackError, OutOfMemoryError
from robustcli.measure.compare import Pair
from robustcli.measure.record import Record
from robustcli.measure.session import ImageSamples, Item, Session
from robustcli.measure.transfer import Transferred
from robustcli.verdict.check import CHECKS, RULES, Finding, When, at_least, findings, rules_for, with_id
from robustcli.verdict.controls import Setup
from robustcli.verdict.foreign import try_alternatives
from robustcli.verdict.model import MORE, inspect_model, spread_over
from robustcli.verdict.probes import Measurement
from robustcli.verdict.rows import MANY_QUERIES, Results, attack_of
from robustcli.verdict.survivors import LIMIT, MANY, Survivors

Word = Literal["RELIABLE", "PRELIMINARY", "SUSPECT", "INVALID"]
WORDS: tuple[Word, ...] = ("RELIABLE", "PRELIMINARY", "SUSPECT", "INVALID")
"""From the best to the worst."""

BOUND = "an upper bound; an adaptive attack may lower it"
"""What is true of every number, whatever the word."""

CUT_SHORT = "the checks were cut short"

IN_ONE_RUN: tuple[When, ...] = ("preflight", "reuse", "full")

FIRST = {"R23": 0, "R24": 1}
"""The checks whose warning is the reason where several bar the word: what ran, then the number to quote."""


@dataclass(frozen=True)
class Verdict:
    """How far the numbers of one checkpoint can be believed, and why no further.

    `not_run` are the ids of the checks that had nothing to judge, or did not run. `interrupted`: Ctrl-C cut the checks
    short, and another run may find more.
    """

    checkpoint: str
    word: Word
    reason: str
    findings: tuple[Finding, ...]
    not_run: tuple[str, ...]
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON holds it; `full_runs` are the checks that `--checks full` can run."""
        by_full = {rule.check for rule in RULES if rule.when == "full"}
        return {
            "checkpoint": self.checkpoint,
            "word": self.word,
            "reason": self.reason,
            "findings": [finding.as_dict() for finding in self.findings],
            "not_run": list(self.not_run),
            "full_runs": [name for name in self.not_run if name in by_full],
            "interrupted": self.interrupted,
        }


def as_document(verdicts: Sequence[Verdict], checks: str) -> dict[str, Any] | None:
    """The verdicts of a run under `--checks` as its document holds them, with the worst word; None without any."""
    if not verdicts:
        return None
    return {
        "word": max((verdict.word for verdict in verdicts), key=WORDS.index),
        "checks": checks,
        "note": BOUND,
        "checkpoints": [verdict.as_dict() for verdict in verdicts],
    }


def before(session: Session) -> dict[str, list[Finding]]:
    """The preflight of each checkpoint, P1 to P14.

    A model without usable logits has none but that of the attacks: the run itself says what is wrong with it.
    """
    found: dict[str, list[Finding]] = {}
    known: dict[tuple[object, ...], list[Finding]] = {}
    for item in session.items:
        attacks = [attack for planned in item.plan for attack in at_budgets(planned.attack, planned.budgets)]
        key = (item.images.fingerprint, *attacks)
        if key not in known:
            setup = Setup(item.images, attacks, session.spec.seed, session.device)
            known[key] = list(findings(setup, "preflight"))
        found[item.target.name] = [*_of_model(item, attacks, session.device), *known[key]]
    return found


def _of_model(item: Item, attacks: Sequence[Attack], device: str, most: int = MORE) -> list[Finding]:
    """What at most so many samples say of it; half as many where memory does not hold them."""
    if not most or not len(item.images):
        return []
    some = item.images.sample(spread_over(len(item.images), most))
    samples = ImageSamples(some, device)[slice(None)]
    model = item.target.module.to(device)
    try:
        inspection = inspect_model(model, samples, attacks)
        alternatives = try_alternatives(model, inspection)
        return [*findings(inspection, "preflight"), *findings(alternatives, "preflight")]
    except AttackError:
        return []
    except OutOfMemoryError:
        pass  # what it was raised from is free after this
    return _of_model(item, attacks, device, most // 2)


def after(
    item: Item,
    rows: Sequence[Record],
    session: Session,
    *,
    full: bool = False,
    limit: int | None = None,
    randomised: bool = False,
    cells: Sequence[Transferred] = (),
) -> Iterator[Finding]:
    """What the finished rows of one checkpoint say and, where `full`, what more attacks find; one by one.

    At most `limit` survivors of a budget meet these attacks: LIMIT if left out, and twice that above MANY samples.
    """
    results = Results(rows, randomised)
    yield from findings(results, "reuse")
    if not results.common:
        return
    common, images = set(results.common[0].ids), item.images
    images = images.take(torch.tensor([i for i, one in enumerate(images.ids.tolist()) if one in common]))
    measured = Measurement(
        model=item.target.module.to(session.device),
        images=images,
        rows=results.common,
        device=session.device,
        seed=session.spec.seed,
        chunk=session.chunk,
        limit=limit or (2 * LIMIT if len(images) > MANY else LIMIT),
        randomised=randomised,
        transfers=cells,
    )
    yield from findings(measured, "reuse")
    if full:
        for survivors in measured.survivors:
            yield from of_survivors(survivors)
        if len(measured.correct):
            yield from findings(measured, "full")


def of_survivors(survivors: Survivors) -> Iterator[Finding]:
    """What all checks of a budget say; where nothing stands there is nothing to find."""
    if len(survivors.standing):
        found = findings(survivors, "full")
    else:
        nothing = Finding("OK", f"nothing stands at {survivors.name}")
        found = (one for rule in rules_for(survivors, "full") for one in with_id(rule.check, nothing))
    yield from (replace(finding, budget=survivors.name) for finding in found)


def of_pairs(pairs: Sequence[Pair]) -> dict[str, list[Finding]]:
    """R19 to R21 by checkpoint: each has those of the pairs that it is in."""
    found: dict[str, list[Finding]] = {}
    for pair in pairs:
        own = list(findings(pair, "compare"))
        for row in (pair.a, pair.b):
            found.setdefault(row.subject.checkpoint, []).extend(own)
    return found


def verdicts(
    session: Session,
    rows: Sequence[Record],
    preflights: dict[str, list[Finding]],
    *,
    full: bool = False,
    limit: int | None = None,
    pairs: Sequence[Pair] = (),
    cells: Sequence[Transferred] = (),
) -> list[Verdict]:
    """The verdict on each checkpoint that has rows or was refused.

    Checks that Ctrl-C or a failing model cuts short count as not run; after Ctrl-C no more attacks run. `pairs` and
    `cells` are those of `compare` and of its transfer matrix; `preflights` is what `before` found; for `full` and
    `limit` see `after`.
    """
    found: list[Verdict] = []
    compared = of_pairs(pairs)
    interrupted = False
    for item in session.items:
        subject = item.subject
        name, own = subject.checkpoint, [row for row in rows if row.subject == subject]
        known = [*preflights.get(name, []), *compared.get(name, [])]
        randomised = any(finding.id == "P5" and finding.level != "OK" for finding in known)
        try:
            more = full and not interrupted
            for finding in after(item, own, session, full=more, limit=limit, randomised=randomised, cells=cells):
                known.append(finding)  # noqa: PERF402 - what was found before a stop counts
        except KeyboardInterrupt:
            interrupted = True
        except (AttackError, OutOfMemoryError):  # the rows are worth more than the rest of the checks
            pass
        if own or any(finding.level == "INVALID" for finding in known):
            found.append(judge(name, known, own, full=full, interrupted=interrupted))
    return found


def judge(
    checkpoint: str,
    found: Sequence[Finding],
    rows: Sequence[Record] = (),
    *,
    full: bool = False,
    interrupted: bool = False,
) -> Verdict:
    """The verdict on one checkpoint, from the findings of all checks that ran and its finished rows.

    INVALID and SUSPECT follow from the worst finding. RELIABLE means that an ensemble of AutoAttack's grade takes at
    most about a point more from these samples: it takes, beyond the absence of those, that such an ensemble ran at
    each budget, on all samples or on the survivors (R24), that no check at WARN bars the word, that there was a
    black-box attack beside the others (R12) and a random search (R13, or Square's own with many queries), and that the
    checks came to their end.
    """
    ran = {finding.id for finding in found}
    not_run = tuple(name for name, check in CHECKS.items() if check.when in IN_ONE_RUN and name not in ran)
    missing = [CHECKS[name].title for name in ("R12", "R13") if name not in ran and not _covered(name, rows)]
    if missing_at := _without_ensemble(found, rows):
        missing.insert(0, f"{CHECKS['R24'].title} at {', '.join(missing_at)}")
    if "P5" not in ran:
        missing.insert(0, "the preflight")
    word, reason = _word(found, interrupted)
    if word == "RELIABLE" and not rows:
        word, reason = "PRELIMINARY", "nothing was measured"
    elif word == "RELIABLE" and interrupted:
        word, reason = "PRELIMINARY", CUT_SHORT
    elif word == "RELIABLE" and missing:
        reason = f"{'could not run' if full else 'not run'}: {', '.join(missing)}; {_way(rows, full)}"
        word = "PRELIMINARY"
    return Verdict(checkpoint, word, reason, tuple(found), not_run, interrupted)


def _way(rows: Sequence[Record], full: bool) -> str:
    """How the checks that a verdict misses can be run: they go on from an attack at a budget."""
    if full or not any(row.eps is not None and row.norm != "l1" for row in rows):
        return "an attack of many steps in Linf or L2 has to run at a budget"
    members = {row.ensemble for row in rows if row.ensemble}
    if members - {row.attack["name"] for row in rows}:  # an ensemble that was interrupted
        return f"--checks full runs them; or let {', '.join(sorted(members))} finish"
    return "--checks full runs them, --preset standard has them"


def _word(found: Sequence[Finding], interrupted: bool) -> tuple[Word, str]:
    """What the findings alone say."""
    bad = at_least(found, "SUSPECT")
    if bad:
        word: Word = "INVALID" if bad[0].level == "INVALID" else "SUSPECT"
        more = len({finding.id for finding in bad}) - 1
        return word, f"{bad[0].id}: {bad[0].message}" + (f" (and {more} more)" if more else "")
    warnings = at_least(found, "WARN")
    barring = sorted((one for one in warnings if CHECKS[one.id].bars), key=lambda one: FIRST.get(one.id, len(FIRST)))
    if barring:
        return "PRELIMINARY", CUT_SHORT if interrupted and barring[0].id != "R23" else barring[0].message
    if warnings:
        named = ", ".join(dict.fromkeys(finding.id for finding in warnings))
        return "RELIABLE", f"for this threat model, an ensemble of AutoAttack's grade agrees; {named} warn"
    return "RELIABLE", "for this threat model: nothing speaks against it"


def _without_ensemble(found: Sequence[Finding], rows: Sequence[Record]) -> list[str]:
    """The budgets at which no ensemble of AutoAttack's grade ran, neither on all samples nor on the survivors."""
    budgets = {finding.budget for finding in found if finding.id == "R24"}
    names = dict.fromkeys(row.ball for row in rows if row.eps is not None)
    return [name for name in names if name not in budgets]


def _covered(check: str, rows: Sequence[Record]) -> bool:
    """Whether Square, with queries enough, did R13's random search; or there is no black-box attack, as in L1 (R12)."""
    attacks = [one for row in rows for one in parts(attack_of(row))]
    if check == "R12":
        return bool(attacks) and all(isinstance(one.norm, L1) and isinstance(one, BudgetAttack) for one in attacks)
    return any(int(getattr(one, "queries", 0)) >= MANY_QUERIES for one in attacks)
