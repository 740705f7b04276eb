"""The images an attack made, as files: arrays, or PNG files that still fool the model after they are read back."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from robustcli.data.images import Images
from robustcli.disk import write_whole
from robustcli.engine.guard import frozen
from robustcli.engine.run import Outcome, predict
from robustcli.errors import ConfigError
from robustcli.measure.eightbit import EightBit


def save_images(images: Images, outcome: Outcome, path: Path) -> None:
    """Write `x, x_adv` (n, c, h, w) float32 in [0, 1] and `y, pred, pred_after, ids` (n,) as an .npz, or a .pt.

    Raises:
        ConfigError: the file cannot be written.
    """
    assert outcome.x_adv is not None
    tensors: dict[str, Tensor] = {
        "x": images.batch(slice(None)),
        "x_adv": outcome.x_adv,
        "y": images.y,
        "pred": outcome.pred,
        "pred_after": outcome.pred_after,
        "ids": images.ids,
    }
    content = io.BytesIO()
    if path.suffix == ".pt":
        torch.save(tensors, content)
    else:
        np.savez_compressed(content, allow_pickle=False, **{key: value.numpy() for key, value in tensors.items()})
    write_whole(path, content.getvalue(), "--save")


def save_pngs(model: nn.Module, images: Images, rounded: EightBit, folder: Path) -> list[Path]:
    """Write each rounded image that fools as `ID-true-CLASS-seen-CLASS.png`; one that does not, read back, is removed.

    Returns:
        The files that are there.

    Raises:
        ConfigError: the images are neither grey nor RGB, or the folder cannot be written.
    """
    if images.shape[0] not in (1, 3):
        raise ConfigError(
            f"--save {folder}: PNG takes 1 or 3 channels, {images.name} has {images.shape[0]}; use an .npz or .pt"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--save {folder}: {error.strerror or error}") from None
    chosen = rounded.fools.nonzero()[:, 0]
    paths = []
    for i in chosen.tolist():
        index = int(rounded.index[i])
        true, seen = images.classes[int(images.y[index])], images.classes[int(rounded.pred[i])]
        name = f"{int(images.ids[index]):05d}-true-{_plain(true)}-seen-{_plain(seen)}.png"
        content = io.BytesIO()
        pixels = rounded.x[i].permute(1, 2, 0).squeeze(2).numpy()  # (h, w) of grey images
        Image.fromarray(pixels).save(content, format="png")
        write_whole(folder / name, content.getvalue(), "--save")
        paths.append(folder / name)
    fools = _still_fools(model, paths, images.y[rounded.index[chosen]])
    for path, fooled in zip(paths, fools, strict=True):
        if not fooled:
            path.unlink()
    return [path for path, fooled in zip(paths, fools, strict=True) if fooled]


def _still_fools(model: nn.Module, paths: list[Path], y: Tensor) -> list[bool]:
    """Of each file, whether the model takes it for another class than `y` (n,)."""
    if not paths:
        return []
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    stored = [torch.from_numpy(np.asarray(Image.open(path)).copy()) for path in paths]
    x = torch.stack([pixels if pixels.ndim == 3 else pixels[:, :, None] for pixels in stored]).permute(0, 3, 1, 2)
    with frozen(model):
        pred = predict(model, x.to(device).float() / 255, 128).cpu()
    return [bool(fooled) for fooled in pred != y]


def _plain(name: str) -> str:
    """A class's name as part of a file's, which must not be too long for the file system."""
    return re.sub(r"[^\w.]+", "_", name)[:30]
