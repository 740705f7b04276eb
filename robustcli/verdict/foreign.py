"""The checks of what stands between images and a network from elsewhere (P16 to P18): its input, and its classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustcli.measure.fitting import right_behind
from robustcli.measure.stats import Table, mcnemar
from robustcli.models.inputs import Prepared
from robustcli.verdict.check import Finding, When, check
from robustcli.verdict.model import Inspection

GAIN, CHANCE = 0.05, 1e-3
"""Another input or order of classes speaks against this one where it gains more, and not by chance (McNemar)."""

LITTLE, MUCH = 0.3, 0.7
"""No such accuracy says anything: LITTLE, or 3 in K where that is more, up to MUCH."""


@dataclass(frozen=True)
class Alternatives:
    """What other inputs make of a network, beside what it makes of the images as they come.

    Attributes:
        y: (n,) labels.
        logits: (n, classes) of the images as they come.
        right: (n,) bool, which of these are right.
        normalisations: by its name, (n,) bool, which are right behind another normalisation.
        blue_first: (n,) bool, which are right in the order BGR; None of grey images.
    """

    when: ClassVar[When] = "preflight"

    y: Tensor
    logits: Tensor
    right: Tensor
    normalisations: dict[str, Tensor] = field(default_factory=dict)
    blue_first: Tensor | None = None

    def gain(self, other: Tensor, part: slice = slice(None)) -> float:
        """By how much more `other` is right on a part, a fraction; 0 where it is GAIN or less, or little, or by chance.

        Little is what a network that knows nothing may reach: it answers all images of one kind alike.
        """
        table = Table.of(other.tolist(), self.right[part].tolist())
        little = float(other.double().mean()) < max(LITTLE, min(MUCH, 3 / self.logits.shape[1]))
        return 0.0 if little or table.difference <= GAIN or mcnemar(table) >= CHANCE else table.difference


def try_alternatives(model: nn.Module, inspection: Inspection) -> Alternatives:
    """Try the usual normalisations, and BGR, on a network from elsewhere, unless none could gain enough."""
    x, y = inspection.samples.x, inspection.samples.y
    found = Alternatives(y, inspection.logits, inspection.right)
    if not isinstance(model, Prepared) or float(found.right.double().mean()) > 1 - GAIN:
        return found
    before, others = model.preprocessing, {}
    for name, usual in before.usual(x.shape[1]).items():
        if name == before.normalize:
            continue
        others[f"the normalisation {name}" if usual.mean else "no normalisation"] = usual
        if usual.mean:
            back = [-m / s for m, s in zip(usual.mean, usual.std, strict=True)], [1 / s for s in usual.std]
            others[f"the inverse of {name}"] = before.with_normalization(name, *back)
    found.normalisations.update(right_behind(model, others, x, y))
    if x.shape[1] != 3:
        return found
    return replace(found, blue_first=right_behind(model, {"BGR": before}, x.flip(1), y).get("BGR"))


@check(
    "P16",
    "normalisation",
    f"of a network from elsewhere, another usual normalisation, or the inverse of one, gains more than "
    f"{100 * GAIN:g} points of clean accuracy (p < {CHANCE:g})",
    level="WARN",
    source="ours",
    bars=True,
)
def normalisation(found: Alternatives) -> Finding | None:
    """Whether pixels reach the network as it expects them; the best of the others is named."""
    others = found.normalisations
    if not others:
        return None
    best = max(others, key=lambda name: int(others[name].sum()))
    gain = found.gain(others[best])
    if not gain:
        return Finding("OK", "no other normalisation gains")
    kind = "applied twice" if best.startswith(("the inverse of ", "no ")) else "missing, or another one"
    return Finding("WARN", f"{best} gains {100 * gain:.1f} points: the normalisation is {kind}? see --normalize", gain)


@check(
    "P17",
    "channel order",
    f"of a network from elsewhere, images in the order BGR gain more than {100 * GAIN:g} points (p < {CHANCE:g})",
    level="WARN",
    source="ours",
    bars=True,
)
def channel_order(found: Alternatives) -> Finding | None:
    """Whether the network expects blue first, as OpenCV reads images."""
    if found.blue_first is None:
        return None
    gain = found.gain(found.blue_first)
    if not gain:
        return Finding("OK", "the order RGB fits")
    message = f"channels in the order BGR gain {100 * gain:.1f} points: flip them in the network, x.flip(1)"
    return Finding("WARN", message, gain)


@check(
    "P18",
    "class order",
    f"labels shifted by one, or in the best other order, gain more than {100 * GAIN:g} points (p < {CHANCE:g}); the "
    "order is chosen on half of the samples and judged on the others",
    level="SUSPECT",
    source="ours",
)
def class_order(found: Alternatives) -> Finding:
    """Whether output k stands for label k."""
    if float(found.right.double().mean()) > 1 - GAIN:
        return Finding("OK", "no other order of the classes can gain")
    pred, y = found.logits.argmax(1), found.y
    for shift, rule in ((1, "label + 1"), (-1, "label - 1")):
        if gain := found.gain(pred == y + shift):
            message = f"{rule} for each label gains {100 * gain:.1f} points: do they count from 1?"
            return Finding("SUSPECT", message, gain)
    order = _best_order(pred[::2], y[::2], found.logits.shape[1])
    if gain := found.gain(pred[1::2] == order[y[1::2]], slice(1, None, 2)):
        message = f"another order of the classes gains {100 * gain:.1f} points: are the folders sorted as in training?"
        return Finding("SUSPECT", message, gain)
    return Finding("OK", "no other order of the classes gains")


def _best_order(pred: Tensor, y: Tensor, classes: int) -> Tensor:
    """(classes,) the output for each label that makes the most samples right, each output once."""
    from scipy.optimize import linear_sum_assignment

    counts = torch.zeros(classes, classes)
    counts.index_put_((y.cpu(), pred.cpu()), torch.ones(len(y)), accumulate=True)
    return torch.from_numpy(linear_sum_assignment(counts.numpy(), maximize=True)[1]).to(y.device)
