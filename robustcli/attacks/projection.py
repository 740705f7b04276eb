"""The projection onto a hyperplane, inside a box or not: the inner problem of DeepFool and FAB."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustcli.attacks.norms import L1, Norm, greedy

MAX_NEWTON_STEPS = 100


@dataclass(frozen=True)
class Projection:
    """`delta` (n, d), the smallest step; `reached` (n,) bool, whether the hyperplane can be reached inside the box."""

    delta: Tensor
    reached: Tensor


def project_onto_hyperplane(
    norm: Norm, w: Tensor, target: Tensor, low: Tensor | None, high: Tensor | None
) -> Projection:
    """The delta of least `norm` with `w . delta = target` and `low <= delta <= high`.

    The optimum is `clip(scale * ray, low, high)`, `ray` being the norm's steepest direction for `w`. Its inner product
    with `w` is a concave, piecewise linear function of `scale`, so Newton's method from 0 climbs to the exact root from
    below and ends after finitely many pieces (Croce & Hein 2020, FAB, section 3 sort the pieces instead). In L1 the
    entries of largest weight go to their bounds, one after the other, until the plane is reached. Where the box is too
    small, delta is the box's far corner.

    Args:
        norm: the norm to keep small.
        w: (n, d) the hyperplanes' normals.
        target: (n,) at least 0.
        low: (n, d) lower bounds, at most 0; None for no box.
        high: (n, d) upper bounds, at least 0; None for no box.
    """
    ray = norm.steepest(w)
    rate = w * ray
    if low is None or high is None:
        slope = rate.sum(1)
        scale = target / slope.where(slope > 0, slope.new_ones(()))
        return Projection(scale[:, None] * ray, slope > 0)
    if isinstance(norm, L1):
        return _fill(w, target, low, high)
    limits = torch.finfo(ray.dtype)
    room = torch.where(ray > 0, high, -low) / ray.abs().clamp_min(limits.tiny)
    # A weight so small that its rate underflows has nothing to give, and its room may overflow.
    room = room.clamp_max(limits.max) * rate.sign()
    scale = torch.zeros_like(target)
    reachable = (rate * room).sum(1) >= target
    for _ in range(MAX_NEWTON_STEPS):
        gap = target - (rate * torch.minimum(scale[:, None], room)).sum(1)
        is_open = (room - scale[:, None]).sign().clamp_min(0)  # as numbers: `where` takes ten times as long
        slope = (rate * is_open).sum(1)
        climbing = reachable & (gap > 0) & (slope > 0)
        advanced = torch.where(climbing, scale + gap / slope, scale)
        if torch.equal(advanced, scale):
            break
        scale = advanced
    scale = scale.where(reachable, scale.new_full((), torch.inf))
    delta = torch.minimum(scale[:, None], room) * ray
    return Projection(delta, reachable)


def _fill(w: Tensor, target: Tensor, low: Tensor, high: Tensor) -> Projection:
    """The L1 step: each entry gains the more the larger its weight."""
    room = torch.where(w > 0, high, -low)
    gain = w.abs() * room
    share = greedy(w.abs(), gain, target)
    return Projection(w.sign() * room * share, gain.sum(1) >= target)
