"""What `--dry-run` says of passes holds for what a run counts, by attack and model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.attacks import ATTACKS, parse_attack
from robustcli.attacks.base import Passes
from robustcli.config import EvalSpec
from robustcli.engine.run import run_attack
from robustcli.measure.costs import forecast
from robustcli.measure.evaluate import evaluate
from robustcli.measure.session import Session, open_session
from robustcli.store.cache import Cache
from robustcli.testing import tiny_net, tiny_samples
from robustcli.testing.effort import small_attack

SPECS = [
    ("fgsm:eps=0.05", {}),
    ("fgsm", {"eps": "0.02,0.05,0.1"}),
    ("fgsm:eps=0.05,target=random", {}),
    ("pgd:eps=0.02,steps=4", {}),
    ("pgd:eps=0.02,steps=4,early_stop=false", {}),
    ("pgd:eps=0.05,steps=3,restarts=3", {}),
    ("pgd", {"eps": "0.02,0.05", "eot": 2, "steps": 3}),
    ("mifgsm:eps=0.05,early_stop=false", {}),
    ("deepfool:iters=5", {}),
    ("deepfool:iters=2,box=none", {}),
    ("square:eps=0.05,queries=30", {}),
    ("square:eps=0.05,queries=7,restarts=2", {}),
    ("autoattack:eps=0.05,rounds=4,queries=10", {}),
    ("autoattack:eps=0.05,rounds=4,queries=10,version=fast", {}),
    ("autoattack:eps=0.05,rounds=3,version=rand,eot=2", {}),
    ("fmn:iters=6", {}),
    ("fab:iters=3", {}),
    ("cw:steps=5,binary_search_steps=2,abort_early=false", {}),
    ("apgd:eps=2,steps=10,norm=l1", {}),
    ("hopskipjump:iters=2,directions=10", {}),
    ("noise:eps=0.1,draws=3", {}),
    ("pgd:eps=0.02,steps=4", {"dtype": "bfloat16"}),
]


def session_of(path: Path, *attacks: str, **options: Any) -> Session:
    return open_session([path], EvalSpec(attacks=attacks, limit=24, **options))


def totals(rows: list[dict[str, Any]]) -> tuple[int, int]:
    return sum(row["forwards"] for row in rows), sum(row["backwards"] for row in rows)


@pytest.mark.parametrize(("spec", "options"), SPECS, ids=lambda value: str(value))
def test_what_a_run_counts_lies_within_what_was_said(checkpoint: Path, spec: str, options: dict[str, Any]) -> None:
    session = session_of(checkpoint, spec, **options)
    clean, planned = forecast(session, None, "evaluate")["plan"]
    records = [result.record for result in evaluate(session)]
    forwards, backwards = totals([record.as_dict() for record in records])
    right = records[0].clean_correct
    assert 0 < right < records[0].n, "some are wrong before"
    assert forwards - clean["forwards"] <= planned["forwards"]
    assert backwards <= planned["backwards"]
    if planned["bound"] == "exact":
        share = right / records[0].n
        assert (forwards - clean["forwards"], backwards) == (planned["forwards"] * share, planned["backwards"] * share)


def test_where_nothing_stops_early_it_is_said_so(checkpoint: Path) -> None:
    bounds = {
        spec: forecast(session_of(checkpoint, spec, **options), None, "")["plan"][1]["bound"]
        for spec, options in SPECS[:6]
    }
    assert list(bounds.values()) == ["exact", "exact", "exact", "at most", "exact", "at most"]


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("classes", [3])
def test_every_attack_knows_a_bound_that_holds(name: str, classes: int) -> None:
    net = tiny_net()
    samples = tiny_samples(net)
    attack = small_attack(name, "l2")
    cost = attack.cost
    assert isinstance(cost, int)
    assert cost > 0
    parts = getattr(attack, "members", (attack,))
    assert all(isinstance(part.cost, Passes) for part in parts)
    rows = run_attack(net, attack, samples, pred=None)
    judged = len(samples) * (1 + len(parts) * getattr(attack, "iters", 1))
    assert sum(row.forwards for row in rows) <= judged + len(samples) * sum(part.cost.forwards for part in parts)
    assert sum(row.backwards for row in rows) <= len(samples) * sum(part.cost.backwards for part in parts)


def test_a_bisection_says_about_how_much_it_takes(checkpoint: Path) -> None:
    plan = forecast(session_of(checkpoint, "pgd:steps=2", curve=True), None, "evaluate")["plan"]
    assert [row["bound"] for row in plan] == ["exact", "about"]


def test_what_the_store_knows_is_told_and_takes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    spec = ("pgd:steps=2,early_stop=false", "fgsm", "autoattack:eps=0.05,rounds=2,queries=3")
    small = open_session([checkpoint], EvalSpec(attacks=spec, limit=10, eps="0.05"))
    with Cache(tmp_path / "store.db") as cache:
        before = forecast(small, cache, "evaluate")["plan"]
        list(evaluate(small, cache=cache))
    content = (tmp_path / "store.db").read_bytes()
    whole = open_session([checkpoint], EvalSpec(attacks=spec, limit=24, eps="0.05,0.1"))
    with Cache(tmp_path / "store.db") as cache:
        after = forecast(whole, cache, "evaluate")["plan"]
        nothing = forecast(small, cache, "evaluate")
    assert (tmp_path / "store.db").read_bytes() == content
    assert [row["known"] for row in before] == [0, 0, 0, 0]
    assert [row["known"] for row in after] == [10, 10, 10, 40]
    assert [row["known"] for row in nothing["plan"]] == [10, 10, 10, 40]
    assert totals(nothing["plan"]) == (0, 0)
    assert after[0]["forwards"] == 14
    assert (after[1]["forwards"], after[1]["backwards"]) == (38 * 3, 38 * 2)


def test_time_and_memory_are_ranges(checkpoint: Path) -> None:
    found = forecast(session_of(checkpoint, "pgd", "square", "fmn", "deepfool"), None, "evaluate")
    assert found["dry_run"] is True
    for row in found["plan"]:
        assert 0 <= row["seconds"][0] < row["seconds"][1]
    assert found["seconds"][0] < found["seconds"][1]
    assert 1e7 < found["memory_bytes"][0] < found["memory_bytes"][1]


def test_a_model_without_gradients_is_probed_forwards(checkpoint: Path) -> None:
    session = session_of(checkpoint, "square:eps=0.05,queries=5")
    (item,) = session.items
    blind = replace(item, target=replace(item.target, without_gradients="its file has none"))
    assert forecast(replace(session, items=(blind,)), None, "evaluate")["plan"][1]["backwards"] == 0


def test_a_randomised_model_has_clean_predictions_for_each_number_of_passes(checkpoint: Path) -> None:
    plan = forecast(session_of(checkpoint, "fgsm:eps=0.1", "fgsm:eps=0.1,eot=3"), None, "evaluate")["plan"]
    assert [(row["label"], row["forwards"]) for row in plan] == [
        ("clean", 24),
        ("clean", 72),
        ("fgsm", 48),
        ("fgsm:eot=3", 144),
    ]


def test_the_cost_of_an_attack_is_a_number() -> None:
    cost = parse_attack("pgd:eps=0.1,steps=7,restarts=2").cost
    assert cost == 29
    assert (getattr(cost, "forwards", 0), getattr(cost, "backwards", 0)) == (15, 14)
