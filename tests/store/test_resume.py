"""What was measured once is not measured again, and what is found again is what was measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.attacks import FABT, AutoAttack, BudgetAttack, Square, UniformNoise, autoattack
from robustcli.config import EvalSpec
from robustcli.engine import run as driver
from robustcli.engine import samples as engine_samples
from robustcli.measure import session as module
from robustcli.measure.evaluate import evaluate
from robustcli.measure.journal import FIRST
from robustcli.measure.record import Record
from robustcli.measure.session import Session, open_session
from robustcli.store.browse import broken, read
from robustcli.store.cache import Cache
from robustcli.store.database import connect

SPEC = EvalSpec(attacks=("fgsm", "pgd:steps=3", "deepfool:iters=3", "autoattack:rounds=2,queries=4"), eps="0.05,0.1")


@pytest.fixture
def measured(checkpoint: Path, tmp_path: Path) -> Callable[..., list[Record]]:
    """The rows of a spec, with `store` as memory, on the samples `index`."""

    def rows(store: str | None = "r.db", index: Any = slice(None), **changes: Any) -> list[Record]:
        session = chosen(open_session([checkpoint], SPEC.model_copy(update=changes)), index)
        if store is None:
            return [result.record for result in evaluate(session)]
        with Cache(tmp_path / store) as cache:
            found = [result.record for result in evaluate(session, cache=cache)]
        assert cache.troubles() == []
        return found

    return rows


def chosen(session: Session, index: Any) -> Session:
    (item,) = session.items
    return replace(session, items=(replace(item, images=item.images.take(index)),))


def essence(row: Record) -> tuple[Any, ...]:
    """Distances are left out: a batch of another size rounds their last digits in another way."""
    return (row.setting, row.ids, row.robust, row.by_iter, row.clean_correct)


def by_sample(rows: list[Record]) -> list[dict[int, int]]:
    return [dict(zip(row.ids, row.robust, strict=True)) for row in rows]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples passed a model forwards, call by call."""
    seen: list[int] = []
    checked = driver.Meter._check_logits

    def counted(self: Any, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return checked(self, logits, x)

    monkeypatch.setattr(driver.Meter, "_check_logits", counted)
    return seen


def test_a_second_run_gives_the_same_rows_and_computes_nothing(measured: Any, forwards: list[int]) -> None:
    plain, first = measured(None), measured()
    forwards.clear()
    second = measured()
    assert forwards == []
    assert [essence(row) for row in plain] == [essence(row) for row in first] == [essence(row) for row in second]
    assert [row.distance for row in plain] == [row.distance for row in first] == [row.distance for row in second]
    assert [row.cached for row in first] == [0] * len(first)
    assert [row.cached for row in second] == [row.n for row in second]
    assert [(row.forwards, row.backwards) for row in first] == [(row.forwards, row.backwards) for row in second]
    for before, after in zip(first, second, strict=True):
        assert after.seconds == pytest.approx(before.seconds, rel=0.01, abs=0.01)


def test_more_samples_compute_only_what_is_missing(measured: Any, forwards: list[int]) -> None:
    measured(limit=20)
    few = sum(forwards)
    forwards.clear()
    rows = measured()
    rest = sum(forwards)
    forwards.clear()
    assert [essence(row) for row in rows] == [essence(row) for row in measured(None)]
    assert few + rest < 1.1 * sum(forwards)
    assert {row.cached for row in rows} == {20}


def test_one_more_attack_or_budget_computes_only_that(measured: Any) -> None:
    measured(attacks=("fgsm",), eps=EvalSpec(eps="1/10").eps)
    more = {"attacks": ("fgsm", "pgd:steps=2"), "eps": EvalSpec(eps="0.1,0.2").eps}
    rows = measured(**more)
    assert [(row.cached, row.budget) for row in rows] == [(61, "0.1"), (0, "0.2"), (0, "0.1"), (0, "0.2")]
    assert [essence(row) for row in rows] == [essence(row) for row in measured(None, **more)]


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"dtype": "bfloat16"}, {"eot": 2}, {"attacks": ("pgd:steps=4",)}],
    ids=["seed", "dtype", "eot", "steps"],
)
def test_another_seed_type_or_parameter_is_another_result(measured: Any, change: dict[str, Any]) -> None:
    attacks = {"attacks": ("pgd:steps=3",)}
    measured(**attacks)
    assert {row.cached for row in measured(**(attacks | change))} == {0}


def test_numbers_of_older_attacks_are_not_recalled(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(attacks=("fgsm",))
    monkeypatch.setattr("robustcli.measure.journal.ATTACK_SCHEMA", 10**6)
    assert {row.cached for row in measured(attacks=("fgsm",))} == {0}


def test_the_batch_size_may_change(measured: Any) -> None:
    small, whole = (measured(f"{size}.db", batch_size=size) for size in (9, 256))
    assert [essence(row) for row in small] == [essence(row) for row in whole]
    assert {row.cached for row in measured("9.db", batch_size=5)} == {61}


def test_parts_and_a_permuted_order_share_a_store(measured: Any) -> None:
    whole = by_sample(measured(None))
    measured(index=torch.arange(0, 61, 2))
    assert {row.cached for row in measured(index=torch.arange(40))} == {20}
    permuted = measured(index=torch.randperm(61, generator=torch.Generator().manual_seed(3)))
    assert {row.cached for row in permuted} == {31 + 20}
    assert by_sample(permuted) == whole


def test_images_that_changed_are_measured_again(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(attacks=("fgsm",))
    take = module.load

    def altered(spec: Any, index: Any = None) -> Any:
        images = take(spec, index)
        x = images.x.clone()
        x[7] = 255 - x[7]
        return replace(images, x=x)

    monkeypatch.setattr(module, "load", altered)
    assert {row.cached for row in measured(attacks=("fgsm",))} == {60}


def test_the_images_of_the_first_broken_samples_are_stored(measured: Any, tmp_path: Path) -> None:
    rows = measured(
        attacks=("pgd:steps=3", "deepfool:iters=3", "autoattack:rounds=2,queries=4"), eps=EvalSpec(eps="0.2").eps
    )
    with Cache(tmp_path / "r.db") as cache:
        assert cache.connection is not None
        stored = dict(
            cache.connection.execute(
                "SELECT series.label || coalesce(series.ensemble, ''), count(*) FROM adversarials JOIN series "
                "ON series.id = series GROUP BY series"
            )
        )
    broken = {row.attack["name"]: row.clean_correct - row.correct for row in rows if row.ensemble is None}
    assert sorted(stored.values()) == sorted(min(FIRST, count) for count in broken.values())


def test_originals_and_confidences_are_kept_with_them_and_count_nowhere(
    measured: Any, checkpoint: Path, tmp_path: Path
) -> None:
    rows, plain = measured(attacks=("fgsm",)), measured(None, attacks=("fgsm",))
    assert (rows[0].forwards, rows[0].backwards) == (plain[0].forwards, plain[0].backwards)
    (item,) = open_session([checkpoint], SPEC).items
    images = dict(zip(item.images.ids.tolist(), item.images.x, strict=True))
    with closing(connect(tmp_path / "r.db")) as connection:
        line = [line for line in read(connection).lines if line.label == "fgsm"][-1]
        kept = broken(connection, line, 99)
    assert 0 < len(kept) <= FIRST
    for one in kept:
        assert one.picture.original == images[one.sample].numpy().tobytes()
        x_adv = torch.frombuffer(bytearray(one.picture.pixels), dtype=torch.float32).view(1, *one.picture.shape)
        with torch.no_grad():
            before = item.target.module(images[one.sample][None].float() / 255).softmax(1)[0, one.pred]
            after = item.target.module(x_adv).softmax(1)[0, one.pred_after]
        assert one.picture.confidence == pytest.approx((float(before), float(after)), abs=1e-5)


def test_looking_at_confidences_moves_no_draw_of_a_randomised_model(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustcli.measure.journal.FIRST", 0)
    torch.manual_seed(0)
    measured(attacks=("fgsm",))
    after = torch.rand(1)
    monkeypatch.setattr("robustcli.measure.journal.FIRST", 16)
    monkeypatch.setattr("robustcli.measure.journal.Meter", _Noisy)
    torch.manual_seed(0)
    measured("s.db", attacks=("fgsm",))
    assert torch.equal(torch.rand(1), after)


class _Noisy:
    """A model that draws, and then fails."""

    def __init__(self, model: object) -> None:
        torch.rand(9)
        raise RuntimeError("no answer")


def test_where_memory_runs_out_the_rest_goes_on_and_all_is_kept(
    measured: Any, monkeypatch: pytest.MonkeyPatch, forwards: list[int]
) -> None:
    plain = measured(None)
    exact = driver.Meter.exact

    def limited(self: Any, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return exact(self, x)

    monkeypatch.setattr(driver.Meter, "exact", limited)
    with pytest.warns(UserWarning, match="out of memory with") as caught:
        small = measured()
    monkeypatch.setattr(driver.Meter, "exact", exact)
    assert [str(one.message).split()[-1] for one in caught] == ["30", "15", "7"], "once for all attacks of a run"
    assert [essence(row) for row in small] == [essence(row) for row in plain]
    forwards.clear()
    assert [essence(row) for row in measured()] == [essence(row) for row in plain]
    assert forwards == []


# --- An ensemble that meets a sample first

FAST = {"attacks": ("autoattack:version=fast,queries=4",)}
SAMPLED = ({"eps": EvalSpec(eps="0.1").eps}, {"eps": EvalSpec(eps="0.02").eps, "seed": 2})
"""A budget at which the sample is broken, and one at which it stands."""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of 5, and first members that leave something to break."""

    def weak(whole: AutoAttack) -> tuple[BudgetAttack, ...]:
        eps = whole.eps
        return UniformNoise(eps), UniformNoise(eps, draws=2), Square(eps, queries=whole.queries), FABT(eps, iters=3)

    monkeypatch.setitem(autoattack.VERSIONS, "fast", weak)
    monkeypatch.setattr(engine_samples, "LEAST_SAMPLE", 5)


@pytest.mark.parametrize("budget", SAMPLED, ids=["broken", "stands"])
def test_a_sample_is_recalled_and_gives_the_same_rows(
    measured: Any, forwards: list[int], few: None, budget: Any
) -> None:
    plain, first = measured(None, **FAST, **budget), measured(**FAST, **budget)
    forwards.clear()
    second = measured(**FAST, **budget)
    assert forwards == []
    for rows in (first, second):
        assert [(essence(row), row.sampled) for row in rows] == [(essence(row), row.sampled) for row in plain]
        assert [(row.forwards, row.backwards) for row in rows[1:]] == [
            (row.forwards, row.backwards) for row in plain[1:]
        ]
    assert [(row.cached, row.n) for row in first + second] == 5 * [(0, 61)] + 5 * [(61, 61)]
    assert plain[-1].sampled is not None
    assert (plain[-1].sampled.broken > 0) == (plain[-1].sampled.unmet == 0) == (budget is SAMPLED[0])


@pytest.mark.parametrize("budget", SAMPLED, ids=["broken", "stands"])
def test_an_interrupted_run_goes_on_with_the_same_sample(
    measured: Any, monkeypatch: pytest.MonkeyPatch, few: None, budget: Any
) -> None:
    plain = measured(None, **FAST, **budget)
    checked, calls = driver.Meter._check_logits, 0

    def stops(self: Any, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls % 20 == 0 and calls < 200:
            raise KeyboardInterrupt
        return checked(self, logits, x)

    monkeypatch.setattr(driver.Meter, "_check_logits", stops)
    while True:
        try:
            rows = measured(**FAST, **budget, batch_size=3)
            break
        except KeyboardInterrupt:
            continue
    assert calls > 200
    assert [(essence(row), row.sampled) for row in rows] == [(essence(row), row.sampled) for row in plain]


def test_what_stood_in_a_small_run_and_is_broken_in_a_larger_one_is_broken_in_the_store(
    measured: Any, monkeypatch: pytest.MonkeyPatch, few: None, tmp_path: Path
) -> None:
    budget = SAMPLED[1]

    def whole() -> dict[int, int]:
        with Cache(tmp_path / "r.db") as cache:
            assert cache.connection is not None
            sql = "SELECT sample, robust FROM samples JOIN series ON series.id = series WHERE label LIKE 'autoattack%'"
            return dict(cache.connection.execute(sql))

    (small,) = by_sample(measured(**FAST, **budget)[-1:])
    assert whole() == small
    monkeypatch.setattr(engine_samples, "SAMPLE", 1.0)
    (large,) = by_sample(measured(**FAST, **budget)[-1:])
    assert sum(large.values()) < sum(small.values())
    assert whole() == large
    monkeypatch.setattr(engine_samples, "SAMPLE", 0.1)
    assert by_sample(measured(**FAST, **budget)[-1:]) == [small], "flags do not depend on what the store knows"
    assert whole() == large
