"""What a model's layers hold, and windows of it: where these lie, how they are read and written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

COPIED = 0.5
"""The share of a map from which on it is kept whole, not window by window, for when it is taken back: as quick."""

EXTRA = 2
"""Rows after the pixels of each sample: one of zeros, what a convolution reads beyond the border, one nobody reads."""


@dataclass
class Windows:
    """Squares of one side, which may begin before the border of a map or end after it.

    Attributes:
        sample: (m,) of each window.
        corner: (2, m) row and column of its first pixel.
        side: in pixels.
        count: windows a sample: first one of each, then a second one of each.
    """

    sample: Tensor
    corner: Tensor
    side: int
    count: int
    _known: dict[tuple[int, int], Places] = field(default_factory=dict)

    def places(self, shape: torch.Size) -> Places:
        """Where their pixels are in a `Map` of this shape."""
        h, w = shape[2:]
        if (h, w) not in self._known:
            table = _table(h, w, self.side)
            top, left = self.corner + self.side
            # One that is wholly beyond the border may be further away.
            first = top.clamp(0, h + self.side) * table.width + left.clamp(0, w + self.side)
            pixels, start = first[:, None] + table.steps, self.sample[:, None] * (h * w + EXTRA)
            self._known[h, w] = Places(*(rows[pixels].add_(start) for rows in (table.reading, table.writing)))
        return self._known[h, w]

    def is_repeated(self) -> Tensor:
        """(m, side * side) bool, the pixels that an earlier window of the same sample has too."""
        row, column = (self.corner[:, :, None] + torch.arange(self.side)).view(2, self.count, -1, self.side)
        repeated = torch.zeros(*row.shape, self.side, dtype=torch.bool)
        for later in range(1, self.count):
            for earlier in range(later):
                away = [edge[later] - edge[earlier, :, :1] for edge in (row, column)]
                rows, columns = ((pixel >= 0) & (pixel < self.side) for pixel in away)
                repeated[later] |= rows[..., :, None] & columns[..., None, :]
        return repeated.flatten(0, 1).flatten(1)


class Places(NamedTuple):
    """Rows of a map, (m, side * side) each.

    Attributes:
        reading: the pixels; beyond the border the sample's row of zeros.
        writing: the pixels; beyond the border the sample's row that nobody reads.
    """

    reading: Tensor
    writing: Tensor

    def beyond(self) -> Tensor:
        """(m, side * side) bool, which are beyond the border."""
        return self.reading != self.writing


class _Table(NamedTuple):
    """An image with a margin as wide as a window all around: each pixel's row within its sample.

    Attributes:
        width: of image and margin.
        steps: (side * side,) from a window's first pixel to each.
    """

    width: int
    steps: Tensor
    reading: Tensor
    writing: Tensor


@lru_cache(maxsize=256)
def _table(h: int, w: int, side: int) -> _Table:
    width, reach = w + 2 * side, torch.arange(side, device="cpu")
    reading = torch.full((h + 2 * side, width), h * w, device="cpu")
    reading[side : side + h, side : side + w] = torch.arange(h * w, device="cpu").view(h, w)
    reading, steps = reading.flatten(), (reach[:, None] * width + reach).flatten()
    return _Table(width, steps, reading, reading + (reading == h * w))


@dataclass
class Map:
    """A layer's output (n, c, h, w), a pixel a row.

    Attributes:
        pixels: (n * (h * w + EXTRA), c).
        shape: of the output.
        is_read: whether any layer reads more of it than the windows that were just computed.
        is_compared: whether a layer asks what has changed.
    """

    pixels: Tensor
    shape: torch.Size
    is_read: bool = False
    is_compared: bool = False

    @classmethod
    def of(cls, whole: Tensor) -> Map:
        """That holds this output."""
        n, c, h, w = whole.shape
        made = cls(whole.new_zeros(n * (h * w + EXTRA), c), whole.shape)
        made.whole().copy_(whole)
        return made

    def __getitem__(self, kept: Tensor) -> Map:
        """For some samples."""
        pixels = self.by_sample()[kept]
        return replace(self, pixels=pixels.flatten(0, 1), shape=torch.Size((len(pixels), *self.shape[1:])))

    def by_sample(self) -> Tensor:
        """A view of `pixels`, (n, h * w + EXTRA, c)."""
        n, c, h, w = self.shape
        return self.pixels.view(n, h * w + EXTRA, c)

    def whole(self) -> Tensor:
        """All of it, a view."""
        n, c, h, w = self.shape
        return self.by_sample()[:, :-EXTRA].view(n, h, w, c).permute(0, 3, 1, 2)

    def read(self, windows: Windows) -> Tensor:
        """What it holds there, (m, c, side, side), zeros beyond the border."""
        rows = self.at(windows.places(self.shape).reading)
        return rows.view(-1, windows.side, windows.side, self.shape[1]).permute(0, 3, 1, 2)

    def at(self, rows: Tensor) -> Tensor:
        """What stands in these rows (m, k), (m, k, c)."""
        return self.pixels.index_select(0, rows.flatten()).view(*rows.shape, self.shape[1])

    def put(self, rows: Tensor, new: Tensor) -> None:
        """Write these numbers (m, k, c) into these rows (m, k)."""
        self.pixels.index_copy_(0, rows.flatten(), new.flatten(0, 1))

    def write(self, windows: Windows, patches: Tensor) -> Overwritten:
        """Make it hold these patches there; what was there before."""
        places, new = windows.places(self.shape), _rows_of(patches)
        before, change = self.at(places.writing), None
        self.put(places.writing, new)
        if self.is_compared:
            change = (new - before).masked_fill_(places.beyond()[:, :, None], 0)
            if windows.count > 1:
                change.masked_fill_(windows.is_repeated()[:, :, None], 0)
        return Overwritten(self, places.writing, before, change)

    def add(self, windows: Windows, change: Tensor) -> Overwritten | Copied:
        """Add the `change` (m, c, side, side) of these windows, which may overlap; what was there before."""
        places, added = windows.places(self.shape), _rows_of(change)
        inside = added.masked_fill(places.beyond()[:, :, None], 0) if self.is_compared else None
        rows, before = places.writing.chunk(windows.count), None
        kept: Overwritten | Copied
        if places.writing.numel() >= COPIED * len(self.pixels):
            kept = Copied(self, self.pixels, inside)
            self.pixels = self.pixels.clone()
        else:
            before = self.at(places.writing)
            kept = Overwritten(self, places.writing, before, inside)
        for i, (each, part) in enumerate(zip(rows, added.chunk(windows.count), strict=True)):
            held = before[: len(each)] if i == 0 and before is not None else self.at(each)
            self.put(each, held + part)
        return kept


def _rows_of(patches: Tensor) -> Tensor:
    """Patches (m, c, side, side), a pixel a row, (m, side * side, c)."""
    return patches.permute(0, 2, 3, 1).flatten(1, 2)


@dataclass(frozen=True)
class Overwritten:
    """What windows of a map held, and where it is asked for, by how much they changed, (m, side * side, c)."""

    map: Map
    rows: Tensor
    before: Tensor
    change: Tensor | None

    def restore(self, kept: Tensor, like: Tensor, windows: Tensor) -> None:
        """Write it back; but let the samples `kept` (k,), few as a rule, hold what those `like` (k,) held in `windows`.

        These, (k * count,), are the ones of `like`; what else the two hold is the same.
        """
        rows = self.rows[windows]
        new = self.map.at(rows)
        self.map.put(self.rows, self.before)
        if len(kept):
            away = (kept - like) * self.map.by_sample().shape[1]
            self.map.put(rows + away.repeat(len(rows) // len(away))[:, None], new)


@dataclass(frozen=True)
class Copied:
    """All that a map held, and where it is asked for, what was added in windows, (m, side * side, c)."""

    map: Map
    before: Tensor
    change: Tensor | None

    def restore(self, kept: Tensor, like: Tensor, windows: Tensor) -> None:
        """Hold it again; but let the samples `kept` (k,) hold what those `like` (k,) held."""
        new = self.map.by_sample()[like]
        self.map.pixels = self.before
        self.map.by_sample()[kept] = new
