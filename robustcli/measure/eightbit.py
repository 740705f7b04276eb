"""Adversarial images as files hold them: pixels of k/255, still inside ball and box, and whether they still fool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustcli.attacks.base import Attack, BudgetAttack
from robustcli.data.images import Images
from robustcli.engine.guard import frozen
from robustcli.engine.run import Outcome, predict
from robustcli.fields import ball_edge

LEVELS = 255


@dataclass(frozen=True)
class EightBit:
    """The broken samples of an outcome, rounded.

    Attributes:
        index: (k,) their places among the n samples.
        x: (k, c, h, w) uint8.
        pred: (k,) int64, the class that the model sees in the rounded image.
        fools: (k,) bool, whether that is a wrong one.
    """

    index: Tensor
    x: Tensor
    pred: Tensor
    fools: Tensor


def round_to_8bit(model: nn.Module, images: Images, outcome: Outcome, batch_size: int = 128) -> EightBit:
    """Round each broken sample's image so that it still fools the model, where one of three ways of rounding does.

    The ways are, in this order: to the nearest level, away from the original, towards the original. Each stays in
    [0, 1] and, of a budget attack, in the ball.

    Args:
        model: on any device.
        images: the n originals, 8-bit themselves.
        outcome: of an attack on them, with its images kept.
        batch_size: images a forward pass.
    """
    assert outcome.x_adv is not None
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    index = (outcome.clean & ~outcome.robust).nonzero()[:, 0]
    x, x_adv, y = images.batch(index), outcome.x_adv[index], images.y[index]
    ways = _ways(outcome.attack, x, x_adv)
    rounded, pred = ways[0].clone(), y.clone()
    with frozen(model), torch.no_grad():
        for way in ways:
            open_ones = (pred == y).nonzero()[:, 0]
            rounded[open_ones] = way[open_ones]
            pred[open_ones] = predict(model, _pixels(rounded[open_ones]).to(device), batch_size).cpu()
    return EightBit(index, rounded, pred, pred != y)


def correct_8bit(model: nn.Module, images: Images, outcome: Outcome, batch_size: int = 128) -> int | None:
    """How many samples are right after the attack once its images are rounded to 8 bits.

    None without images, for a minimal-norm attack, which has no ball to stay in, and for a member of an ensemble, whose
    worst case has the count.
    """
    if outcome.x_adv is None or outcome.ensemble is not None or not isinstance(outcome.attack, BudgetAttack):
        return None
    return int(outcome.robust.sum()) + int((~round_to_8bit(model, images, outcome, batch_size).fools).sum())


def _pixels(levels: Tensor) -> Tensor:
    """As `Images.pixels` makes them of stored levels."""
    return levels.float() / LEVELS


def _ways(attack: Attack, x: Tensor, x_adv: Tensor) -> list[Tensor]:
    """(k, c, h, w) uint8 each: to the nearest level, away from the original, towards it."""
    at, original = x_adv.double() * LEVELS, (x.double() * LEVELS).round()
    up = x_adv.double() > x.double()
    inwards = torch.where(up, (at + 1e-6).floor().maximum(original), (at - 1e-6).ceil().minimum(original))
    outwards = torch.where(up, (at - 1e-6).ceil(), (at + 1e-6).floor())
    found = [way.clamp(0, LEVELS).to(torch.uint8) for way in (at.round(), outwards, inwards)]
    if isinstance(attack, BudgetAttack):
        for way in found[:-1]:
            beyond = attack.norm.distance(_pixels(way), x) > ball_edge(attack.eps)
            way[beyond] = found[-1][beyond]
    return found
