from __future__ import annotations

import pytest

from robustcli.attacks import FGSM, FMN, PGD, AutoAttack, Bisection, DeepFool, label
from robustcli.attacks.norms import L2, Linf
from robustcli.config import EvalSpec
from robustcli.errors import ConfigError
from robustcli.measure.plan import Planned, budget_warnings, make_plan

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def budgets(shape: tuple[int, ...], **options: object) -> list[list[str]]:
    return [[str(eps) for eps in planned.budgets] for planned in make_plan(EvalSpec(**options), shape)]


@pytest.mark.parametrize(
    ("shape", "usual"),
    [
        (MNIST, ["0.1", "0.3"]),
        ((1, 8, 8), ["0.1", "0.3"]),
        (CIFAR, ["2/255", "8/255"]),
        ((3, 28, 28), ["2/255", "8/255"]),
        ((1, 32, 32), ["2/255", "8/255"]),
    ],
)
def test_budgets_left_out_are_the_usual_ones_of_the_shape(shape: tuple[int, ...], usual: list[str]) -> None:
    assert budgets(shape) == [usual, usual, []]


def test_attacks_left_out_are_fgsm_pgd_20_and_deepfool_5() -> None:
    fgsm, pgd, deepfool = (planned.attack for planned in make_plan(EvalSpec(), MNIST))
    assert (type(fgsm), pgd.name) == (FGSM, "pgd")
    assert isinstance(pgd, PGD)
    assert pgd.steps == 20
    assert deepfool == DeepFool(iters=5)


def test_a_plan_has_a_row_for_each_attack_and_budget() -> None:
    assert [planned.rows for planned in make_plan(EvalSpec(eps=("0.1", "0.2", "0.3")), MNIST)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (("fgsm",), [["0.1", "8/255"]]),
        (("fgsm:eps=0.3", "fgsm"), [["0.3"], ["0.1", "8/255"]]),
        (("fgsm:eps=0.3", "pgd"), [["0.3"], ["0.1", "8/255"]]),
    ],
)
def test_the_budget_of_a_spec_overrides_the_flag(specs: tuple[str, ...], expected: list[list[str]]) -> None:
    assert budgets(MNIST, attacks=specs, eps="0.1,8/255") == expected


@pytest.mark.parametrize(
    ("spec", "flag", "norm"),
    [
        ("fgsm", "l2", L2()),
        ("fgsm:norm=linf", None, Linf()),
        ("fgsm:norm=l2", None, L2()),
        ("deepfool", "linf", Linf()),
        ("deepfool", None, L2()),
    ],
)
def test_the_norm_of_a_spec_overrides_the_flag(spec: str, flag: str | None, norm: L2 | Linf) -> None:
    eps = () if spec == "deepfool" else ("1",)
    (planned,) = make_plan(EvalSpec(attacks=(spec,), norm=flag, eps=eps), MNIST)
    assert planned.attack.norm == norm


def test_the_norm_of_a_spec_holds_beside_one_that_takes_the_flag() -> None:
    plan = make_plan(EvalSpec(attacks=("fgsm:norm=linf", "fgsm"), norm="l2", eps=("1",)), MNIST)
    assert [planned.attack.norm for planned in plan] == [Linf(), L2()]


@pytest.mark.parametrize(
    ("options", "efforts"),
    [
        ({}, [20, 5]),
        ({"steps": 7}, [7, 5]),
        ({"iters": 9}, [20, 9]),
        ({"steps": 7, "iters": 50}, [7, 50]),
        ({"norm": "linf"}, [20, 5]),
    ],
)
def test_steps_and_iters_fill_in_the_attacks_left_out(options: dict[str, object], efforts: list[int]) -> None:
    _, pgd, deepfool = (planned.attack for planned in make_plan(EvalSpec(**options), MNIST))
    assert [pgd.steps, deepfool.iters] == efforts  # type: ignore[attr-defined]


def test_a_named_deepfool_has_its_own_iterations() -> None:
    (planned,) = make_plan(EvalSpec(attacks=("deepfool",)), MNIST)
    assert planned.attack == DeepFool(iters=50)


def test_specs_and_budgets_that_are_given_again_run_once() -> None:
    specs = ("fgsm", "pgd:steps=2", "fgsm", "pgd:steps=2")
    plan = make_plan(EvalSpec(attacks=specs, eps=("0.2", "0.1", "1/5", "0.2")), MNIST)
    assert [(planned.attack.name, [str(eps) for eps in planned.budgets]) for planned in plan] == [
        ("fgsm", ["0.2", "0.1"]),
        ("pgd", ["0.2", "0.1"]),
    ]


def test_steps_and_iters_fill_in_what_specs_leave_out() -> None:
    spec = EvalSpec(attacks=("pgd", "pgd:steps=2", "deepfool", "deepfool:iters=3"), steps=7, iters=9)
    efforts = [getattr(planned.attack, "steps", None) or planned.attack.iters for planned in make_plan(spec, MNIST)]  # type: ignore[attr-defined]
    assert efforts == [7, 2, 9, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attacks": ("pgd",), "norm": "l2"}, "--attack pgd: L2 has no usual budget"),
        ({"attacks": ("fgsm:norm=l2",)}, "L2 has no usual budget"),
        ({"attacks": ("fgsm",), "eps": "8"}, "did you mean 8/255?"),
        ({"attacks": ("fgsm:eps=8", "pgd"), "eps": "0.1"}, "--attack fgsm:eps=8: eps=8: is over 1"),
        ({"attacks": ("fgsm:eps=8",)}, "did you mean 8/255?"),
        ({"eps": "8"}, "--eps 8: is over 1"),
        ({"norm": "l2"}, "--attack fgsm: L2 has no usual budget"),
        ({"attacks": ("deepfool",), "eps": "0.1"}, "--eps 0.1: none of the attacks leaves it open (deepfool)"),
        ({"attacks": ("fgsm",), "steps": 3}, "--steps 3: none of the attacks leaves it open (fgsm)"),
        ({"attacks": ("pgd",), "iters": 3}, "--iters 3: none of the attacks leaves it open (pgd)"),
        ({"attacks": ("fgsm:eps=0.3",), "eps": "0.1,8/255"}, "--eps 0.1,8/255: none of the attacks leaves it open"),
        ({"attacks": ("pgd:steps=2", "fgsm"), "steps": 3}, "--steps 3: none of the attacks leaves it open (pgd:steps"),
        ({"attacks": ("deepfool:iters=2",), "iters": 3}, "--iters 3: none of the attacks leaves it open"),
        ({"attacks": ("fgsm:norm=linf",), "norm": "l2"}, "--norm l2: none of the attacks leaves it open"),
        ({"attacks": ("deepfool",), "eot": 5}, "--eot 5: none of the attacks leaves it open (deepfool)"),
        ({"preset": "quick", "steps": 7}, "--steps 7: none of the attacks leaves it open (fgsm, pgd:steps=20, deepf"),
        ({"preset": "standard", "iters": 7}, "--iters 7: none of the attacks leaves it open (autoattack)"),
        ({"preset": "standard", "norm": "l1"}, "--attack autoattack: L1 has no usual budget"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(EvalSpec(**options), MNIST)
    assert words in str(caught.value)


PAPER = ["0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.4"]
FINE = ["1/255", "2/255", "4/255", "8/255", "16/255"]


def told(plan: list[Planned]) -> list[tuple[str, list[str]]]:
    return [(label(planned.attack), [str(eps) for eps in planned.budgets]) for planned in plan]


def test_the_quick_preset_is_what_runs_by_default() -> None:
    assert told(make_plan(EvalSpec(preset="quick"), CIFAR)) == told(make_plan(EvalSpec(), CIFAR))


@pytest.mark.parametrize(("shape", "budgets"), [(MNIST, PAPER), (CIFAR, FINE)])
def test_the_paper_preset_sweeps_its_budgets_and_takes_deepfool_without_a_box(
    shape: tuple[int, ...], budgets: list[str]
) -> None:
    expected = [("fgsm", budgets), ("deepfool:iters=5,box=none", [])]
    assert told(make_plan(EvalSpec(preset="paper"), shape)) == expected
    assert told(make_plan(EvalSpec(preset="paper", eps="0.2"), shape))[0] == ("fgsm", ["0.2"])


def test_the_standard_preset_is_autoattack() -> None:
    (planned,) = make_plan(EvalSpec(preset="standard", eps="0.1"), MNIST)
    assert planned == Planned(AutoAttack("0.1"), (0.1,))
    assert (planned.runs, planned.rows) == (1, 5)
    (planned,) = make_plan(EvalSpec(preset="standard", norm="l1", eps="8,12"), MNIST)
    assert (planned.runs, planned.rows) == (2, 8)


def test_attacks_named_beside_a_preset_come_after_it_with_their_own_budgets() -> None:
    plan = make_plan(EvalSpec(preset="paper", attacks=("pgd:steps=3", "deepfool:iters=5,box=none")), MNIST)
    assert told(plan) == [("fgsm", PAPER), ("deepfool:iters=5,box=none", []), ("pgd:steps=3", ["0.1", "0.3"])]


def test_eot_fills_in_what_gradients_are_averaged_over() -> None:
    plan = make_plan(EvalSpec(attacks=("fgsm", "pgd:eot=2", "deepfool", "autoattack:version=rand"), eot=5), MNIST)
    assert [getattr(planned.attack, "eot", None) for planned in plan] == [5, 2, None, 5]


@pytest.mark.parametrize("eps", ["1", "0", "255/255"])
def test_budgets_within_the_range_of_a_pixel_pass(eps: str) -> None:
    assert budgets(MNIST, attacks=("fgsm",), eps=eps) == [[eps]]


@pytest.mark.parametrize(
    ("shape", "eps", "norm", "warned"),
    [
        (MNIST, "8/255", "l2", True),
        (MNIST, "0.3", "l2", True),
        (MNIST, "0.301", "l2", False),
        (MNIST, "1.5", "l2", False),
        (MNIST, "0", "l2", False),
        (CIFAR, "8/255", "l2", True),
        (CIFAR, "9/255", "l2", False),
        (CIFAR, "0.5", "l2", False),
        (CIFAR, "8/255", "linf", False),
        (CIFAR, "8/255", "l1", True),
        (CIFAR, "12", "l1", False),
    ],
)
def test_an_linf_sized_budget_for_l2_is_a_warning(shape: tuple[int, ...], eps: str, norm: str, warned: bool) -> None:
    plan = make_plan(EvalSpec(attacks=("pgd",), eps=(eps,), norm=norm), shape)
    assert [f"eps={eps} is an Linf-sized budget" in line for line in budget_warnings(plan, shape)] == [True] * warned


def test_a_curve_has_a_minimal_norm_attack_and_a_bisected_one_if_none_is_named() -> None:
    fmn, pgd = (planned.attack for planned in make_plan(EvalSpec(curve=True, eps="0.1,0.2"), MNIST))
    assert fmn == FMN()
    assert pgd == Bisection(PGD(0.1))


@pytest.mark.parametrize(("norm", "start"), [("linf", 0.1), ("l2", 2.8), ("l1", 78.0)])
def test_a_bisection_starts_where_every_pixel_has_moved_by_the_usual_budget(norm: str, start: float) -> None:
    (planned,) = make_plan(EvalSpec(curve=True, attacks=("pgd",), norm=norm), MNIST)
    assert planned.attack == Bisection(PGD(start, norm=norm))  # type: ignore[arg-type]
    assert (planned.budgets, planned.rows) == ((), 1)


def test_a_bisection_starts_at_the_budget_of_its_spec() -> None:
    (planned,) = make_plan(EvalSpec(curve=True, attacks=("pgd:eps=2/255",), steps=7), MNIST)
    assert planned.attack == Bisection(PGD("2/255", steps=7))  # type: ignore[arg-type]


def test_an_ensemble_can_be_bisected_too() -> None:
    (planned,) = make_plan(EvalSpec(curve=True, preset="standard"), MNIST)
    assert planned.attack == Bisection(AutoAttack(0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attacks": ("deepfool:box=none",)}, "deepfool:box=none: leaves the pixels' range"),
        ({"attacks": ("pgd:eps=0",)}, "pgd:eps=0: eps=0: should be above 0"),
        ({"eps": "8"}, "--eps 8: is over 1"),
        ({"attacks": ("fmn",), "steps": 3}, "--steps 3: none of the attacks leaves it open"),
    ],
)
def test_a_curve_that_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(EvalSpec(curve=True, **options), MNIST)  # type: ignore[arg-type]
