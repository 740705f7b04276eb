"""`tv:NAME`, `timm:NAME`, `hf:NAME`: networks of torchvision, timm and transformers, and what they say of it."""

from __future__ import annotations

import os
import socket
import urllib.error
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.errors import CheckpointError, nearest, require_extra
from robustcli.models.inputs import Interpolation, Preprocessing
from robustcli.models.weights import put_weights, read_weights

HUB = ("huggingface.co", 443)
INTERPOLATIONS: dict[Any, Interpolation] = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    0: "nearest",
    2: "bilinear",
    3: "bicubic",
}
"""By torchvision's and timm's names, and by PIL's numbers, which transformers keep."""


@dataclass(frozen=True)
class Loaded:
    """A network and what its source says of it.

    Attributes:
        module: the network.
        preprocessing: what it wants before it; None where nobody says.
        size: (h, w) of the images that it was made for.
        classes: their names, by logit; empty where nobody says.
    """

    module: nn.Module
    preprocessing: Preprocessing | None
    size: tuple[int, int] | None
    classes: tuple[str, ...]


def load_torchvision(name: str, weights: Path | None, random: bool) -> Loaded:
    """A classifier of torchvision: with its default weights, with those of a file, or with random ones.

    Raises:
        CheckpointError: there is no such network, or its weights cannot be had or do not fit.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise CheckpointError(f"tv:{name}: torchvision has no classifier of that name{nearest(name, names)}")
    default = models.get_model_weights(name).DEFAULT
    if default is None and weights is None and not random:
        raise CheckpointError(f"tv:{name}: has no pretrained weights; give a file or none: tv:{name}@WEIGHTS")
    settings, classes = None, ()
    size = None
    if default is not None:
        wanted = default.transforms()
        size = (wanted.crop_size[0], wanted.crop_size[0])
        settings = Preprocessing(
            "own",
            tuple(wanted.mean),
            tuple(wanted.std),
            wanted.resize_size[0],
            size,
            INTERPOLATIONS[wanted.interpolation.value],
        )
        classes = tuple(default.meta["categories"])

    def build(**options: Any) -> nn.Module:
        network: nn.Module = models.get_model(name, weights=None, **options)
        return network

    if random:
        return Loaded(_drawn(build), settings, size, ())
    if weights is None:
        file = _download(f"tv:{name}", default.url)
        return Loaded(_filled(build, file), settings, size, classes)
    return Loaded(_filled(build, weights), settings, size, ())


def load_timm(name: str, weights: Path | None, random: bool) -> Loaded:
    """A classifier of timm; see `load_torchvision`.

    Raises:
        CheckpointError: as there.
        ConfigError: the extra `timm` is not installed.
    """
    timm = _client("timm", "timm", f"timm:{name}")
    plain = name.partition(".")[0]
    if not name.startswith("hf-hub:") and not timm.is_model(plain):
        near = nearest(plain, timm.list_models())
        raise CheckpointError(f"timm:{name}: timm has no network of that name{near}")

    def build(**options: Any) -> nn.Module:
        network: nn.Module = timm.create_model(name, **options)
        return network

    if random:
        module = _drawn(build)
    elif weights is not None:
        module = _filled(build, weights)
    else:
        with _hub_errors(f"timm:{name}"):
            module = build(pretrained=True)
    said = timm.data.resolve_model_data_config(module)
    size = (said["input_size"][1], said["input_size"][2])
    settings = Preprocessing(
        "own",
        tuple(said["mean"]),
        tuple(said["std"]),
        int(min(size) / said["crop_pct"]),
        size,
        INTERPOLATIONS.get(said["interpolation"], "bicubic"),
    )
    classes: tuple[str, ...] = ()
    if weights is None and not random and getattr(module, "num_classes", 0) == 1000:
        info = timm.data.ImageNetInfo()
        classes = tuple(info.index_to_description(i) for i in range(1000))
    return Loaded(module, settings, size, classes)


def load_transformers(name: str, weights: Path | None, random: bool) -> Loaded:
    """An image classifier of transformers, from its hub or from a folder; see `load_torchvision`.

    Code that comes with a model is never run (`trust_remote_code` is off).

    Raises:
        CheckpointError: as there.
        ConfigError: the extra `hf` is not installed.
    """
    where = f"hf:{name}"
    transformers = _client("transformers", "hf", where)
    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not (folder / "config.json").is_file():
        raise CheckpointError(f"{where}: no config.json in that folder")
    source = str(folder) if folder.is_dir() else name
    classifier = transformers.AutoModelForImageClassification
    with _hub_errors(where):
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            raise CheckpointError(f"{where}: is a {config.model_type}, not an image classifier")
        if random or weights is not None:
            module = _drawn(lambda: classifier.from_config(config, trust_remote_code=False))
        else:
            module = classifier.from_pretrained(source, config=config, trust_remote_code=False)
        said = _processor(transformers, source)
    if weights is not None:
        put_weights(module, read_weights(weights), weights)
    names = getattr(config, "id2label", None) or {}
    classes = tuple(str(names[i]) for i in sorted(names))
    if all(label == f"LABEL_{i}" for i, label in enumerate(classes)):
        classes = ()
    size = getattr(config, "image_size", None)
    size = (size, size) if isinstance(size, int) else (size[0], size[1]) if size else None
    settings = _transformers_settings(said, size) if said else None
    return Loaded(module, settings, settings.crop if settings and settings.crop else size, classes)


def _processor(transformers: Any, source: str) -> Mapping[str, Any]:
    """What the model's image processor is set to; nothing where it has none."""
    try:
        found: Mapping[str, Any] = transformers.ImageProcessingMixin.get_image_processor_dict(source)[0]
    except OSError:
        return {}
    return found


def _transformers_settings(said: Mapping[str, Any], size: tuple[int, int] | None) -> Preprocessing:
    """What an image processor does, as it is written in its file."""
    wanted = said.get("size") if said.get("do_resize", True) else None
    resize, crop = _height_width(wanted), _height_width(said.get("crop_size"))
    edge = wanted.get("shortest_edge") if isinstance(wanted, Mapping) else None
    normalizes = bool(said.get("do_normalize", True) and said.get("image_mean"))
    return Preprocessing(
        "own" if normalizes else "none",
        tuple(said["image_mean"]) if normalizes else (),
        tuple(said["image_std"]) if normalizes else (),
        resize=int(edge / (said.get("crop_pct") or 1)) if edge else resize or size,
        crop=(crop or (edge, edge)) if edge else resize or size,
        interpolation=INTERPOLATIONS.get(said.get("resample"), "bilinear"),
    )


def _height_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        return (size["height"], size["width"]) if "height" in size else None
    return (size, size) if isinstance(size, int) else None


def _client(module: str, extra: str, where: str) -> Any:
    """A library that asks the hub of Hugging Face; where that cannot be reached it is not asked six times over."""
    proxies = {"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT", "HF_HUB_OFFLINE"}
    if not proxies & os.environ.keys():
        try:
            socket.create_connection(HUB, timeout=3).close()
        except OSError:
            os.environ["HF_HUB_OFFLINE"] = "1"
    with warnings.catch_warnings(action="ignore"):
        return require_extra(module, extra, where)


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
        module = _drawn(lambda: build(num_classes=classes))
    put_weights(module, weights, path)
    return module


def _classes_of(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """The number of classes of weights whose shapes differ from the network's in their rows alone."""
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    other = [key for key in expected if key in plain and plain[key].shape != expected[key].shape]
    rows = {plain[key].shape[0] for key in other if plain[key].shape[1:] == expected[key].shape[1:] and plain[key].ndim}
    return rows.pop() if other and len(rows) == 1 else None


def _download(where: str, url: str) -> Path:
    """The file behind an address, in torch's cache folder."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"{where}: its weights cannot be downloaded ({' '.join(str(reason).split())[:100]}); put {path.name} from "
            f"{url} into {folder}, or take {where}@none for random ones"
        ) from None
    return path


@contextmanager
def _hub_errors(where: str) -> Iterator[None]:
    """One line for what the hub's client raises where there is no network, or no such model."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        from huggingface_hub.constants import HF_HUB_CACHE

        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{where}: cannot be had ({type(error).__name__}: {reason}); its files would be in "
            f"{os.fspath(HF_HUB_CACHE)}, and {where}@none takes random weights"
        ) from error
