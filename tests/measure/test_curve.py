from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks import FMN, PGD, Attack, Bisection
from robustcli.attacks.norms import Linf
from robustcli.data.images import Images
from robustcli.engine.run import run_attack
from robustcli.errors import DataError
from robustcli.fields import Eps
from robustcli.measure.curve import Curve, Group, budgets_of, curves
from robustcli.measure.evaluate import to_record
from robustcli.measure.record import Subject
from robustcli.measure.stats import wilson
from robustcli.testing import boundary_distance, largest_eps, linear_model, linear_samples

from ..records import record

INF = math.inf
NEAREST, BISECTED = FMN(iters=40), Bisection(PGD(0.05, steps=3), steps=12)
distances = st.lists(st.just(0.0) | st.floats(1e-4, 10) | st.just(INF), min_size=1, max_size=30)


def curve(*found: float, labels: tuple[int, ...] | None = None) -> Curve:
    one = record("fmn", distance=found, y=labels or (0,) * len(found))
    return curves([one], ("cat", "dog", "owl"))[0]


def test_a_sample_counts_below_the_distance_of_its_closest_adversarial() -> None:
    everyone = curve(0.0, 0.1, 0.1, 0.3, INF).everyone
    assert [everyone.correct(eps) for eps in (0, 0.05, 0.1, 0.2, 0.3, 1e9)] == [4, 4, 2, 2, 1, 1]


def test_a_distance_that_rounding_pushed_past_its_budget_lies_within_it() -> None:
    single = float(torch.tensor(0.1, dtype=torch.float32))
    assert single > 0.1
    assert curve(single).everyone.correct(0.1) == 0


@given(distances, st.floats(0, 10), st.floats(0, 10))
def test_accuracy_never_rises_with_eps(found: list[float], one: float, other: float) -> None:
    everyone = curve(*found).everyone
    assert everyone.correct(min(one, other)) >= everyone.correct(max(one, other))


@given(distances)
def test_at_eps_0_all_that_were_right_are_left(found: list[float]) -> None:
    assert curve(*found).everyone.correct(0) == sum(distance > 0 for distance in found)


@given(distances, st.floats(0, 10))
def test_classes_add_up_to_all(found: list[float], eps: float) -> None:
    made = curve(*found, labels=tuple(i % 3 for i in range(len(found))))
    assert sum(group.correct(eps) for group in made.by_class) == made.everyone.correct(eps)
    assert sum(group.n for group in made.by_class) == made.everyone.n == len(found)


def test_classes_are_named_and_those_without_a_sample_left_out() -> None:
    made = curve(0.1, 0.2, 0.3, labels=(2, 0, 2))
    assert made.by_class == (Group("cat", (0.2,)), Group("owl", (0.1, 0.3)))


def test_the_closest_of_all_attacks_in_a_norm_counts() -> None:
    linf, l2 = curves(
        [
            record("fmn", distance=(0.0, 0.2, INF, 0.5)),
            record("pgd", bisected=True, distance=(0.0, 0.3, 0.4, INF)),
            record("deepfool", distance=(0.0, 1.0, 2.0, 3.0)),
        ],
        ("cat",),
    )
    assert (linf.norm, linf.attacks) == ("linf", ("fmn:iters=100", "bisect:pgd:steps=20"))
    assert linf.distances == (0.0, 0.2, 0.4, 0.5)
    assert (l2.norm, l2.attacks, l2.distances) == ("l2", ("deepfool:iters=50",), (0.0, 1.0, 2.0, 3.0))


def test_a_budget_attack_has_no_curve() -> None:
    assert curves([record("pgd")], ("cat",)) == []


def test_the_dictionary_is_json_and_holds_the_distances_and_the_points() -> None:
    made = curve(0.0, 0.1, 0.3, INF, labels=(0, 0, 1, 1))
    loaded = json.loads(json.dumps(made.as_dict([Eps("0"), Eps("51/255")]), allow_nan=False))
    assert (loaded["distances"], loaded["y"]) == ([0.0, 0.1, 0.3, None], [0, 0, 1, 1])
    assert (loaded["ids"], loaded["norm"], loaded["attacks"]) == ([0, 1, 2, 3], "linf", ["fmn:iters=100"])
    assert [(point["budget"], point["eps"], point["correct"], point["accuracy"]) for point in loaded["points"]] == [
        ("0", 0.0, 3, 0.75),
        ("51/255", 0.2, 2, 0.5),
    ]
    assert loaded["points"][1]["ci95"] == list(wilson(2, 4))
    assert loaded["median_distance"] == pytest.approx(0.3)
    assert [(part["class"], part["n"], part["points"][1]["correct"]) for part in loaded["by_class"]] == [
        ("cat", 2, 0),
        ("dog", 2, 2),
    ]


@given(distances, st.lists(st.sampled_from(["0", "0.10", "8/255", "1e-3"]), min_size=1, max_size=4))
def test_a_curve_survives_json_with_its_budgets_as_they_were_written(found: list[float], budgets: list[str]) -> None:
    made = curve(*found, labels=tuple(2 * (i % 2) for i in range(len(found))))
    plain = json.loads(json.dumps(made.as_dict([Eps(text) for text in budgets]), allow_nan=False))
    again, shown = Curve.from_dict(plain)
    assert (again.everyone, again.by_class, again.subject) == (made.everyone, made.by_class, made.subject)
    assert [str(eps) for eps in shown] == budgets
    assert again.as_dict(shown) == plain


@pytest.mark.parametrize(
    ("change", "place"),
    [
        *[({"y": [0]}, "y: "), ({"y": [0, "x"]}, "y.1: "), ({"distances": [0.1, "far"]}, "distances.1: ")],
        *[({"distances": [0.1, -1]}, "distances.1: "), ({"distances": [0.1, math.nan]}, "distances.1: ")],
        *[({"points": []}, "points: "), ({"points": [{}]}, "points.0.budget: "), ({"norm": 1}, "norm: ")],
        *[({"points": [{"budget": "x"}]}, "points.0.budget: "), ({"points": [{"budget": "-1"}]}, "points.0.budget: ")],
        *[
            ({"by_class": []}, "by_class: "),
            ({"by_class": [{"class": 1}]}, "by_class.0.class: "),
            ({"ids": 3}, "ids: "),
        ],
    ],
    ids=str,
)
def test_what_is_no_curve_names_the_key(change: dict[str, object], place: str) -> None:
    good = json.loads(json.dumps(curve(0.1, 0.2).as_dict([0.1])))
    with pytest.raises(DataError, match=f"^{place}"):
        Curve.from_dict(good | change)
    (key,) = change
    with pytest.raises(DataError, match=f"^{key}: "):
        Curve.from_dict({other: value for other, value in good.items() if other != key})


def test_half_unbroken_has_no_median() -> None:
    assert curve(0.1, INF, INF).everyone.median is None
    assert curve(0.1, 0.2, INF).everyone.median == pytest.approx(0.2)


@given(distances)
def test_budgets_left_out_are_even_and_reach_past_most_of_the_broken(found: list[float]) -> None:
    (budgets,) = budgets_of([curve(*found)], ()).values()
    broken = [distance for distance in found if 0 < distance < INF]
    assert budgets[0] == 0
    assert 1 <= len(budgets) <= 11
    assert sum(distance <= budgets[-1] * (1 + 1e-5) for distance in broken) >= 0.95 * len(broken)
    steps = [b - a for a, b in pairwise(budgets)]
    assert all(step == pytest.approx(steps[0], rel=1e-4) for step in steps)


def test_budgets_are_those_given_in_ascending_order_or_reach_over_all_curves_of_a_norm() -> None:
    near, far = curve(0.01, 0.02), curve(0.1, 0.2)
    assert budgets_of([near], (0.3, 0.1)) == {"linf": [0.1, 0.3]}
    assert budgets_of([near, far], ())["linf"][-1] >= 0.2
    assert budgets_of([curve(0.0, INF)], ()) == {"linf": [0.0]}, "nothing is broken"


@pytest.mark.parametrize("attacks", [(NEAREST,), (BISECTED,), (NEAREST, BISECTED)])
@pytest.mark.parametrize("batch_size", [3, 128])
def test_on_a_linear_model_the_curve_is_the_closed_form(attacks: tuple[Attack, ...], batch_size: int) -> None:
    model, reach = linear_model(Linf()), largest_eps(Linf())
    samples = linear_samples(model, Linf(), [reach * share for share in (0.1, 0.2, 0.35, 0.5, 0.6)])
    images = Images(samples.x, samples.y, samples.ids, ("left", "right"), "planes", "planes/test")
    records = []
    for attack in attacks:
        (outcome,) = run_attack(model, attack, samples, batch_size=batch_size)
        records.append(to_record(Subject("a.pt", "ab12", None, None), images, outcome))
    (made_curve,) = curves(records, images.classes)
    exact = boundary_distance(model, Linf(), samples)
    for share in (0.05, 0.15, 0.3, 0.45, 0.55, 0.7):
        assert made_curve.everyone.correct(reach * share) == int((exact > reach * share).sum())
    assert [group.n for group in made_curve.by_class] == [5, 5]
