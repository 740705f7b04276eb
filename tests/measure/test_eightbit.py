from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustcli.attacks import FGSM, PGD, AutoAttack, DeepFool
from robustcli.attacks.base import Attack
from robustcli.attacks.norms import L2, Linf, Norm
from robustcli.data.images import Images
from robustcli.engine.run import Outcome, Samples, run_attack
from robustcli.fields import ball_edge
from robustcli.measure.eightbit import correct_8bit, round_to_8bit


def images(x: Tensor, y: Tensor) -> Images:
    return Images(x, y, torch.arange(len(x)), ("dark", "bright"), "grey", "grey/test")


class Brightness(nn.Module):
    """Bright where the mean pixel is above a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x: Tensor) -> Tensor:
        above = 100 * (x.flatten(1).mean(1) - self.threshold)
        return torch.stack([-above, above], 1)


def attacked(attack: Attack, threshold: float = 0.5) -> tuple[nn.Module, Images, Outcome]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, 1, 4, 4), generator=draw, dtype=torch.uint8)
    model = Brightness(threshold).eval()
    stored = images(x, torch.zeros(40, dtype=torch.int64))
    with torch.no_grad():
        stored = images(x, model(stored.batch(slice(None))).argmax(1))
    samples = Samples(stored.batch(slice(None)), stored.y, stored.ids)
    return model, stored, run_attack(model, attack, samples, keep_images=True)[0]


@pytest.mark.parametrize("attack", [FGSM(eps=0.1), FGSM(eps=8 / 255), FGSM(eps=0.5, norm=L2()), DeepFool()])
def test_rounded_images_stay_in_the_ball(attack: Attack) -> None:
    model, stored, outcome = attacked(attack)
    rounded = round_to_8bit(model, stored, outcome)
    assert rounded.x.dtype == torch.uint8
    assert len(rounded.index) == int((outcome.clean & ~outcome.robust).sum()) > 0
    if isinstance(attack, FGSM):
        distance = attack.norm.distance(rounded.x.float() / 255, stored.batch(rounded.index))
        assert float(distance.max()) <= ball_edge(attack.eps)


def test_an_image_fools_where_the_model_says_so() -> None:
    model, stored, outcome = attacked(FGSM(eps=0.1))
    rounded = round_to_8bit(model, stored, outcome, batch_size=7)
    with torch.no_grad():
        pred = model(rounded.x.float() / 255).argmax(1)
    assert torch.equal(rounded.pred, pred)
    assert torch.equal(rounded.fools, pred != stored.y[rounded.index])


def test_a_step_just_over_the_boundary_is_rounded_away_from_the_original() -> None:
    # DeepFool ends a hair beyond the boundary: to the nearest level half of its images would fall back.
    model, stored, outcome = attacked(DeepFool(overshoot=0.0))
    assert bool(round_to_8bit(model, stored, outcome).fools.all())


@pytest.mark.parametrize("norm", [Linf(), L2()])
def test_a_budget_below_one_level_leaves_the_original(norm: Norm) -> None:
    model, stored, outcome = attacked(FGSM(eps=0.9 / 255, norm=norm), threshold=0.5)
    rounded = round_to_8bit(model, stored, outcome)
    assert torch.equal(rounded.x, stored.x[rounded.index])
    assert not bool(rounded.fools.any())
    _, _, nothing = attacked(FGSM(eps=0.0))
    assert len(round_to_8bit(model, stored, nothing).index) == 0


def test_a_later_way_is_asked_only_of_images_that_no_longer_fool() -> None:
    model, stored, outcome = attacked(DeepFool(overshoot=0.0))
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    found = round_to_8bit(model, stored, outcome)
    nearest = (255 * outcome.x_adv[found.index].double()).round()  # type: ignore[index]
    changed = int((found.x != nearest).flatten(1).any(1).sum())
    assert 0 < changed < len(found.index)
    assert sizes == [len(found.index), changed]


def test_what_is_left_after_rounding_is_counted_of_all_samples() -> None:
    model, stored, outcome = attacked(PGD(eps=0.02, steps=3))
    saved = int((~round_to_8bit(model, stored, outcome).fools).sum())
    assert correct_8bit(model, stored, outcome) == int(outcome.robust.sum()) + saved


def test_none_is_counted_without_images_or_a_ball_or_of_a_member() -> None:
    model, stored, outcome = attacked(FGSM(eps=0.1))
    assert correct_8bit(model, stored, replace(outcome, x_adv=None)) is None
    assert correct_8bit(*attacked(DeepFool())) is None
    samples = Samples(stored.batch(slice(None)), stored.y, stored.ids)
    *members, whole = run_attack(model, AutoAttack(0.1, rounds=2, queries=3), samples, keep_images=True)
    assert [correct_8bit(model, stored, member) for member in members] == [None] * 4
    assert correct_8bit(model, stored, whole) is not None
