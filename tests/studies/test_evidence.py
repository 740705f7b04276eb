"""What it takes to tell two numbers apart, and to have one at all."""

from __future__ import annotations

import pytest

from robustcli.studies.batchout.evidence import Evidence, NotMeasuredError, above, contrast, grade, list_accuracies
from robustcli.studies.batchout.part_results import Accuracy

from .conftest import attacked, evidence, mnist, seeded

FORTY = Accuracy(((400, 1000),))


def per_cent(value: float) -> Accuracy:
    return Accuracy(((round(10 * value), 1000),))


@pytest.mark.parametrize(("a", "expected"), [(46.2, True), (46.1, False), (40, False), (34, False)])
def test_a_number_is_above_another_where_the_intervals_are_disjoint(a: float, expected: bool) -> None:
    """[43.13, 49.30] and [43.03, 49.20], against [37.01, 43.07]."""
    assert above(per_cent(a), FORTY) == expected


def test_of_several_seeds_the_interval_is_students_where_that_is_wider() -> None:
    apart, alike = Accuracy(((400, 1000), (440, 1000), (480, 1000))), Accuracy(((440, 1000),) * 3)
    assert (apart.low, apart.high) == pytest.approx((44 - 4.3027 * 4 / 3**0.5, 44 + 4.3027 * 4 / 3**0.5), abs=1e-3)
    assert (alike.low, alike.high) == (per_cent(44).low, per_cent(44).high)
    assert above(per_cent(60), apart)
    assert not above(per_cent(55), apart)
    assert above(per_cent(55), alike)


@pytest.mark.parametrize(
    ("seeds", "a", "expected"),
    [
        ((50, 50, 50), 46.2, True),  # no deviation: the intervals decide
        ((50, 50, 50), 46.1, False),
        ((49, 50, 51), 46.2, True),  # 4.303 sqrt(2) x 1 = 6.09
        ((48, 50, 52), 52.1, False),  # 4.303 sqrt(2) x 2 = 12.17
        ((48, 50, 52), 52.2, True),
        ((50, 50), 90, False),  # two seeds say too little of what a third would do
        ((50,), 90, False),
        ((48, 50, 52), 34, False),  # below is not above
    ],
)
def test_beyond_seeds_is_beyond_samples_and_what_two_seeds_differ_by(
    seeds: tuple[float, ...], a: float, expected: bool
) -> None:
    assert evidence(seeded(*seeds)).beyond_seeds(per_cent(a), FORTY, "FGSM 0.3") == expected


def test_without_seeds_of_that_attack_nothing_is_beyond_them() -> None:
    assert not evidence().beyond_seeds(per_cent(90), FORTY, "FGSM 0.3")
    assert not evidence(seeded(50, 50, 50)).beyond_seeds(per_cent(90), FORTY, "FGSM 0.77")


@pytest.mark.parametrize(
    ("full", "part", "expected"),
    [
        (True, True, "holds"),
        (True, False, "holds"),
        (False, True, "holds in part"),
        (False, False, "does not hold"),
    ],
)
def test_a_verdict_has_three_grades(full: bool, part: bool, expected: str) -> None:
    assert grade(full, part) == expected


@pytest.mark.parametrize(
    ("full", "contrary", "expected"),
    [(True, False, "holds"), (False, True, "does not hold"), (False, False, "cannot be told")],
)
def test_where_neither_is_established_it_cannot_be_told(full: bool, contrary: bool, expected: str) -> None:
    assert contrast(full, contrary) == expected


@pytest.mark.parametrize(
    ("part", "label", "column"),
    [("fig2", "vanilla", "clean"), ("mnist", "unheard of", "clean"), ("mnist", "vanilla", "FGSM 0.77")],
)
def test_a_number_that_is_not_there_is_told(part: str, label: str, column: str) -> None:
    with pytest.raises(NotMeasuredError, match=part):
        evidence(mnist()).get(part, label, column)


def test_distances_name_every_seed_and_what_half_withstood() -> None:
    found = evidence(mnist(batchout=[attacked(l2=1.756), attacked(l2=None)]))
    assert found.distances("mnist", "BatchOut") == "1.76 / inf"
    with pytest.raises(NotMeasuredError):
        found.distances("mnist", "unheard of")


def test_numbers_are_listed_with_their_names() -> None:
    assert list_accuracies([("f1", FORTY), ("c1", per_cent(15))]) == "f1 40.0 [37.0, 43.1], c1 15.0 [12.9, 17.3]"


def test_speed_need_not_be_there() -> None:
    assert Evidence({}).speed == {}
