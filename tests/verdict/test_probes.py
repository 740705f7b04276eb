"""The checks that must compute: each finds what it is for, and nothing on a good model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustcli.attacks import parse_attack
from robustcli.attacks.base import Attack
from robustcli.attacks.norms import Linf
from robustcli.data.images import Images
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import AttackError
from robustcli.measure.binarisation import Binarised
from robustcli.measure.record import Subject, to_row
from robustcli.testing import tiny_net, tiny_samples
from robustcli.testing.masked import MASKS
from robustcli.verdict import probes
from robustcli.verdict.case import Case, make_case
from robustcli.verdict.effort import is_reference
from robustcli.verdict.landscape import (
    Scene,
    binarisation_finding,
    binarised,
    huge_eps,
    kept,
    noisy,
    re_evaluated,
    rounded,
    survey,
    without_budget,
)
from robustcli.verdict.probes import probe, share_moving

from .conftest import Answers

BLIND = next(mask.build for mask in MASKS if mask.name == "zero-gradient layer")
EPS = 0.15


def case_of(model: nn.Module, *specs: str, n: int = 40) -> Case:
    """What attacks at EPS leave standing."""
    samples = tiny_samples(tiny_net(), n)
    subject = Subject("a.pt", "", "tiny", "vanilla")
    rows = [
        to_row(subject, "tiny", samples.ids.tolist(), run_attack(model, parse_attack(f"{spec}eps={EPS}"), samples)[0])
        for spec in specs
    ]
    return make_case(model, samples, rows, rows)


def levels(found: list) -> dict[str, str]:  # type: ignore[type-arg]
    return {finding.id: finding.level for finding in found}


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MANY_QUERIES", 100)
    monkeypatch.setattr(probes, "DRAWS", 20)
    monkeypatch.setattr(probes, "WITNESSED", 4)


def test_a_good_model_raises_nothing_at_suspect() -> None:
    found = levels(probe(case_of(tiny_net(), "pgd:")))
    assert found.keys() == {"R3", "R10", "R11", "R12", "R13", "R15", "R24"}
    assert set(found.values()) <= {"OK", "INFO", "WARN"}
    assert {found[check] for check in ("R3", "R13")} == {"OK"}


@pytest.mark.parametrize(
    ("spec", "checks"),
    [("fgsm:", {"R3", "R12", "R13", "R24"}), ("apgd:loss=dlr,steps=3,", {"R3", "R10", "R11", "R12", "R13", "R24"})],
)
def test_what_one_step_leaves_is_not_held_against_attacks_that_did_not_run(spec: str, checks: set[str]) -> None:
    case = case_of(tiny_net(), spec)
    assert len(case.standing)
    assert levels(probe(case)).keys() == checks


def test_square_breaks_what_a_blind_gradient_leaves() -> None:
    found = levels(probe(case_of(BLIND(tiny_net()), "pgd:steps=5,random_start=false,")))
    assert (found["R12"], found["R24"]) == ("SUSPECT", "SUSPECT")


def test_an_ensemble_is_asked_of_what_weak_attacks_leave_and_the_lower_number_is_told() -> None:
    case = case_of(tiny_net(), "pgd:steps=2,step_size=0.03,")
    found = {finding.id: finding for finding in probe(case)}
    strong = found["R24"]
    broken = round(strong.value * len(case.standing) / case.share)  # type: ignore[operator]
    assert broken > 0
    assert (strong.level, strong.budget) == ("WARN" if strong.value <= 0.1 else "SUSPECT", "Linf 0.15")  # type: ignore[operator]
    lower = 100 * (case.share - strong.value)  # type: ignore[operator]
    assert f"breaks {broken} of {len(case.standing)} survivors (apgd " in strong.message
    assert f"quote {lower:.1f} % and not {100 * case.share:.1f} %" in strong.message


@pytest.mark.parametrize(
    ("broken", "level"), [(0, "OK"), (1, "OK"), (2, "WARN"), (13, "WARN"), (14, "SUSPECT")], ids=str
)
def test_a_stronger_ensemble_is_judged_in_points_of_all_samples(broken: int, level: str) -> None:
    samples = tiny_samples(tiny_net(), 40)
    case = replace(case_of(tiny_net(), "pgd:"), standing=samples[torch.arange(100) % 40], survivors=148, total=200)
    assert probes.ensemble_finding(case, broken, []).level == level


def test_beside_an_ensemble_of_its_grade_no_other_is_asked_and_its_own_number_is_judged() -> None:
    case = case_of(tiny_net(), "pgd:")
    known = replace(case, attacks=(parse_attack(f"autoattack:eps={EPS},queries=1000"),))
    assert (case.has_reference, known.has_reference) == (False, True)
    found = levels(probe(known))
    assert "R24" not in found
    assert found["R10"] != "WARN"
    assert not {"R11", "R15"} & found.keys()


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
    assert is_reference(parse_attack(spec)) == graded
    assert is_reference(parse_attack(spec), randomised=False) == (graded and "rand" not in spec)


def test_the_ensemble_draws_starts_of_its_own() -> None:
    case = case_of(tiny_net(), "apgd:")
    asked = []

    class Watched(Case):
        def left_by(self, attack: Attack, samples: Samples) -> Samples:
            asked.append((attack.name, self.seed))
            return samples

    probes.stronger_ensemble(Watched(**vars(case)))
    assert asked == [("apgd", case.seed + 1), ("apgd-t", case.seed + 1), ("square", case.seed + 1)]
    asked.clear()
    probes.stronger_ensemble(Watched(**(vars(case) | {"randomised": True})))
    assert [name for name, _ in asked] == ["apgd", "apgd"]


def test_the_interval_is_told_of_survivors_that_were_not_probed() -> None:
    case = case_of(tiny_net(), "pgd:")
    assert "at most" not in probes.ensemble_finding(case, 0, []).message
    assert "at most" in probes.ensemble_finding(replace(case, survivors=2 * case.survivors), 0, []).message


def test_nothing_is_probed_where_nothing_stands() -> None:
    case = case_of(tiny_net(), "pgd:")
    none = replace(case, standing=case.standing[slice(0, 0)])
    assert set(levels(probe(none)).values()) == {"OK"}


def test_steps_far_too_few_are_suspect() -> None:
    case = case_of(tiny_net(), "pgd:steps=1,step_size=0.01,random_start=false,")
    assert levels(probes.converged(replace(case, attacks=(stepping(0.02),))))["R10"] in ("WARN", "SUSPECT")


def stepping(step: float) -> Attack:
    return parse_attack(f"pgd:eps={EPS},steps=10,step_size={step},random_start=false")


def test_an_attack_that_returns_another_iterate_than_its_best_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(tiny_net(), "noise:")
    attack = parse_attack(f"pgd:eps={EPS},steps=20")
    real = type(attack).perturb

    def forgetful(self: Attack, model: nn.Module, x: Tensor, y: Tensor, noise: object) -> Tensor:
        real(self, model, x, y, noise)  # type: ignore[arg-type]
        return x.clone()

    monkeypatch.setattr(type(attack), "perturb", forgetful)
    found = probes.silent_success(replace(case, attacks=(attack,)))
    assert levels(found) == {"R3": "WARN"}
    assert "returns another iterate than its best" in found[0].message


def test_a_loss_that_still_rises_moves() -> None:
    rising = torch.linspace(0, 1, 20)[:, None]
    settled = torch.tensor([0.0] + [1.0] * 19)[:, None]
    assert share_moving(torch.cat([rising, settled, torch.zeros(20, 1)], 1)) == pytest.approx(1 / 3)


def test_noise_that_breaks_survivors_is_suspect() -> None:
    case = case_of(tiny_net(), "fgsm:")
    weak = replace(case, standing=tiny_samples(tiny_net(), 4)[slice(0, 4)], eps=1.0)
    assert levels(probes.random_search(weak))["R13"] == "SUSPECT"


# --- The model as a whole


def scene(model: nn.Module, spec: str | None = f"pgd:eps={EPS}", n: int = 20) -> Scene:
    samples = tiny_samples(tiny_net(), n)
    levels = (samples.x * 255).round().to(torch.uint8)
    pixels = Samples(levels.float() / 255, samples.y, samples.ids)
    images = Images(levels, samples.y, samples.ids, ("a", "b", "c"), "tiny", "tiny/test")
    return Scene(model, images, pixels, parse_attack(spec) if spec else None, 0)


def test_a_good_model_passes_the_survey() -> None:
    found = levels(survey(scene(tiny_net().float())))
    assert found == {"R8": "OK", "R9": "OK", "R16": "OK", "R1": "OK", "R2": "OK", "R4": found["R4"], "R17": "OK"}
    assert "R1" not in levels(survey(scene(tiny_net().float(), None)))


def test_a_blind_gradient_fails_where_nothing_can_stand() -> None:
    blind = BLIND(tiny_net().float())
    assert levels([*huge_eps(scene(blind)), *without_budget(scene(blind))]) == {"R8": "SUSPECT", "R9": "SUSPECT"}


def test_a_stepped_surface_is_noisy() -> None:
    def stepped(net: nn.Module, x: Tensor) -> Tensor:
        return net(x) + 5 * torch.sin(1e4 * x.flatten(1)[:, :3])

    assert levels(noisy(scene(Answers(stepped).float()))) == {"R16": "WARN"}


def test_a_random_model_changes_its_mind() -> None:
    def random(net: nn.Module, x: Tensor) -> Tensor:
        return torch.randn(len(x), 3)

    model = Answers(random).float()
    outcome = scene(tiny_net().float()).run(parse_attack(f"pgd:eps={EPS}"))
    assert levels(re_evaluated(scene(model), outcome)) == {"R2": "WARN"}


def test_an_image_outside_the_ball_is_invalid() -> None:
    here = scene(tiny_net().float())
    outcome = here.run(parse_attack(f"pgd:eps={EPS}"))
    assert outcome.x_adv is not None
    assert levels(kept(here, replace(outcome, x_adv=1 - outcome.x_adv))) == {"R1": "INVALID"}


def test_rounding_that_saves_samples_is_told() -> None:
    here = scene(tiny_net().float())
    found = rounded(here, here.run(parse_attack("pgd:eps=0.0005")))
    assert found[0].id == "R4"


@pytest.mark.parametrize(
    ("found", "by_noise", "level"),
    [(32, 3, "OK"), (31, 3, "OK"), (30, 3, "WARN"), (24, 3, "WARN"), (23, 3, "SUSPECT"), (16, 29, "SUSPECT")]
    + [(32, 29, "WARN")],
)
def test_an_attack_must_find_what_is_there_by_construction(found: int, by_noise: int, level: str) -> None:
    flags = [tuple(int(i < count) for i in range(32)) for count in (found, by_noise)]
    test = Binarised(parse_attack(f"pgd:eps={EPS}"), EPS, Linf(), tuple(range(32)), *flags, left_out=0)
    finding = binarisation_finding("pgd", test, again=(33 - found) // 2)
    assert (finding.id, finding.level) == ("R17", level)
    assert binarisation_finding("pgd", test, again=(32 - found) // 2 - 1).level != "SUSPECT"
    assert f"of 32 adversarials by construction pgd finds {found}, noise {by_noise}" in finding.message


def test_a_model_that_the_binarisation_test_does_not_fit_is_not_put_to_it() -> None:
    here = scene(Answers(lambda net, x: net(x) + net(x).flip(1)).float())
    assert here.attack is not None
    with pytest.raises(AttackError, match="binarisation"):
        binarised(here, here.attack)
    assert "R17" not in levels(survey(here))
