"""A part's results: networks and rows as its JSON holds them, and the numbers that others ask for."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robustcli.disk import write_whole
from robustcli.errors import ConfigError
from robustcli.measure.stats import student, wilson
from robustcli.report.table import interval, percent

SCHEMA = 1
Json = dict[str, Any]


@dataclass(frozen=True)
class Accuracy:
    """How many samples of how many were right, a pair for each seed."""

    counts: tuple[tuple[int, int], ...]

    @property
    def percents(self) -> list[float]:
        """Per cent right, a number for each seed."""
        return [100 * correct / n for correct, n in self.counts]

    @property
    def mean(self) -> float:
        """Per cent right, the mean over seeds."""
        return statistics.fmean(self.percents)

    @property
    def n(self) -> int:
        """Samples a seed."""
        return self.counts[0][1]

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval in per cent: see `high`."""
        return max(0.0, min(100 * wilson(*self._mean_count)[0], self.mean - self._over_seeds))

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval in per cent: Wilson's or, of several seeds, Student's if that is wider."""
        return min(100.0, max(100 * wilson(*self._mean_count)[1], self.mean + self._over_seeds))

    @property
    def _mean_count(self) -> tuple[int, int]:
        return round(self.mean / 100 * self.n), self.n

    @property
    def _over_seeds(self) -> float:
        """Half of Student's 95 % interval of the mean over seeds, in points; 0 for one seed."""
        k = len(self.counts)
        return student(k) * statistics.stdev(self.percents) / math.sqrt(k) if k > 1 else 0.0

    @property
    def text(self) -> str:
        """`46.12 [45.14, 47.10]`, or of several seeds `46.12 ± 0.80`: mean and standard deviation."""
        if len(self.counts) == 1:
            return f"{percent(*self.counts[0])} {interval(*self.counts[0])}"
        digits = 2 if self.n >= 10_000 else 1
        return f"{self.mean:.{digits}f} ± {statistics.stdev(self.percents):.{digits}f}"

    @property
    def short(self) -> str:
        """`46.12`: the mean alone."""
        return self.text.partition(" ")[0]


@dataclass(frozen=True)
class PartResults:
    """One part of the paper, measured.

    Attributes:
        part, title, source, note: as the study names them.
        quick: whether it was only a quick look.
        networks: one entry a trained network: name, label, spec, origin, losses.
        rows: one a network, attack and budget; counts, not per sample.
        missing: networks that are not there yet, with how far their training came.
        toy: numbers of a part without networks.
        provenance: of the command that wrote it.
    """

    part: str
    title: str
    source: str
    note: str
    quick: bool
    networks: Sequence[Json] = ()
    rows: Sequence[Json] = ()
    missing: Sequence[Json] = ()
    toy: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The networks' labels, each once, in the study's order."""
        return list(dict.fromkeys(str(network["label"]) for network in self.networks))

    def accuracies(self, label: str) -> dict[str, Accuracy]:
        """What was measured of a label's networks, by column: `clean`, `FGSM 0.3`, `DeepFool none 5`, `AutoAttack 0.1`.

        `clean` is that of the most samples.
        """
        names = [network["name"] for network in self.networks if network["label"] == label]
        found: dict[str, list[tuple[int, int]]] = {}
        for name in names:
            rows = [row for row in self.rows if row["model"] == name]
            most = max(rows, key=lambda row: int(row["n"]), default=None)
            if most is not None:
                found.setdefault("clean", []).append((most["clean_correct"], most["n"]))
            for row in rows:
                for column, correct in columns(row):
                    found.setdefault(column, []).append((correct, row["n"]))
        return {column: Accuracy(tuple(counts)) for column, counts in found.items()}

    def accuracy(self, label: str, column: str) -> Accuracy | None:
        """One of `accuracies`, None where it was not measured."""
        return self.accuracies(label).get(column)

    def median_distance(self, label: str) -> list[float | None]:
        """The median L2 distance that DeepFool found inside the box, for each seed; None where half withstood it."""
        names = [network["name"] for network in self.networks if network["label"] == label]
        return [row["median_distance"] for row in self.rows if row["model"] in names and _box(row) == "project"]

    def write(self, folder: Path) -> None:
        """Write `PART.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"schema": SCHEMA} | asdict(self), indent=1, allow_nan=False) + "\n"
        write_whole(folder / f"{self.part}.json", text.encode(), "--out")


def read(path: Path) -> PartResults:
    """The results in a part's JSON file.

    Raises:
        ConfigError: the file is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        return PartResults(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"--out {path}: is not a part's results: {error}") from None


def columns(row: Json) -> list[tuple[str, int]]:
    """The columns that a row fills, with the samples right in each: one, or one an iteration of DeepFool's first 5."""
    attack = row["attack"]
    if attack["name"] == "deepfool":
        return [(f"DeepFool {attack['box']} {i + 1}", count) for i, count in enumerate(row["by_iter"][:5])]
    name = {"fgsm": "FGSM", "pgd": f"PGD-{attack.get('steps')}", "autoattack": "AutoAttack"}[attack["name"]]
    source = f" from {attack['source']}" if "source" in attack else ""
    return [(f"{name} {attack['eps']}{source}", row["correct"])]


def _box(row: Json) -> str | None:
    box: str | None = row["attack"].get("box")
    return box
