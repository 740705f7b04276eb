"""Which layers can be done in windows of a map, and how far a window of their input reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustcli.attacks.incremental.maps import Map, Windows

aten = torch.ops.aten
POINTWISE = {
    *(aten.relu.default, aten.tanh.default, aten.sigmoid.default, aten.gelu.default, aten.silu.default),
    *(aten.elu.default, aten.leaky_relu.default, aten.hardtanh.default, aten._to_copy.default),
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
}


@dataclass(frozen=True)
class Kernel:
    """What an output of a convolution or of pooling reads: `size` pixels, the next one `stride` pixels further on."""

    size: int
    stride: int
    padding: int

    def outputs(self, windows: Windows) -> Windows:
        """The outputs that read any pixel of these windows, and at most one more a side."""
        corner = windows.corner + (self.padding - self.size + self.stride)
        corner = corner if self.stride == 1 else corner.div(self.stride, rounding_mode="floor")
        return Windows(windows.sample, corner, self.reach(windows.side), windows.count)

    def reach(self, side: int) -> int:
        """The side of the outputs' windows, for pixels' windows of this side."""
        return (side + self.size - 2) // self.stride + 1

    def inputs(self, windows: Windows) -> Windows:
        """All that these outputs read."""
        corner = windows.corner * self.stride - self.padding
        return Windows(windows.sample, corner, (windows.side - 1) * self.stride + self.size, windows.count)


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

    @property
    def adds(self) -> bool:
        """Whether what changes in its input is convolved and added to its output, not the output computed anew.

        That takes the fewest products, as the library skips the zeros around a change. Not in half precision, where
        sums of changes drift, and not in steps of several pixels, where the zeros would lie in between.
        """
        if self.kernel is None or self.kernel.stride != 1 or not self.products:
            return False
        return self.rest[0].dtype in (torch.float32, torch.float64)

    def share(self, side: int, shape: torch.Size) -> float:
        """Of the work on an output of this shape, about what one window of this side is."""
        reach = side if self.kernel is None else self.kernel.reach(side)
        # A change is side * side places' products, but so small a convolution is slower: this is nearer to its time.
        return (side if self.adds else reach) * reach / (shape[2] * shape[3])

    def of_change(self, change: Tensor, side: int) -> Tensor:
        """What a change of the input by (m, side * side, c) changes in the output, (m, c, side, side)."""
        weight, _, stride, _, *others = self.rest
        patches = change.view(len(change), side, side, change.shape[2]).permute(0, 3, 1, 2)
        out: Tensor = self.function(patches, weight, None, stride, [weight.shape[2] - 1] * 2, *others)
        return out

    @classmethod
    def of(cls, function: Any, rest: Sequence[Any], options: dict[str, Any]) -> Layer | None:
        """None for any other operation."""
        if function in POINTWISE and options.keys() <= {"dtype"}:
            constant = all(_is_constant(other) for other in rest if isinstance(other, Tensor))
            # Copies, as a model may write another number into the same tensor.
            rest = [other.clone() if isinstance(other, Tensor) else other for other in rest]
            return cls(function, None, rest, rest, options) if constant else None
        if options:
            return None
        layer = LAYERS[function](*rest) if function in LAYERS else None
        return layer and replace(layer, rest=rest)

    def is_asked(self, function: Any, rest: Sequence[Any], options: dict[str, Any]) -> bool:
        """Whether it is this operation, with these weights and options."""
        alike = self.function is function and self.options == options and len(self.rest) == len(rest)
        return alike and all(_are_equal(mine, its) for mine, its in zip(self.rest, rest, strict=True))

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
    bare = (weight, bias, stride, [0, 0], dilation, transposed, *others)
    return Layer(aten.convolution.default, Kernel(size, step, edge), (), bare, {}, weight[0].numel())


def _max_pool(size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False) -> Layer | None:
    plain = _one(dilation) == 1
    return _pool(aten.max_pool2d_with_indices.default, size, stride, padding, ceil) if plain else None


def _average_pool(size: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *others: Any) -> Layer | None:
    return None if others else _pool(aten.avg_pool2d.default, size, stride, padding, ceil)


def _pool(function: Any, size: Any, stride: Any, padding: Any, ceil: bool) -> Layer | None:
    side, step = _one(size), _one(stride or size)
    if side is None or step is None or _one(padding) != 0 or ceil:
        return None
    return Layer(function, Kernel(side, step, 0), (), (size, stride or size), {})


LAYERS: dict[Any, Callable[..., Layer | None]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
}
