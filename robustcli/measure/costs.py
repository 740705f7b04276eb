"""What a session would take: the passes of each attack at most, and from a probe how long, in how much memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from robustcli.attacks import describe, label
from robustcli.attacks.base import Ensemble, MinimalAttack, Passes, SweepingAttack, TracingAttack, at_budgets, passes_of
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import bytes_a_sample
from robustcli.engine.threads import MOST
from robustcli.measure.journal import CacheJournal
from robustcli.measure.plan import Planned
from robustcli.measure.session import Item, Session
from robustcli.store.cache import Cache

PROBED, REPEATS = 32, 3

STRETCH = 2
"""What a run may be quicker or slower than the probe: chunks of another size, several at once, a busy machine."""

OVERHEAD = 1e-3
"""Seconds a pass of a chunk that an attack may compute by itself, on the smallest networks."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """What an attack takes of a model at most, or, without one, the clean predictions.

    Attributes:
        checkpoint: the model.
        label: the attack as tables write it.
        attack: its name and all parameters.
        budgets: as they were written.
        n: samples.
        known: samples, counted once a row, that the store has already.
        forwards, backwards: passes of a sample, all together; of what is known none.
        exact: whether a sample that is right before takes no fewer; one that is wrong takes none.
        least: passes, forwards and backwards, of samples that fall at once.
    """

    checkpoint: str
    label: str
    attack: dict[str, Any]
    budgets: tuple[str, ...]
    n: int
    known: int
    forwards: int
    backwards: int
    exact: bool
    least: tuple[int, int]


def costs(session: Session, cache: Cache | None = None) -> list[Cost]:
    """What is to be computed, a model and an attack a line, the clean predictions first."""
    return [cost for item in session.items for cost in _of_item(item, session, cache)]


def _of_item(item: Item, session: Session, cache: Cache | None) -> Iterator[Cost]:
    n, journal = len(item.images), None
    if cache is not None:
        journal = CacheJournal(cache, item.target, item.images, session.spec)
    name, eots = item.target.name, [max(session.spec.eot or 1, passes_of(one.attack)) for one in item.plan]
    for eot in dict.fromkeys(eots):
        known = 0 if journal is None else int(journal.knows(None, eot).sum())
        todo = (n - known) * eot
        yield Cost(name, "clean", {"name": "clean"}, (), n, known, todo, 0, True, (todo, 0))
    for planned, eot in zip(item.plan, eots, strict=True):
        yield _of_attack(item, session, planned, eot, journal)


def _of_attack(item: Item, session: Session, planned: Planned, eot: int, journal: CacheJournal | None) -> Cost:
    attack, n = planned.attack, len(item.images)
    rows = [
        (part, member, whole)
        for whole in at_budgets(attack, planned.budgets)
        for member, part in (enumerate(whole.members) if isinstance(whole, Ensemble) else [(None, whole)])
    ]
    forwards = backwards = known = least = 0
    exact, shared = not isinstance(attack, Ensemble), set()
    for part, member, whole in rows:
        here = torch.zeros(n).bool() if journal is None else journal.knows(whole, eot, member)
        todo = n - int(here.sum())
        known += n - todo
        passes: Passes = part.passes(len(item.target.classes))  # type: ignore[attr-defined]
        own, back = passes.forwards, passes.backwards
        judged = eot * (part.iters if isinstance(part, TracingAttack) else 1)
        if session.spec.dtype != "float32" and not isinstance(
            part, MinimalAttack
        ):  # what rounding broke is tried again
            own, back, judged, passes = 2 * own + 1, 2 * back, 2 * judged, passes._replace(exact=False)
        if isinstance(part, SweepingAttack) and tuple(here.tolist()) in shared:
            own = back = 0
        shared.add(tuple(here.tolist()))
        forwards, backwards = forwards + todo * (own + judged), backwards + todo * back
        exact, least = exact and passes.exact, least + todo
    fast = (forwards, backwards) if exact else (2 * least * eot, least * eot * (attack.needs == "gradients"))
    budgets, name = tuple(map(str, planned.budgets)), item.target.name
    parameters = {key: value for key, value in describe(attack).items() if key != "eps"}
    return Cost(name, label(attack), parameters, budgets, n, known, forwards, backwards, exact, fast)


@dataclass(frozen=True)
class Probe:
    """What passes of some samples took: seconds a sample, forwards and with the way back; bytes of a chunk."""

    samples: int
    right: int
    forward: Range
    both: Range
    memory: Range


def probe(item: Item, session: Session) -> Probe:
    """Time the passes of a chunk of a model's first samples, and measure the memory that a gradient takes."""
    n, device = min(PROBED, len(item.images)), torch.device(session.device)
    few = item.images.sample(torch.arange(n))
    x, y, model = few.batch(slice(None), device), few.y.to(device), item.target.module.to(device)
    with frozen(model):
        meter = Meter(model)
        forward = [_timed(meter, x, way_back=False) for _ in range(REPEATS + 1)][1:]
        with torch.no_grad():
            right = int((meter(x).argmax(1) == y).sum())
    if item.target.without_gradients:
        both, each = forward, 10.0 * x[0].nbytes
    else:
        with frozen(model):
            both = [_timed(meter, x, way_back=True) for _ in range(REPEATS + 1)][1:]
        each = bytes_a_sample(model, x)
    chunk = min(session.batch_size, len(item.images))
    base = _memory(device)
    low, high = base + each * min(chunk, n), base + STRETCH * each * chunk * (MOST if device.type == "cpu" else 1)
    return Probe(n, right, (min(forward), max(forward)), (min(both), max(both)), (low, high))


def _timed(model: Meter, x: torch.Tensor, way_back: bool) -> float:
    """Seconds a sample."""
    began = time.perf_counter()
    with torch.set_grad_enabled(way_back):
        logits = model(x.clone().requires_grad_(way_back))
        if way_back:
            logits.sum().backward()  # type: ignore[no-untyped-call]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return (time.perf_counter() - began) / max(1, len(x))


def _memory(device: torch.device) -> float:
    """Bytes that are in use: of the GPU, or the most so far of this process."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def seconds(cost: Cost, found: Probe) -> Range:
    """From where the samples fall early to where none does."""
    (quick, slow), (quick_both, slow_both) = found.forward, found.both
    least, way_back = cost.least
    share = max(0.0, found.right / found.samples - 0.2) if cost.exact and cost.label != "clean" else 1.0
    low = share * (way_back * quick_both + max(0, least - way_back) * quick) / STRETCH
    high = cost.backwards * slow_both + max(0, cost.forwards - cost.backwards) * slow
    own = (cost.forwards + cost.backwards) * OVERHEAD / found.samples
    return low / MOST, STRETCH * high + own


def as_document(session: Session, cache: Cache | None, command: str) -> dict[str, Any]:
    """The plan with its passes, seconds and bytes as JSON holds it."""
    probes = {item.target.name: probe(item, session) for item in session.items if len(item.images)}
    plan = []
    for cost in costs(session, cache):
        row = asdict(cost)
        del row["least"]
        plan.append(row | {"seconds": seconds(cost, probes[cost.checkpoint]) if cost.n else (0.0, 0.0)})
    return {
        "schema": 1,
        "command": command,
        "dry_run": True,
        "plan": plan,
        "seconds": [sum(row["seconds"][end] for row in plan) for end in (0, 1)],
        "memory_bytes": [max((found.memory[end] for found in probes.values()), default=0.0) for end in (0, 1)],
        "spec": session.resolved(),
    }
