"""`tv:NAME`, `timm:NAME`, `hf:NAME`: networks of torchvision, timm and transformers, and what they say of it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli import tensorfile
from robustcli.disk import open_regular
from robustcli.errors import CheckpointError, nearest, one_line, require_extra
from robustcli.internet import reachable
from robustcli.models.inputs import Interpolation, Preprocessing
from robustcli.models.weights import put_weights, read_weights, rename

RANDOM = "none"
"""What stands for random weights, where a file of weights could stand."""

INTERPOLATIONS: dict[Any, Interpolation] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    0: "nearest",
    2: "bilinear",
    3: "bicubic",
}
"""By torchvision's and timm's names, and by PIL's numbers, which transformers keep."""

Settings = tuple[Preprocessing, tuple[str, ...]]


@dataclass(frozen=True)
class Entry:
    """A network of a library.

    Attributes:
        build: makes it with random weights, for as many classes as `num_classes` says.
        pretrained: makes it with the library's weights.
        cache: where the library looks for their files, for the error where there is no network.
        describe: what comes before the network, and the names of its classes, by logit.
    """

    build: Callable[..., nn.Module]
    pretrained: Callable[[], nn.Module]
    cache: str
    describe: Callable[[nn.Module], Settings]


def load_network(prefix: str, name: str, weights: str | None) -> tuple[nn.Module, Preprocessing, tuple[str, ...]]:
    """A classifier of a library, what its library puts before it, and its classes' names, where they are known.

    Code that comes with a model is never run (`trust_remote_code` is off).

    Args:
        prefix: the library.
        name: of the network there.
        weights: a file of them, `none` for random ones, or None for the library's own.

    Raises:
        CheckpointError: there is no such network, or its weights cannot be had or do not fit.
        ConfigError: the library is not installed.
    """
    entry = LIBRARIES[prefix](name)
    if weights == RANDOM:
        module = _drawn(entry.build)
    elif weights is not None:
        module = _filled(entry.build, Path(weights))
    else:
        with _library_errors(f"{prefix}:{name}", entry.cache):
            module = entry.pretrained()
    before, classes = entry.describe(module)
    # Other weights may know other classes; a config of transformers is made for them.
    return module, before, classes if weights is None or prefix == "hf" else ()


def _torchvision(name: str) -> Entry:
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise CheckpointError(f"tv:{name}: torchvision has no classifier of that name{nearest(name, names)}")
    build = partial(models.get_model, name)
    default = models.get_model_weights(name).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(default.url).name

    def pretrained() -> nn.Module:
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(default.url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        read_weights(file)  # torchvision may unpickle it
        network: nn.Module = build(weights=default)
        return network

    def describe(network: nn.Module) -> Settings:
        said = default.transforms()
        edge, interpolation = said.crop_size[0], INTERPOLATIONS[said.interpolation.value]
        sizes = Preprocessing(resize=said.resize_size[0], crop=(edge, edge), interpolation=interpolation)
        return sizes.with_normalization("own", said.mean, said.std), tuple(default.meta["categories"])

    return Entry(build, pretrained, f"put {file.name} from {default.url} into {folder}", describe)


def _timm(name: str) -> Entry:
    timm = _client("timm", "timm", f"timm:{name}")
    plain = name.partition(".")[0]
    if not name.startswith("hf-hub:") and not timm.is_model(plain):
        near = nearest(plain, timm.list_models())
        raise CheckpointError(f"timm:{name}: timm has no network of that name{near}")

    def describe(network: nn.Module) -> Settings:
        said = timm.data.resolve_model_data_config(network)
        size, interpolation = tuple(said["input_size"][1:]), INTERPOLATIONS.get(said["interpolation"], "bicubic")
        sizes = Preprocessing(resize=int(min(size) / said["crop_pct"]), crop=size, interpolation=interpolation)
        names = timm.data.ImageNetInfo().label_descriptions() if network.num_classes == 1000 else ()
        return sizes.with_normalization("own", said["mean"], said["std"]), tuple(names)

    build = partial(timm.create_model, name)
    said = None if name.startswith("hf-hub:") else timm.models.get_pretrained_cfg(name)
    repository = name.removeprefix("hf-hub:") if said is None else said.hf_hub_id
    return Entry(build, partial(build, pretrained=True), _hub_cache(repository), describe)


def _transformers(name: str) -> Entry:
    where = f"hf:{name}"
    transformers = _client("transformers", "hf", where)
    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not (folder / "config.json").is_file():
        raise CheckpointError(f"{where}: no config.json in that folder")
    source = str(folder) if folder.is_dir() else name
    if folder.is_dir():
        _check_folder(folder)
    classifier = transformers.AutoModelForImageClassification
    cache = "its files would be there" if folder.is_dir() else _hub_cache(name)
    with _library_errors(where, cache):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            raise CheckpointError(f"{where}: is a {config.model_type}, not an image classifier")
        if "/" in str(getattr(config, "_attn_implementation", "")):
            raise CheckpointError(f"{where}: is refused: its config names code of the hub")
        try:
            said = transformers.ImageProcessingMixin.get_image_processor_dict(source)[0]
        except OSError:  # it has none
            said = {}

    def build(num_classes: int | None = None) -> nn.Module:
        if num_classes is not None:
            config.num_labels = num_classes
        network: nn.Module = classifier.from_config(config, trust_remote_code=False)
        return network

    def describe(network: nn.Module) -> Settings:
        names = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
        unnamed = all(label == f"LABEL_{i}" for i, label in enumerate(names))
        return _processing(said, _height_width(getattr(config, "image_size", None))), () if unnamed else names

    pretrained = partial(classifier.from_pretrained, source, config=config, trust_remote_code=False)
    return Entry(build, pretrained, cache, describe)


def _check_folder(folder: Path) -> None:
    """Refuse a folder with a file outside it, a file that is none, or weights that hold an object.

    Raises:
        CheckpointError: names it.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots":  # the hub's cache, where each file is a link to a blob
        root = root.parents[1]
    for path in folder.iterdir():
        named = [path]
        if path.name.endswith(".index.json"):
            with tensorfile.refusals(path, "is no index of weights"), open_regular(path) as file:
                named += [folder / str(part) for part in set(json.load(file)["weight_map"].values())]
        for one in named:
            if not one.resolve().is_relative_to(root) or not (one.is_file() or one.is_dir()):
                raise CheckpointError(f"{path}: is refused: {one.name} is outside its folder, missing or no plain file")
            if one.name.startswith("pytorch_model") and one.suffix == ".bin":
                read_weights(one)  # transformers reads what this lets pass


LIBRARIES: dict[str, Callable[[str], Entry]] = {"tv": _torchvision, "timm": _timm, "hf": _transformers}


def _processing(said: Mapping[str, Any], size: tuple[int, int] | None) -> Preprocessing:
    """What an image processor of transformers does, as its file says; without one, images get the network's `size`."""
    if not said:
        return Preprocessing("auto", resize=size)
    wanted = said.get("size") if said.get("do_resize", True) else None
    edge = wanted.get("shortest_edge") if isinstance(wanted, Mapping) else None
    resize, crop = _height_width(wanted) or size, _height_width(said.get("crop_size"))
    sizes = Preprocessing(
        resize=int(edge / (said.get("crop_pct") or 1)) if edge else resize,
        crop=(crop or (edge, edge)) if edge else resize,
        interpolation=INTERPOLATIONS.get(said.get("resample"), "bilinear"),
    )
    if not said.get("do_normalize", True) or not said.get("image_mean"):
        return sizes
    return sizes.with_normalization("own", said["image_mean"], said["image_std"])


def _height_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        return (size["height"], size["width"]) if "height" in size else None
    return (size, size) if isinstance(size, int) else size and (size[0], size[1])


def _client(module: str, extra: str, where: str) -> Any:
    """A library that asks the hub of Hugging Face; where that cannot be reached it is not asked six times over."""
    decided = {"ALL_PROXY", "all_proxy", "HF_ENDPOINT", "HF_HUB_OFFLINE"} & os.environ.keys()
    if not decided and not reachable("huggingface.co:443"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    with warnings.catch_warnings(action="ignore"):
        return require_extra(module, extra, where)


def _hub_cache(repository: str | None) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return f"its files, those of huggingface.co/{repository}, would be in {HF_HUB_CACHE}"


def _drawn(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with random weights, the same each time; the global RNG is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def _filled(build: Callable[..., nn.Module], path: Path) -> nn.Module:
    """A network with the weights of a file, made for as many classes as they are for."""
    weights = read_weights(path)
    module = _drawn(build)
    if (classes := _classes_of(weights, module.state_dict())) is not None:
        module = _drawn(partial(build, num_classes=classes))
    put_weights(module, weights, path)
    return module


def _classes_of(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """The number of classes of weights whose shapes differ from the network's in their rows alone."""
    found = [(value, expected[key]) for key, value in rename(weights, expected).items() if key in expected]
    other = [(value, wanted) for value, wanted in found if value.shape != wanted.shape]
    rows = {value.shape[0] for value, wanted in other if value.ndim and value.shape[1:] == wanted.shape[1:]}
    return rows.pop() if len(rows) == 1 else None


@contextmanager
def _library_errors(where: str, cache: str) -> Iterator[None]:
    """One line for what a library raises where there is no network, or no such model."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{where}: cannot be had ({type(error).__name__}: {one_line(error)}); {cache}, and {where}@none takes "
            "random weights"
        ) from error
