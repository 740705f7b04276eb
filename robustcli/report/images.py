"""The images an attack made: saved as arrays, or chosen for a gallery."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robustcli.data.images import Images
from robustcli.disk import write_whole
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Outcome
from robustcli.report.gallery import Picture

PICTURES = 8


def save_images(images: Images, outcome: Outcome, path: Path) -> None:
    """Write `x, x_adv` (n, c, h, w) float32 in [0, 1] and `y, pred, pred_after, ids` (n,) as an .npz.

    Raises:
        ConfigError: the file cannot be written.
    """
    assert outcome.x_adv is not None
    arrays: dict[str, Tensor] = {
        "x": images.pixels(slice(None)),
        "x_adv": outcome.x_adv,
        "y": images.y,
        "pred": outcome.pred,
        "pred_after": outcome.pred_after,
        "ids": images.ids,
    }
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **{key: value.numpy() for key, value in arrays.items()})
    write_whole(path, content.getvalue(), "--save")


def choose_pictures(model: nn.Module, images: Images, outcome: Outcome) -> list[Picture]:
    """The first samples that the attack broke, then the first that withstood it, eight in all."""
    assert outcome.x_adv is not None
    attacked = outcome.clean.nonzero()[:, 0]
    broken = outcome.robust[attacked].logical_not()
    chosen = torch.cat([attacked[broken], attacked[~broken]])[:PICTURES]
    x, x_adv = images.pixels(chosen), outcome.x_adv[chosen]
    confidence, confidence_after = _confidence(model, x), _confidence(model, x_adv)
    distance = outcome.attack.norm.distance(x_adv, x)
    return [
        Picture(
            x=x[i],
            x_adv=x_adv[i],
            label=images.classes[int(images.y[index])],
            before=images.classes[int(outcome.pred[index])],
            after=images.classes[int(outcome.pred_after[index])],
            confidence=float(confidence[i]),
            confidence_after=float(confidence_after[i]),
            distance=f"{outcome.attack.norm.label} {float(distance[i]):.3g}",
        )
        for i, index in enumerate(chosen.tolist())
    ]


def _confidence(model: nn.Module, x: Tensor) -> Tensor:
    """(n,) the softmax probability of the predicted class."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with frozen(model), torch.no_grad():
        logits = Meter(model)(x.to(device))
    return logits.softmax(1).amax(1).cpu()
