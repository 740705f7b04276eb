"""What a model's activations were on the way through it, and a second way through it in windows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from robustcli.attacks.incremental.layers import Layer
from robustcli.attacks.incremental.maps import Copied, Map, Overwritten, Windows

MOST = 0.5
"""The largest share of a layer's work that is done in windows; for more, the whole is as quick."""

WORTHWHILE = 0.6
"""The largest share of the convolutions' products that may be left for windows to pay."""

LEAST_SAVED = 1e8
"""Products that a question must save: the many small steps in windows cost about as much, some 1.5 ms."""

IN_PLACE = {torch.ops.aten.relu_.default: torch.ops.aten.relu.default}


@dataclass
class Trail:
    """The activations on the way through a model.

    Attributes:
        count: windows an image.
        maps: of the image and of each layer; None where one is computed whole.
        layers: what made each map, but the image.
        sources: the place among `maps` of what each layer was asked about.
        at: how many layers the present pass has been through; None in the first one, which lays the trail.
        products: multiplications an image in the convolutions that windows can reach, and in these windows.
        overwritten: by the last question.
    """

    count: int
    maps: list[Map | None] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    at: int | None = None
    products: tuple[float, float] = (0.0, 0.0)
    overwritten: list[Overwritten | Copied] = field(default_factory=list)

    def __getitem__(self, kept: Tensor) -> Trail:
        return replace(self, maps=[made and made[kept] for made in self.maps], overwritten=[])

    @property
    def images(self) -> int:
        """How many it remembers."""
        image = self.maps[0] if self.maps else None
        return 0 if image is None else image.shape[0]

    @property
    def pays(self) -> bool:
        """Whether windows are less work."""
        whole, in_windows = self.products
        return 0 < in_windows <= WORTHWHILE * whole and self.images * (whole - in_windows) >= LEAST_SAVED

    @property
    def numbers(self) -> int:
        """How many it remembers of an image."""
        return sum(made.shape[1:].numel() for made in self.maps if made is not None)

    @property
    def is_at_its_end(self) -> bool:
        """Whether the present pass has been through all layers."""
        return self.at == len(self.layers)

    @property
    def grain(self) -> float:
        """The rounding of its coarsest numbers, relative to their size."""
        kinds = {made.pixels.dtype for made in self.maps if made is not None}
        return max(torch.finfo(kind).eps for kind in kinds if kind.is_floating_point)

    def is_small(self, side: int, shape: torch.Size) -> bool:
        """Whether windows of this side leave most of a map of this shape alone."""
        return len(shape) == 4 and self.count * side**2 <= MOST * shape[2] * shape[3]

    def first(self, x: Tensor, side: int) -> Seen:
        """The images `x`, as what the model is asked about to lay the trail, for windows of this side."""
        self.maps = [image := Map.of(x)]
        nowhere = torch.zeros(3, 0, dtype=torch.long)
        return Seen(self, image, Windows(nowhere[0], nowhere[1:], side, self.count), x[:0], None)

    def begin(self, x: Tensor, windows: Windows) -> Seen:
        """The images `x`, remembered in these windows, as what the model is asked about."""
        self.at, image = 0, self.maps[0]
        assert image is not None
        patches = Map.of(x).read(windows)
        self.overwritten = [image.write(windows, patches)]
        return Seen(self, image, windows, patches, self._change(image))

    def take_back(self, kept: Tensor, like: Tensor) -> None:
        """What the last question overwrote; but the images `kept` (k,) become what it made of those `like` (k,)."""
        windows = torch.cat([like + i * self.images for i in range(self.count)])
        for before in self.overwritten:
            before.restore(kept, like, windows)
        self.overwritten = []

    def through(self, function: Any, rest: Sequence[Any], options: dict[str, Any], seen: Seen) -> Any:
        """What an operation makes of `seen`; NotImplemented of one that cannot be done in windows."""
        layer = self._next(function, rest, options, seen)
        if layer is None:
            return NotImplemented
        windows = seen.windows if layer.kernel is None else layer.kernel.outputs(seen.windows)
        made, known = self._lay(layer, seen) if self.at is None else self._follow(layer, seen, windows)
        if known is None:
            return made
        patches, *others = made if isinstance(made, tuple) else (made,)
        result = Seen(self, known, windows, patches, self._change(known))
        return (result, *others) if isinstance(made, tuple) else result

    def _next(self, function: Any, rest: Sequence[Any], options: dict[str, Any], seen: Seen) -> Layer | None:
        """The layer that this operation is, on the second way the next one of the trail."""
        if self.at is not None and not self.is_at_its_end and seen.map is self.maps[self.sources[self.at]]:
            expected = self.layers[self.at]
            if expected.is_asked(function, rest, options):
                return expected
        layer = Layer.of(function, rest, options)
        if layer is not None and self.at is not None:
            raise RuntimeError("the model changes its course")
        return layer

    def _change(self, known: Map) -> Tensor | None:
        """What the question has changed in a map."""
        return next((before.change for before in self.overwritten if before.map is known), None)

    def _lay(self, layer: Layer, seen: Seen) -> tuple[Any, Map | None]:
        """The whole output, and the map that remembers it."""
        made = layer.whole(seen.map)
        out = made[0] if isinstance(made, tuple) else made
        share = self.count * layer.share(seen.windows.side, out.shape) if out.ndim == 4 else 1
        small, products = share <= MOST, layer.products * out[0].numel()
        self.products = self.products[0] + products, self.products[1] + (share if small else 1) * products
        seen.map.is_read |= layer.kernel is not None or not small
        seen.map.is_compared |= small and layer.adds
        self.layers.append(layer)
        self.sources.append(next(i for i, each in enumerate(self.maps) if each is seen.map))
        self.maps.append(Map.of(out) if small else None)
        return made, self.maps[-1]

    def _follow(self, layer: Layer, seen: Seen, windows: Windows) -> tuple[Any, Map | None]:
        """The output in these windows, and the map that remembers it from now on; or the whole output and none."""
        assert self.at is not None
        self.at += 1
        known = self.maps[self.at]
        if known is None:
            return layer.whole(seen.map), None
        if layer.adds:
            assert seen.change is not None
            change = layer.of_change(seen.change, seen.windows.side)
            self.overwritten.append(known.add(windows, change))
            return None, known
        made = layer.of_patches(seen.patches if layer.kernel is None else seen.map.read(layer.kernel.inputs(windows)))
        if known.is_read:
            self.overwritten.append(known.write(windows, made[0] if isinstance(made, tuple) else made))
        return made, known


class Seen(Tensor):
    """Stands for a map while the model runs, of which some `windows` have changed.

    `held` is what it holds there and `change` by how much that has changed, where they are at hand. A tensor subclass
    is how torch lets one take part in whatever a model does with its input.
    """

    trail: Trail
    map: Map
    windows: Windows
    held: Tensor | None
    change: Tensor | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, trail: Trail, known: Map, windows: Windows, held: Tensor | None, change: Tensor | None) -> Seen:
        """Of the shape and type of the map `known`."""
        pixels = known.pixels
        seen: Seen = Tensor._make_wrapper_subclass(cls, known.shape, dtype=pixels.dtype, device=pixels.device)
        seen.trail, seen.map, seen.windows, seen.held, seen.change = trail, known, windows, held, change
        return seen

    @property
    def patches(self) -> Tensor:
        """What the map holds in the windows, (m, c, side, side)."""
        return self.map.read(self.windows) if self.held is None else self.held

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """In windows where the operation allows it, else on all."""
        kwargs = kwargs or {}
        seen, *rest = args
        if isinstance(seen, cls) and not any(isinstance(other, cls) for other in rest):
            made = seen.trail.through(IN_PLACE.get(function, function), rest, kwargs, seen)
            if made is not NotImplemented:
                return seen._become(made) if function in IN_PLACE else made
        if function._schema.is_mutable:
            raise TypeError("changes activations in place")
        args, kwargs = tree_map_only(cls, _whole, (args, kwargs))
        return function(*args, **kwargs)

    def _become(self, made: Any) -> Seen:
        if not isinstance(made, Seen):
            raise TypeError("changes activations in place")
        self.map, self.windows, self.held, self.change = made.map, made.windows, made.held, made.change
        return self


def _whole(seen: Seen) -> Tensor:
    """All of a map; a copy, as what is made of it may be a view."""
    if seen.trail.at is None:
        seen.map.is_read = True
    elif not seen.map.is_read:
        raise RuntimeError("the model changes its course")
    return seen.map.whole().clone(memory_format=torch.contiguous_format)
