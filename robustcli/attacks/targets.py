"""The class that a targeted attack wants a sample to be taken for."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustcli.attacks.losses import Model, runners_up
from robustcli.errors import AttackError
from robustcli.noise import Noise

Target = Literal["least-likely", "random"] | Annotated[int, Field(ge=0)]
"""The wrong class of least logit, a wrong class drawn at random, or this class."""


def target_classes(target: Target, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
    """(n,) the class that each sample is to be taken for; a sample of that class goes for its runner-up.

    Args:
        target: which class.
        model: images to logits.
        x: (n, c, h, w) images.
        y: (n,) their classes.
        noise: of random classes; a restart draws others.

    Raises:
        AttackError: the model has no such class.
    """
    with torch.no_grad():
        logits = model(x)
    wrong = runners_up(logits, y)
    if target == "least-likely":
        return wrong[:, -1]
    if target == "random":
        place = (noise.stream("target").uniform(logits[:, 0]) * wrong.shape[1]).long()
        return wrong.gather(1, place[:, None])[:, 0]
    if target >= logits.shape[1]:
        raise AttackError(f"target={target}: the model has the classes 0 to {logits.shape[1] - 1}")
    return torch.where(y == target, wrong[:, 0], target)
