from __future__ import annotations

import json
from dataclasses import replace

import pytest

from robustcli.attacks import FGSM, PGD
from robustcli.attacks.base import Attack
from robustcli.attacks.norms import L2
from robustcli.errors import DataError
from robustcli.fields import Eps
from robustcli.measure.pairs import pairs, refuse_unequal
from robustcli.measure.record import Row, Subject

ATTACK = FGSM(eps=Eps("0.3"))


def row(name: str, robust: str, attack: Attack = ATTACK) -> Row:
    """A checkpoint's row, a digit a sample."""
    return Row(
        subject=Subject(name, "ab12", "mnist-cnn", "vanilla"),
        dataset="mnist",
        attack=attack,
        ids=tuple(range(len(robust))),
        robust=tuple(map(int, robust)),
        clean_correct=len(robust),
        median_distance=None,
        by_iter=(),
        seconds=1.0,
        forwards=10,
        backwards=10,
    )


def test_samples_are_counted_by_who_withstood() -> None:
    (pair,) = pairs([[row("a", "1110000")], [row("b", "1001100")]])
    assert (pair.table.both, pair.table.only_a, pair.table.only_b, pair.table.neither) == (1, 2, 2, 2)
    assert pair.p == 1.0
    assert not pair.separable


def test_every_two_meet_under_every_attack_and_p_is_adjusted_within_one() -> None:
    other = PGD(eps=0.1)
    robust = {"a": "1" * 20, "b": "0" * 7 + "1" * 13, "c": "0" * 14 + "1" * 6}
    groups = [[row(name, text), row(name, "1" * 20, other)] for name, text in robust.items()]
    found = pairs(groups)
    assert [(pair.a.attack, pair.a.subject.checkpoint, pair.b.subject.checkpoint) for pair in found] == [
        (attack, *two) for attack in (ATTACK, other) for two in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    p = 2 * 0.5**7
    assert [pair.p for pair in found[:3]] == pytest.approx([p, 2 * 0.5**14, p])
    assert [pair.p_holm for pair in found[:3]] == pytest.approx([2 * p, 6 * 0.5**14, 2 * p])
    assert [pair.p_holm for pair in found[3:]] == [1.0, 1.0, 1.0]


def test_one_checkpoint_has_no_pairs_and_an_unfinished_one_has_those_it_came_to() -> None:
    assert pairs([[row("a", "101")]]) == []
    whole = [row("a", "101"), row("a", "100", PGD(eps=0.1))]
    assert [pair.a.attack for pair in pairs([whole, [row("b", "111")]])] == [ATTACK]


def test_json_holds_plain_values_and_how_many_samples_are_missing() -> None:
    (pair,) = pairs([[row("a", "1" * 30 + "0" * 70)], [row("b", "1" * 25 + "0" * 3 + "1" * 2 + "0" * 70)]])
    said = json.loads(json.dumps(pair.as_dict(), allow_nan=False))
    assert (said["a"], said["b"], said["eps"], said["norm"]) == ("a", "b", 0.3, "linf")
    assert (said["only_a"], said["only_b"], said["difference"]) == (3, 0, 0.03)
    assert said["separable"] is False
    assert said["samples_needed"] == 260
    (clear,) = pairs([[row("a", "1" * 9)], [row("b", "0" * 9)]])
    assert clear.as_dict()["separable"] is True
    assert clear.as_dict()["samples_needed"] is None


def test_the_samples_needed_are_those_of_the_adjusted_test() -> None:
    a, b = row("a", "1" * 40 + "0" * 16 + "1" * 944), row("b", "0" * 40 + "1" * 960)
    several = [[a], [b], *([replace(a, subject=Subject(f"c{i}", "ab12", "mnist-cnn", "vanilla"))] for i in range(7))]
    found = next(pair for pair in pairs(several) if pair.b is b)
    assert found.p < 0.05 < found.p_holm
    assert found.needed is not None
    assert found.needed > 1000


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(row("b", "101"), dataset="cifar10"), "data set mnist and cifar10"),
        (row("b", "10"), "number of samples 3 and 2"),
        (replace(row("b", "101"), ids=(0, 1, 7)), "1 of 3 samples are others"),
        (row("b", "101", FGSM(eps=Eps("0.1"))), "eps 0.3 and 0.1"),
        (row("b", "101", FGSM(eps=Eps("0.3"), norm=L2())), "norm Linf and L2"),
        (row("b", "101", PGD(eps=Eps("0.3"))), "attack "),
    ],
)
def test_rows_that_differ_in_more_than_their_checkpoint_are_refused(other: Row, told: str) -> None:
    with pytest.raises(DataError, match=f"a and b: cannot be compared: {told}"):
        refuse_unequal(row("a", "101"), other)
