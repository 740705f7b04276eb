"""Windows of a layer's output: where they lie, how they are read and written, and which layers can be done in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
COPIED = 0.5
"""The share of a map from which it is copied rather than changed in windows, and changed back there."""

POINTWISE = {
    *(aten.relu.default, aten.tanh.default, aten.sigmoid.default, aten.gelu.default, aten.silu.default),
    *(aten.elu.default, aten.leaky_relu.default, aten.hardtanh.default, aten._to_copy.default),
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
}


@dataclass
class Windows:
    """Squares of one side, which may begin before the border of a map or end after it.

    Attributes:
        sample, top, left: (m,) of each window.
        side: in pixels.
        count: windows a sample: first one of each, then a second one of each.
    """

    sample: Tensor
    top: Tensor
    left: Tensor
    side: int
    count: int
    _known: dict[torch.Size, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rows(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Where their pixels are in a `Map` of this shape, for reading and for writing, (m, side * side) each."""
        if shape not in self._known:
            n, _, h, w = shape
            row, column = self._edges()
            inside = _both((row >= 0) & (row < h), (column >= 0) & (column < w))
            flat = ((self.sample[:, None] * h + row) * w)[:, :, None] + column[:, None]
            reading = torch.where(inside, flat, n * h * w).flatten(1)
            self._known[shape] = reading, reading + ~inside.flatten(1)
        return self._known[shape]

    def _edges(self) -> tuple[Tensor, Tensor]:
        """Rows and columns (m, side) of their pixels."""
        reach = torch.arange(self.side)
        return self.top[:, None] + reach, self.left[:, None] + reach

    def is_repeated(self) -> Tensor:
        """(m, side * side) bool, the pixels that an earlier window of the same sample has too."""
        row, column = (edge.view(self.count, -1, self.side) for edge in self._edges())
        repeated = torch.zeros(*row.shape, self.side, dtype=torch.bool)
        for later in range(1, self.count):
            for earlier in range(later):
                away = ((edge[later] - edge[earlier, :, :1]) for edge in (row, column))
                repeated[later] |= _both(*((pixel >= 0) & (pixel < self.side) for pixel in away))
        return repeated.flatten(0, 1).flatten(1)


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    """(..., side, side), of what is true of rows and of columns (..., side)."""
    return rows[..., :, None] & columns[..., None, :]


@dataclass
class Map:
    """A layer's output (n, c, h, w), a pixel a row.

    After the last pixel stands one of zeros, what a convolution reads beyond the border, and one that nobody reads.

    Attributes:
        pixels: (n * h * w + 2, c).
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
        rows = whole.permute(0, 2, 3, 1).flatten(0, 2)
        return cls(torch.cat([rows, rows.new_zeros(2, rows.shape[1])]), whole.shape)

    def __getitem__(self, kept: Tensor) -> Map:
        """For some samples."""
        return replace(self, pixels=(part := Map.of(self.whole()[kept])).pixels, shape=part.shape)

    def whole(self) -> Tensor:
        """All of it, a view."""
        n, c, h, w = self.shape
        return self.pixels[:-2].view(n, h, w, c).permute(0, 3, 1, 2)

    def read(self, windows: Windows) -> Tensor:
        """What it holds there, (m, c, side, side), zeros beyond the border."""
        rows = self.pixels.index_select(0, windows.rows(self.shape)[0].flatten())
        return rows.view(-1, windows.side, windows.side, rows.shape[1]).permute(0, 3, 1, 2)

    def write(self, windows: Windows, patches: Tensor) -> Overwritten:
        """Make it hold these patches there; what was there before."""
        rows, new = windows.rows(self.shape)[1], patches.permute(0, 2, 3, 1).flatten(1, 2)
        before = self.pixels.index_select(0, rows.flatten()).view_as(new)
        self.pixels.index_copy_(0, rows.flatten(), new.flatten(0, 1))
        change = None
        if self.is_compared:
            change = (new - before).masked_fill_((self._is_beyond(rows) | windows.is_repeated())[:, :, None], 0)
        return Overwritten(self, windows.sample, rows, before, change)

    def _is_beyond(self, rows: Tensor) -> Tensor:
        """Which of these `rows` to write are no pixels."""
        return rows == len(self.pixels) - 1

    def add(self, windows: Windows, change: Tensor) -> Overwritten | Copied:
        """Add the `change` (m, c, side, side) of these windows, which may overlap; what was there before."""
        rows, added = windows.rows(self.shape)[1], change.permute(0, 2, 3, 1).flatten(1, 2)
        inside = added.masked_fill(self._is_beyond(rows)[:, :, None], 0) if self.is_compared else None
        before: Overwritten | Copied
        if rows.numel() >= COPIED * len(self.pixels):
            before = Copied(self, self.pixels, inside)
            self.pixels = self.pixels.clone()
        else:
            held = self.pixels.index_select(0, rows.flatten()).view_as(added)
            before = Overwritten(self, windows.sample, rows, held, inside)
        for place, part in zip(rows.chunk(windows.count), added.chunk(windows.count), strict=True):
            at = place.flatten()
            self.pixels.index_copy_(0, at, self.pixels.index_select(0, at).add_(part.flatten(0, 1)))
        return before


@dataclass(frozen=True)
class Overwritten:
    """What windows of a map held, and where it is asked for, by how much they changed, (m, side * side, c)."""

    map: Map
    sample: Tensor
    rows: Tensor
    before: Tensor
    change: Tensor | None

    def restore(self, lost: Tensor) -> None:
        """Write it back for the samples `lost` (n,) bool."""
        again = lost[self.sample].nonzero()[:, 0]
        self.map.pixels.index_copy_(0, self.rows[again].flatten(), self.before[again].flatten(0, 1))


@dataclass(frozen=True)
class Copied:
    """All that a map held, and where it is asked for, what was added in windows, (m, side * side, c)."""

    map: Map
    before: Tensor
    change: Tensor | None

    def restore(self, lost: Tensor) -> None:
        """Hold it again for the samples `lost` (n,) bool."""
        kept, each = (~lost).nonzero()[:, 0], (len(lost), -1, self.before.shape[1])
        now, self.map.pixels = self.map.pixels, self.before
        self.before[:-2].view(each)[kept] = now[:-2].view(each)[kept]


@dataclass(frozen=True)
class Kernel:
    """What an output of a convolution or of pooling reads: `size` pixels, the next one `stride` pixels further on."""

    size: int
    stride: int
    padding: int

    def outputs(self, windows: Windows) -> Windows:
        """The outputs that read any pixel of these windows, and at most one more a side."""
        behind = self.padding - self.size + self.stride
        top, left = ((edge + behind).div(self.stride, rounding_mode="floor") for edge in (windows.top, windows.left))
        return Windows(windows.sample, top, left, self.reach(windows.side), windows.count)

    def reach(self, side: int) -> int:
        """The side of the outputs' windows, for pixels' windows of this side."""
        return (side + self.size - 2) // self.stride + 1

    def inputs(self, windows: Windows) -> Windows:
        """All that these outputs read."""
        top, left = (edge * self.stride - self.padding for edge in (windows.top, windows.left))
        return Windows(windows.sample, top, left, (windows.side - 1) * self.stride + self.size, windows.count)


@dataclass(frozen=True)
class Layer:
    """An operation on a map that can be done in windows.

    Attributes:
        function: of the map, `rest` and `options`; of patches, which bring their padding along, `bare` and `options`.
        kernel: None where each number is dealt with alone.
        products: multiplications that an output number takes, of a convolution.
    """

    function: Any
    kernel: Kernel | None
    rest: Sequence[Any]
    bare: Sequence[Any]
    options: dict[str, Any]
    products: int = 0

    def side(self, side: int) -> int:
        """Of the windows of its output, for windows of this side."""
        return side if self.kernel is None else self.kernel.reach(side)

    @property
    def adds(self) -> bool:
        """Whether what changes in its input is convolved, and added to its output: that takes the fewest products."""
        return self.products > 0 and self.kernel is not None and self.kernel.stride == 1

    def share(self, side: int, shape: torch.Size) -> float:
        """Of the work on an output of this shape, about what one window of this side is."""
        # A small convolution is half as quick as a large one, a product for a product.
        work = (side if self.adds else self.side(side)) * self.side(side)
        return work / (shape[2] * shape[3])

    def of_change(self, change: Tensor) -> Tensor:
        """What a change of the input by (m, side * side, c) changes in the output, (m, c, side, side)."""
        weight, _, stride, _, *others = self.rest
        side, padding = math.isqrt(change.shape[1]), [weight.shape[2] - 1] * 2
        patches = change.view(len(change), side, side, -1).permute(0, 3, 1, 2)
        out: Tensor = self.function(patches, weight, None, stride, padding, *others)
        return out

    @classmethod
    def of(cls, function: Any, rest: Sequence[Any], options: dict[str, Any]) -> Layer | None:
        """None for any other operation."""
        if function in POINTWISE and options.keys() <= {"dtype"}:
            constant = all(_is_constant(other) for other in rest if isinstance(other, Tensor))
            return cls(function, None, rest, rest, options) if constant else None
        if options:
            return None
        return LAYERS[function](*rest) if function in LAYERS else None

    def is_like(self, other: Layer) -> bool:
        """Whether the two make the same of the same map: the same operation, weights and options."""
        alike = self.function is other.function and self.options == other.options and len(self.rest) == len(other.rest)
        return alike and all(_are_equal(mine, its) for mine, its in zip(self.rest, other.rest, strict=True))

    def whole(self, seen: Map) -> Any:
        """All of its output."""
        return self.function(seen.whole(), *self.rest, **self.options)

    def of_patches(self, patches: Tensor) -> Any:
        """Its output of patches (m, c, side, side) that hold all that it reads."""
        return self.function(patches, *self.bare, **self.options)


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or torch.equal(one, other)
    return bool(one == other) if type(one) is type(other) else False


def _is_constant(other: Tensor) -> bool:
    """One number, or one a channel."""
    return other.numel() == 1 or (other.ndim >= 3 and other.numel() == other.shape[-3])


def _one(sides: int | Sequence[int]) -> int | None:
    """The number that is given for both sides, if it is the same."""
    numbers = {sides} if isinstance(sides, int) else set(sides)
    return numbers.pop() if len(numbers) == 1 else None


def _convolution(
    weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, transposed: bool, *others: Any
) -> Layer | None:
    size, step, edge = (_one(sides) for sides in (list(weight.shape[2:]), stride, padding))
    if weight.ndim != 4 or size is None or step is None or edge is None or transposed or _one(dilation) != 1:
        return None
    rest = (weight, bias, stride, padding, dilation, transposed, *others)
    bare = (weight, bias, stride, [0, 0], dilation, transposed, *others)
    return Layer(aten.convolution.default, Kernel(size, step, edge), rest, bare, {}, weight[0].numel())


def _max_pool(size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False) -> Layer | None:
    plain = _one(dilation) == 1
    return _pool(aten.max_pool2d_with_indices.default, size, stride, padding, ceil) if plain else None


def _average_pool(size: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *others: Any) -> Layer | None:
    return None if others else _pool(aten.avg_pool2d.default, size, stride, padding, ceil)


def _pool(function: Any, size: Any, stride: Any, padding: Any, ceil: bool) -> Layer | None:
    side, step = _one(size), _one(stride or size)
    if side is None or step is None or _one(padding) != 0 or ceil:
        return None
    rest = (size, stride or size)
    return Layer(function, Kernel(side, step, 0), rest, rest, {})


LAYERS: dict[Any, Callable[..., Layer | None]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
}
