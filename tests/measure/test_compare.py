from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import ttest_ind

from robustcli.config import TrainSpec
from robustcli.errors import DataError
from robustcli.measure.compare import Contest, Family, contests, families, pairs, refuse_unequal
from robustcli.measure.record import Record

from ..records import record


def of(name: str, robust: str, attack: str = "fgsm", eps: str = "0.3") -> Record:
    return record(attack, eps, robust, name=name)


def test_samples_are_counted_by_who_withstood() -> None:
    (pair,) = pairs([[of("a", "1110000", eps="0.3")], [of("b", "1001100", eps="3/10")]])
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


def test_a_pair_as_json_says_how_many_samples_are_missing() -> None:
    (pair,) = pairs([[of("a", "1" * 30 + "0" * 70)], [of("b", "1" * 25 + "0" * 3 + "1" * 2 + "0" * 70)]])
    plain = json.loads(json.dumps(pair.as_dict(), allow_nan=False))
    assert (plain["a"], plain["b"], plain["label"], plain["norm"]) == ("a", "b", "fgsm", "linf")
    assert (plain["budget"], plain["eps"], "eps" in plain["attack"]) == ("0.3", 0.3, False)
    assert (plain["only_a"], plain["only_b"], plain["difference"]) == (3, 0, 0.03)
    assert (plain["separable"], plain["samples_needed"]) == (False, 260)
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
    ("other", "difference"),
    [
        (replace(of("b", "101"), dataset="cifar10"), "data set mnist and cifar10"),
        (of("b", "10"), "number of samples 3 and 2"),
        (replace(of("b", "101"), ids=(0, 1, 7)), "1 of 3 samples are others"),
        (of("b", "101", eps="0.1"), "eps 0.3 and 0.1"),
        (of("b", "101", "fgsm:norm=l2"), "norm linf and l2"),
        (of("b", "101", "pgd"), "attack "),
    ],
)
def test_records_that_differ_in_more_than_their_checkpoint_are_refused(other: Record, difference: str) -> None:
    with pytest.raises(DataError, match=f"a and b: cannot be compared: {difference}"):
        refuse_unequal(of("a", "101"), other)


# --- Over several seeds

Trained = tuple[list[Record], dict[str, Any]]


def group(method: str, seed: int, correct: int, attack: str = "fgsm") -> list[Record]:
    """A checkpoint's only record."""
    return [record(attack, "0.3", "1" * correct + "0" * (100 - correct), name=f"{method}-{seed}.pt", method=method)]


def spec(method: str, seed: int, **changes: Any) -> dict[str, Any]:
    return TrainSpec(method={"name": method}, seed=seed, **changes).as_dict()


def trained(method: str, *correct: int) -> list[Trained]:
    """A checkpoint a seed, with its spec."""
    return [(group(method, seed, count), spec(method, seed)) for seed, count in enumerate(correct)]


VANILLA = trained("vanilla", 10, 12, 11)
BATCHOUT = trained("batchout", 45, 41, 47)
FGSM = VANILLA[0][0][0].setting


def families_of(*parts: Trained) -> list[Family]:
    return families([rows for rows, _ in parts], [recipe for _, recipe in parts])


def contest_of(*parts: Trained) -> Contest:
    (contest,) = contests(families_of(*parts))
    return contest


def test_checkpoints_of_one_recipe_are_a_family_and_a_single_one_is_none() -> None:
    copy = (group("copy", 0, 90), spec("vanilla", 0))  # of a checkpoint: no other seed
    found = families_of(*VANILLA, *BATCHOUT, copy, *trained("pgd", 80))
    assert [(family.method, len(family.groups)) for family in found] == [("vanilla", 3), ("batchout", 3)]
    assert found[0].accuracies(FGSM) == [0.10, 0.12, 0.11]


def test_another_option_is_another_recipe_and_named_by_it() -> None:
    longer = [(rows, spec("vanilla", seed, epochs=30)) for seed, (rows, _) in enumerate(VANILLA)]
    assert [family.method for family in families_of(*VANILLA, *longer)] == ["vanilla epochs=12", "vanilla epochs=30"]


def test_a_contest_is_welchs_test() -> None:
    a, b = (10, 20, 15), (45, 62, 53)  # seeds differ by more than 100 samples alone would make them
    contest = contest_of(*trained("vanilla", *a), *trained("batchout", *b))
    assert contest.p == pytest.approx(float(ttest_ind(a, b, equal_var=False).pvalue))


def test_a_contest_as_json() -> None:
    plain = json.loads(json.dumps(contest_of(*VANILLA, *BATCHOUT).as_dict(), allow_nan=False))
    assert (plain["kind"], plain["a"]) == ("seeds", ["vanilla-0.pt", "vanilla-1.pt", "vanilla-2.pt"])
    assert (plain["label"], plain["budget"], plain["eps"]) == ("fgsm", "0.3", 0.3)
    assert (plain["method_a"], plain["accuracies_b"]) == ("vanilla", [0.45, 0.41, 0.47])
    assert (plain["difference"], plain["separable"]) == (pytest.approx(-1 / 3), True)


@pytest.mark.parametrize(("other", "separable"), [(10, False), (11, False), (90, True)])
def test_seeds_that_do_not_vary_are_taken_to_vary_as_much_as_samples_do(other: int, separable: bool) -> None:
    contest = contest_of(*trained("vanilla", 10, 10), *trained("pgd", other, other))
    assert contest.as_dict()["separable"] == separable
    assert (contest.p == 1.0) == (other == 10)


def test_an_attack_that_one_seed_alone_has_met_is_no_contest() -> None:
    lone = [(rows + group("vanilla", seed, 50, "pgd") * (seed == 0), s) for seed, (rows, s) in enumerate(VANILLA)]
    assert contest_of(*lone, *BATCHOUT).record.label == "fgsm"
