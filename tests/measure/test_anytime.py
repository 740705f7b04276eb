from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.attacks import ATTACKS, parse_attack
from robustcli.config import EvalSpec
from robustcli.measure.anytime import Goal, evaluate_towards, left_out, sample_order
from robustcli.measure.evaluate import evaluate
from robustcli.measure.record import Record
from robustcli.measure.session import Session, open_session
from robustcli.measure.stats import wilson
from robustcli.store.cache import Cache

Paths = tuple[Path, Path]
SPEC = EvalSpec(
    attacks=("autoattack:rounds=2,queries=4", "pgd:steps=3", "fgsm", "deepfool:iters=3"), eps=("0.05", "0.1")
)


class Clock:
    """Tells a second more each time that it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def opened(paths: Any, **changes: Any) -> Session:
    return open_session(paths, SPEC.model_copy(update=changes))


def essence(row: Record) -> Any:
    return (row.setting, row.ids, row.robust, row.by_iter, row.clean_correct)


def test_with_enough_time_the_rows_are_those_of_a_whole_run_the_cheap_attacks_first(checkpoints: Paths) -> None:
    session = opened(checkpoints)
    rows = [result.record for result in evaluate_towards(Goal(seconds=1e9), session)]
    assert sorted(map(essence, rows)) == sorted(essence(result.record) for result in evaluate(session))
    assert left_out(session, rows) == []
    names = list(dict.fromkeys(row.ensemble or row.attack["name"] for row in rows))
    assert names == ["fgsm", "pgd", "deepfool", "autoattack"]


def test_the_declared_cost_has_the_order_of_the_counted_one() -> None:
    order = ["noise", "fgsm", "mifgsm", "pgd", "apgd", "deepfool", "apgd-t", "fab", "square", "autoattack"]
    costs = [parse_attack(name, {"eps": "0.1"}).cost for name in order]
    assert costs == sorted(costs)
    assert all(parse_attack(name, {"eps": "0.1"}).cost > 0 for name in ATTACKS)


@pytest.mark.parametrize("seconds", [5, 30, 60, 120])
def test_when_time_is_up_it_stops_and_says_what_is_left_out(checkpoints: Paths, seconds: int) -> None:
    session, clock = opened(checkpoints[:1]), Clock()
    rows = [result.record for result in evaluate_towards(Goal(seconds=seconds), session, clock=clock)]
    missing = left_out(session, rows)
    assert clock.now <= seconds + 20
    assert missing
    whole = {record.setting: record for record in (result.record for result in evaluate(session))}
    for row in rows:
        known = whole[row.setting]
        of = dict(zip(known.ids, known.robust, strict=True))
        assert row.robust == tuple(of[number] for number in row.ids)
        assert row.ids == tuple(sorted(row.ids))
    reached = {(part.attack, part.budget): part.reached for part in missing}
    assert all(count < 61 for count in reached.values())
    assert any(str(part).endswith("not run") for part in missing)


def test_a_part_is_a_random_one_and_the_same_for_every_attack(checkpoints: Paths) -> None:
    session = opened(checkpoints[:1])
    (item,) = session.items
    order = sample_order(item, 0).tolist()
    assert sorted(order) == list(range(61))
    assert order != sorted(order)
    assert sample_order(item, 1).tolist() != order
    few = opened(checkpoints[:1], limit=30)
    assert sample_order(few.items[0], 0).tolist() == [position for position in order if position < 30]


def test_an_interval_that_is_narrow_enough_ends_an_attack(checkpoints: Paths) -> None:
    session = opened(checkpoints[:1], batch_size=8)
    rows = [result.record for result in evaluate_towards(Goal(half_width=12.0), session)]
    for row in rows:
        low, high = wilson(row.correct, row.n)
        assert row.n == 61 or 50 * (high - low) <= 12 or row.kind != "minimal"
    assert min(row.n for row in rows) < 61
    assert {part.reached for part in left_out(session, rows)} <= {row.n for row in rows}


def test_an_impossible_interval_takes_all_samples(checkpoints: Paths) -> None:
    rows = [result.record for result in evaluate_towards(Goal(half_width=0.01), opened(checkpoints[:1]))]
    assert {row.n for row in rows} == {61}


def test_the_time_is_shared_by_the_checkpoints(checkpoints: Paths) -> None:
    rows = [result.record for result in evaluate_towards(Goal(seconds=80), opened(checkpoints), clock=Clock())]
    assert {Path(row.subject.checkpoint).name for row in rows} == {"a.pt", "b.pt"}


def test_a_later_call_goes_on_where_the_store_ends(checkpoints: Paths, tmp_path: Path) -> None:
    session = opened(checkpoints[:1])
    reached: list[int] = []
    for _ in range(4):
        with Cache(tmp_path / "r.db") as cache:
            results = evaluate_towards(Goal(seconds=40), session, cache=cache, clock=Clock())
            reached.append(sum(result.record.n for result in results))
        assert cache.troubles() == []
    assert reached == sorted(reached)
    with Cache(tmp_path / "r.db") as cache:
        rows = [result.record for result in evaluate(session, cache=cache)]
    assert [essence(row) for row in rows] == [essence(result.record) for result in evaluate(session)]
    assert sum(row.cached for row in rows) > 0


def test_the_model_is_as_it_was_when_time_is_up(checkpoints: Paths) -> None:
    session = opened(checkpoints[:1])
    model = session.items[0].target.module
    before: dict[str, Any] = {key: value.clone() for key, value in model.state_dict().items()}
    list(evaluate_towards(Goal(seconds=30), session, clock=Clock()))
    assert not model._forward_pre_hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_clock_that_has_run_out_gives_no_rows(checkpoints: Paths) -> None:
    late: Callable[[], float] = iter([0.0] * 3 + [1e9] * 1000).__next__
    session = opened(checkpoints[:1])
    assert list(evaluate_towards(Goal(seconds=1), session, clock=late)) == []
    assert len(left_out(session, [])) == 7
