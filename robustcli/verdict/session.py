"""The checks of a run: before it, from its rows, and by more attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from robustcli.attacks.base import Attack, at_budgets
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Samples
from robustcli.errors import AttackError, OutOfMemoryError
from robustcli.measure.evaluate import Item, Session
from robustcli.measure.record import Row
from robustcli.verdict.case import make_case
from robustcli.verdict.controls import control, controlled, self_test, transferred
from robustcli.verdict.effort import is_iterative
from robustcli.verdict.findings import Finding, Verdict
from robustcli.verdict.judge import judge
from robustcli.verdict.landscape import Scene, right_ones, survey
from robustcli.verdict.look import CLOSE, WIDE, look, spread_over
from robustcli.verdict.preflight import classes_in_sample, preflight
from robustcli.verdict.probes import LIMIT, MANY, probe
from robustcli.verdict.rivals import RIVALS, reference_ran
from robustcli.verdict.runs import EACH, RUNS, budgets, shared


@dataclass(frozen=True)
class Judged:
    """How a run is checked.

    Attributes:
        full: whether probes run, beyond what costs next to nothing.
        limit: how many survivors of a budget a probe takes; None takes LIMIT, and twice that above MANY samples.
    """

    full: bool = False
    limit: int | None = None

    def probed(self, n: int) -> int:
        """How many survivors of n samples' budgets a probe takes."""
        return self.limit or (2 * LIMIT if n > MANY else LIMIT)


def planned_attacks(item: Item) -> list[Attack]:
    """The attacks of an item, each with its budget."""
    return [attack for planned in item.plan for attack in at_budgets(planned.attack, planned.budgets)]


def before(session: Session) -> dict[str, list[Finding]]:
    """The preflight of each checkpoint, P1 to P14.

    A model without usable logits has none: the run itself says what is wrong with it.
    """
    found: dict[str, list[Finding]] = {}
    tested: dict[tuple[object, ...], list[Finding]] = {}
    for item in session.items:
        attacks = planned_attacks(item)
        try:
            own = _preflight(item, attacks, session.device)
        except (AttackError, OutOfMemoryError):
            own = []
        norms = tuple(dict.fromkeys(attack.norm for attack in attacks))
        if norms not in tested:
            tested[norms] = self_test(norms)
        key = (item.images.fingerprint, *attacks)
        if key not in tested:
            tested[key] = _control(item, attacks, session)
        found[item.candidate.subject.checkpoint] = [*own, *tested[norms], *tested[key]]
    return found


def _preflight(item: Item, attacks: Sequence[Attack], device: str) -> list[Finding]:
    samples = _samples(item, spread_over(len(item.images), WIDE), device)
    if not len(samples):
        return []
    return preflight(look(item.candidate.model.to(device), samples), attacks, item.images.shape)


def _control(item: Item, attacks: Sequence[Attack], session: Session) -> list[Finding]:
    if not controlled(item.images) or not len(item.images):
        return []
    few = _samples(item, spread_over(len(item.images), CLOSE), session.device)
    return control(item.images.name, few, attacks, session.spec.seed)


def _samples(item: Item, index: torch.Tensor, device: str) -> Samples:
    images = item.images
    return Samples(images.pixels(index, device), images.y[index].to(device), images.ids[index].to(device))


def after(
    item: Item,
    rows: Sequence[Row],
    session: Session,
    how: Judged,
    on_step: Callable[[], None] = lambda: None,
    randomised: bool = False,
) -> Iterator[Finding]:
    """What the rows of one checkpoint say and, where it was asked for, what probes find; one by one.

    Args:
        item: the checkpoint and its images.
        rows: all of it, finished.
        session: of the run.
        how: which checks.
        on_step: told after each probe of a budget.
        randomised: whether the model answers the same image differently.
    """
    for check in EACH:
        yield from check(rows)
    item, rows = _shared(item, rows)
    if not rows or not rows[0].n:
        return
    for check in (*RUNS, *RIVALS):
        yield from check(rows)
    yield from reference_ran(rows, randomised)
    model = item.candidate.model.to(session.device)
    with frozen(model), torch.no_grad():
        classes = Meter(model)(item.images.pixels(slice(1), session.device)).shape[1]
    yield classes_in_sample(classes, item.images.y, item.images.population)
    if controlled(item.images):
        index = spread_over(len(item.images), WIDE)
        tried = _samples(item, index, session.device)
        yield from transferred(item.images.name, model, tried, index, rows, session.spec.seed)
    if how.full:
        yield from _probes(item, model, rows, session, how, on_step, randomised)


def _shared(item: Item, rows: Sequence[Row]) -> tuple[Item, Sequence[Row]]:
    """The checkpoint's images and rows, on the samples that all rows have."""
    rows, ids = shared(rows), item.images.ids.tolist()
    if not rows or rows[0].ids == tuple(ids):
        return item, rows
    common = set(rows[0].ids)
    index = torch.tensor([i for i, sample in enumerate(ids) if sample in common], dtype=torch.int64)
    return replace(item, images=item.images.take(index)), rows


def _probes(
    item: Item,
    model: nn.Module,
    rows: Sequence[Row],
    session: Session,
    how: Judged,
    on_step: Callable[[], None],
    randomised: bool,
) -> Iterator[Finding]:
    samples = _samples(item, torch.arange(len(item.images)), session.device)
    spec, limit = session.spec, how.probed(len(samples))
    settings = {"limit": limit, "seed": spec.seed, "batch_size": spec.batch_size}
    for _, group in budgets(rows):
        yield from probe(make_case(model, samples, rows, group, **settings, randomised=randomised))
        on_step()
    right = right_ones(model, samples)
    index = right[spread_over(len(right), min(limit, CLOSE)).to(right.device)].cpu()
    strongest = [row for row in rows if row.ensemble is None and is_iterative(row.attack)]
    attack = min(strongest, key=lambda row: row.correct).attack if strongest else None
    yield from survey(Scene(model, item.images.take(index), _samples(item, index, session.device), attack, spec.seed))
    on_step()


def verdicts(
    session: Session,
    rows: Sequence[Row],
    preflights: dict[str, list[Finding]],
    how: Judged,
    on_step: Callable[[], None] = lambda: None,
) -> list[Verdict]:
    """The verdict on each checkpoint that has rows or was refused.

    Checks that Ctrl-C or a failing model cuts short count as not run; after Ctrl-C no more probes run.
    """
    found: list[Verdict] = []
    full, interrupted = how.full, False
    for item in session.items:
        name = item.candidate.subject.checkpoint
        own = [row for row in rows if row.subject == item.candidate.subject]
        findings = list(preflights.get(name, []))
        randomised = any(finding.id == "P5" and finding.level != "OK" for finding in findings)
        try:
            for finding in after(item, own, session, how, on_step, randomised):
                findings.append(finding)  # noqa: PERF402 - what was found before a stop counts
        except KeyboardInterrupt:
            how, interrupted = replace(how, full=False), True
        except (AttackError, OutOfMemoryError):  # the rows are worth more than the rest of the checks
            pass
        if own or any(finding.level == "INVALID" for finding in findings):
            found.append(judge(name, findings, own, full=full, interrupted=interrupted))
    return found
