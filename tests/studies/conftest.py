"""Results made by hand, in per cent; and a folder in which a tiny study is finished."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustcli.studies.batchout.evidence import Evidence
from robustcli.studies.batchout.experiments import FRACTIONS, FULL, MULTIPLES, SLOTS, parts
from robustcli.studies.batchout.part_results import PartResults
from robustcli.studies.batchout.reproduction import reproduce_part
from robustcli.studies.batchout.study import Study

from .tiny_study import PART, TINY

Json = dict[str, Any]
Cells = Mapping[str, Any]
N = 1000
COMMIT = "0123456789"

SLOT_LABELS = ("none", *(slots.replace(",", "+") for slots in SLOTS), "all")
K_LABELS = tuple(f"k = {fraction:g}" for fraction in FRACTIONS)
ETA_LABELS = tuple(f"{method}, eta x {multiple}" for method in ("BatchOut", "Gaussian") for multiple in MULTIPLES)
STOP_LABELS = ("with the stop-gradient", "without it")
SPECS: dict[str, Json] = {}
for _part in parts(FULL).values():
    for _network in _part.networks:
        SPECS.setdefault(_network.label, _network.spec.as_dict())
SPEED: Json = {"ratios": {"vanilla": 1.0, "batchout": 1.1, "fgsm": 2.0}}


def network(label: str, seed: int = 0, **changes: Any) -> Json:
    """A part's entry on a trained network, with the method and spec of the study's network of that label."""
    spec = SPECS.get(label, SPECS["vanilla"])
    entry: Json = {
        "name": f"{label}-seed{seed}",
        "label": label,
        "method": spec["method"],
        "seed": seed,
        "dataset": "mnist",
        "network": "mnist-cnn",
        "epochs": 12,
        "n_train": 57000,
        "spec": spec,
        "commit": "0123456789abcdef",
        "hardware": "a processor",
        "threads": 1,
        "sha256": "ab12",
        "losses": [1.5, 0.5],
        "val_accuracies": [0.9, 0.98],
        "seconds_an_epoch": 10.0,
    }
    return entry | changes


def attack_of(column: str) -> Json:
    """`FGSM 0.3`, `FGSM 0.3 from vanilla`, `PGD-40 2/255` or `DeepFool none` as an attack in a row."""
    name, _, option = column.partition(" ")
    if name == "DeepFool":
        return {"name": "deepfool", "iters": 5 if option == "none" else 50, "box": option, "norm": "l2"}
    eps, _, source = option.partition(" from ")
    steps = {"steps": int(name.partition("-")[2])} if name.startswith("PGD") else {}
    return (
        {"name": name.lower().partition("-")[0], "eps": eps, "norm": "linf"}
        | steps
        | ({"source": source} if source else {})
    )


def rows_of(name: str, cells: Cells, n: int = N) -> list[Json]:
    """A network's rows. `clean` is per cent, as is each attack's; DeepFool has a list, and `L2` its median."""
    clean = round(n * cells.get("clean", 99.0) / 100)
    rows = []
    for column, value in cells.items():
        if column in ("clean", "L2"):
            continue
        counts = [round(n * percent / 100) for percent in (value if isinstance(value, list) else [value])]
        row = {"model": name, "attack": attack_of(column), "n": n, "clean_correct": clean, "correct": counts[-1]}
        boxed = column == "DeepFool project"
        rows.append(row | {"by_iter": counts, "median_distance": cells.get("L2", 1.5) if boxed else None})
    return rows


def made(part: str, cells: Mapping[str, Cells | Sequence[Cells]], n: int = N, **changes: Any) -> PartResults:
    """A part's results; a label with a list has a network for each of its seeds."""
    networks, rows = [], []
    for label, given in cells.items():
        for seed, one in enumerate([given] if isinstance(given, Mapping) else given):
            entry = network(label, seed)
            networks.append(entry)
            rows += rows_of(entry["name"], one, n)
    known = parts(FULL)[part]
    values: Json = {"networks": networks, "rows": rows, "quick": False, "note": known.note} | changes
    return PartResults(part=part, title=known.title, source=known.source, **values)


def deepfool(*percents: float) -> list[float]:
    """What is left after each of DeepFool's five iterations; the last number goes on."""
    return [*percents, *[percents[-1]] * (5 - len(percents))]


def attacked(**changes: Any) -> Json:
    """What an undefended network on MNIST leaves, but for `changes` (`fgsm_large=46`).

    `transferred` is what FGSM's images of vanilla leave; vanilla itself has no such row.
    """
    names = {
        "clean": "clean",
        "fgsm_small": "FGSM 0.1",
        "fgsm_large": "FGSM 0.3",
        "pgd_small": "PGD-40 0.1",
        "pgd_large": "PGD-40 0.3",
        "none": "DeepFool none",
        "project": "DeepFool project",
        "l2": "L2",
    }
    values = [99.0, 80.0, 15.0, 60.0, 0.0, deepfool(90, 40, 10, 1, 0), deepfool(60, 20, 5, 0, 0), 1.5]
    cells = dict(zip(names.values(), values, strict=True))
    names["transferred"] = "FGSM 0.3 from vanilla"
    return cells | {names[key]: value for key, value in changes.items()}


def mnist(**labels: Any) -> PartResults:
    """The part `mnist`: the paper's networks, or those of `labels` in their place (`batchout={...}`)."""
    shown = {"vanilla": "vanilla", "fgsm": "FGSM-trained", "batchout": "BatchOut", "gaussian": "Gaussian"}
    given: Json = {
        "vanilla": attacked(),
        "fgsm": attacked(fgsm_small=90, fgsm_large=95, none=deepfool(95, 70), project=deepfool(60, 1)),
        "batchout": attacked(clean=98.8, fgsm_large=45, pgd_small=70, pgd_large=2, l2=1.75, transferred=30),
        "gaussian": attacked(fgsm_large=16),
    }
    return made("mnist", {shown[key]: value for key, value in (given | labels).items()})


def every_part() -> dict[str, PartResults]:
    """All parts but `fig1`, each with all of its networks and columns."""
    colour = {
        "clean": 80.0,
        **{f"FGSM {eps}/255": 20.0 for eps in (1, 2, 4, 8, 16)},
        **{f"PGD-40 {eps}/255": 5.0 for eps in (1, 2, 4, 8)},
        "DeepFool none": deepfool(50, 1),
        "DeepFool project": deepfool(30, 0),
        "L2": 0.25,
    }
    headline = ("vanilla", "FGSM-trained", "BatchOut", "Gaussian")
    small = {"FGSM 0.3": 30.0, "PGD-40 0.1": 60.0}
    share = {"FGSM 0.4": 20.0, "PGD-40 0.1": 60.0}
    seeds = [small | {"FGSM 0.4": 20.0}] * 3
    return {
        "mnist": mnist(),
        "fig2": made("fig2", dict.fromkeys(headline, attacked())),
        "fig4b": made("fig4b", dict.fromkeys(SLOT_LABELS, small)),
        "fig5a": made("fig5a", dict.fromkeys(K_LABELS, share)),
        "fig5b": made("fig5b", dict.fromkeys(ETA_LABELS, small | {"FGSM 0.1": 80.0})),
        "stopgrad": made("stopgrad", dict.fromkeys(STOP_LABELS, seeds)),
        "cifar10": made("cifar10", dict.fromkeys(headline, colour), n=10_000),
        "fig3": made("fig3", dict.fromkeys(headline, colour)),
        "fig4a": made("fig4a", {"vanilla": {}, "BatchOut": {}}),
    }


def evidence(*results: PartResults, speed: Json = SPEED) -> Evidence:
    return Evidence({one.part: one for one in results}, speed)


def seeded(*percents: float) -> PartResults:
    """Section 6.1 with these seeds of BatchOut, under every attack: what the seed alone moves."""
    columns = ("FGSM 0.3", "FGSM 0.4", "PGD-40 0.1")
    return made("stopgrad", {STOP_LABELS[0]: [dict.fromkeys(columns, percent) for percent in percents]})


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("robustcli.data.load.reachable", lambda host: False)
    monkeypatch.setattr("robustcli.provenance._commit", lambda root: COMMIT)  # git takes longer than a training
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path_factory.mktemp("no data")))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the part is finished. To be copied."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustcli.provenance._commit", lambda root: COMMIT)
        reproduce_part(PART, Study(folder, TINY, device="cpu"))
    return folder


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(once, tmp_path / "out")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.studies.batchout.reproduction.save_figure", lambda *_: None)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a CIFAR-10 of 32 training and 16 test images, all noise."""
    folder, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    arrays: Json = {}
    for split, n in (("train", 32), ("test", 16)):
        arrays |= {f"x_{split}": draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), f"y_{split}": np.arange(n) % 10}
    np.savez(folder / "cifar10.npz", **arrays)
    return folder
