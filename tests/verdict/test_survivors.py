"""The checks of what stands at a budget: each finds what it is for, and nothing on a good model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustcli.attacks import parse_attack
from robustcli.attacks.base import Attack
from robustcli.attacks.norms import Linf
from robustcli.engine.run import Samples, run_attack
from robustcli.testing import tiny_net, tiny_samples
from robustcli.testing.masked import MASKS
from robustcli.verdict import survivors as module
from robustcli.verdict.judge import of_survivors
from robustcli.verdict.survivors import (
    Survivors,
    converged,
    random_search,
    share_moving,
    silent_success,
    stronger_ensemble,
)

from .conftest import EPS, levels, measured

BLIND = next(mask.build for mask in MASKS if mask.name == "zero-gradient layer")


def surviving(model: nn.Module, *specs: str, n: int = 40) -> Survivors:
    """What attacks at EPS leave standing."""
    samples, attacks = tiny_samples(tiny_net(), n), tuple(parse_attack(f"{spec}eps={EPS}") for spec in specs)
    robust = torch.stack([run_attack(model, attack, samples)[0].robust for attack in attacks]).all(0)
    standing = samples[robust.nonzero()[:, 0]]
    return Survivors(model, f"Linf {EPS}", Linf(), EPS, standing, len(standing), n, attacks)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY_QUERIES", 100)
    monkeypatch.setattr(module, "DRAWS", 20)
    monkeypatch.setattr(module, "ALONE", 4)


def test_a_good_model_raises_nothing_at_suspect() -> None:
    found = levels(of_survivors(surviving(tiny_net(), "pgd:")))
    assert found.keys() == {"R3", "R10", "R11", "R12", "R13", "R15", "R24"}
    assert set(found.values()) <= {"OK", "INFO", "WARN"}
    assert {found[check] for check in ("R3", "R13")} == {"OK"}


@pytest.mark.parametrize(
    ("spec", "checks"),
    [("fgsm:", {"R3", "R12", "R13", "R24"}), ("apgd:loss=dlr,steps=3,", {"R3", "R10", "R11", "R12", "R13", "R24"})],
)
def test_what_one_step_leaves_is_not_held_against_attacks_that_did_not_run(spec: str, checks: set[str]) -> None:
    survivors = surviving(tiny_net(), spec)
    assert len(survivors.standing)
    assert levels(of_survivors(survivors)).keys() == checks


def test_square_breaks_what_a_blind_gradient_leaves() -> None:
    found = levels(of_survivors(surviving(BLIND(tiny_net()), "pgd:steps=5,random_start=false,")))
    assert (found["R12"], found["R24"]) == ("SUSPECT", "SUSPECT")


def test_an_ensemble_meets_what_weak_attacks_leave_and_the_lower_number_is_quoted() -> None:
    survivors = surviving(tiny_net(), "pgd:steps=2,step_size=0.03,")
    found = {finding.id: finding for finding in of_survivors(survivors)}
    strong = found["R24"]
    broken = round(strong.value * len(survivors.standing) / survivors.share)  # type: ignore[operator]
    assert broken > 0
    assert (strong.level, strong.budget) == ("WARN" if strong.value <= 0.1 else "SUSPECT", "Linf 0.15")  # type: ignore[operator]
    lower = 100 * (survivors.share - strong.value)  # type: ignore[operator]
    assert f"breaks {broken} of {len(survivors.standing)} survivors (apgd " in strong.message
    assert f"quote {lower:.1f} % and not {100 * survivors.share:.1f} %" in strong.message
    assert "at most" not in strong.message, "all that stand were probed"


def breaking(survivors: Survivors, count: int) -> Survivors:
    """As if a stronger ensemble broke so many."""
    found = replace(survivors)
    vars(found)["ensemble"] = [(parse_attack(f"apgd:eps={EPS}"), count)]
    return found


@pytest.mark.parametrize(
    ("broken", "level"), [(0, "OK"), (1, "OK"), (2, "WARN"), (13, "WARN"), (14, "SUSPECT")], ids=str
)
def test_a_stronger_ensemble_is_judged_in_points_of_all_samples(broken: int, level: str) -> None:
    samples = tiny_samples(tiny_net(), 40)
    survivors = replace(surviving(tiny_net(), "pgd:"), standing=samples[torch.arange(100) % 40], count=148, total=200)
    (finding,) = stronger_ensemble(breaking(survivors, broken))
    assert (finding.level, "at most" in finding.message) == (level, True), "48 of those that stand were not probed"


def test_beside_an_ensemble_of_its_grade_no_other_is_asked_and_its_own_number_is_judged() -> None:
    survivors = surviving(tiny_net(), "pgd:")
    known = replace(survivors, attacks=(parse_attack(f"autoattack:eps={EPS},queries=1000"),))
    assert (survivors.graded, known.graded) == (False, True)
    found = levels(of_survivors(known))
    assert "R24" not in found
    assert found["R10"] != "WARN"
    assert not {"R11", "R15"} & found.keys()


def test_the_ensemble_draws_starts_of_its_own() -> None:
    survivors = surviving(tiny_net(), "apgd:")
    asked = []

    class Watched(Survivors):
        def left_by(self, attack: Attack, samples: Samples) -> Samples:
            asked.append((attack.name, self.seed))
            return samples

    stronger_ensemble(Watched(**vars(survivors)))
    assert asked == [("apgd", survivors.seed + 1), ("apgd-t", survivors.seed + 1), ("square", survivors.seed + 1)]
    asked.clear()
    stronger_ensemble(Watched(**(vars(survivors) | {"randomised": True})))
    assert [name for name, _ in asked] == ["apgd", "apgd"]


def test_the_survivors_of_a_budget_withstand_all_of_its_attacks() -> None:
    two = measured(tiny_net().float(), "fgsm:", "pgd:", "pgd:eps=0.3")
    low, high = two.survivors
    assert (low.name, high.name) == ("Linf 0.15", "Linf 0.3")
    assert len(low.attacks) == 2
    assert low.count == sum(map(min, zip(*(row.robust for row in two.rows[:2]), strict=True)))
    assert (len(low.standing), low.total) == (low.count, 20)
    (few, _) = replace(two, limit=2).survivors
    assert len(few.standing) == min(2, low.count)


def test_nothing_is_probed_where_nothing_stands() -> None:
    survivors = surviving(tiny_net(), "pgd:")
    none = replace(survivors, standing=survivors.standing[slice(0, 0)])
    assert set(levels(of_survivors(none)).values()) == {"OK"}


def test_steps_far_too_few_are_suspect() -> None:
    survivors = surviving(tiny_net(), "pgd:steps=1,step_size=0.01,random_start=false,")
    longer = parse_attack(f"pgd:eps={EPS},steps=10,step_size=0.02,random_start=false")
    assert levels(converged(replace(survivors, attacks=(longer,))))["R10"] in ("WARN", "SUSPECT")


def test_an_attack_that_returns_another_iterate_than_its_best_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    survivors = surviving(tiny_net(), "noise:")
    attack = parse_attack(f"pgd:eps={EPS},steps=20")
    real = type(attack).perturb

    def forgetful(self: Attack, model: nn.Module, x: Tensor, y: Tensor, noise: object) -> Tensor:
        real(self, model, x, y, noise)  # type: ignore[arg-type]
        return x.clone()

    monkeypatch.setattr(type(attack), "perturb", forgetful)
    found = silent_success(replace(survivors, attacks=(attack,)))
    assert levels(found) == {"R3": "WARN"}
    assert "returns another iterate than its best" in found[0].message


def test_a_loss_that_still_rises_moves() -> None:
    rising = torch.linspace(0, 1, 20)[:, None]
    settled = torch.tensor([0.0] + [1.0] * 19)[:, None]
    assert share_moving(torch.cat([rising, settled, torch.zeros(20, 1)], 1)) == pytest.approx(1 / 3)


def test_noise_that_breaks_survivors_is_suspect() -> None:
    survivors = surviving(tiny_net(), "fgsm:")
    weak = replace(survivors, standing=tiny_samples(tiny_net(), 4)[slice(0, 4)], eps=1.0)
    assert levels(random_search(weak))["R13"] == "SUSPECT"
