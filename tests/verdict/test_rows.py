"""Each check of rows, on rows made for it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from robustcli.attacks import parse_attack
from robustcli.measure.compare import Pair, pairs
from robustcli.measure.record import Subject
from robustcli.verdict.check import findings
from robustcli.verdict.judge import of_pairs
from robustcli.verdict.rows import (
    black_box,
    comparison,
    equal_effort,
    is_autoattack_grade,
    knows_attack,
    loss_diversity,
    monotone,
    on_common_samples,
    only_weak,
    rounding_of_rows,
    sample_size,
    steps_beat_one,
    threat_model,
    unbounded,
    worst_cases,
)

from .conftest import far, last, make_row, results


def test_the_worst_case_is_over_attacks_for_each_sample() -> None:
    rows = [make_row("fgsm:eps=0.1", 60), make_row("pgd:eps=0.1", last(60)), make_row("pgd:eps=0.3", 5)]
    low, high = worst_cases(results(*rows))
    assert (low.value, high.value) == (0.2, 0.05)
    assert "20.0 % of the samples, 40 fewer than under the strongest alone" in low.message


def test_a_closer_adversarial_of_a_minimal_norm_attack_counts() -> None:
    near = make_row("deepfool:norm=linf", 0, **far([0.05] * 30 + [math.inf] * 70))
    (finding,) = worst_cases(results(make_row("pgd:eps=0.1", 100), near))
    assert finding.value == 0.7


@pytest.mark.parametrize(
    ("one", "many", "level"),
    [(50, 40, "OK"), (50, 50, "OK"), (40, 60, "SUSPECT"), (99, 60, "WARN"), (60, 61, "OK")],
    ids=["fewer", "equal", "more", "far fewer", "one more is chance"],
)
def test_many_steps_are_held_against_one(one: int, many: int, level: str) -> None:
    (finding,) = steps_beat_one(results(make_row("fgsm:eps=0.1", one), make_row("pgd:eps=0.1", many)))
    assert finding.level == level


def test_what_fgsm_alone_breaks_is_told() -> None:
    (finding,) = steps_beat_one(results(make_row("fgsm:eps=0.1", 50), make_row("pgd:eps=0.1", last(40))))
    assert (finding.level, "FGSM alone breaks 40" in finding.message) == ("WARN", True)


def test_budgets_are_not_mixed() -> None:
    assert steps_beat_one(results(make_row("fgsm:eps=0.1", 40), make_row("pgd:eps=0.2", 60))) == []


@pytest.mark.parametrize(("at_small", "at_large", "level"), [(90, 40, "OK"), (96, 97, "OK"), (80, 95, "SUSPECT")])
def test_accuracy_that_rises_with_eps_is_suspect(at_small: int, at_large: int, level: str) -> None:
    rows = [make_row("fgsm:eps=0.3", at_large), make_row("fgsm:eps=0.1", at_small)]
    assert [finding.level for finding in monotone(results(*rows))] == [level]


@pytest.mark.parametrize(("failed", "level"), [(0, "OK"), (1, "OK"), (5, "WARN"), (20, "WARN"), (21, "SUSPECT")])
def test_an_attack_without_a_budget_must_not_fail(failed: int, level: str) -> None:
    assert [finding.level for finding in unbounded(results(make_row("deepfool:iters=50", failed)))] == [level]


@pytest.mark.parametrize("spec", ["deepfool:iters=5", "fmn", "deepfool:iters=50,box=none"])
def test_an_attack_that_may_end_early_proves_nothing(spec: str) -> None:
    assert unbounded(results(make_row(spec, 50))) == []


@pytest.mark.parametrize(("square", "level"), [(80, "OK"), (79, "OK"), (75, "WARN"), (20, "SUSPECT")])
def test_a_black_box_attack_must_not_be_better(square: int, level: str) -> None:
    rows = [make_row("pgd:eps=0.1", 80), make_row("square:eps=0.1", square)]
    assert [finding.level for finding in black_box(results(*rows))] == [level]


@pytest.mark.parametrize("weak", ["fgsm:eps=0.1", "noise:eps=0.1", "pgd:eps=0.1,steps=1"])
def test_a_black_box_attack_beside_weak_ones_says_nothing_of_masking(weak: str) -> None:
    assert black_box(results(make_row(weak, 80), make_row("square:eps=0.1", 20))) == []


def test_square_in_an_ensemble_is_held_against_the_members_before_it() -> None:
    rows = [
        make_row("apgd:eps=0.1", 80, ensemble="autoattack"),
        make_row("apgd-t:eps=0.1", 70, ensemble="autoattack"),
        make_row("square:eps=0.1", 40, ensemble="autoattack"),
        make_row("autoattack:eps=0.1", 40),
    ]
    assert [(finding.level, finding.value) for finding in black_box(results(*rows))] == [("SUSPECT", 0.3)]
    assert [finding.level for finding in loss_diversity(results(*rows))] == ["INFO"]
    weaker = [*rows[:-1], make_row("autoattack:eps=0.1,rounds=10", 40)]
    assert [finding.level for finding in loss_diversity(results(*weaker))] == ["WARN"]


@pytest.mark.parametrize(("by_margin", "level", "masked"), [(78, "OK", ""), (40, "WARN", "cross-entropy is masked")])
def test_losses_must_agree(by_margin: int, level: str, masked: str) -> None:
    rows = [make_row("pgd:eps=0.1", 80), make_row("apgd:eps=0.1,loss=dlr", by_margin)]
    (finding,) = loss_diversity(results(*rows))
    assert finding.level == level
    assert masked in finding.message


def test_the_interval_is_always_told() -> None:
    (finding,) = sample_size(results(make_row("pgd:eps=0.1", 50), make_row("pgd:eps=0.3", 0)))
    assert (finding.level, finding.message) == (
        "INFO",
        "n = 100: the 95 % intervals reach to 9.6 points to each side",
    )


@pytest.mark.parametrize(
    ("n", "standing", "level"), [(1, 1, "WARN"), (16, 16, "WARN"), (92, 92, "WARN"), (93, 93, "INFO")]
)
def test_how_many_samples_are_enough_does_not_depend_on_the_outcome(n: int, standing: int, level: str) -> None:
    (finding,) = sample_size(results(make_row("pgd:eps=0.1", standing, n)))
    assert finding.level == level
    assert ("take 93 or more" in finding.message) == (level == "WARN")


def test_fgsm_training_that_holds_off_one_step_only_is_told_as_what_it_is() -> None:
    rows = [make_row("fgsm:eps=0.3", 99, method="fgsm"), make_row("pgd:eps=0.3", 0, method="fgsm")]
    (finding,) = knows_attack(results(*rows))
    assert finding.level == "SUSPECT"
    assert "leaves 99.0 % at Linf 0.3 where pgd:steps=20 leaves 0.0 %: catastrophic overfitting" in finding.message


def test_a_defence_tested_by_the_attack_it_knows_is_told() -> None:
    assert [one.level for one in knows_attack(results(make_row("fgsm:eps=0.3", 99, method="fgsm")))] == ["WARN"]
    assert [one.level for one in knows_attack(results(make_row("pgd:eps=0.3", 90, method="pgd")))] == ["WARN"]
    both = [make_row("pgd:eps=0.3", 90, method="pgd"), make_row("square:eps=0.3", 90, method="pgd")]
    assert [one.level for one in knows_attack(results(*both))] == ["OK"]
    assert [one.level for one in knows_attack(results(make_row("fgsm:eps=0.3", 9)))] == ["OK"]


@pytest.mark.parametrize(
    ("specs", "level"),
    [
        (["fgsm:eps=0.1"], "WARN"),
        (["fgsm:eps=0.1", "deepfool", "noise:eps=0.1"], "WARN"),
        (["pgd:eps=0.1,steps=1", "mifgsm:eps=0.1,steps=1"], "WARN"),
        (["fgsm:eps=0.1", "pgd:eps=0.1"], "OK"),
        (["autoattack:eps=0.1"], "OK"),
    ],
)
def test_weak_attacks_alone_are_told(specs: list[str], level: str) -> None:
    assert [finding.level for finding in only_weak(results(*(make_row(spec, 9) for spec in specs)))] == [level]


@pytest.mark.parametrize(("after", "level"), [(50, "OK"), (51, "OK"), (52, "INFO")])
def test_what_rounding_saves_is_told_where_it_was_measured(after: int, level: str) -> None:
    (finding,) = rounding_of_rows(
        results(make_row("pgd:eps=0.1", 50, correct_8bit=after), make_row("fgsm:eps=0.1", 60))
    )
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


def test_pgd_of_one_step_is_one_step_too() -> None:
    (finding,) = steps_beat_one(results(make_row("pgd:eps=0.1,steps=1", 99), make_row("pgd:eps=0.1", 60)))
    assert "PGD's number says nothing" in finding.message
    assert [one.level for one in knows_attack(results(make_row("pgd:eps=0.1,steps=1", 9, method="fgsm")))] == ["WARN"]


# --- Two checkpoints

OTHER = Subject("b.pt", "b" * 64, "mnist-cnn", "vanilla")


def paired(**changes: object) -> Pair:
    """A checkpoint of which 50 stand, and another."""
    a = make_row("pgd:eps=0.1", 50)
    (pair,) = pairs([[a], [make_row("pgd:eps=0.1", last(50), subject=OTHER)]])
    return replace(pair, b=replace(pair.b, **changes))  # type: ignore[arg-type]


def test_two_checkpoints_that_cannot_be_told_apart_are_not_ranked() -> None:
    a = make_row("pgd:eps=0.1", 50)
    pair, other = (pairs([[a], [make_row("pgd:eps=0.1", n, subject=OTHER)]])[0] for n in (52, 90))
    assert [one.level for one in comparison(pair)] == ["INFO"]
    assert [one.level for one in comparison(other)] == ["OK"]
    assert {name: [one.id for one in found] for name, found in of_pairs([pair]).items()} == {
        "a.pt": ["R19", "R20", "R21"],
        "b.pt": ["R19", "R20", "R21"],
    }


def test_unequal_effort_is_told_and_unequal_threat_models_are_invalid() -> None:
    assert [one.level for one in (*equal_effort(paired()), *threat_model(paired()))] == ["OK", "OK"]
    assert [one.level for one in equal_effort(paired(forwards=100))] == ["INFO"]
    (finding,) = threat_model(paired(budget="0.2"))
    assert (finding.level, "eps 0.1 and 0.2" in finding.message) == ("INVALID", True)
