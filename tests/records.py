"""Records and documents for tests that need a result, and no run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from robustcli.attacks import describe, label, parse_attack
from robustcli.attacks.base import Attack, BudgetAttack, Ensemble, MinimalAttack
from robustcli.attacks.bisection import Bisection
from robustcli.fields import Eps
from robustcli.measure.compare import contests, families, pairs
from robustcli.measure.curve import curves
from robustcli.measure.document import make_document
from robustcli.measure.record import Kind, Record, Subject


def record(
    attack: str | Attack = "fgsm",
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
        attack: a SPEC, or an attack.
        eps: its budget, where the SPEC has none; a minimal-norm attack has none.
        robust: a 1 for each sample that withstood it, else a 0.
        name: the checkpoint.
        method: that trained it.
        bisected: whether the budget is looked for, and so none is given.
        changes: of any other field; where samples or their distances change, flags and predictions agree with them.
    """
    made = parse_attack(attack, {"eps": eps or "0.1"}) if isinstance(attack, str) else attack
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
        "budget": str(made.eps) if isinstance(made, BudgetAttack) else None,
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


def documents() -> dict[str, dict[str, Any]]:
    """A document of each kind, by what it is."""
    notes = [("notice", "checkpoint: a.pt"), ("bold", "mnist-sample: rough"), ("warning", "a.pt: was interrupted")]
    one = [
        record(eps="8/255"),
        record("apgd", ensemble="autoattack", correct_8bit=3),
        record("autoattack"),
        record("deepfool:iters=2", distance=(0.0, 0.5, 1.0, math.inf), by_iter=(2, 1)),
    ]
    names = ("x/vanilla-0.pt", "x/vanilla-1.pt", "x/fgsm-0.pt", "x/fgsm-1.pt")
    flags = ("1" * 12, "1" * 11 + "0", "0" * 10 + "10", "0" * 12)
    several = [
        [record("pgd", "0.3", robust, name=name, method=name[2:-5]), record("fmn", robust=robust, name=name)]
        for name, robust in zip(names, flags, strict=True)
    ]
    for group in several:
        group[1] = replace(group[1], subject=group[0].subject)
    specs = [{"method": {"name": group[0].subject.method}, "seed": seed % 2} for seed, group in enumerate(several)]
    recipes = families(several, specs)
    curve = curves([record("fmn", distance=(0.0, 0.1, 0.1, math.inf), y=(0, 0, 2, 2))], ("cat", "dog", "owl"))[0]
    cells = [
        {"source": source, "target": target, **several[0][0].setting_as_dict(), "n": 12, "correct": 6}
        | {"broken_beyond": [3] if source != target else []}
        for source in names[:2]
        for target in names[:2]
    ]
    rows = [one for group in several for one in group]
    between = [*(pair.as_dict() for pair in pairs(several)), *(contest.as_dict() for contest in contests(recipes))]
    methods = [recipe.as_dict() for recipe in recipes]
    return {
        "attack": make_document("attack", one[:1], {"seed": 0}, notes=notes),
        "evaluate": make_document("evaluate", [*one, *several[0]], {"seed": 0}, notes=notes),
        "curve": make_document("evaluate", one[-1:], {}, curves=[curve.as_dict([Eps("0"), Eps("8/255"), Eps("1")])]),
        "compare": make_document("compare", rows, {}, pairs=between, families=methods, transfer=cells, notes=notes),
        "no rows": make_document("evaluate", [], {}, notes=notes),
    }
