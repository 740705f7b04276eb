"""Pictures of adversarial images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from robustcli.report.figure import plain_text, save_figure
from robustcli.text import visible

LONGEST = 40
"""Characters of a class's name that are shown: a picture is 1.5 inches wide."""


@dataclass(frozen=True)
class Picture:
    """One sample: images (c, h, w) in [0, 1], and what the model says of each."""

    x: Tensor
    x_adv: Tensor
    label: str
    before: str
    after: str
    confidence: float
    confidence_after: float
    distance: str


def save_gallery(pictures: Sequence[Picture], title: str, path: Path) -> None:
    """Original, adversarial and scaled perturbation of each sample, a sample a column, in one PNG.

    Raises:
        ConfigError: the file cannot be written.
    """
    with plain_text():
        save_figure(_drawn(pictures, title), path, "--gallery")


def _drawn(pictures: Sequence[Picture], title: str) -> Figure:
    columns = max(1, len(pictures))
    figure = Figure(figsize=(1.5 * columns + 0.9, 6.2), layout="constrained")
    figure.suptitle(visible(title), fontsize=10)
    axes = figure.subplots(3, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    for name, axis in zip(("original", "adversarial", "perturbation"), axes[:, 0], strict=True):
        axis.set_ylabel(name, fontsize=9)
    for picture, (top, middle, bottom) in zip(pictures, axes.T, strict=False):
        _draw(picture, top, middle, bottom)
    return figure


def _draw(picture: Picture, top: Axes, middle: Axes, bottom: Axes) -> None:
    label, before, after = (visible(name)[:LONGEST] for name in (picture.label, picture.before, picture.after))
    _show(top, picture.x)
    top.set_title(f"{before} ({100 * picture.confidence:.0f} %)\n(true: {label})", fontsize=8)
    _show(middle, picture.x_adv)
    fooled = picture.after != picture.label
    colour = "#b3261e" if fooled else "#1b6e3c"
    middle.set_title(f"{after} ({100 * picture.confidence_after:.0f} %)", fontsize=8, color=colour)
    delta = picture.x_adv - picture.x
    largest = float(delta.abs().max())
    scale = 0.5 / largest if largest > 0 else 1.0
    _show(bottom, 0.5 + scale * delta)
    bottom.set_title(f"x {scale:.2g}\n{picture.distance}", fontsize=8)


def _show(axis: Axes, image: Tensor) -> None:
    pixels = image.clamp(0, 1).permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        axis.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axis.imshow(pixels, interpolation="nearest")
