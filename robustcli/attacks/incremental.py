"""Logits of images that differ in small windows from images the model has seen: only what these reach is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from robustcli.attacks.losses import Model
from robustcli.attacks.patches import Copied, Layer, Map, Overwritten, Windows

MOST = 0.5
"""The largest share of a layer's work that is done in windows; for more, the whole is as quick."""

WORTHWHILE = 0.6
"""The largest share of the convolutions' products that may be left for windows to pay."""

LEAST_SAVED = 1e8
"""Products that a question must save: the many small steps in windows cost about as much, some 1.5 ms."""

ROUNDINGS = 200
"""Within so many roundings of the largest logit an answer is the model's own. Half precision is not."""

HELD_AGAINST = 256
"""Of so many answers the first is held against the model's own."""

IN_PLACE = {torch.ops.aten.relu_.default: torch.ops.aten.relu.default}

Corner = tuple[Tensor, Tensor]
"""Row and column (n,) of a window's first pixel."""


@dataclass
class Incremental:
    """A model that remembers its activations on some images, asked about images that differ from them in windows.

    A window of an image reaches, layer by layer, a window of the activations, a little larger each time. Pooling and
    what acts on each number alone are computed there only; a convolution, which is linear, of what has changed in its
    input, and the result is added to its output. So it goes until the windows are `MOST` of a layer's work; that
    layer, and all from the first other operation on (say, a linear layer), is computed whole. The logits are the
    model's own up to rounding. The first answer and some later ones are held against it. A model of which that is not
    true, that takes no tensor but a plain one, or that does not take the same course each time is from then on just
    called; so is one on another device than the CPU, where many small steps cost more.

    Attributes:
        model: called without gradients.
        side: of the windows, in pixels.
        trail: what is remembered.
        answers: how many were given.
    """

    model: Model
    side: int
    trail: _Trail
    answers: int = 0

    @classmethod
    def at(cls, model: Model, x: Tensor, side: int, count: int) -> Incremental:
        """Remembers images `x` (n, c, h, w), for `count` windows of this side in each."""
        asker = cls(model, side, _Trail(count))
        if x.device.type == "cpu" and asker.trail.is_small(side, x.shape):
            trail, nowhere = _Trail(count, [Map.of(x)]), torch.zeros(0, dtype=torch.long)
            seen = _Seen(trail, trail.maps[0], Windows(nowhere, nowhere, nowhere, side, count), x[:0], None)
            if asker._answer(seen) is not None and trail.pays:
                asker.trail = trail
        return asker

    def __getitem__(self, kept: Tensor) -> Incremental:
        """For the images `kept` alone."""
        return replace(self, trail=self.trail[kept])

    def ask(self, x: Tensor, corners: Sequence[Corner]) -> Tensor:
        """Logits of images (n, c, h, w) that differ from the remembered ones in the windows with these corners.

        From now on these are remembered; `keep` takes back those that shall not be.
        """
        if not self.trail.pays:
            return self.model(x)
        top, left = (torch.cat(edges) for edges in zip(*corners, strict=True))
        windows = Windows(torch.arange(len(x)).repeat(len(corners)), top, left, self.side, len(corners))
        logits = self._answer(self.trail.begin(x, windows))
        if logits is None or self.answers % HELD_AGAINST == 0:
            own = self.model(x)
            if logits is None or not _agree(logits, own):
                self.trail = _Trail(self.trail.count)
                return own
        self.answers += 1
        return logits

    def keep(self, taken: Tensor) -> None:
        """Of the images last asked about remember those `taken` (n,), and what was there before of the others."""
        self.trail.take_back(~taken)

    def _answer(self, seen: _Seen) -> Tensor | None:
        """Logits; None of a model that cannot give them: whatever is wrong with it, it says when it is just called."""
        try:
            return self.model(seen)
        except Exception:
            return None


@dataclass
class _Trail:
    """The activations on the way through a model.

    Attributes:
        count: windows an image.
        maps: of the image and of each layer; None where one is computed whole.
        layers: what made each map, but the image.
        at: how many layers the present pass has been through; None in the first one, which lays the trail.
        products: multiplications an image in the convolutions that windows can reach, and in these windows.
        overwritten: by the last question.
    """

    count: int
    maps: list[Map | None] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    at: int | None = None
    products: tuple[float, float] = (0.0, 0.0)
    overwritten: list[Overwritten | Copied] = field(default_factory=list)

    def __getitem__(self, kept: Tensor) -> _Trail:
        return replace(self, maps=[made and made[kept] for made in self.maps], layers=[*self.layers], overwritten=[])

    @property
    def pays(self) -> bool:
        """Whether windows are less work."""
        (whole, in_windows), image = self.products, self.maps[0] if self.maps else None
        n = 0 if image is None else image.shape[0]
        return 0 < in_windows <= WORTHWHILE * whole and n * (whole - in_windows) >= LEAST_SAVED

    def is_small(self, side: int, shape: torch.Size) -> bool:
        """Whether windows of this side leave most of a map of this shape alone."""
        return len(shape) == 4 and self.count * side**2 <= MOST * shape[2] * shape[3]

    def begin(self, x: Tensor, windows: Windows) -> _Seen:
        """The images `x`, remembered in these windows, as what the model is asked about."""
        self.at, image = 0, self.maps[0]
        assert image is not None
        patches = Map.of(x).read(windows)
        self.overwritten = [image.write(windows, patches)]
        return _Seen(self, image, windows, patches, self._change(image))

    def take_back(self, lost: Tensor) -> None:
        """What the last question overwrote of the samples `lost` (n,)."""
        for before in self.overwritten:
            before.restore(lost)
        self.overwritten = []

    def through(self, layer: Layer, seen: _Seen) -> Any:
        """What a layer makes of `seen`."""
        windows = seen.windows if layer.kernel is None else layer.kernel.outputs(seen.windows)
        made, known = self._lay(layer, seen) if self.at is None else self._follow(layer, seen, windows)
        if known is None:
            return made
        patches, *others = made if isinstance(made, tuple) else (made,)
        result = _Seen(self, known, windows, patches, self._change(known))
        return (result, *others) if isinstance(made, tuple) else result

    def _change(self, known: Map) -> Tensor | None:
        """What the question has changed in a map."""
        return next((before.change for before in self.overwritten if before.map is known), None)

    def _lay(self, layer: Layer, seen: _Seen) -> tuple[Any, Map | None]:
        """The whole output, and the map that remembers it."""
        made = layer.whole(seen.map)
        out = made[0] if isinstance(made, tuple) else made
        share = self.count * layer.share(seen.windows.side, out.shape) if out.ndim == 4 else 1
        small, products = share <= MOST, layer.products * out[0].numel()
        self.products = self.products[0] + products, self.products[1] + (share if small else 1) * products
        seen.map.is_read |= layer.kernel is not None or not small
        seen.map.is_compared |= small and layer.adds
        self.layers.append(layer)
        self.maps.append(replace(Map.of(out), is_read=layer.adds) if small else None)
        return made, self.maps[-1]

    def _follow(self, layer: Layer, seen: _Seen, windows: Windows) -> tuple[Any, Map | None]:
        """The output in these windows, and the map that remembers it from now on; or the whole output and none."""
        assert self.at is not None
        if self.at == len(self.layers) or not layer.is_like(self.layers[self.at]):
            raise RuntimeError("the model changes its course")
        self.at += 1
        known = self.maps[self.at]
        if known is None:
            return layer.whole(seen.map), None
        if layer.adds:
            assert seen.change is not None
            self.overwritten.append(known.add(windows, layer.of_change(seen.change)))
            return None, known
        made = layer.of_patches(seen.patches if layer.kernel is None else seen.map.read(layer.kernel.inputs(windows)))
        if known.is_read:
            self.overwritten.append(known.write(windows, made[0] if isinstance(made, tuple) else made))
        return made, known


def _agree(logits: Tensor, own: Tensor) -> bool:
    """Whether these logits are the model's own, but for rounding."""
    return bool((logits - own).abs().max() <= ROUNDINGS * torch.finfo(own.dtype).eps * own.abs().max())


class _Seen(Tensor):
    """Stands for a map while the model runs, of which some `windows` have changed.

    `known` is what it holds there and `change` by how much that has changed, where they are at hand. A tensor subclass
    is how torch lets one take part in whatever a model does with its input.
    """

    trail: _Trail
    map: Map
    windows: Windows
    known: Tensor | None
    change: Tensor | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls, trail: _Trail, known: Map | None, windows: Windows, patches: Tensor | None, change: Tensor | None
    ) -> _Seen:
        assert known is not None
        pixels = known.pixels
        seen: _Seen = Tensor._make_wrapper_subclass(cls, known.shape, dtype=pixels.dtype, device=pixels.device)
        seen.trail, seen.map, seen.windows, seen.known, seen.change = trail, known, windows, patches, change
        return seen

    @property
    def patches(self) -> Tensor:
        """What the map holds in the windows, (m, c, side, side)."""
        return self.map.read(self.windows) if self.known is None else self.known

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """In windows where the operation allows it, else on all."""
        kwargs = kwargs or {}
        seen, *rest = args
        if isinstance(seen, cls) and not any(isinstance(other, cls) for other in rest):
            layer = Layer.of(IN_PLACE.get(function, function), rest, kwargs)
            if layer is not None:
                made = seen.trail.through(layer, seen)
                return seen._become(made) if function in IN_PLACE else made
        if function._schema.is_mutable:
            raise TypeError("changes activations in place")
        args, kwargs = tree_map_only(cls, _whole, (args, kwargs))
        return function(*args, **kwargs)

    def _become(self, made: Any) -> _Seen:
        if not isinstance(made, _Seen):
            raise TypeError("changes activations in place")
        self.map, self.windows, self.known, self.change = made.map, made.windows, made.known, made.change
        return self


def _whole(seen: _Seen) -> Tensor:
    """All of a map; a copy, as what is made of it may be a view."""
    if seen.trail.at is None:
        seen.map.is_read = True
    elif not seen.map.is_read:
        raise RuntimeError("the model changes its course")
    return seen.map.whole().clone(memory_format=torch.contiguous_format)
