from __future__ import annotations

import json
import math
import string
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks import DeepFool
from robustcli.data.images import Images
from robustcli.engine.run import Outcome
from robustcli.errors import DataError
from robustcli.measure.evaluate import to_record
from robustcli.measure.record import Record, Sampled, Subject
from robustcli.measure.stats import wilson

from ..records import record

INF = math.inf


def through_json(made: Record) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    return row


# --- From an attack's outcome, and back from its row


def test_a_record_is_the_outcome_by_sample_with_the_ids_of_the_images() -> None:
    y = torch.tensor([0, 1, 1])
    images = Images(
        torch.zeros(3, 1, 2, 2, dtype=torch.uint8), y, torch.tensor([107, 3, 9]), ("a", "b"), "bars", "bars/test"
    )
    outcome = Outcome(
        attack=DeepFool(iters=2),
        clean=torch.tensor([True, True, False]),
        robust=torch.tensor([True, False, False]),
        distance=torch.tensor([INF, 0.5, 0.0]),
        pred=torch.tensor([0, 1, 0]),
        pred_after=torch.tensor([0, 0, 0]),
        by_iter=(2, 1),
        x_adv=None,
        seconds=0.5,
        forwards=10,
        backwards=4,
    )
    made = to_record(Subject("a.pt", "ab", None, None), images, outcome, "train")
    assert (made.kind, made.norm, made.budget, made.split) == ("minimal", "l2", None, "train")
    assert (made.ids, made.y, made.pred, made.pred_after) == ((107, 3, 9), (0, 1, 1), (0, 1, 0), (0, 0, 0))
    assert (made.robust, made.distance, made.by_iter) == ((1, 0, 0), (INF, 0.5, 0.0), (2, 1))
    assert (made.n, made.clean_correct, made.correct, made.median_distance) == (3, 2, 1, 0.5)


words = st.text(max_size=8) | st.sampled_from(["a.pt", "\x1b[2J", "\ud800", "zoo:x"])
names = st.text(string.ascii_lowercase, min_size=1)
counts = st.integers(0, 2**40)


@st.composite
def records(draw: st.DrawFn) -> Record:
    distance = draw(st.lists(st.just(INF) | st.floats(0, allow_nan=False, allow_infinity=False), max_size=5))
    n = len(distance)
    few, ids = st.integers(0, n), st.lists(st.integers(), min_size=n, max_size=n)
    attack = draw(st.sampled_from(["fgsm", "pgd:norm=l1", "autoattack:norm=l2", "deepfool", "fmn"]))
    return record(
        attack,
        draw(st.sampled_from(["8/255", "0.10", "1e-3", "0", "1"])),
        subject=Subject(draw(words), draw(words), draw(st.none() | words), draw(st.none() | words)),
        dataset=draw(words),
        split=draw(words),
        label=draw(words),
        ids=tuple(draw(ids)),
        y=tuple(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))),
        distance=tuple(distance),
        by_iter=tuple(draw(st.lists(few, max_size=3))),
        seconds=draw(st.floats(0, 1e9)),
        forwards=draw(counts),
        backwards=draw(counts),
        ensemble=draw(st.none() | names) if attack == "fgsm" else None,
        correct_8bit=draw(st.none() | few),
        sampled=draw(st.none() | st.just(Sampled(("square", "fab-t"), n, n // 3, n // 9, n - n // 3))),
        cached=draw(counts),
    )


@given(records())
def test_a_record_survives_json(made: Record) -> None:
    assert Record.from_dict(through_json(made)) == made
    assert Record.from_dict(made.as_dict() | {"a key of a later version": 1}) == made


def test_what_follows_from_the_samples_is_counted_and_not_believed() -> None:
    row = record(robust="1100").as_dict()
    lies = {"n": 9, "correct": 4, "accuracy": 1.0, "clean_correct": 0, "ci95": [1, 1], "eps": 7.0}
    assert through_json(Record.from_dict(row | lies)) == json.loads(json.dumps(row))


# --- The row


def test_a_row_has_the_budget_as_it_was_written_and_counts_with_their_interval() -> None:
    row = through_json(record(eps="8/255", robust="1011"))
    assert (row["budget"], row["eps"], row["attack"]) == ("8/255", 8 / 255, {"name": "fgsm", "norm": "linf"})
    assert (row["n"], row["correct"], row["accuracy"], row["ci95"]) == (4, 3, 0.75, list(wilson(3, 4)))


@pytest.mark.parametrize(
    ("made", "kind", "median", "more"),
    [
        (record(robust="001"), "budget", None, set()),
        (record("deepfool", distance=(1.0, 2.0, INF), by_iter=(2, 1)), "minimal", 2.0, {"unconverged", "by_iter"}),
        (record("fmn", distance=(1.0, INF, INF)), "minimal", None, {"unconverged"}),
        (record("pgd", bisected=True, distance=(0.1, 0.2, 0.3)), "minimal", 0.2, {"unconverged"}),
        (record("autoattack"), "ensemble", None, set()),
        (record("autoattack", sampled=Sampled(("square",), 2, 1, 0, 1)), "ensemble", None, {"sampled"}),
        (record("apgd", ensemble="autoattack"), "budget", None, {"ensemble"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_kind_has_its_own_keys(made: Record, kind: str, median: float | None, more: set[str]) -> None:
    row = made.as_dict()
    assert (row["kind"], row["bound"], row["median_distance"]) == (kind, "upper", median)
    assert row.keys() - record().as_dict().keys() == more
    assert row["distance"][-1] == (None if made.robust[-1] else made.distance[-1])


def test_a_row_has_the_lower_end_of_what_a_sample_leaves_open() -> None:
    row = through_json(record("autoattack", robust="1" * 131 + "0" * 69, sampled=Sampled(("square",), 131, 50, 0, 81)))
    assert row["sampled"]["accuracy_low"] == pytest.approx((131 - 81 * wilson(0, 50)[1]) / 200)


def test_no_samples_divide_by_nothing() -> None:
    row = record(robust="").as_dict()
    assert (row["n"], row["accuracy"], row["ci95"]) == (0, 0.0, [0.0, 1.0])
    assert Record.from_dict(row) == record(robust="")


def test_settings_are_equal_where_the_attack_and_the_number_are() -> None:
    one = record("pgd", "0.1")
    assert one.setting == record("pgd", "1/10", "0", name="b.pt").setting
    others = [record("pgd", "0.2"), record("pgd:steps=2"), record("pgd:norm=l2"), record("pgd", ensemble="x")]
    assert one.setting not in [other.setting for other in others]


# --- What is no row


REQUIRED = record("deepfool", by_iter=(4, 2)).as_dict().keys() - {
    *("by_iter", "unconverged"),  # of some rows alone
    *("eps", "n", "clean_correct", "correct", "accuracy", "ci95", "median_distance"),  # counted anew
}


SAMPLED = {"members": ["square"], "survivors": 4, "probed": 1, "broken": 0, "unmet": 3}


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_a_key_that_is_missing_is_named(key: str) -> None:
    row = record().as_dict()
    with pytest.raises(DataError, match=f"^{key}: is missing$"):
        Record.from_dict({name: value for name, value in row.items() if name != key})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        *[({"checkpoint": None}, "checkpoint: "), ({"checkpoint_sha256": 3}, "checkpoint_sha256: ")],
        *[({"model": 1}, "model: "), ({"kind": "guess"}, "kind: "), ({"bound": "about"}, "bound: ")],
        *[({"attack": "fgsm"}, "attack: "), ({"label": None}, "label: "), ({"norm": 2}, "norm: ")],
        *[({"budget": text}, "budget: ") for text in ("x", "nan", "-1", "1/0", 0.1, None, "9" * 400)],
        *[({"kind": "minimal"}, "budget: "), ({"ids": 3}, "ids: "), ({"ids": [0, 1, 2, "3"]}, "ids.3: ")],
        *[({key: [0, 1, 0]}, f"{key}: has 3 values for 4 ids") for key in ("y", "pred", "pred_after", "robust")],
        *[({"distance": [0.1]}, "distance: has 1 "), ({"ids": [1]}, "y: has 4 values for 1 ids")],
        *[({"robust": [0, 1, flag, 0]}, "robust.2: ") for flag in (2, -1, True, None, "1", 0.5)],
        *[({"distance": [0, 0, far, 0]}, "distance.2: ") for far in (-0.1, math.nan, "1", [])],
        *[({"seconds": value}, "seconds: ") for value in (math.nan, INF, -1, None, "2")],
        *[({"forwards": -1}, "forwards: "), ({"backwards": 1.5}, "backwards: "), ({"cached": None}, "cached: ")],
        *[({"sampled": {**SAMPLED, "probed": 5}}, "sampled: its numbers"), ({"sampled": {}}, "sampled.members: ")],
        *[({"by_iter": [5]}, "by_iter: "), ({"by_iter": [-1]}, "by_iter.0: "), ({"correct_8bit": 5}, "correct_8bit: ")],
    ],
    ids=str,
)
def test_a_value_that_no_run_writes_names_its_key(change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=f"^{told}") as caught:
        Record.from_dict(record().as_dict() | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [None, 3, "row", [], [["checkpoint", "a.pt"]]])
def test_what_is_no_object_is_no_row(row: Any) -> None:
    with pytest.raises(DataError, match="should be an object"):
        Record.from_dict(row)


def test_the_builder_of_records_agrees_with_itself() -> None:
    """What the tests here are made of."""
    made = record("deepfool", distance=(0.0, 0.5, INF), y=(2, 1, 0))
    assert (made.clean_correct, made.robust, made.correct) == (2, (0, 0, 1), 1)
    assert [after == y for after, y in zip(made.pred_after, made.y, strict=True)] == [False, False, True]
