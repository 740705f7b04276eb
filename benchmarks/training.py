"""How long an epoch takes: ours, method by method, beside the loop of the PyTorch examples and the machine's own limit.

The usual loop (`DataLoader` with shuffling, `ToTensor` image by image, the same network as it is built, Adam) is that
of pytorch/examples/mnist. Epochs of all alternate in one run, since a machine's speed drifts; ratios are medians of the
rounds' own ratios. The limit is the time that the epoch's multiplications alone would take at the speed of a large
float32 matrix product, measured in the same run.

    python benchmarks/training.py --data-dir DIR            # whole MNIST
    python benchmarks/training.py --limit 10000 --rounds 3  # quicker
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import ToTensor

from robustcli.config import TrainSpec
from robustcli.data.images import Images
from robustcli.device import keep_freed_memory
from robustcli.disk import write_whole
from robustcli.models import MODELS
from robustcli.provenance import provenance
from robustcli.training.loop import Run, fit
from robustcli.training.train import Prepared, prepare

METHODS = ("vanilla", "batchout", "gaussian", "fgsm")
USUAL = "the usual loop"
TARGETS = {"vanilla": (USUAL, 0.75), "batchout": ("vanilla", 1.10), "fgsm": ("vanilla", 1.7)}
"""An epoch of a method should take at most so many times that of another."""


class Pictures(Dataset[tuple[Tensor, int]]):
    """As `torchvision.datasets.MNIST` gives them: a PIL image each, made a tensor by `ToTensor`."""

    def __init__(self, images: Images) -> None:
        self.x, self.y, self.to_tensor = images.x[:], images.y, ToTensor()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.x[index].permute(1, 2, 0).squeeze(2).numpy()
        return self.to_tensor(Image.fromarray(pixels)), int(self.y[index])


def seconds_of_the_usual_loop(prepared: Prepared) -> float:
    """An epoch of pytorch/examples/mnist on the same network and images."""
    torch.manual_seed(0)
    model = MODELS[prepared.model_spec.name](prepared.model_spec).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=prepared.job.spec.lr)
    loader = DataLoader(Pictures(prepared.job.train), batch_size=prepared.job.spec.batch_size, shuffle=True)
    started = time.perf_counter()
    for data, target in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return time.perf_counter() - started


def limit_in_seconds(prepared: Prepared, speed: float) -> float:
    """What the multiplications of an epoch take at `speed` (FLOP/s), forward and backward, of vanilla training."""
    batch = prepared.job.train.batch(slice(0, 8), "cpu")
    counter = FlopCounterMode(display=False)
    with counter:
        prepared.job.model(batch).sum().backward()
    prepared.job.model.zero_grad()
    return counter.get_total_flops() / len(batch) * len(prepared.job.train) / speed


def product_speed(size: int = 2048, rounds: int = 5) -> float:
    """FLOP/s of a float32 matrix product, the best of some rounds."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * size**3 / min(times)


def seconds_an_epoch(prepared: Prepared) -> float:
    """Train one epoch from fresh optimiser state and say how long it took, validation left out."""
    run = Run()
    fit(prepared.job, run)
    return run.history[0]["seconds"]


def ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    """The median over rounds of an epoch's time, as a multiple of another's."""
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))


def write_json(path: Path, times: dict[str, list[float]], prepared: Prepared, limit: float) -> None:
    """Medians in seconds, and the median of each round's ratio to vanilla and to the usual loop, with their origin."""
    origin = provenance(seed=0, device=prepared.job.device, data_fingerprint=prepared.images.fingerprint)
    content = {
        "schema": 1,
        "dataset": prepared.images.name,
        "n": len(prepared.job.train),
        "rounds": len(times["vanilla"]),
        "medians": {name: statistics.median(values) for name, values in times.items()},
        "ratios": {name: ratio(times, name, "vanilla") for name in times},
        "ratios_to_the_usual_loop": {name: ratio(times, name, USUAL) for name in times},
        "matrix_product_limit_s": limit,
        **{key: origin[key] for key in ("commit", "seed", "device", "hardware", "threads", "command", "versions")},
    }
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), "--json")


def measure(prepared: dict[str, Prepared], rounds: int) -> dict[str, list[float]]:
    """Seconds an epoch, a list each; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in (USUAL, *prepared)}
    for number in range(rounds + 1):
        for name, kept in times.items():
            own = name in prepared
            seconds = seconds_an_epoch(prepared[name]) if own else seconds_of_the_usual_loop(prepared["vanilla"])
            if number:
                kept.append(seconds)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return times


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
    limit = limit_in_seconds(prepared["vanilla"], product_speed())
    times = measure(prepared, arguments.rounds)
    rows = []
    for name, values in times.items():
        to, most = TARGETS.get(name, ("vanilla", None))
        target = "" if most is None else f"{ratio(times, name, to):.2f} x {to}, at most {most:.2f}"
        shown = (statistics.median(values), ratio(times, name, "vanilla"), ratio(times, name, USUAL))
        rows.append((name, *(f"{value:.2f}" for value in (*shown, min(values), max(values))), target))
    if arguments.json is not None:
        write_json(arguments.json, times, prepared["vanilla"], limit)
    images = prepared["vanilla"].images
    print(f"{images.name}, {len(prepared['vanilla'].job.train)} images an epoch, {torch.get_num_threads()} threads")
    headers = ("epoch of", "median s", "x vanilla", "x usual", "min s", "max s", "target")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    print(f"vanilla's products alone, at the machine's speed of float32 matrix products: {limit:.2f} s")


if __name__ == "__main__":
    main()
