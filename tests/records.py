"""Records and documents for tests that need a result, and no run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robustcli.attacks import describe, label, parse_attack
from robustcli.attacks.base import Ensemble, MinimalAttack
from robustcli.attacks.bisection import Bisection
from robustcli.measure.record import Kind, Record, Subject


def record(
    attack: str = "fgsm",
    eps: str | None = "0.1",
    robust: str | Sequence[int] = "1100",
    *,
    name: str = "a.pt",
    method: str = "vanilla",
    bisected: bool = False,
    **changes: Any,
) -> Record:
    """What an attack did to a model that was right on every sample before.

    Args:
        attack: a SPEC.
        eps: its budget; a minimal-norm attack has none.
        robust: a 1 for each sample that withstood it, else a 0.
        name: the checkpoint.
        method: that trained it.
        bisected: whether the budget is looked for, and so none is given.
        changes: of any other field; where samples or their distances change, flags and predictions agree with them.
    """
    made = parse_attack(attack, {"eps": eps or "0.1"})
    if bisected:
        made = Bisection(made)  # type: ignore[arg-type]
    if "distance" in changes:
        robust = [int(distance == math.inf) for distance in changes["distance"]]
    flags = tuple(map(int, robust))
    kind: Kind = "budget"
    if isinstance(made, MinimalAttack):
        kind = "minimal"
    elif isinstance(made, Ensemble):
        kind = "ensemble"
    distance = changes.get("distance", [math.inf if flag else 0.05 for flag in flags])
    y = tuple(changes.get("y", [0] * len(flags)))
    values: dict[str, Any] = {
        "subject": Subject(name, f"sha256 of {name}", "mnist-cnn", method),
        "dataset": "mnist",
        "split": "test",
        "kind": kind,
        "attack": {key: value for key, value in describe(made).items() if key != "eps"},
        "label": label(made),
        "norm": made.norm.name,
        "budget": None if kind == "minimal" else eps,
        "ids": tuple(range(len(flags))),
        "y": y,
        "pred": tuple(c + (far == 0) for c, far in zip(y, distance, strict=True)),
        "pred_after": tuple(c + (flag == 0) for c, flag in zip(y, flags, strict=True)),
        "robust": flags,
        "distance": tuple(distance),
        "seconds": 2.04,
        "forwards": 100,
        "backwards": 50,
    }
    return Record(**(values | changes))
