"""What a store holds as compressed bytes or as JSON, read as if it came from anyone: bounded, and checked."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

MOST_LEVELS = 50
"""Of lists and objects in each other; what robustcli writes has a dozen."""


def unpack(packed: Any, most: int) -> bytes:
    """Decompress at most so many bytes.

    Raises:
        ValueError: these are no bytes that zlib has made, or more of them.
    """
    if not isinstance(packed, bytes):
        raise ValueError("is not made of bytes")
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(found) > most or not stream.eof:
        raise ValueError("is too long, or cut short")
    return found


def parse(text: Any) -> Any:
    """Read JSON whose numbers are finite, and whose levels are so few that it can be printed again.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str | bytes):
        raise ValueError("is no text")
    try:
        found = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("has too many levels") from None
    if not _is_shallow(found, MOST_LEVELS):
        raise ValueError("has too many levels")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("has a number that is not finite")
    return number


def _is_shallow(value: Any, most: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return True
    return most > 0 and all(_is_shallow(part, most - 1) for part in value if isinstance(part, list | dict))
