"""Each check of rows, on rows made for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from robustcli.attacks import parse_attack
from robustcli.measure.compare import Pair, pairs
from robustcli.measure.record import Sampled, Subject
from robustcli.verdict import rows
from robustcli.verdict.check import Finding, findings
from robustcli.verdict.judge import of_pairs
from robustcli.verdict.rows import is_autoattack_grade, on_common_samples

from .conftest import last, make_row, results

Said = Callable[[Any], list[Finding]]


@pytest.mark.parametrize(
    ("check", "standing", "levels"),
    [
        (rows.steps_beat_one, {"fgsm:eps=0.1": 50, "pgd:eps=0.1": 40}, "OK"),
        (rows.steps_beat_one, {"fgsm:eps=0.1": 50, "pgd:eps=0.1": 50}, "OK"),
        (rows.steps_beat_one, {"fgsm:eps=0.1": 60, "pgd:eps=0.1": 61}, "OK"),  # chance
        (rows.steps_beat_one, {"fgsm:eps=0.1": 40, "pgd:eps=0.1": 60}, "SUSPECT"),
        (rows.steps_beat_one, {"fgsm:eps=0.1": 99, "pgd:eps=0.1": 60}, "WARN"),
        (rows.steps_beat_one, {"fgsm:eps=0.1": 40, "pgd:eps=0.2": 60}, ""),  # of different budgets
        (rows.monotone, {"fgsm:eps=0.3": 40, "fgsm:eps=0.1": 90}, "OK"),
        (rows.monotone, {"fgsm:eps=0.3": 97, "fgsm:eps=0.1": 96}, "OK"),
        (rows.monotone, {"fgsm:eps=0.3": 95, "fgsm:eps=0.1": 80}, "SUSPECT"),
        (rows.unbounded, {"deepfool:iters=50": 0}, "OK"),
        (rows.unbounded, {"deepfool:iters=50": 1}, "OK"),
        (rows.unbounded, {"deepfool:iters=50": 5}, "WARN"),
        (rows.unbounded, {"deepfool:iters=50": 20}, "WARN"),
        (rows.unbounded, {"deepfool:iters=50": 21}, "SUSPECT"),
        (rows.unbounded, {"deepfool:iters=5": 50}, ""),  # may end early, as the next two
        (rows.unbounded, {"fmn": 50}, ""),
        (rows.unbounded, {"deepfool:iters=50,box=none": 50}, ""),
        (rows.black_box, {"pgd:eps=0.1": 80, "square:eps=0.1": 80}, "OK"),
        (rows.black_box, {"pgd:eps=0.1": 80, "square:eps=0.1": 79}, "OK"),
        (rows.black_box, {"pgd:eps=0.1": 80, "square:eps=0.1": 75}, "WARN"),
        (rows.black_box, {"pgd:eps=0.1": 80, "square:eps=0.1": 20}, "SUSPECT"),
        (rows.black_box, {"fgsm:eps=0.1": 80, "square:eps=0.1": 20}, ""),  # beside weak ones it says nothing
        (rows.black_box, {"noise:eps=0.1": 80, "square:eps=0.1": 20}, ""),
        (rows.black_box, {"pgd:eps=0.1,steps=1": 80, "square:eps=0.1": 20}, ""),
        (rows.loss_diversity, {"pgd:eps=0.1": 80, "apgd:eps=0.1,loss=dlr": 78}, "OK"),
        (rows.loss_diversity, {"pgd:eps=0.1": 80, "apgd:eps=0.1,loss=dlr": 40}, "WARN"),
        (rows.only_weak, {"fgsm:eps=0.1": 9}, "WARN"),
        (rows.only_weak, {"fgsm:eps=0.1": 9, "deepfool": 9, "noise:eps=0.1": 9}, "WARN"),
        (rows.only_weak, {"pgd:eps=0.1,steps=1": 9, "mifgsm:eps=0.1,steps=1": 9}, "WARN"),
        (rows.only_weak, {"fgsm:eps=0.1": 9, "pgd:eps=0.1": 9}, "OK"),
        (rows.only_weak, {"autoattack:eps=0.1": 9}, "OK"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_left_of_100_samples_is_judged(check: Said, standing: dict[str, int], levels: str) -> None:
    made = results(*(make_row(spec, count) for spec, count in standing.items()))
    assert [finding.level for finding in check(made)] == levels.split()


@pytest.mark.parametrize(
    ("method", "standing", "level"),
    [
        ("fgsm", {"fgsm:eps=0.3": 99, "pgd:eps=0.3": 0}, "SUSPECT"),
        ("fgsm", {"fgsm:eps=0.3": 99}, "WARN"),
        ("fgsm", {"pgd:eps=0.1,steps=1": 9}, "WARN"),
        ("pgd", {"pgd:eps=0.3": 90}, "WARN"),
        ("pgd", {"pgd:eps=0.3": 90, "square:eps=0.3": 90}, "OK"),
        ("vanilla", {"fgsm:eps=0.3": 9}, "OK"),
    ],
)
def test_a_defence_tested_by_the_attack_it_knows_is_named(method: str, standing: dict[str, int], level: str) -> None:
    made = results(*(make_row(spec, count, method=method) for spec, count in standing.items()))
    (finding,) = rows.knows_attack(made)
    assert finding.level == level
    if level == "SUSPECT":
        assert "leaves 99.0 % at Linf 0.3 where pgd:steps=20 leaves 0.0 %: catastrophic" in finding.message


def test_the_worst_case_is_over_attacks_for_each_sample() -> None:
    made = [make_row("fgsm:eps=0.1", 60), make_row("pgd:eps=0.1", last(60)), make_row("pgd:eps=0.3", 5)]
    low, high = rows.worst_cases(results(*made))
    assert (low.value, high.value) == (0.2, 0.05)
    assert "20.0 % of the samples, 40 fewer than under the strongest alone" in low.message


def test_a_closer_adversarial_of_a_minimal_norm_attack_counts() -> None:
    near = make_row("deepfool:norm=linf", 0, distance=(*[0.05] * 30, *[math.inf] * 70))
    (finding,) = rows.worst_cases(results(make_row("pgd:eps=0.1", 100), near))
    assert finding.value == 0.7


def test_what_one_step_alone_breaks_is_named_by_its_attack() -> None:
    (finding,) = rows.steps_beat_one(results(make_row("fgsm:eps=0.1", 50), make_row("pgd:eps=0.1", last(40))))
    assert (finding.level, "FGSM alone breaks 40" in finding.message) == ("WARN", True)
    (finding,) = rows.steps_beat_one(results(make_row("pgd:eps=0.1,steps=1", 99), make_row("pgd:eps=0.1", 60)))
    assert "PGD's number says nothing" in finding.message


def test_members_of_an_ensemble_are_held_against_those_before_them() -> None:
    made = [
        make_row("apgd:eps=0.1", 80, ensemble="autoattack"),
        make_row("apgd-t:eps=0.1", 70, ensemble="autoattack"),
        make_row("square:eps=0.1", 40, ensemble="autoattack"),
        make_row("autoattack:eps=0.1", 40),
    ]
    assert [(finding.level, finding.value) for finding in rows.black_box(results(*made))] == [("SUSPECT", 0.3)]
    assert [finding.level for finding in rows.loss_diversity(results(*made))] == ["INFO"]
    weaker = [*made[:-1], make_row("autoattack:eps=0.1,rounds=10", 40)]
    (finding,) = rows.loss_diversity(results(*weaker))
    assert (finding.level, "cross-entropy is masked" in finding.message) == ("WARN", True)


def test_the_interval_is_that_of_the_row_where_it_is_widest() -> None:
    (finding,) = rows.sample_size(results(make_row("pgd:eps=0.1", 50), make_row("pgd:eps=0.3", 0)))
    assert finding.message == "n = 100: the 95 % intervals reach to 9.6 points to each side"


@pytest.mark.parametrize(("n", "level"), [(1, "WARN"), (16, "WARN"), (92, "WARN"), (93, "INFO")])
def test_how_many_samples_are_enough_does_not_depend_on_the_outcome(n: int, level: str) -> None:
    (finding,) = rows.sample_size(results(make_row("pgd:eps=0.1", n, n)))
    assert finding.level == level
    assert ("take 93 or more" in finding.message) == (level == "WARN")


@pytest.mark.parametrize(("after", "level"), [(50, "OK"), (51, "OK"), (52, "INFO")])
def test_what_rounding_saves_is_counted_where_it_was_measured(after: int, level: str) -> None:
    made = results(make_row("pgd:eps=0.1", 50, correct_8bit=after), make_row("fgsm:eps=0.1", 60))
    (finding,) = rows.rounding_of_rows(made)
    assert (finding.id, finding.level) == ("R4", level)
    assert f"{after - 50} of 100 images of pgd:steps=20 at Linf 0.1 no longer fool" in finding.message


def test_no_rows_say_nothing() -> None:
    assert list(findings(results(), "reuse")) == []


def test_rows_of_a_run_that_stopped_early_are_cut_to_what_all_met() -> None:
    whole = make_row("fgsm:eps=0.1", 60)
    part = make_row("deepfool", [1, 0, 1], ids=(5, 7, 90), distance=(math.inf, 0.5, math.inf))
    first, second = on_common_samples([whole, part])
    assert (first.ids, first.robust) == ((5, 7, 90), (1, 1, 0))
    assert (second.ids, second.robust, second.distance) == ((5, 7, 90), (1, 0, 1), (math.inf, 0.5, math.inf))
    assert on_common_samples([whole, whole]) == [whole, whole]
    assert on_common_samples([]) == []


@pytest.mark.parametrize(
    ("spec", "graded"),
    [
        ("autoattack:eps=0.1", True),
        ("autoattack:eps=0.1,norm=l2", True),
        ("autoattack:eps=0.1,version=fast", True),
        ("autoattack:eps=5,norm=l1,version=fast", True),
        ("autoattack:eps=5,norm=l1", True),
        ("autoattack:eps=0.1,eot=20", True),
        ("autoattack:eps=0.1,version=rand", True),
        ("autoattack:eps=0.1,version=rand,eot=5", False),
        ("autoattack:eps=0.1,rounds=10", False),
        ("autoattack:eps=0.1,queries=100", False),
        ("apgd:eps=0.1,steps=1000", False),
        ("deepfool", False),
    ],
)
def test_which_attacks_are_of_autoattacks_grade(spec: str, graded: bool) -> None:
    assert is_autoattack_grade(parse_attack(spec)) == graded
    assert is_autoattack_grade(parse_attack(spec), randomised=False) == (graded and "rand" not in spec)


def test_what_an_ensemble_met_a_sample_of_is_judged_by_the_sample_and_the_interval_stands_beside_it() -> None:
    sampled = Sampled(("square", "fab-t"), 80, 50, 0, 30)
    specs = [f"{one}:eps=0.1" for one in ("apgd", "apgd-t", "square", "fab-t")]
    rows_ = [
        make_row(one, 80, ensemble="autoattack", sampled=sampled if i > 1 else None) for i, one in enumerate(specs)
    ]
    found = [*rows_, make_row("autoattack:eps=0.1,version=fast", 80, sampled=sampled)]
    (ran,) = rows.autoattack_ran(results(*found))
    assert (ran.level, ran.budget) == ("OK", "Linf 0.1")
    assert "square and fab-t on 50 of 80 survivors broke none: at most 2.1 points less (95 %)" in ran.message
    assert "square:queries=5000 at Linf 0.1 breaks 0 of 50 that" in rows.black_box(results(*found))[0].message


# --- Two checkpoints


def paired(standing: int = 50, **changes: Any) -> Pair:
    """A checkpoint of which the first 50 stand, and another of which the last ones do."""
    other = make_row("pgd:eps=0.1", last(standing), subject=Subject("b.pt", "b" * 64, "mnist-cnn", "vanilla"))
    (pair,) = pairs([[make_row("pgd:eps=0.1", 50)], [other]])
    return replace(pair, b=replace(pair.b, **changes))


def test_two_checkpoints_that_cannot_be_separated_are_not_ranked() -> None:
    assert [[one.level for one in rows.comparison(paired(count))] for count in (52, 90)] == [["INFO"], ["OK"]]
    by_checkpoint = {name: [one.id for one in found] for name, found in of_pairs([paired()]).items()}
    assert by_checkpoint == {"a.pt": ["R19", "R20", "R21"], "b.pt": ["R19", "R20", "R21"]}


def test_unequal_effort_is_reported_and_unequal_threat_models_are_invalid() -> None:
    assert [one.level for one in (*rows.equal_effort(paired()), *rows.threat_model(paired()))] == ["OK", "OK"]
    assert [one.level for one in rows.equal_effort(paired(forwards=100))] == ["INFO"]
    (finding,) = rows.threat_model(paired(budget="0.2"))
    assert (finding.level, "eps 0.1 and 0.2" in finding.message) == ("INVALID", True)
