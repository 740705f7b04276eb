"""A part's results as a table: a network a row, an attack and budget a column."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from robustcli.report.table import Table
from robustcli.studies.batchout.part_results import PartResults

LAST = 5
"""Of DeepFool's iterations, the one that tables show; figures show each."""


def make_table(results: PartResults) -> Table:
    """The table of a part: accuracy in per cent with its interval or, over seeds, its standard deviation.

    A network is a row; in Figures 2 and 3, with each of DeepFool's iterations, a column.
    """
    if results.toy:
        return _toy_table(results)
    if not results.rows:
        return _loss_table(results)
    whole = results.part in ("fig2", "fig3")
    shown = _columns(results, whole)
    distances = any(results.median_distance(label) for label in results.labels)
    cells = []
    for label in results.labels:
        found = results.accuracies(label)
        line = [label, str(len(next(iter(found.values())).counts)) if found else "-"]
        line += [found[column].text if column in found else "-" for column in shown]
        if distances:
            line.append(_distance(results.median_distance(label)))
        cells.append(tuple(line))
    headers = ("network", "seeds", *shown, *(["median L2"] if distances else []))
    upright = Table(results.title, headers, tuple(cells), tuple(notes(results)), left=1)
    return upright.transpose() if whole else upright


def _columns(results: PartResults, whole: bool) -> list[str]:
    """All columns that some network fills; but for `whole`, of DeepFool the last iteration only."""
    found = dict.fromkeys(column for label in results.labels for column in results.accuracies(label))
    return [column for column in found if whole or not column.startswith("DeepFool") or column.endswith(f" {LAST}")]


def _distance(medians: Iterable[float | None]) -> str:
    values = [float("inf") if median is None else median for median in medians]
    if not values:
        return "-"
    shown = f"{statistics.fmean(values):.2f}"
    return shown if len(values) == 1 or "inf" in shown else f"{shown} ± {statistics.stdev(values):.2f}"


def _loss_table(results: PartResults) -> Table:
    """Training loss, an epoch a row."""
    labels = [network["label"] for network in results.networks]
    losses = [network["losses"] for network in results.networks]
    cells = [
        (str(epoch + 1), *(f"{loss[epoch]:.4f}" if epoch < len(loss) else "-" for loss in losses))
        for epoch in range(max(map(len, losses), default=0))
    ]
    return Table(results.title, ("epoch", *labels), tuple(cells), tuple(notes(results)), left=0)


def _toy_table(results: PartResults) -> Table:
    cells = tuple(
        (name, f"{value:g}" if isinstance(value, float) else str(value)) for name, value in results.toy.items()
    )
    return Table(results.title, ("what", "value"), cells, tuple(notes(results)), left=1)


def notes(results: PartResults) -> list[str]:
    """What a reader must know beside the numbers: samples, epochs, commit, hardware, and what is missing."""
    found = []
    if results.rows:
        dear = " AutoAttack on the first seed alone." if "autoattack" in {_attack(row) for row in results.rows} else ""
        found.append(
            f"Accuracy in per cent. Test images: {test_images(results)}. Linf budgets. DeepFool in L2, after its "
            f"number of iterations; the median is of 50 inside the box.{dear}"
        )
    if results.note:
        found.append(results.note)
    if results.networks:
        epochs = sorted({network["epochs"] for network in results.networks})
        commits = sorted({short(str(network["commit"])) for network in results.networks})
        hardware = sorted({str(network["hardware"]) for network in results.networks})
        trained = f"Trained for {' or '.join(map(str, epochs))} epoch{'s' if epochs != [1] else ''}"
        found.append(f"{trained} at {_list('commit', commits)} on {', '.join(hardware)}.")
        shipped = [network["name"] for network in results.networks if str(network.get("from", "")).startswith("zoo:")]
        found += [f"Shipped with the package, not trained here: {', '.join(shipped)}."] * bool(shipped)
    found += [
        f"Missing: {missing['name']}, {missing['epochs_done']} of {missing['epochs']} epochs trained"
        f"{'; ' + missing['reason'] if 'reason' in missing else ''}."
        for missing in results.missing
    ]
    if results.quick:
        found.append("A quick look: few images and few epochs; these are not the paper's numbers.")
    return found


def test_images(results: PartResults) -> str:
    """How many each attack met: `clean 10000, fgsm 10000, pgd 1000`."""
    different = {(_attack(row), int(row["n"])) for row in results.rows}
    sizes = sorted(different, key=lambda size: (-size[1], size[0]))
    return ", ".join([f"clean {sizes[0][1]}", *(f"{name} {n}" for name, n in dict(sizes).items())])


def _attack(row: Mapping[str, Any]) -> str:
    return str(row["attack"]["name"])


def short(commit: str) -> str:
    """`1a2b3c4`, and `1a2b3c4+dirty` where files were changed."""
    if commit == "None":  # installed from no checkout
        return "unknown"
    head, plus, dirty = commit.partition("+")
    return head[:7] + plus + dirty


def _list(word: str, items: list[str]) -> str:
    return f"{word}{'s' if len(items) > 1 else ''} {', '.join(items)}"
