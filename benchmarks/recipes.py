"""How the training recipe of each data set was chosen: candidates, judged on a held-out part of the training images.

Vanilla and BatchOut share one recipe (optimiser, rate, schedule, epochs, batch), so on MNIST both are tried, and the
highest mean over both wins; a CIFAR-10 run takes ten minutes on 2 cores, so that there vanilla stands for both. Where
candidates differ by less than their intervals, that is a choice and no finding. No test image is read.
Each finished run is kept in the JSON file, so that a run that was stopped goes on.

    python benchmarks/recipes.py mnist --data-dir DIR
    python benchmarks/recipes.py cifar10 --data-dir DIR --epochs 6
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from robustcli.config import TrainSpec
from robustcli.device import keep_freed_memory
from robustcli.disk import write_whole
from robustcli.provenance import provenance
from robustcli.training.loop import Run, fit
from robustcli.training.train import prepare

HELD_OUT = 0.1
"""Of the training images; the candidates never see them."""

CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "mnist": [
        {"lr": 1e-3, "schedule": "constant"},
        {"lr": 1e-3, "schedule": "onecycle"},
        {"lr": 2e-3, "schedule": "onecycle"},
        {"lr": 2e-3, "schedule": "onecycle", "dtype": "bfloat16"},
    ],
    "cifar10": [
        {"lr": 1e-3, "schedule": "onecycle", "augment": "none"},
        {"lr": 1e-3, "schedule": "onecycle", "augment": "crop-flip"},
        {"lr": 1e-3, "schedule": "onecycle", "augment": "flip"},
        {"lr": 1e-3, "schedule": "onecycle", "augment": "flip", "batch_size": 64},
    ],
}
EPOCHS = {"mnist": 12, "cifar10": 12}
DTYPE = {"mnist": "float32", "cifar10": "bfloat16"}


def main() -> None:
    """Train what the file does not hold yet, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=CANDIDATES)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--methods", default="vanilla,batchout")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/reproduction"))
    arguments = parser.parse_args()
    keep_freed_memory()
    path = arguments.out / f"recipes-{arguments.dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    epochs = arguments.epochs or EPOCHS[arguments.dataset]
    for candidate in CANDIDATES[arguments.dataset]:
        for method in arguments.methods.split(","):
            for seed in range(arguments.seeds):
                spec = TrainSpec(
                    method={"name": method},
                    dataset=arguments.dataset,
                    epochs=epochs,
                    seed=seed,
                    validation=HELD_OUT,
                    **({"dtype": DTYPE[arguments.dataset]} | candidate),
                )
                key = {"method": method, "epochs": epochs, "seed": seed, **candidate}
                if any(_same(run, key) for run in runs):
                    continue
                runs.append(key | held_out_accuracy(spec, arguments.data_dir))
                text = json.dumps({"schema": 1, "dataset": arguments.dataset, "runs": runs}, indent=1)
                write_whole(path, text.encode(), "--out")
                print(json.dumps(key), f"{100 * runs[-1]['accuracy']:.2f} %", file=sys.stderr)
    print(table(runs))


def _same(run: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether a run was that of a candidate, which says no more and no less."""
    options = ("method", "epochs", "seed", "lr", "schedule", "augment", "batch_size", "dtype")
    return {name: run[name] for name in options if name in run} == key


def held_out_accuracy(spec: TrainSpec, data_dir: Path | None) -> dict[str, Any]:
    """Train to the end: the last epoch's accuracy on the held-out images, and where it comes from."""
    prepared = prepare(spec, data_dir=data_dir, allow_sample=False)
    run = Run()
    fit(prepared.job, run)
    origin = provenance(seed=spec.seed, device=prepared.job.device, data_fingerprint=prepared.images.fingerprint)
    kept = {key: origin[key] for key in ("commit", "seed", "device", "hardware", "threads", "command", "versions")}
    return {
        "accuracy": run.history[-1]["val_accuracy"],
        "n": len(prepared.job.validation),
        "seconds_an_epoch": statistics.median(entry["seconds"] for entry in run.history),
        **kept,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """One line a run, best first."""
    names = ("method", "lr", "schedule", "augment", "batch_size", "dtype", "epochs", "seed")
    lines = [
        (*(run.get(name, "-") for name in names), f"{100 * run['accuracy']:.2f}", run["n"])
        for run in sorted(runs, key=lambda run: -float(run["accuracy"]))
    ]
    return tabulate(lines, (*names, "held-out %", "n"), tablefmt="github")


if __name__ == "__main__":
    main()
