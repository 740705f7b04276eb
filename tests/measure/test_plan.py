from __future__ import annotations

from typing import Any

import pytest

from robustcli.attacks import PGD, AutoAttack, Bisection, label
from robustcli.attacks.base import BudgetAttack
from robustcli.config import EvalSpec
from robustcli.errors import ConfigError
from robustcli.measure.plan import Planned, budget_warnings, make_plan

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
QUICK = ["fgsm Linf 0.1 0.3", "pgd:steps=20 Linf 0.1 0.3", "deepfool:iters=5 L2"]
QUICK_FINE = ["fgsm Linf 2/255 8/255", "pgd:steps=20 Linf 2/255 8/255", "deepfool:iters=5 L2"]
PAPER = ["fgsm Linf 0.05 0.1 0.15 0.2 0.25 0.3 0.4", "deepfool:iters=5,box=none L2"]


def text(planned: Planned) -> str:
    """The attack, its norm and its budgets."""
    return " ".join([label(planned.attack), planned.attack.norm.label, *map(str, planned.budgets)])


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        # Budgets that are left out are the usual ones of the shape.
        (MNIST, {}, QUICK),
        ((1, 8, 8), {}, QUICK),
        (CIFAR, {}, QUICK_FINE),
        ((3, 28, 28), {}, QUICK_FINE),
        ((1, 32, 32), {}, QUICK_FINE),
        # Flags fill in what a SPEC leaves open.
        (MNIST, {"steps": 7}, ["fgsm Linf 0.1 0.3", "pgd:steps=7 Linf 0.1 0.3", "deepfool:iters=5 L2"]),
        (MNIST, {"iters": 9}, ["fgsm Linf 0.1 0.3", "pgd:steps=20 Linf 0.1 0.3", "deepfool:iters=9 L2"]),
        (MNIST, {"norm": "linf"}, ["fgsm Linf 0.1 0.3", "pgd:steps=20 Linf 0.1 0.3", "deepfool:iters=5 Linf"]),
        (MNIST, {"attacks": ("deepfool",)}, ["deepfool:iters=50 L2"]),
        (MNIST, {"attacks": ("deepfool",), "norm": "linf"}, ["deepfool:iters=50 Linf"]),
        (
            MNIST,
            {"attacks": ("pgd", "pgd:steps=2", "deepfool", "deepfool:iters=3"), "steps": 7, "iters": 9},
            ["pgd:steps=7 Linf 0.1 0.3", "pgd:steps=2 Linf 0.1 0.3", "deepfool:iters=9 L2", "deepfool:iters=3 L2"],
        ),
        (
            MNIST,
            {"attacks": ("fgsm", "pgd:eot=2", "deepfool", "autoattack:version=rand"), "eot": 5, "eps": "0.1"},
            [
                "fgsm:eot=5 Linf 0.1",
                "pgd:steps=20,eot=2 Linf 0.1",
                "deepfool:iters=50 L2",
                "autoattack:version=rand,eot=5 Linf 0.1",
            ],
        ),
        # What a SPEC says holds.
        (MNIST, {"attacks": ("fgsm:eps=0.3", "fgsm"), "eps": "0.1,8/255"}, ["fgsm Linf 0.3", "fgsm Linf 0.1 8/255"]),
        (MNIST, {"attacks": ("fgsm:norm=l2",), "eps": ("1",)}, ["fgsm L2 1"]),
        (MNIST, {"attacks": ("fgsm:norm=linf", "fgsm"), "norm": "l2", "eps": ("1",)}, ["fgsm Linf 1", "fgsm L2 1"]),
        # What is given again runs once.
        (
            MNIST,
            {"attacks": ("fgsm", "pgd:steps=2", "fgsm", "pgd:steps=2"), "eps": ("0.2", "0.1", "1/5", "0.2")},
            ["fgsm Linf 0.2 0.1", "pgd:steps=2 Linf 0.2 0.1"],
        ),
        (MNIST, {"attacks": ("fgsm",), "eps": "1,0,255/255"}, ["fgsm Linf 1 0"]),
        # Presets, and attacks beside one.
        (CIFAR, {"preset": "quick"}, QUICK_FINE),
        (MNIST, {"preset": "paper"}, PAPER),
        (CIFAR, {"preset": "paper"}, ["fgsm Linf 1/255 2/255 4/255 8/255 16/255", PAPER[1]]),
        (MNIST, {"preset": "paper", "eps": "0.2"}, ["fgsm Linf 0.2", PAPER[1]]),
        (
            MNIST,
            {"preset": "paper", "attacks": ("pgd:steps=3", "deepfool:iters=5,box=none")},
            [*PAPER, "pgd:steps=3 Linf 0.1 0.3"],
        ),
        (MNIST, {"preset": "standard", "norm": "l1", "eps": "8,12"}, ["autoattack L1 8 12"]),
        # A curve takes distances.
        (MNIST, {"curve": True, "eps": "0.1,0.2"}, ["fmn:iters=100 Linf", "bisect:pgd:steps=20 Linf"]),
    ],
    ids=str,
)
def test_what_is_left_out_is_filled_in(shape: tuple[int, ...], options: dict[str, object], expected: list[str]) -> None:
    assert [text(planned) for planned in make_plan(EvalSpec(**options), shape)] == expected


@pytest.mark.parametrize(
    ("options", "runs", "rows"),
    [
        ({"attacks": ("fgsm",), "eps": "0.1,0.2,0.3"}, 3, 3),
        ({"attacks": ("deepfool",)}, 1, 1),
        ({"preset": "standard", "eps": "0.1"}, 1, 5),
        ({"preset": "standard", "norm": "l1", "eps": "8,12"}, 2, 8),
        ({"attacks": ("pgd",), "curve": True}, 1, 1),
    ],
)
def test_a_row_is_of_an_attack_or_a_member_at_a_budget(options: dict[str, object], runs: int, rows: int) -> None:
    (planned,) = make_plan(EvalSpec(**options), MNIST)
    assert (planned.runs, planned.rows) == (runs, rows)


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
        ({"curve": True, "attacks": ("deepfool:box=none",)}, "deepfool:box=none: leaves the pixels' range"),
        ({"curve": True, "attacks": ("pgd:eps=0",)}, "pgd:eps=0: eps=0: should be above 0"),
        ({"curve": True, "eps": "8"}, "--eps 8: is over 1"),
        ({"curve": True, "attacks": ("fmn",), "steps": 3}, "--steps 3: none of the attacks leaves it open"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(EvalSpec(**options), MNIST)
    assert words in str(caught.value)


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


@pytest.mark.parametrize(
    ("options", "attack"),
    [
        ({"norm": "linf"}, PGD(0.1)),
        ({"norm": "l2"}, PGD(2.8, norm="l2")),  # type: ignore[arg-type]
        ({"norm": "l1"}, PGD(78.0, norm="l1")),  # type: ignore[arg-type]
        ({"attacks": ("pgd:eps=2/255",), "steps": 7}, PGD("2/255", steps=7)),  # type: ignore[arg-type]
        ({"attacks": (), "preset": "standard"}, AutoAttack(0.1)),
    ],
)
def test_a_bisection_starts_where_every_pixel_has_moved_by_the_usual_budget(
    options: dict[str, Any], attack: BudgetAttack
) -> None:
    (planned,) = make_plan(EvalSpec(**({"curve": True, "attacks": ("pgd",)} | options)), MNIST)
    assert planned.attack == Bisection(attack)
