"""What a session would take: the passes of each attack at most, and from a probe how long, in how much memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from robustcli.attacks import describe, label
from robustcli.attacks.base import Ensemble, MinimalAttack, Passes, SweepingAttack, TracingAttack, at_budgets, passes_of
from robustcli.attacks.losses import gradient_of
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import bytes_a_sample
from robustcli.engine.outcome import predict
from robustcli.engine.threads import MOST
from robustcli.measure.journal import CacheJournal
from robustcli.measure.plan import Planned
from robustcli.measure.session import Item, Session
from robustcli.store.cache import Cache

PROBED, REPEATS = 32, 3

STRETCH = 2
"""What a run may be quicker or slower than the probe: chunks of another size, several at once, a busy machine."""

BESIDE = 0.3e9
"""Bytes of the host's memory that a run may take beside its passes: for tables, the store and the checks."""

OVERHEAD = 1e-3
"""Seconds beside a pass of a chunk that an attack may take by itself, whatever the network."""


def forecast(session: Session, cache: Cache | None, command: str, keep_images: bool = False) -> dict[str, Any]:
    """The plan, a model and an attack a row, with passes, seconds and bytes, as JSON holds it.

    What the store knows is `known`, counted once a row, and takes nothing, unless images are kept. Passes are counted
    in samples. `bound` is `exact` where no sample that is right before takes fewer, else `at most`, or `about` of an
    attack that says no more.
    """
    plan, memory, probed = [], [(0.0, 0.0)], 0
    cache = None if keep_images or session.spec.eight_bit else cache
    for item in (item for item in session.items if len(item.images)):
        probe = _probe(item, session)
        memory.append(probe["memory"])
        probed = max(probed, probe["n"])
        plan += [row | {"seconds": _seconds(row, probe)} for row in _rows(item, session, cache)]
    low, high = ([sum(row["seconds"][end] for row in plan), max(one[end] for one in memory)] for end in (0, 1))
    made = {"seconds": [low[0], high[0]], "memory_bytes": [low[1], high[1]], "spec": session.resolved()}
    return {"schema": 1, "command": command, "dry_run": True, "probed": probed, "plan": plan} | made


def _rows(item: Item, session: Session, cache: Cache | None) -> Iterator[dict[str, Any]]:
    """The clean predictions, then each attack."""
    n = len(item.images)
    journal = None if cache is None else CacheJournal(cache, item.target, item.images, session.spec)
    start = {"checkpoint": item.target.name, "n": n}
    passes = [max(session.spec.eot or 1, passes_of(one.attack)) for one in item.plan]
    for eot in dict.fromkeys(passes):
        known = 0 if journal is None else int(journal.knows(None, eot).sum())
        work = {"known": known, "bound": "exact", "forwards": (n - known) * eot, "backwards": 0}
        yield start | {"label": "clean", "attack": {"name": "clean"}, "budgets": []} | work
    for planned, eot in zip(item.plan, passes, strict=True):
        parameters = {key: value for key, value in describe(planned.attack).items() if key != "eps"}
        row = {"label": label(planned.attack), "attack": parameters, "budgets": [*map(str, planned.budgets)]}
        yield start | row | _work(planned, n, session.spec.dtype != "float32", eot, journal)


def _work(planned: Planned, n: int, rounded: bool, eot: int, journal: CacheJournal | None) -> dict[str, Any]:
    """Passes of an attack at its budgets; each image is judged by `eot` more, that of a trace after each iteration."""
    forwards = backwards = known = 0
    bounds, shared = set(), set()
    for whole in at_budgets(planned.attack, planned.budgets):
        for member, part in enumerate(whole.members) if isinstance(whole, Ensemble) else [(None, whole)]:
            here = torch.zeros(n).bool() if journal is None else journal.knows(whole, eot, member)
            todo, cost, key = n - int(here.sum()), part.cost, tuple(here.tolist())
            bound = ("exact" if cost.exact and member is None else "at most") if isinstance(cost, Passes) else "about"
            own, back = (cost.forwards, cost.backwards) if isinstance(cost, Passes) else (cost, cost)
            judged = eot * (part.iters if isinstance(part, TracingAttack) else 1)
            if rounded and not isinstance(part, MinimalAttack):  # what rounding alone broke is attacked again
                own, back, judged, bound = 2 * own + 1, 2 * back, 2 * judged, "at most"
            if isinstance(part, SweepingAttack) and key in shared:  # one gradient for all
                own = back = 0
            known, forwards, backwards = known + n - todo, forwards + todo * (own + judged), backwards + todo * back
            bounds.add(bound)
            shared.add(key)
    bound = next(one for one in ("about", "at most", "exact") if one in bounds)
    return {"known": known, "bound": bound, "forwards": forwards, "backwards": backwards}


def _probe(item: Item, session: Session) -> dict[str, Any]:
    """Seconds a sample of passes, forwards and with the way back; the share that is right; bytes of a chunk at once."""
    n, device, model = min(PROBED, len(item.images)), torch.device(session.device), item.target.module
    few, honest = item.images.sample(torch.arange(n)), not item.target.without_gradients
    x = few.batch(slice(None), device)
    with frozen(model.to(device)):
        meter = Meter(model)
        forward, both = ([_timed(meter, x, way) for _ in range(REPEATS + 1)][1:] for way in (False, honest))
        right = float((predict(meter, x, n).cpu() == few.y).float().mean())
    each = bytes_a_sample(model, x) if honest else 10.0 * x[0].nbytes
    chunk, on_gpu = min(session.batch_size, len(item.images)), device.type == "cuda"
    process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = torch.cuda.memory_allocated(device) if on_gpu else process
    at_once, beside = (1, 0.0) if on_gpu else (MOST, BESIDE)
    memory = (used + each * min(chunk, n), used + STRETCH * each * chunk * at_once + beside)
    return {"n": n, "forward": forward, "both": both, "right": right, "memory": memory}


def _timed(model: Meter, x: Tensor, way_back: bool) -> float:
    began = time.perf_counter()
    with torch.set_grad_enabled(way_back):
        x = x.clone().requires_grad_(way_back)
        logits = model(x)
        if way_back:
            gradient_of(logits.sum(), x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return (time.perf_counter() - began) / len(x)


def _seconds(row: Mapping[str, Any], probe: Mapping[str, Any]) -> tuple[float, float]:
    """From where each sample falls at the first step, and is judged, to where none does."""
    forwards, backwards = row["forwards"], row["backwards"]
    fall = max(0, row["n"] * max(1, len(row["budgets"])) - row["known"])
    low = min(backwards, fall) * min(probe["both"]) + min(forwards, fall) * min(probe["forward"])
    high = backwards * max(probe["both"]) + max(0, forwards - backwards) * max(probe["forward"])
    own = (forwards + backwards) * OVERHEAD / probe["n"]
    return probe["right"] * low / STRETCH / MOST, STRETCH * high + own
