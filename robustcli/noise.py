"""Random draws keyed by (seed, sample id, stream): the same for any batch size, order or shard.

A counter-based generator: element j of sample i is a hash of (seed, stream, i, j), so no state is kept and no
other sample is drawn on the way. The hash is SplitMix64 (Steele, Lea, Flood 2014), in wrapping int64 arithmetic
that every device computes alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift of int64 (torch's own keeps the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: every input bit moves every output bit."""
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


@dataclass(frozen=True)
class Noise:
    """A source of draws for n samples.

    Args:
        seed: the run's seed.
        ids: (n,) int64, the samples' ids.
        path: names of the stream within the run, such as `("pgd", "restart 2")`.
    """

    seed: int
    ids: Tensor
    path: tuple[str, ...] = ()

    def stream(self, name: str) -> Noise:
        """An independent source for the same samples."""
        return replace(self, path=(*self.path, name))

    def __getitem__(self, index: Tensor | slice) -> Noise:
        """The same draws, for a part of the samples."""
        return replace(self, ids=self.ids[index])

    def uniform(self, like: Tensor) -> Tensor:
        """Draws from U[0, 1), with the shape (n, ...), type and device of `like`."""
        label = "\x1f".join((str(self.seed), *self.path)).encode()
        key = int.from_bytes(hashlib.blake2b(label, digest_size=8).digest(), "little", signed=True)
        ids = self.ids.to(like.device)
        per_sample = like[0].numel() if len(like) else 0
        counter = torch.arange(per_sample, device=like.device)
        bits = _mix(_mix(ids * _GOLDEN + key)[:, None] + counter * _GOLDEN)
        return (_shift_right(bits, 40).to(like.dtype) / (1 << 24)).reshape(like.shape)

    def normal(self, like: Tensor) -> Tensor:
        """Draws from N(0, 1), with the shape (n, ...), type and device of `like`."""
        # Capped: in float32 the largest draw would round to 1, whose quantile is infinite.
        centred = (self.uniform(like) + 2.0**-25).clamp_max(1 - 2.0**-24)
        normal: Tensor = torch.special.ndtri(centred)
        return normal
