"""The types of a spec's or an attack's fields: numbers, budgets and eta, read as people write them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

STRICT = ConfigDict(extra="forbid")
"""For pydantic dataclasses, which by default ignore a key they do not know."""

DOCUMENTED = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""The same; the text under a field is its description."""

BUDGETS: dict[str, Any] = {"anyOf": [{"type": kind} for kind in ("number", "string", "array")]}
"""A list, or one value, or several with commas, as a JSON Schema."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(/\d+)?")


class Eps(float):
    """A budget in pixel units that remembers how it was written: `8/255` stays `8/255`.

    It is a float, so attacks compute with it.
    """

    text: str

    def __new__(cls, value: float | str) -> Eps:
        """Read a number or text such as `8/255`; ValueError for anything else."""
        text = str(value).strip()
        self = super().__new__(cls, parse_number(text))
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Eps], tuple[str]]:
        return Eps, (self.text,)


def parse_number(text: str) -> float:
    """`"0.3"`, `"1e-3"` or `"8/255"` as a float.

    Raises:
        ValueError: anything else, nan and infinity included.
    """
    if not NUMBER.fullmatch(text):
        raise ValueError("should be a finite number such as 0.3 or 8/255")
    numerator, _, denominator = text.partition("/")
    divisor = float(denominator or 1)
    if divisor == 0:
        raise ValueError("should not divide by zero")
    return _finite(float(numerator) / divisor)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("should be a finite number")
    return value


def _budget(value: object) -> Eps:
    eps = Eps(value) if isinstance(value, int | float | str) else None
    if eps is None or eps < 0:
        raise ValueError("should be a number of at least 0, such as 0.3 or 8/255")
    return eps


def ball_edge(eps: float) -> float:
    """The largest distance that counts as within eps: distances are rounded."""
    return eps * (1 + 1e-5) + 1e-7


WRITTEN = WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})
"""A number, or text such as 8/255."""

Budget = Annotated[float, PlainValidator(_budget), PlainSerializer(str), WRITTEN]
"""A field of an attack or a spec that takes a budget; pass it `Eps`, a float or text."""


def _number(value: object) -> object:
    return parse_number(value) if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(_number), AfterValidator(_finite), WRITTEN]
NonNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]

Eta = float | tuple[float, float]
"""BatchOut's magnitude: a constant, or (low, high) of a uniform distribution drawn from per sample."""

_UNIFORM = re.compile(r"U\[\s*([^,\]]+),\s*([^,\]]+)\]", re.IGNORECASE)
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


def parse_eta(value: object) -> Eta:
    """`0.1` or `"U[0,0.1]"` as an `Eta`.

    Raises:
        ValueError: anything else, or a negative or empty range.
    """
    hint = "should be a number of at least 0 or a range such as U[0,0.1]"
    uniform = _UNIFORM.fullmatch(value.strip()) if isinstance(value, str) else None
    bounds = uniform.groups() if uniform else value if isinstance(value, list | tuple) else (value,)
    try:
        numbers = [parse_number(str(bound).strip()) for bound in bounds]
    except ValueError:
        raise ValueError(hint) from None
    if min(numbers, default=-1.0) < 0 or len(numbers) > 2 or numbers != sorted(numbers):
        raise ValueError(hint)
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def format_eta(eta: Eta) -> float | str:
    """An `Eta` as it is written in YAML and on the command line."""
    if not isinstance(eta, tuple):
        return eta
    low, high = (repr(float(bound)).removesuffix(".0") for bound in eta)
    return f"U[{low},{high}]"


def split_list(value: object) -> object:
    """`"0.1,U[0,0.1]"` as `["0.1", "U[0,0.1]"]`: commas separate, except inside brackets."""
    if isinstance(value, str):
        return [part.strip() for part in _OUTSIDE_BRACKETS.split(value)]
    return value if isinstance(value, list | tuple) else [value]


Etas = Annotated[
    tuple[Annotated[Eta, BeforeValidator(parse_eta), PlainSerializer(format_eta)], ...],
    BeforeValidator(split_list),
    WithJsonSchema(BUDGETS),
]
"""One eta for all slots, or one a slot."""

Names = Annotated[tuple[str, ...], BeforeValidator(split_list), WithJsonSchema(BUDGETS)]

Seed = Annotated[int, Field(ge=0, lt=2**32)]
