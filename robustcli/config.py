"""Typed, strict, frozen specs: what a run is, before any data, model or device is touched.

Built-in defaults < YAML < flags. `--batch-size`, the YAML key `batch_size` and `--set batch_size=64` are one name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
    field_validator,
)
from yaml.composer import ComposerError

from robustcli.disk import open_regular
from robustcli.errors import ConfigError, nearest
from robustcli.fields import (
    BUDGETS,
    DOCUMENTED,
    STRICT,
    Budget,
    Eps,
    Eta,
    Etas,
    Fraction,
    Names,
    NonNegative,
    Number,
    Positive,
    Seed,
    format_eta,
    parse_eta,
    parse_number,
    split_list,
)

__all__ = [
    "DataSpec",
    "EvalSpec",
    "Fit",
    "ModelSpec",
    "Spec",
    "TrainSpec",
    "about",
    "choices",
    "default_budgets",
    "field_names",
    "paper_budgets",
]
__all__ += ["parse_yaml", "read_yaml", "shown", "to_yaml", "validated"]
# From `fields`, for attacks outside this package that import them from here.
__all__ += ["STRICT", "Budget", "Eps", "Eta", "Etas", "Fraction", "Names", "NonNegative", "Number", "Positive", "Seed"]
__all__ += ["format_eta", "parse_eta", "parse_number", "split_list"]

T = TypeVar("T")

LONGEST = 200
"""Characters of a value in an error's line."""

MOST_BYTES = 100_000
"""Of a config file."""


class Spec(BaseModel):
    """A frozen value whose keys are known: an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values only: what goes into YAML, JSON and checkpoints."""
        return self.model_dump(mode="json")


def _not_empty(value: T) -> T:
    """Refuse what names nothing, such as text of blanks: the path `""` would be the folder that one is in."""
    if isinstance(value, int | float | list | dict):
        raise ValueError("should be a path (a number in quotes)")
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty (an unset variable of the shell?)")
    return value


Dataset = Annotated[str, AfterValidator(_not_empty)]
Folder = Annotated[Path, BeforeValidator(_not_empty)]


class Fit(Spec):
    """How images of different sizes are made one as they are decoded.

    `crop` is (h, w) of the centre; `resize` is of the shorter side, or (h, w): without it, an image is scaled until it
    just covers `crop`.
    """

    crop: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"

    def __str__(self) -> str:
        h, w = self.crop
        if isinstance(self.resize, int):
            return f"resized to a shorter side of {self.resize} and cropped to {w}x{h}"
        whole = f"resized to {self.resize[1]}x{self.resize[0]}" if self.resize else "resized to cover the crop"
        return whole if self.resize == self.crop else f"{whole} and cropped to {w}x{h}"


def _read_limit(value: object) -> object:
    """`--limit` of samples: N, or `first:N`."""
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"(first:)?0*[1-9][0-9]{0,15}", text):
        raise ValueError("should be a number of samples from 1 on, an integer, or first:N")
    return text if ":" in text else int(text)


Limit = Annotated[int | str | None, BeforeValidator(lambda value: None if value is None else _read_limit(value))]


class DataSpec(Spec):
    """Which images: a data set's name or a path, where it lies, how many of it, and how sizes that differ are made one.

    `limit` takes the first N, of a folder or a list in turn from each class; `first:N` takes the first N of these too.
    """

    dataset: Dataset = "mnist"
    data_dir: Folder | None = None
    split: Literal["train", "test"] = "test"
    limit: Limit = None
    allow_sample: bool = True
    fit: Fit | None = None

    @property
    def count(self) -> int | None:
        """How many images at most."""
        return None if self.limit is None else int(str(self.limit).removeprefix("first:"))


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


SPECS: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
"""One SPEC or a list, as a JSON Schema."""


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _method(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class TrainSpec(Spec):
    """One training run. What is said of a field is its line in `--help`, in what `init` writes and in the JSON Schema.

    bfloat16 halves an epoch where the processor multiplies it (AVX-512 BF16, AMX, recent GPUs) and is slow elsewhere.
    """

    model_config = DOCUMENTED
    method: Annotated[dict[str, Any], BeforeValidator(_method)] = Field({"name": "vanilla"}, validate_default=True)
    """vanilla, fgsm, pgd, batchout or gaussian, with its own options (`robustcli list methods`)."""
    dataset: Dataset = "mnist"
    """The images: a name (see `robustcli list datasets`), an .npz file or a folder of class folders."""
    model: str | None = None
    """mnist-cnn or cifar-cnn; by the images if left out."""
    epochs: PositiveInt = 12
    """Passes over the training images."""
    batch_size: PositiveInt = 128
    """Samples a step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimiser that takes the steps."""
    lr: Positive = 1e-3
    """Learning rate."""
    momentum: Number = Field(0.9, ge=0, lt=1)
    """Momentum of sgd; adam has none."""
    weight_decay: NonNegative = 0.0
    """Share of each weight that a unit of learning rate takes off."""
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    """How the learning rate changes over the whole run."""
    augment: Literal["none", "flip", "crop-flip"] = "none"
    """How training images are varied."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations, float32 or bfloat16; weights, optimiser and loss stay float32."""
    validation: Number = Field(0.05, ge=0, lt=1)
    """Share of the training images that is held out to choose the best epoch by."""
    seed: Seed = 0
    """Seed of every random draw."""
    limit: PositiveInt | None = None
    """Take the first N training images, in stored order."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("should not be true or false")
        return value


class EvalSpec(Spec):
    """One evaluation: what is said of a field is its line in `--help`, in what `init` writes and in the JSON Schema.

    With `curve`, budget attacks are bisected for each sample's least budget, and `eps` are the points that are shown.
    """

    model_config = DOCUMENTED

    dataset: Dataset | None = None
    """The images: a name (see `robustcli list datasets`), an .npz file or a folder of class folders."""
    data_dir: Folder | None = None
    """Where data sets lie; else $ROBUSTCLI_DATA, else the user's cache folder."""
    split: Literal["train", "test"] = "test"
    """Which part of the data set: train or test."""
    limit: Limit = None
    """Take the first N samples, in stored order; of folders and lists from each class in turn (first:N: not so)."""
    allow_sample: bool = True
    """Whether the bundled 5 000 digits may stand in for MNIST."""
    attacks: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), WithJsonSchema(SPECS)] = ()
    """Attacks: names with options, such as pgd:eps=8/255,steps=50. FGSM, PGD-20 and DeepFool-5 if left out."""
    preset: Literal["quick", "paper", "standard", "fast"] | None = None
    """A set of attacks: quick (FGSM, PGD-20, DeepFool-5), paper (the BatchOut paper's budgets of FGSM, DeepFool without
    a box), standard (AutoAttack) or fast (the same, its last two attacks on a sample of what the others leave)."""
    eps: Annotated[tuple[Budget, ...], BeforeValidator(split_list), WithJsonSchema(BUDGETS)] = ()
    """Budgets in pixel units, such as 0.1,0.2,8/255. For 28x28 grey images 0.1,0.3, else 2/255,8/255."""
    norm: str | None = None
    """Norm of the budgets: linf, l2 or l1."""
    steps: PositiveInt | None = None
    """Steps of a gradient attack."""
    iters: PositiveInt | None = None
    """Iterations of a minimal-norm attack."""
    eot: PositiveInt | None = None
    """For a randomised model: passes that gradients and predictions are averaged over."""
    weights: Folder | None = None
    """A state_dict for the one model that is named: .pt, .pth, .bin or .safetensors."""
    normalize: str = "auto"
    """Normalisation of pixels in [0, 1], before a network from elsewhere: auto (its own, or what fits best), none,
    imagenet, cifar10, half, bytes, mnist or mean=M,std=S."""
    resize: str | None = None
    """Size of the images' shorter side, before a network from elsewhere: N or none."""
    crop: str | None = None
    """The centre of the resized images, N x N, or none."""
    curve: bool = False
    """Accuracy at every eps from each sample's closest adversarial, by class too; budget attacks are bisected. The
    points shown are those of eps. FMN and PGD-20 if no attack is named."""
    eight_bit: bool = False
    """Also tell the accuracy once images are rounded to 8 bits inside the ball; one more pass a broken sample."""
    batch_size: PositiveInt | Literal["auto"] | None = None
    """Samples a chunk, of which the CPU may do two at once (128 if left out, fewer of large images), or auto: what the
    memory holds. It changes speed and memory only; once memory has run out it is halved."""
    workers: int | None = Field(None, ge=0, le=256)
    """Processes that decode image files while the network computes, where memory does not hold all of them (one a core,
    at most 8, if left out); 0 for none."""
    seed: Seed = 0
    """Seed of every random draw."""
    device: str = "auto"
    """Where the work is done: auto, cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations while images are made: float32 or bfloat16, slow where the processor or GPU lacks it. They
    are judged in float32."""
    shard: str | None = None
    """A share of the samples: i/n for every n-th from the i-th on, measured into a store of its own, which `robustcli
    results merge` joins with the others; slurm for what its array or its tasks say."""


def about(build: type[Spec], key: str) -> str:
    """What is said of a field, in one line, with its default."""
    field = build.model_fields[key]
    text = " ".join((field.description or "").split())
    usual = isinstance(field.default, str | int | float) and not isinstance(field.default, bool)
    return f"{text.removesuffix('.')} (default {field.default})." if usual else text


def choices(annotation: Any) -> tuple[str, ...]:
    """The words that a field's type allows; none where it takes any."""
    found: tuple[Any, ...] = get_args(annotation)
    return found if get_origin(annotation) is Literal else tuple(word for part in found for word in choices(part))


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
    """A value as a user would have typed it, cut where it is longer than an error's line should be."""
    if isinstance(value, list | tuple):
        text = ",".join(shown(item) for item in value[:LONGEST])
    else:
        try:
            text = str(value)
        except ValueError:  # an integer of more digits than Python writes
            text = "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, no regular file, larger than `MOST_BYTES`, or not a mapping of plain values.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--config {shown(path)}: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"--config {path}: has more than {MOST_BYTES} bytes; a config has a few hundred")
    try:
        loaded = parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"--config {path}: not valid YAML: is not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f"--config {path}: not valid YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"--config {path}: should hold keys and values, such as 'method: batchout'")
    return loaded


def parse_yaml(text: str) -> Any:
    """The plain value that a text of YAML holds: mappings with names as keys, lists, text, numbers, true, false, null.

    Raises:
        ValueError: says what is wrong, in one line.
    """
    try:
        return _Loader(text).get_single_data()
    except ComposerError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"holds several documents (line {line})") from None
    except yaml.YAMLError as error:
        raise ValueError(shown(" ".join(str(error).split()))) from None
    except OverflowError:  # of a character's number
        raise ValueError("holds a number that is too large") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Refuses what a config has no use for before it is built.

    That is aliases, of which a few lines can stand for billions of values or for themselves, tags, dates, and keys that
    are no names or given twice.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where = f" (line {event.start_mark.line + 1})"
        if event.anchor is not None:
            raise ValueError(f"anchors and aliases (& and *) are not allowed; write the value out{where}")
        if event.tag is not None:
            raise ValueError(f"the tag {shown(event.tag)} is not allowed{where}")
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.tag == "tag:yaml.org,2002:timestamp":
            raise ValueError(f"{shown(node.value)} is a date; should be in quotes (line {node.start_mark.line + 1})")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key, _ in node.value:
            name = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            if key.tag != "tag:yaml.org,2002:str":
                hint = "; merging is not allowed" if key.tag.endswith(":merge") else "; put it in quotes"
                raise ValueError(f"key '{name}' should be a name{hint} (line {node.start_mark.line + 1})")
            if key.value in names:
                raise ValueError(f"key '{name}' is given twice (line {key.start_mark.line + 1})")
            names.add(key.value)
        return node


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
