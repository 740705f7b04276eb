"""What an attack costs beyond the bare passes of the model that its row reports.

PGD without early stop and Square on a residual network of 11 million random weights, in the form for CIFAR-10
(ResNet-18), whose own predictions are the labels and whose images all stand at this eps. Beside each attack as many
forwards and backwards run with nothing between them, in the same batches, the parameters frozen, and a gradient only of
the images. Both alternate; the ratio is the median of the rounds' own. On a machine that others use too, look at that
of the cpu seconds: those of all threads on a processor.

    python benchmarks/overhead.py                     # a few minutes on 2 cores
    python benchmarks/overhead.py --only pgd --rounds 3
    python benchmarks/overhead.py --only pgd --model tv:resnet50@none --n 8      # images 3x224x224
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import bars
import torch
import torch.nn.functional as F
from official import COSTS, Clock
from torch import Tensor, nn

from robustcli.attacks import PGD, Attack, Square
from robustcli.device import keep_freed_memory
from robustcli.disk import write_whole
from robustcli.engine.run import Outcome, Samples, predict, run_attack
from robustcli.models.sources import open_target
from robustcli.provenance import provenance

EPS = 1e-4
"""So small that every image stands to the end."""

ATTACKS: dict[str, Attack] = {"pgd": PGD(EPS, steps=10, early_stop=False), "square": Square(EPS, queries=100)}


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a way around them (He et al. 2016)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = stride == 1 and channels == width
        around = [nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)]
        self.around = nn.Sequential(*([] if same else around))

    def forward(self, x: Tensor) -> Tensor:
        """Activations (n, channels, h, w) to (n, width, h / stride, w / stride)."""
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.around(x))


def resnet18() -> nn.Module:
    """ResNet-18 for images 3x32x32: no pooling before the blocks; in eval mode, its parameters frozen."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, width, stride), Block(width, width, 1)]
        channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # as `robustcli` runs a network


def attacked(model: nn.Module, attack: Attack, samples: Samples) -> Outcome:
    """As `robustcli attack` runs it after its one clean pass."""
    return run_attack(model, attack, samples, batch_size=len(samples), pred=samples.y)[0]


def bare_passes(model: nn.Module, samples: Samples, outcome: Outcome) -> None:
    """As many forwards and backwards as the row reports: a pair for each backward, and the rest forwards alone."""
    n = len(samples)
    pairs, rest = outcome.backwards // n, (outcome.forwards - outcome.backwards) // n
    assert (outcome.backwards, outcome.forwards) == (pairs * n, (pairs + rest) * n), "passes of whole batches"
    for _ in range(pairs):
        x = samples.x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(x), samples.y, reduction="sum"), x)
    with torch.no_grad():
        for _ in range(rest):
            model(samples.x)


def measure(model: nn.Module, attack: Attack, samples: Samples, rounds: int) -> dict[str, Any]:
    """The attack and its bare passes, round by round; the first round warms up and does not count."""
    costs: list[tuple[dict[str, float], dict[str, float]]] = []
    for number in range(rounds + 1):
        clock = Clock()
        outcome = attacked(model, attack, samples)
        ours, clock = clock.cost(), Clock()
        bare_passes(model, samples, outcome)
        bare = clock.cost()
        assert outcome.robust.all(), "an image was broken: the active set shrank"
        if number:
            costs.append((ours, bare))
        print(f"{attack.name}: round {number} of {rounds}", file=sys.stderr)
    ratios = {unit: statistics.median(ours[unit] / bare[unit] for ours, bare in costs) for unit in COSTS}
    return {
        "attack": attack.name,
        "forwards": outcome.forwards,
        "backwards": outcome.backwards,
        "ratios": ratios,
        "met": ratios["seconds"] <= bars.MOST_OVERHEAD,
        "costs": [{"attack": ours, "bare": bare} for ours, bare in costs],
    }


def line(result: dict[str, Any], n: int) -> str:
    """A result in a line."""
    ours, bare = (statistics.median(cost[side]["seconds"] for cost in result["costs"]) for side in ("attack", "bare"))
    passes = f"{result['forwards'] // n} forwards and {result['backwards'] // n} backwards an image"
    ratio = f"{result['ratios']['seconds']:.3f} x ({result['ratios']['cpu_seconds']:.3f} x in cpu seconds)"
    verdict = f"at most {bars.MOST_OVERHEAD:.2f} x: {'met' if result['met'] else 'missed'}"
    return f"{result['attack']}, {passes}: {ours:.2f} s, bare {bare:.2f} s, {ratio}; {verdict}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ATTACKS, nargs="+", default=list(ATTACKS))
    parser.add_argument("--model", help="a model in place of it, such as tv:resnet50@none or timm:NAME@none")
    parser.add_argument("--n", type=int, default=64, help="images, in one batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write times, ratios and where they are from to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    keep_freed_memory()  # as `robustcli` does; it is good for both
    model, shape = resnet18(), (3, 32, 32)
    if options.model:
        target = open_target(options.model)
        model, shape = (
            target.module.eval().requires_grad_(False),
            (3, *((target.input and target.input.size) or (32, 32))),
        )
    x = torch.rand(options.n, *shape)
    samples = Samples(x, predict(model, x, options.n), torch.arange(options.n))
    weights = sum(weight.numel() for weight in model.parameters())
    size = "x".join(map(str, shape))
    print(f"{options.n} images {size}, {weights / 1e6:.1f} million weights, {options.threads} threads")
    results = []
    for name in options.only:
        results.append(measure(model, ATTACKS[name], samples, options.rounds))
        print(line(results[-1], options.n), flush=True)
    if options.json is not None:
        origin = provenance(seed=0, device="cpu", data_fingerprint=None)
        content = {
            "schema": 1,
            "model": options.model or "resnet18",
            "n": options.n,
            "weights": weights,
            "results": results,
            "provenance": origin,
        }
        write_whole(options.json, (json.dumps(content, indent=1) + "\n").encode(), "--json")


if __name__ == "__main__":
    main()
