"""The checks of a whole model that must compute: each finds what it is for, and nothing on a good model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustcli.attacks import PGD, AutoAttack, parse_attack
from robustcli.attacks.norms import Linf
from robustcli.errors import AttackError
from robustcli.measure.binarisation import Binarised
from robustcli.testing import tiny_net
from robustcli.testing.masked import MASKS, Wrapped
from robustcli.verdict.check import findings
from robustcli.verdict.probes import (
    Measurement,
    binarisation,
    binarisation_finding,
    ensemble_agrees,
    huge_eps,
    noisy_landscape,
    re_evaluation,
    rounding,
    without_budget,
)

from .conftest import EPS, Answers, levels, measured

BLIND = next(mask.build for mask in MASKS if mask.name == "zero-gradient layer")


def test_a_good_model_passes() -> None:
    found = levels(findings(measured(tiny_net().float(), "pgd:"), "full"))
    assert found == {"R8": "OK", "R9": "OK", "R16": "OK", "R2": "OK", "R4": found["R4"], "R17": "OK"}
    without = levels(findings(measured(tiny_net().float()), "full"))
    assert without.keys() == {"R8", "R9", "R16"}, "no images without an attack at a budget"


def test_a_blind_gradient_fails_where_nothing_can_stand() -> None:
    blind = measured(BLIND(tiny_net().float()))
    assert levels([*huge_eps(blind), *without_budget(blind)]) == {"R8": "SUSPECT", "R9": "SUSPECT"}


def test_a_stepped_surface_is_noisy() -> None:
    stepped = Answers(lambda net, x: net(x) + 5 * torch.sin(1e4 * x.flatten(1)[:, :3]))
    assert levels(noisy_landscape(measured(stepped.float()))) == {"R16": "WARN"}


def test_a_random_model_changes_its_mind() -> None:
    steady = measured(tiny_net().float(), "pgd:")
    shaky = replace(steady, model=Answers(lambda net, x: torch.randn(len(x), 3)).float())
    vars(shaky).update(correct=steady.correct, outcome=steady.outcome)
    assert levels(re_evaluation(shaky)) == {"R2": "WARN"}


def test_rounding_that_saves_samples_is_told() -> None:
    assert levels(rounding(measured(tiny_net().float(), "pgd:eps=0.0005"))).keys() == {"R4"}


@pytest.mark.parametrize(
    ("found", "by_noise", "level"),
    [(32, 3, "OK"), (31, 3, "OK"), (30, 3, "WARN"), (24, 3, "WARN"), (23, 3, "SUSPECT"), (16, 29, "SUSPECT")]
    + [(32, 29, "WARN")],
)
def test_an_attack_must_find_what_is_there_by_construction(found: int, by_noise: int, level: str) -> None:
    flags = [tuple(int(i < count) for i in range(32)) for count in (found, by_noise)]
    test = Binarised(parse_attack(f"pgd:eps={EPS}"), EPS, Linf(), tuple(range(32)), *flags, left_out=0)
    finding = binarisation_finding("pgd", test, again=(33 - found) // 2)
    assert finding.level == level
    assert binarisation_finding("pgd", test, again=(32 - found) // 2 - 1).level != "SUSPECT"
    assert f"of 32 adversarials by construction pgd finds {found}, noise {by_noise}" in finding.message
    agreed = binarisation_finding("pgd", test, again=(33 - found) // 2, agrees=True)
    assert agreed.level == {"SUSPECT": "WARN"}.get(level, level)


def test_an_ensemble_says_what_a_weak_attack_missed() -> None:
    pgd = PGD(EPS, steps=20)
    good, blind = measured(tiny_net().float(), "pgd:"), measured(BLIND(tiny_net().float()), "pgd:")
    assert ensemble_agrees(good.survivors, pgd)
    assert not ensemble_agrees(good.survivors, PGD(EPS / 2)), "at another budget"
    assert not ensemble_agrees(blind.survivors, pgd)
    ran = replace(blind.survivors[0], attacks=(pgd, AutoAttack(EPS)))
    assert ensemble_agrees([ran], pgd), "its own number is judged"


def test_a_model_that_the_binarisation_test_does_not_fit_is_not_put_to_it() -> None:
    odd = measured(Answers(lambda net, x: net(x) + net(x).flip(1)).float(), "pgd:")
    with pytest.raises(AttackError, match="binarisation"):
        binarisation(odd)
    assert "R17" not in levels(findings(odd, "full"))


def test_a_clamp_before_the_network_is_no_mask() -> None:
    net = tiny_net().float()
    black_or_white = (torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).byte() * 255
    images = replace(measured(net).images, x=black_or_white, y=net(black_or_white / 255).argmax(1))
    (found,) = without_budget(Measurement(Wrapped(net, before=lambda x: x.clamp(0, 1)), images, []))
    assert found.level == "WARN"
    assert "fails on 20 of 20 samples, and on 0 whose pixels are moved" in found.message
