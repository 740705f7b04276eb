"""A part's results as a picture."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustcli.disk import write_whole
from robustcli.studies.batchout.five_gaussians import CLASSES, ETA, toy
from robustcli.studies.batchout.paper_tables import test_images
from robustcli.studies.batchout.part_results import Accuracy, PartResults

COLOURS = {
    "vanilla": "#4c566a",
    "FGSM-trained": "#c77d0a",
    "BatchOut": "#0b6fb8",
    "Gaussian": "#5a9e3d",
    "PGD-trained": "#8b3f8f",
}
MARKERS = {"vanilla": "o", "FGSM-trained": "s", "BatchOut": "D", "Gaussian": "^", "PGD-trained": "v"}
PAPER_ETA = 0.05
"""Of the first slot (Table 1); Figure 5b counts in multiples of it."""

CLASS_COLOURS = ("#0b6fb8", "#c77d0a", "#5a9e3d", "#8b3f8f", "#b3261e")


def save_figure(results: PartResults, folder: Path) -> None:
    """Draw `PART.png` and `PART.svg` into `folder`; the same results give the same bytes.

    Raises:
        ConfigError: a file cannot be written.
    """
    there = results.networks or results.toy
    figure = DRAW[results.part](results) if there else _panels(_title(results), 1)[0]
    colour = "#b3261e" if results.quick else "#555555"
    figure.text(0.5, -0.01, _footer(results), ha="center", va="top", fontsize=7, color=colour)
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": results.part, "svg.fonttype": "none"}):
            figure.savefig(content, format=kind, dpi=150, metadata=metadata, bbox_inches="tight")
        write_whole(folder / f"{results.part}.{kind}", content.getvalue(), "--out")


def _footer(results: PartResults) -> str:
    """What was trained for how long, on how many test images, what bars show, and what is missing."""
    said = ["quick look: not the paper's numbers"] * results.quick
    if results.networks:
        epochs = sorted({int(network["epochs"]) for network in results.networks})
        seeds = sorted(set(Counter(network["label"] for network in results.networks).values()), reverse=True)
        said.append(f"trained for {' or '.join(map(str, epochs))} epochs, seeds {' or '.join(map(str, seeds))}")
    if results.rows:
        said.append(f"n: {test_images(results)}")
        said.append("bars: 95 % intervals, Wilson's or over seeds Student's if wider")
    said += [f"missing: {missing['label']}" for missing in results.missing]
    return "; ".join(said)


def _title(results: PartResults) -> str:
    """`Figure 2: what it shows`, the source with a capital."""
    return f"{results.source[0].upper()}{results.source[1:]}: {results.title}"


def _panels(title: str, count: int, width: float = 4.2) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width * count, 3.9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e3e6eb", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _accuracy_axis(axis: Axes, title: str, label: str) -> None:
    axis.set_ylim(-2, 102)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(label)
    axis.set_ylabel("accuracy, %")


def _line(axis: Axes, x: Sequence[float], accuracies: Sequence[Accuracy], label: str) -> None:
    mean = [accuracy.mean for accuracy in accuracies]
    error = [
        [max(0.0, accuracy.mean - accuracy.low) for accuracy in accuracies],
        [max(0.0, accuracy.high - accuracy.mean) for accuracy in accuracies],
    ]
    axis.errorbar(
        x,
        mean,
        yerr=error,
        label=label,
        color=COLOURS.get(label),
        marker=MARKERS.get(label, "o"),
        ms=4,
        lw=1.5,
        capsize=2,
    )


def _against_attacks(results: PartResults) -> Figure:
    """Figures 2 and 3: FGSM over eps, DeepFool over iterations in the paper's form and inside the box, PGD over eps."""
    figure, axes = _panels(_title(results), 4, 3.6)
    _over_eps(axes[0], results, "FGSM")
    _accuracy_axis(axes[0], "FGSM", "eps, Linf")
    for axis, box, title in zip(
        axes[1:3], ("none", "project"), ("paper's form, no box", "inside the box"), strict=True
    ):
        for label in results.labels:
            cells = results.accuracies(label)
            found = [cells.get(f"DeepFool {box} {i}") for i in range(1, 6)]
            points = [(i, accuracy) for i, accuracy in enumerate((cells.get("clean"), *found)) if accuracy is not None]
            _line(axis, [i for i, _ in points], [accuracy for _, accuracy in points], label)
        _accuracy_axis(axis, f"DeepFool ({title})", "iterations")
    _over_eps(axes[3], results, "PGD-40")
    _accuracy_axis(axes[3], "PGD-40 (not in the paper)", "eps, Linf")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _over_eps(axis: Axes, results: PartResults, attack: str) -> None:
    for label in results.labels:
        cells = results.accuracies(label)
        points = [(0.0, cells["clean"])] if "clean" in cells else []
        for column, accuracy in cells.items():
            name, _, eps = column.partition(" ")
            if name == attack and " from " not in eps:  # images made on another network are not its own curve
                points.append((float(Fraction(eps)), accuracy))
        _line(axis, [eps for eps, _ in points], [accuracy for _, accuracy in points], label)
    if any("/255" in column for label in results.labels for column in results.accuracies(label)):
        ticks = [0, 4, 8, 16] if attack == "FGSM" else [0, 2, 4, 8]
        axis.set_xticks([tick / 255 for tick in ticks], [f"{tick}/255" if tick else "0" for tick in ticks], fontsize=8)


def _bars(results: PartResults) -> Figure:
    """Networks side by side: one group a network, one bar a column, DeepFool's last iteration only."""
    columns = list(dict.fromkeys(column for label in results.labels for column in results.accuracies(label)))
    columns = [column for column in columns if not column.startswith("DeepFool") or column.endswith(" 5")]
    figure, (axis,) = _panels(_title(results), 1, 10.5)
    shades = [matplotlib.colormaps["viridis"](i / max(1, len(columns) - 1) * 0.9) for i in range(len(columns))]
    width = 0.84 / len(columns)
    for i, column in enumerate(columns):
        found = [(x, results.accuracy(label, column)) for x, label in enumerate(results.labels)]
        there = [(x, accuracy) for x, accuracy in found if accuracy is not None]
        heights = [accuracy.mean for _, accuracy in there]
        low = [max(0.0, accuracy.mean - accuracy.low) for _, accuracy in there]
        high = [max(0.0, accuracy.high - accuracy.mean) for _, accuracy in there]
        places = [x + (i - (len(columns) - 1) / 2) * width for x, _ in there]
        error = {"elinewidth": 0.8, "ecolor": "#333333"}
        axis.bar(places, heights, width, color=shades[i], label=column, yerr=[low, high], error_kw=error)
    axis.set_xticks(range(len(results.labels)), [label.replace(", ", ",\n") for label in results.labels], fontsize=8)
    _accuracy_axis(axis, "", "")
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=min(8, len(columns)))
    return figure


def _over_k(results: PartResults) -> Figure:
    """Figure 5a."""
    figure, (axis,) = _panels(_title(results), 1, 6.0)
    shares = [float(network["method"].get("fraction", 0)) for network in results.networks]  # vanilla augments nothing
    for column in dict.fromkeys(column for label in results.labels for column in results.accuracies(label)):
        points = [(share, results.accuracy(label, column)) for share, label in zip(shares, results.labels, strict=True)]
        there = [(share, accuracy) for share, accuracy in points if accuracy is not None]
        _line(axis, [share for share, _ in there], [accuracy for _, accuracy in there], column)
    _accuracy_axis(axis, "", "k")
    axis.legend(frameon=False, fontsize=8)
    return figure


def _over_eta(results: PartResults) -> Figure:
    """Figure 5b: a panel for each column, BatchOut and Gaussian noise over multiples of the paper's eta."""
    columns = list(dict.fromkeys(column for label in results.labels for column in results.accuracies(label)))
    figure, axes = _panels(_title(results), len(columns), 3.4)
    for axis, column in zip(axes, columns, strict=True):
        for method in ("BatchOut", "Gaussian"):
            networks = [network for network in results.networks if network["method"]["name"] == method.lower()]
            points = [
                (float(network["method"]["eta"][0]) / PAPER_ETA, results.accuracy(network["label"], column))
                for network in networks
            ]
            there = [(x, accuracy) for x, accuracy in points if accuracy is not None]
            _line(axis, [x for x, _ in there], [accuracy for _, accuracy in there], method)
        _accuracy_axis(axis, column, "multiple of the paper's eta")
        axis.set_xscale("log")
        axis.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        axis.minorticks_off()
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _losses(results: PartResults) -> Figure:
    """Figure 4a."""
    figure, (axis,) = _panels(_title(results), 1, 6.0)
    for network in results.networks:
        losses, label = network["losses"], network["label"]
        axis.plot(range(1, len(losses) + 1), losses, label=label, color=COLOURS.get(label), marker=MARKERS.get(label))
    axis.set_xlabel("epoch")
    axis.set_ylabel("mean training loss")
    axis.legend(frameon=False, fontsize=8)
    return figure


def _toy(results: PartResults) -> Figure:
    """Figure 1: the features, the directions for one of them, and the features that BatchOut makes of them."""
    example = toy(int(results.toy["seed"]))
    figure, axes = _panels(_title(results), 3, 3.9)
    for axis, points, title in zip(
        axes,
        (example.before, example.before, example.after),
        ("(a) features", "(b) directions for one sample x", "(c) after BatchOut; stars: x* of x"),
        strict=True,
    ):
        for label in range(CLASSES):
            x, y = points[example.y == label].T.tolist()
            axis.scatter(x, y, s=12, color=CLASS_COLOURS[label], alpha=0.75, linewidths=0)
        axis.set(xticks=[], yticks=[], xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), aspect="equal", title=title)
    start = (float(example.chosen[0]), float(example.chosen[1]))
    for x, y in example.partners.tolist():
        axes[1].annotate("", xy=(x, y), xytext=start, arrowprops={"arrowstyle": "->", "lw": 1.2, "color": "#222222"})
        moved = (start[0] + 0.5 * ETA * (x - start[0]), start[1] + 0.5 * ETA * (y - start[1]))
        axes[2].plot([start[0], x], [start[1], y], lw=0.8, ls=":", color="#222222")
        axes[2].scatter(*moved, s=70, marker="*", color="#222222", zorder=3)
    for axis in axes[1:]:
        axis.annotate("x", start, textcoords="offset points", xytext=(5, 5), fontsize=11)
    return figure


DRAW: dict[str, Callable[[PartResults], Figure]] = {
    "fig1": _toy,
    "mnist": _bars,
    "cifar10": _bars,
    "fig2": _against_attacks,
    "fig3": _against_attacks,
    "fig4a": _losses,
    "fig4b": _bars,
    "fig5a": _over_k,
    "fig5b": _over_eta,
    "stopgrad": _bars,
}
