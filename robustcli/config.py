"""Typed, strict, frozen specs: what a run is, before any data, model or device is touched.

Built-in defaults < YAML < flags. `--batch-size`, the YAML key `batch_size` and `--set batch_size=64` are one name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    PositiveInt,
    ValidationError,
)

from robustcli.errors import ConfigError, nearest

STRICT = ConfigDict(extra="forbid")
"""For pydantic dataclasses, which by default ignore a key they do not know."""

S = TypeVar("S", bound="Spec")
T = TypeVar("T")

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


Budget = Annotated[float, PlainValidator(_budget), PlainSerializer(str)]
"""A field of an attack or a spec that takes a budget; pass it `Eps`, a float or text."""


def _number(value: object) -> object:
    return parse_number(value) if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(_number), AfterValidator(_finite)]
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
        numbers = [_finite(parse_number(str(bound).strip())) for bound in bounds]
    except ValueError:
        raise ValueError(hint) from None
    if min(numbers, default=-1.0) < 0 or len(numbers) > 2 or numbers != sorted(numbers):
        raise ValueError(hint)
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def format_eta(eta: Eta) -> float | str:
    """An `Eta` as it is written in YAML and on the command line."""
    low_high = [repr(float(bound)).removesuffix(".0") for bound in eta] if isinstance(eta, tuple) else []
    return f"U[{','.join(low_high)}]" if isinstance(eta, tuple) else eta


def split_list(value: object) -> object:
    """`"0.1,U[0,0.1]"` as `["0.1", "U[0,0.1]"]`: commas separate, except inside brackets."""
    if isinstance(value, str):
        return [part.strip() for part in _OUTSIDE_BRACKETS.split(value)]
    return value if isinstance(value, list | tuple) else [value]


Etas = Annotated[
    tuple[Annotated[Eta, BeforeValidator(parse_eta), PlainSerializer(format_eta)], ...],
    BeforeValidator(split_list),
]
"""One eta for all slots, or one a slot."""

Names = Annotated[tuple[str, ...], BeforeValidator(split_list)]


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Spec(BaseModel):
    """A frozen value whose keys are known: an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values only: what goes into YAML, JSON and checkpoints."""
        return self.model_dump(mode="json")


class DataSpec(Spec):
    """Which images: a data set's name or a path, where it lies, and how many of it."""

    dataset: str = "mnist"
    data_dir: Path | None = None
    split: Literal["train", "test"] = "test"
    limit: PositiveInt | None = None
    allow_sample: bool = True


class ModelSpec(Spec):
    """All that is needed to build a network before its weights are loaded.

    `mean` and `std` are per channel, in pixels of [0, 1]; None where the network has no normalisation.
    """

    name: str
    channels: int = Field(ge=1)
    height: int = Field(ge=4)
    width: int = Field(ge=4)
    classes: int = Field(ge=2)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def _method(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class TrainSpec(Spec):
    """One training run. `method` holds its name and its own options, such as BatchOut's eta.

    `dtype` is that of activations; weights, optimiser and loss stay float32 (autocast). bfloat16 halves an epoch where
    the processor multiplies it (AVX-512 BF16, AMX, recent GPUs) and is slow elsewhere.
    """

    method: Annotated[dict[str, Any], BeforeValidator(_method)] = Field({"name": "vanilla"}, validate_default=True)
    dataset: str = "mnist"
    model: str | None = None
    epochs: PositiveInt = 12
    batch_size: PositiveInt = 128
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive = 1e-3
    momentum: Number = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    augment: Literal["none", "flip", "crop-flip"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    validation: Number = Field(0.05, ge=0, lt=1)
    seed: Seed = 0
    limit: PositiveInt | None = None


class EvalSpec(Spec):
    """One evaluation. `attacks` are SPECs (`pgd:steps=50`); the other attack options fill in what they leave out.

    With `curve`, budget attacks are bisected for each sample's least budget, and `eps` are the points that are shown.
    `dtype` is that of activations while images are made; what they break is judged in float32. `eight_bit` asks what
    is left once images are rounded to 8 bits.
    """

    dataset: str | None = None
    data_dir: Path | None = None
    split: Literal["train", "test"] = "test"
    limit: PositiveInt | None = None
    allow_sample: bool = True
    attacks: tuple[str, ...] = ()
    preset: Literal["quick", "paper", "standard"] | None = None
    eps: Annotated[tuple[Budget, ...], BeforeValidator(split_list)] = ()
    norm: str | None = None
    steps: PositiveInt | None = None
    iters: PositiveInt | None = None
    eot: PositiveInt | None = None
    curve: bool = False
    eight_bit: bool = False
    batch_size: PositiveInt = 128
    seed: Seed = 0
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"


def validated(build: type[T], values: Mapping[str, Any], where: str, flags: frozenset[str] = frozenset()) -> T:
    """`build(**values)`, with pydantic's first complaint as one line.

    Args:
        build: a spec, or a pydantic dataclass.
        values: its keys and values.
        where: what the values belong to, such as a file or a SPEC.
        flags: keys that came from flags of the command line, and are named as such.

    Raises:
        ConfigError: names `where`, the key, the value, what is allowed and the nearest valid key.
    """
    allowed = sorted(field_names(build))
    for key in values:
        if key not in allowed:
            listed = ", ".join(allowed) or "none"
            raise ConfigError(f"{where}: key '{key}' is unknown (allowed: {listed}){nearest(key, allowed)}")
    try:
        return build(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:1])
        if first["type"] in ("missing", "missing_argument"):
            raise ConfigError(f"{where}: '{key}' is missing") from None
        reason = first["msg"].removeprefix("Value error, ")
        reason = reason[0].lower() + reason[1:]
        named = f"--{key.replace('_', '-')} " if key in flags else f"{where}: {key}="
        raise ConfigError(f"{named}{shown(values.get(key))}: {reason}") from None


def field_names(build: type[Any]) -> tuple[str, ...]:
    """The keys that a spec or a pydantic dataclass takes."""
    fields = getattr(build, "model_fields", None) or getattr(build, "__pydantic_fields__", {})
    return tuple(fields)


def shown(value: object) -> str:
    """A value as a user would have typed it."""
    return ",".join(shown(item) for item in value) if isinstance(value, list | tuple) else str(value)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, unreadable or not a mapping.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--config {path}: not valid YAML: {reason}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {path}: should hold keys and values, such as 'method: batchout'")
    return {str(key): value for key, value in loaded.items()}


def to_yaml(spec: Spec) -> str:
    """A spec as YAML that `read_yaml` reads back."""
    return yaml.safe_dump(spec.as_dict(), sort_keys=False)


def default_budgets(shape: tuple[int, ...]) -> tuple[Eps, Eps]:
    """The small and the large Linf budget that the field uses for images of a shape (c, h, w)."""
    return (Eps("0.1"), Eps("0.3")) if _like_mnist(shape) else (Eps("2/255"), Eps("8/255"))


def paper_budgets(shape: tuple[int, ...]) -> tuple[Eps, ...]:
    """The Linf budgets at which the BatchOut paper shows FGSM; on other images than MNIST's, the field's usual ones."""
    written = ("0.05 0.1 0.15 0.2 0.25 0.3 0.4" if _like_mnist(shape) else "1/255 2/255 4/255 8/255 16/255").split()
    return tuple(map(Eps, written))


def _like_mnist(shape: tuple[int, ...]) -> bool:
    return shape[0] == 1 and max(shape[1:]) <= 28
