"""How long an epoch takes, method by method, as a ratio to vanilla.

Epochs of all methods alternate in one run, since a machine's speed drifts; medians are printed.

    python benchmarks/training.py --data-dir DIR            # whole MNIST
    python benchmarks/training.py --limit 10000 --rounds 3  # quicker
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from tabulate import tabulate

from robustcli.config import TrainSpec
from robustcli.device import keep_freed_memory
from robustcli.provenance import provenance
from robustcli.reporting.files import write_whole
from robustcli.training.loop import Run, fit
from robustcli.training.train import Prepared, prepare

METHODS = ("vanilla", "batchout", "gaussian", "fgsm")


def seconds_an_epoch(prepared: Prepared) -> float:
    """Train one epoch from fresh optimiser state and say how long it took, validation left out."""
    run = Run()
    fit(prepared.job, run)
    return run.history[0]["seconds"]


def write_json(path: Path, times: dict[str, list[float]], prepared: Prepared) -> None:
    """Medians in seconds, and the median of each round's ratio to vanilla, with where they come from."""
    origin = provenance(seed=0, device=prepared.job.device, data_fingerprint=prepared.images.fingerprint)
    content = {
        "schema": 1,
        "dataset": prepared.images.name,
        "n": len(prepared.job.train),
        "rounds": len(times["vanilla"]),
        "medians": {method: statistics.median(values) for method, values in times.items()},
        "ratios": {
            method: statistics.median(a / b for a, b in zip(values, times["vanilla"], strict=True))
            for method, values in times.items()
        },
        **{key: origin[key] for key in ("commit", "seed", "device", "hardware", "threads", "command", "versions")},
    }
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), "--json")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the medians and ratios to this file")
    arguments = parser.parse_args()
    keep_freed_memory()
    prepared = {}
    for method in METHODS:
        spec = TrainSpec(method={"name": method}, dataset=arguments.dataset, epochs=1, limit=arguments.limit)
        prepared[method] = prepare(spec, data_dir=arguments.data_dir)
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(arguments.rounds + 1):
        for method in METHODS:
            seconds = seconds_an_epoch(prepared[method])
            if number:  # the first round warms up
                times[method].append(seconds)
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)
    rows = []
    for method in METHODS:
        ratio = statistics.median(a / b for a, b in zip(times[method], times["vanilla"], strict=True))
        median = statistics.median(times[method])
        rows.append((method, f"{median:.2f}", f"{ratio:.2f}", f"{min(times[method]):.2f}", f"{max(times[method]):.2f}"))
    if arguments.json is not None:
        write_json(arguments.json, times, prepared["vanilla"])
    images = prepared["vanilla"].images
    print(f"{images.name}, {len(prepared['vanilla'].job.train)} images an epoch, {torch.get_num_threads()} threads")
    print(tabulate(rows, ("method", "median s", "x vanilla", "min s", "max s"), tablefmt="github"))


if __name__ == "__main__":
    main()
