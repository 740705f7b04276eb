"""What a session would take: the passes of each attack at most, and from a probe how long, in how much memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any

import torch

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

OVERHEAD = 1e-3
"""Seconds beside a pass of a chunk that an attack may take by itself, whatever the network."""


def forecast(session: Session, cache: Cache | None, command: str) -> dict[str, Any]:
    """The plan, a model and an attack a row, with passes, seconds and bytes, as JSON holds it.

    What the store knows is `known`, counted once a row, and takes nothing. Passes are counted in samples. `bound` is
    `exact` where no sample that is right before takes fewer, else `at most`, or `about` of an attack that says no more.
    """
    plan, memory = [], [(0.0, 0.0)]
    for item in session.items:
        probe = _Probe(item, session) if len(item.images) else None
        memory += [probe.memory] if probe else []
        for row in _rows(item, session, cache):
            least = row.pop("least")
            plan.append(row | {"seconds": probe.seconds(row, *least) if probe else (0.0, 0.0)})
    ends = (0, 1)
    return {
        "schema": 1,
        "command": command,
        "dry_run": True,
        "plan": plan,
        "seconds": [sum(row["seconds"][end] for row in plan) for end in ends],
        "memory_bytes": [max(found[end] for found in memory) for end in ends],
        "spec": session.resolved(),
    }


def _rows(item: Item, session: Session, cache: Cache | None) -> Iterator[dict[str, Any]]:
    """The clean predictions, then each attack; `least` are forwards and backwards of samples that fall at once."""
    n = len(item.images)
    journal = None if cache is None else CacheJournal(cache, item.target, item.images, session.spec)
    start = {"checkpoint": item.target.name, "n": n}
    passes = [max(session.spec.eot or 1, passes_of(one.attack)) for one in item.plan]
    for eot in dict.fromkeys(passes):
        known = 0 if journal is None else int(journal.knows(None, eot).sum())
        todo = (n - known) * eot
        row = {"label": "clean", "attack": {"name": "clean"}, "budgets": [], "known": known, "bound": "exact"}
        yield start | row | {"forwards": todo, "backwards": 0, "least": (todo, 0)}
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
            todo, cost = n - int(here.sum()), part.cost
            own, back = (cost.forwards, cost.backwards) if isinstance(cost, Passes) else (cost, cost)
            judged = eot * (part.iters if isinstance(part, TracingAttack) else 1)
            exact = member is None and isinstance(cost, Passes) and cost.exact
            if rounded and not isinstance(part, MinimalAttack):  # what rounding alone broke is attacked again
                own, back, judged, exact = 2 * own + 1, 2 * back, 2 * judged, False
            if isinstance(part, SweepingAttack) and tuple(here.tolist()) in shared:  # one gradient for all
                own = back = 0
            known, forwards, backwards = known + n - todo, forwards + todo * (own + judged), backwards + todo * back
            bounds.add("exact" if exact else "at most" if isinstance(cost, Passes) else "about")
            shared.add(tuple(here.tolist()))
    bound = next(one for one in ("about", "at most", "exact") if one in bounds)
    fall = eot * max(0, n * planned.runs - known)
    least = (2 * fall, fall * (planned.attack.needs == "gradients"))
    return {"known": known, "bound": bound, "forwards": forwards, "backwards": backwards, "least": least}


class _Probe:
    """Passes of a model's first samples: seconds of one forwards, and with its way back; bytes of a chunk at once."""

    def __init__(self, item: Item, session: Session) -> None:
        n, device = min(PROBED, len(item.images)), torch.device(session.device)
        few, model, honest = item.images.sample(torch.arange(n)), item.target.module, not item.target.without_gradients
        x = few.batch(slice(None), device)
        with frozen(model.to(device)):
            meter = Meter(model)
            self.forward = [_timed(meter, x, way_back=False) for _ in range(REPEATS + 1)][1:]
            self.both = [_timed(meter, x, way_back=honest) for _ in range(REPEATS + 1)][1:]
            self.right = float((predict(meter, x, n).cpu() == few.y).float().mean())
        each = bytes_a_sample(model, x) if honest else 10.0 * x[0].nbytes
        chunk, on_gpu = min(session.batch_size, len(item.images)), device.type == "cuda"
        process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = torch.cuda.memory_allocated(device) if on_gpu else process
        self.memory = (used + each * min(chunk, n), used + STRETCH * each * chunk * (1 if on_gpu else MOST))
        self.n = n

    def seconds(self, row: dict[str, Any], forwards: int, backwards: int) -> tuple[float, float]:
        """From where all samples fall at once, in so many passes, to where none does."""
        low = self.right * (backwards * min(self.both) + max(0, forwards - backwards) * min(self.forward))
        high = row["backwards"] * max(self.both) + max(0, row["forwards"] - row["backwards"]) * max(self.forward)
        own = (row["forwards"] + row["backwards"]) * OVERHEAD / self.n
        return low / STRETCH / MOST, STRETCH * high + own


def _timed(model: Meter, x: torch.Tensor, way_back: bool) -> float:
    """Seconds a sample."""
    began = time.perf_counter()
    with torch.set_grad_enabled(way_back):
        x = x.clone().requires_grad_(way_back)
        logits = model(x)
        if way_back:
            gradient_of(logits.sum(), x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return (time.perf_counter() - began) / len(x)
