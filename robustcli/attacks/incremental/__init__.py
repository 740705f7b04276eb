"""Logits of images that differ in small windows from images the model has seen: only what these reach is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.backends import mha

from robustcli.attacks.incremental.maps import Windows
from robustcli.attacks.incremental.trail import Seen, Trail
from robustcli.attacks.losses import Model

ROUNDINGS = 200
"""Within so many roundings of the largest logit an answer is the model's own."""

COARSE_ROUNDINGS = 8
"""The same where activations are in half precision: more would be as large as logits are."""

HELD_AGAINST = 256
"""Of so many answers the first is held against the model's own."""

MOST_AT_ONCE = 4
"""Questions an image in a call. Where one of five is taken, as in Square, three of four count."""

IN_A_CALL = 128
"""Questions in a call, at most, where there are several an image: behind them the small steps are the lesser part."""

PRODUCTS_IN_A_CALL = 6e8
"""The same in products: 5 ms on two cores."""

HELD_IN_A_CALL = 5e7
"""The same in numbers remembered: 200 MB in float32."""

WINDOWS_PAY_ON = ("cpu",)
"""Devices on which windows pay; on a GPU many small steps cost more than one whole pass."""

PRODUCTS_ELSEWHERE = 5e10
"""In a call on any other device: 2 ms on an H200, about what it waits for the next call. More fill a GPU."""

Corner = tuple[Tensor, Tensor]
"""Row and column (n,) of a window's first pixel."""


@dataclass
class Incremental:
    """A model that remembers its activations on some images, asked about images that differ from them in windows.

    A window of an image reaches, layer by layer, a window of the activations, a little larger each time. Pooling and
    what acts on each number alone are computed there only; a convolution, which is linear, of what has changed in its
    input, and the result is added to its output. So it goes until the windows are most of a layer's work; that layer,
    and all from the first other operation on (say, a linear layer), is computed whole. The logits are the model's own
    up to rounding, of which a little gathers as changes are added up: some 8 roundings in 4 000 questions, most after
    activations that were large for a while. The first answer and some later ones are held against the model. One of
    which that is not true, that takes no tensor but a plain one, or that does not take the same course each time is
    from then on just called; so is one where windows do not pay (`WINDOWS_PAY_ON`).

    Of few images it is asked several questions each at once: many small steps cost about the same, and on a GPU so does
    a whole call.

    Attributes:
        model: called without gradients.
        side: of the windows, in pixels.
        trail: what is remembered, `at_once` times of each image; nothing where windows do not pay.
        at_once: questions an image in a call.
        answers: calls that were answered in windows.
        products: multiplications an image of a model that is just called; infinitely many where one at a time is best.
    """

    model: Model
    side: int
    trail: Trail
    at_once: int = 1
    answers: int = 0
    products: float = math.inf

    @classmethod
    def at(cls, model: Model, x: Tensor, side: int, count: int) -> Incremental:
        """Remembers images `x` (n, c, h, w), for `count` windows of this side in each."""
        asker = cls(model, side, Trail(count))
        if x.device.type not in WINDOWS_PAY_ON:
            return replace(asker, products=_products(model, x))._just_calling(len(x))
        if asker.trail.is_small(side, x.shape):
            trail = Trail(count)
            if asker._answer(trail.first(x, side)) is not None:
                return asker._remembering(trail, torch.arange(len(x)))
        return asker

    def __getitem__(self, kept: Tensor) -> Incremental:
        """For the images `kept` (n,) bool alone."""
        if not self.trail.pays:
            return self._just_calling(int(kept.sum()))
        return self._remembering(self.trail, kept.nonzero()[:, 0] * self.at_once)

    def _just_calling(self, n: int) -> Incremental:
        """About n images, of which nothing is remembered."""
        return replace(self, at_once=_at_once(n, PRODUCTS_ELSEWHERE / self.products))

    def _remembering(self, trail: Trail, places: Tensor) -> Incremental:
        """With what `trail` has in these places, one for each image, as often as so few of them are asked at once."""
        rooms = (IN_A_CALL, PRODUCTS_IN_A_CALL / max(trail.products[1], 1), HELD_IN_A_CALL / trail.numbers)
        at_once = _at_once(len(places), min(rooms))
        held = places.repeat_interleave(at_once)
        if not torch.equal(held, torch.arange(trail.images)):
            trail = trail[held]
        if not trail.pays:
            trail, at_once = Trail(trail.count), 1
        return replace(self, trail=trail, at_once=at_once)

    def ask(self, x: Tensor, corners: Sequence[Corner]) -> Tensor:
        """Logits of images that differ from the remembered ones in the windows with these corners.

        From now on these are remembered, until `keep` says which.

        Args:
            x: (n * at_once, c, h, w), the questions about one image beside each other.
            corners: (n * at_once,) of the windows.
        """
        if not self.trail.pays:
            return self.model(x)
        corner = torch.cat([torch.stack(each) for each in corners], dim=1)
        windows = Windows(torch.arange(len(x)).repeat(len(corners)), corner, self.side, len(corners))
        logits = self._answer(self.trail.begin(x, windows))
        logits = logits if self.trail.is_at_its_end else None
        if logits is None or self.answers % HELD_AGAINST == 0:
            own = self.model(x)
            if logits is None or not self._agree(logits, own):
                self.trail, self.at_once = Trail(self.trail.count), 1
                return own
        self.answers += 1
        return logits

    def keep(self, taken: Tensor) -> None:
        """For each image (n,) remember which of the questions just asked, counted from 0; none where it is negative."""
        if not self.trail.pays:
            return
        image = (taken >= 0).nonzero()
        first = image * self.at_once
        kept = first + torch.arange(self.at_once)
        self.trail.take_back(kept.flatten(), (first + taken[image]).expand_as(kept).flatten())

    def _answer(self, seen: Seen) -> Tensor | None:
        """Logits; None of a model that cannot give them: whatever is wrong with it, it says when it is just called."""
        try:
            return self.model(seen)
        except Exception:
            return None

    def _agree(self, logits: Tensor, own: Tensor) -> bool:
        """Whether these logits are the model's own, but for rounding."""
        grain = self.trail.grain
        roundings = ROUNDINGS if grain <= torch.finfo(torch.float32).eps else COARSE_ROUNDINGS
        return bool((logits - own).abs().max() <= roundings * grain * own.abs().max())


def _at_once(n: int, room: float) -> int:
    """Questions an image in a call about n of them, if `room` questions fit in one."""
    return max(1, min(MOST_AT_ONCE, int(room / max(n, 1))))


def _products(model: Model, x: Tensor) -> float:
    """Multiplications that the model takes for an image; infinitely many where they cannot be counted."""
    from torch.utils.flop_counter import FlopCounterMode  # takes a moment, and only a GPU needs it

    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)  # attention in one operation is counted as nothing
    try:
        with FlopCounterMode(display=False) as counter:
            model(x[:1])
    except Exception:  # Whatever is wrong with it, it says when it is asked.
        return math.inf
    finally:
        mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() / 2 or math.inf
