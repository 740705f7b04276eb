from __future__ import annotations

import json
from dataclasses import replace

import pytest

from robustcli.errors import DataError
from robustcli.measure.pairs import pairs, refuse_unequal
from robustcli.measure.record import Record

from ..records import record


def of(name: str, robust: str, attack: str = "fgsm", eps: str = "0.3") -> Record:
    return record(attack, eps, robust, name=name)


def test_samples_are_counted_by_who_withstood() -> None:
    (pair,) = pairs([[of("a", "1110000")], [of("b", "1001100")]])
    assert (pair.table.both, pair.table.only_a, pair.table.only_b, pair.table.neither) == (1, 2, 2, 2)
    assert pair.p == 1.0
    assert not pair.separable


def test_every_two_meet_under_every_attack_and_p_is_adjusted_within_one() -> None:
    robust = {"a": "1" * 20, "b": "0" * 7 + "1" * 13, "c": "0" * 14 + "1" * 6}
    found = pairs([[of(name, text), of(name, "1" * 20, "pgd")] for name, text in robust.items()])
    assert [(pair.a.label, pair.a.subject.checkpoint, pair.b.subject.checkpoint) for pair in found] == [
        (label, *two) for label in ("fgsm", "pgd:steps=20") for two in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    p = 2 * 0.5**7
    assert [pair.p for pair in found[:3]] == pytest.approx([p, 2 * 0.5**14, p])
    assert [pair.p_holm for pair in found[:3]] == pytest.approx([2 * p, 6 * 0.5**14, 2 * p])
    assert [pair.p_holm for pair in found[3:]] == [1.0, 1.0, 1.0]


def test_one_checkpoint_has_no_pairs_and_an_unfinished_one_has_those_it_came_to() -> None:
    assert pairs([[of("a", "101")]]) == []
    whole = [of("a", "101"), of("a", "100", "pgd")]
    assert [pair.a.label for pair in pairs([whole, [of("b", "111")]])] == ["fgsm"]


def test_one_budget_written_in_two_ways_is_one() -> None:
    (pair,) = pairs([[of("a", "10", eps="0.1")], [of("b", "10", eps="1/10")]])
    assert pair.table.n == 2


def test_json_holds_plain_values_and_how_many_samples_are_missing() -> None:
    (pair,) = pairs([[of("a", "1" * 30 + "0" * 70)], [of("b", "1" * 25 + "0" * 3 + "1" * 2 + "0" * 70)]])
    told = json.loads(json.dumps(pair.as_dict(), allow_nan=False))
    assert (told["a"], told["b"], told["label"], told["norm"]) == ("a", "b", "fgsm", "linf")
    assert (told["budget"], told["eps"], "eps" in told["attack"]) == ("0.3", 0.3, False)
    assert (told["only_a"], told["only_b"], told["difference"]) == (3, 0, 0.03)
    assert (told["separable"], told["samples_needed"]) == (False, 260)
    (clear,) = pairs([[of("a", "1" * 9)], [of("b", "0" * 9)]])
    assert (clear.as_dict()["separable"], clear.as_dict()["samples_needed"]) == (True, None)


def test_the_samples_needed_are_those_of_the_adjusted_test() -> None:
    a, b = of("a", "1" * 40 + "0" * 16 + "1" * 944), of("b", "0" * 40 + "1" * 960)
    several = [[a], [b], *([of(f"c{i}", "1" * 40 + "0" * 16 + "1" * 944)] for i in range(7))]
    found = next(pair for pair in pairs(several) if pair.b is b)
    assert found.p < 0.05 < found.p_holm
    assert found.needed is not None
    assert found.needed > 1000


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(of("b", "101"), dataset="cifar10"), "data set mnist and cifar10"),
        (of("b", "10"), "number of samples 3 and 2"),
        (replace(of("b", "101"), ids=(0, 1, 7)), "1 of 3 samples are others"),
        (of("b", "101", eps="0.1"), "eps 0.3 and 0.1"),
        (of("b", "101", "fgsm:norm=l2"), "norm linf and l2"),
        (of("b", "101", "pgd"), "attack "),
    ],
)
def test_records_that_differ_in_more_than_their_checkpoint_are_refused(other: Record, told: str) -> None:
    with pytest.raises(DataError, match=f"a and b: cannot be compared: {told}"):
        refuse_unequal(of("a", "101"), other)
