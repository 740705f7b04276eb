"""Rows of results as the store knows them: what a row is found by, and its samples."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from robustcli.fields import parse_number

Digest = tuple[int, bytes]
"""A sample: its id, which its draws are keyed by, and a digest of its pixels and class."""

WHOLE_AND_SOUND = """(
  typeof(samples.sample) = 'integer' AND typeof(samples.digest) = 'blob'
  AND typeof(robust) = 'integer' AND typeof(distance) = 'real'
  AND CASE robust WHEN 1 THEN distance = 9e999 AND pred = pred_after
    WHEN 0 THEN distance >= 0 AND distance < 9e999 AND (distance = 0 OR pred <> pred_after) ELSE 0 END
  AND typeof(pred) = 'integer' AND pred BETWEEN 0 AND 2147483647
  AND typeof(pred_after) = 'integer' AND pred_after BETWEEN 0 AND 2147483647
  AND typeof(broken_at) = 'integer' AND broken_at BETWEEN 0 AND 2147483647
  AND typeof(samples.seconds) = 'real' AND samples.seconds BETWEEN 0 AND 1e9
  AND typeof(forwards) = 'integer' AND forwards BETWEEN 0 AND 1000000000000
  AND typeof(backwards) = 'integer' AND backwards BETWEEN 0 AND 1000000000000
) IS TRUE"""
"""In SQL, whether a sample is one that robustcli may have written: SQLite takes any type in any column."""


@dataclass(frozen=True)
class Series:
    """A row of results, apart from its samples.

    Attributes:
        checkpoint: the file as it was named; what counts is `sha256`, its hash.
        model: all that the network is built of but its weights.
        method: the training method's name, for tables.
        dataset: the images' name, for tables; what counts is `source`, the namespace of the samples' ids.
        attack: name and parameters with the budget, `{"name": "clean"}` for the predictions before any attack.
        label, norm, eps: the attack as tables write it.
        ensemble: of a member of an ensemble, that one's name, its parameters and the member's place.
        seed, dtype, eot: of the draws, of activations, and the passes a clean prediction.
        attack_schema: which numbers the attacks give: see `robustcli.attacks.ATTACK_SCHEMA`.
    """

    checkpoint: str
    sha256: str
    model: Mapping[str, Any]
    method: str
    dataset: str
    source: str
    attack: Mapping[str, Any]
    label: str
    norm: str
    eps: str | None
    ensemble: Mapping[str, Any] | None
    seed: int
    dtype: str
    eot: int
    attack_schema: int

    @cached_property
    def key(self) -> str:
        """What it is found by: neither batch size nor device, names of files nor how a number was written."""
        counts = {
            "sha256": self.sha256,
            "model": dict(self.model),
            "source": self.source,
            "attack": _with_numbers(self.attack),
            "ensemble": _with_numbers(self.ensemble),
            "seed": self.seed,
            "dtype": self.dtype,
            "eot": self.eot,
            "attack_schema": self.attack_schema,
        }
        return hashlib.sha256(json.dumps(counts, sort_keys=True, default=str).encode()).hexdigest()


def _with_numbers(value: Any) -> Any:
    """Parameters with each budget as its number: `8/255` and `0.03137254901960784` are one."""
    if isinstance(value, Mapping):
        return {
            key: repr(parse_number(str(item))) if key == "eps" else _with_numbers(item) for key, item in value.items()
        }
    return [_with_numbers(item) for item in value] if isinstance(value, list | tuple) else value


class Entry(NamedTuple):
    """What is known of a sample in a series.

    Attributes:
        robust: right before and after the attack.
        distance: of its adversarial, in the attack's norm: 0 where wrong before, infinite where there is none.
        pred, pred_after: the predicted class.
        broken_at: the iteration that broke it, of an attack with a trace.
        seconds, forwards, backwards: what was spent on it.
    """

    robust: bool
    distance: float
    pred: int
    pred_after: int
    broken_at: int
    seconds: float
    forwards: int
    backwards: int

    def fits(self, y: int, classes: int) -> bool:
        """Whether it does not contradict itself, for a sample of class `y` of so many."""
        if not (0 <= self.pred < classes and 0 <= self.pred_after < classes):
            return False
        if self.pred != y:
            return not self.robust and self.distance == 0
        return self.robust == (self.pred_after == y) == (self.distance == math.inf)


class Picture(NamedTuple):
    """An adversarial image.

    Attributes:
        shape: (c, h, w).
        pixels: as float32 in little-endian order.
        original: the image before the attack, a byte a value; empty where it is not kept.
        confidence: of the class predicted before, and of the one after, where they are kept.
    """

    shape: tuple[int, ...]
    pixels: bytes
    original: bytes = b""
    confidence: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chunk:
    """What a chunk adds to a series."""

    series: Series
    entries: Mapping[Digest, Entry]
    pictures: Mapping[Digest, Picture]
