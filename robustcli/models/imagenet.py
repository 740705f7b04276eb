"""ImageNet's 1 000 classes by WordNet id, in the order of every model's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

IDS = Path(__file__).parents[1] / "assets" / "imagenet_wordnet_ids.txt"


@cache
def wordnet_ids() -> tuple[str, ...]:
    """The ids, such as `n01440764`, sorted as the classes are."""
    return tuple(IDS.read_text(encoding="ascii").split())


def wordnet_order(classes: Sequence[str]) -> list[int] | None:
    """The output of each class where all of them are WordNet ids of ImageNet; else None."""
    table = {name: index for index, name in enumerate(wordnet_ids())}
    found = [table.get(name) for name in classes]
    return None if None in found else [one for one in found if one is not None]
