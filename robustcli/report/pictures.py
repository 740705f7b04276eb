"""Pictures as PNG files: adversarial images, and curves of robust accuracy."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from robustcli.data.images import Images
from robustcli.disk import write_whole
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.run import Outcome
from robustcli.measure.curve import Curve
from robustcli.measure.stats import wilson
from robustcli.text import short_paths, visible

PICTURES = 8
"""Samples in a gallery."""

NAME_LENGTH = 40
"""Characters that are shown of a class's name, over a picture 1.5 inches wide, or of a checkpoint's in a legend."""

POINTS = 200
"""Budgets that a line is drawn through."""


@contextmanager
def plain_text() -> Iterator[None]:
    """Take no text for a formula or for LaTeX, whatever dollars it has, and let a font lack a name's characters."""
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def save_figure(figure: Figure, path: Path, flag: str) -> None:
    """Write a figure as PNG.

    Raises:
        ConfigError: the file cannot be written; names `flag`.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_whole(path, content.getvalue(), flag)


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
        save_figure(_gallery(pictures, title), path, "--gallery")


def _gallery(pictures: Sequence[Picture], title: str) -> Figure:
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
        _draw_sample(picture, top, middle, bottom)
    return figure


def _draw_sample(picture: Picture, top: Axes, middle: Axes, bottom: Axes) -> None:
    label, before, after = (visible(name)[:NAME_LENGTH] for name in (picture.label, picture.before, picture.after))
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
    pixels = image.clamp(0, 1).permute(1, 2, 0).squeeze(2).numpy()  # matplotlib takes a grey image as (h, w)
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def choose_pictures(model: nn.Module, images: Images, outcome: Outcome) -> list[Picture]:
    """The first samples that the attack broke, then the first that withstood it, eight in all."""
    assert outcome.x_adv is not None
    attacked = outcome.clean.nonzero()[:, 0]
    broken = outcome.robust[attacked].logical_not()
    chosen = torch.cat([attacked[broken], attacked[~broken]])[:PICTURES]
    x, x_adv = images.batch(chosen), outcome.x_adv[chosen]
    confidence, confidence_after = _confidence(model, x), _confidence(model, x_adv)
    distance = outcome.attack.norm.distance(x_adv, x)
    return [
        Picture(
            x=x[i],
            x_adv=x_adv[i],
            label=images.classes[int(images.y[index])],
            before=images.classes[int(outcome.pred[index])],
            after=images.classes[int(outcome.pred_after[index])],
            confidence=float(confidence[i]),
            confidence_after=float(confidence_after[i]),
            distance=f"{outcome.attack.norm.label} {float(distance[i]):.3g}",
        )
        for i, index in enumerate(chosen.tolist())
    ]


def _confidence(model: nn.Module, x: Tensor) -> Tensor:
    """(n,) the softmax probability of the predicted class."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with frozen(model), torch.no_grad():
        logits = Meter(model)(x.to(device))
    return logits.softmax(1).amax(1).cpu()


def save_curves(curves: Sequence[tuple[Curve, Sequence[float]]], path: Path) -> None:
    """Draw each curve from eps 0 to its last budget, with its 95 % band, a panel a norm, in one PNG.

    Raises:
        ConfigError: the file cannot be written.
    """
    with plain_text():
        save_figure(_plot(curves), path, "--curve-plot")


def _plot(curves: Sequence[tuple[Curve, Sequence[float]]]) -> Figure:
    names = short_paths(curve.subject.checkpoint for curve, _ in curves)
    norms = list(dict.fromkeys(curve.norm for curve, _ in curves))
    figure = Figure(figsize=(5.2 * len(norms), 4.0), layout="constrained")
    for axis, norm in zip(figure.subplots(1, len(norms), squeeze=False)[0], norms, strict=True):
        for curve, budgets in curves:
            if curve.norm == norm:
                _draw_curve(axis, curve, budgets[-1], names[curve.subject.checkpoint])
        axis.set_xlabel(f"{norm.capitalize()} eps")
        axis.set_ylabel("accuracy %: no adversarial found within eps")
        axis.set_ylim(0, 100)
        axis.set_xlim(left=0)
        axis.grid(color="#e3e6eb", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    return figure


def _draw_curve(axis: Axes, curve: Curve, reach: float, name: str) -> None:
    """Draw one curve; a space before its name, as matplotlib leaves out of a legend what begins with an underscore."""
    everyone = curve.everyone
    at = [reach * i / (POINTS - 1) for i in range(POINTS)]
    right = [everyone.correct(eps) for eps in at]
    bands = [wilson(correct, everyone.n) for correct in right]
    on = "" if curve.split == "test" else f", {curve.split} split"
    name = visible(name)
    name = name if len(name) <= NAME_LENGTH else f"...{name[-NAME_LENGTH:]}"  # ends differ
    shown = f" {name} ({' and '.join(curve.attacks)}, n = {everyone.n}{on})"
    (line,) = axis.plot(at, [100 * correct / everyone.n for correct in right], label=shown)
    low, high = zip(*bands, strict=True)
    axis.fill_between(at, [100 * p for p in low], [100 * p for p in high], color=line.get_color(), alpha=0.15, lw=0)
