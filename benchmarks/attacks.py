"""Times our attacks and the peers' on the same network and digits: see README.md beside this file.

.venv-peers/bin/python benchmarks/attacks.py [--quick]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peers
import torch
from tabulate import tabulate
from torch import Tensor, nn

from robustcli import checkpoint
from robustcli.attacks import FGSM, PGD, Attack, DeepFool
from robustcli.attacks.driver import Samples, predict, run_attack
from robustcli.config import DataSpec, ModelSpec, TrainSpec
from robustcli.data import SAMPLE, load, overlap
from robustcli.models.loading import load_model
from robustcli.provenance import provenance
from robustcli.training.loop import Run, fit
from robustcli.training.train import prepare

BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
EPS, STEPS = 0.1, 40
ITERS = 5
SHAPE = (1, 28, 28)
BATCH_SIZES = (32, 128, 512)
PACKAGES = {"foolbox": "foolbox", "torchattacks": "torchattacks", "art": "adversarial-robustness-toolbox"}

Work = Callable[[Samples, int], list[int]]
"""Samples, all classified right before, and a batch size to how many of them still are, for each budget."""


@dataclass
class Entrant:
    """One line of a table. `slow` marks a loop over single samples, which is timed on fewer of them."""

    name: str
    work: Work
    slow: bool = False
    n: int = 0
    batch_size: int = BATCH_SIZES[0]
    standing: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def ours(model: nn.Module, attack: Attack, budgets: Sequence[float] = ()) -> Work:
    """What `robustcli attack` runs, its checks and counts included."""

    def work(samples: Samples, batch_size: int) -> list[int]:
        outcomes = run_attack(model, attack, samples, budgets=budgets, batch_size=batch_size)
        return [int(outcome.robust.sum()) for outcome in outcomes]

    return work


def theirs(model: nn.Module, peer: Callable[..., peers.Run], attack: str, *runs: dict[str, Any]) -> Work:
    """A peer's attack with each of these options, each followed by the forward pass that says who still stands."""

    def work(samples: Samples, batch_size: int) -> list[int]:
        standing = []
        own = {"batch_size": batch_size, "shape": SHAPE} if peer is peers.art else {}
        for options in runs:
            run = peer(model, attack, **own, **options)
            chunks = zip(torch.split(samples.x, batch_size), torch.split(samples.y, batch_size), strict=True)
            images = [run(x, y) for x, y in chunks]
            standing.append(int((predict(model, torch.cat(images), batch_size) == samples.y).sum()))
        return standing

    return work


def fgsm(model: nn.Module) -> list[Entrant]:
    """Seven budgets."""
    runs = [{"eps": eps} for eps in BUDGETS]
    return [
        Entrant("robustcli", ours(model, FGSM(eps=0), BUDGETS)),
        Entrant("foolbox", theirs(model, peers.foolbox, "LinfFastGradientAttack", *runs)),
        Entrant("torchattacks", theirs(model, peers.torchattacks, "FGSM", *runs)),
        Entrant("art", theirs(model, peers.art, "FastGradientMethod", *runs)),
    ]


def pgd(model: nn.Module) -> list[Entrant]:
    """40 steps from one random start; the same step for all."""
    step = 2.5 * EPS / STEPS
    art = {"eps": EPS, "eps_step": step, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    return [
        Entrant("robustcli", ours(model, PGD(eps=EPS, steps=STEPS))),
        Entrant("robustcli, early_stop=false", ours(model, PGD(eps=EPS, steps=STEPS, early_stop=False))),
        Entrant("foolbox", theirs(model, peers.foolbox, "LinfPGD", {"eps": EPS, "steps": STEPS, "abs_stepsize": step})),
        Entrant("torchattacks", theirs(model, peers.torchattacks, "PGD", {"eps": EPS, "steps": STEPS, "alpha": step})),
        Entrant("art", theirs(model, peers.art, "ProjectedGradientDescent", art)),
    ]


def deepfool(model: nn.Module) -> list[Entrant]:
    """5 iterations, L2, overshoot 0.02."""
    art = {"max_iter": ITERS, "epsilon": 0.02, "verbose": False}
    return [
        Entrant("robustcli, box=project", ours(model, DeepFool(iters=ITERS))),
        Entrant("robustcli, box=clip", ours(model, DeepFool(iters=ITERS, box="clip"))),
        Entrant("foolbox", theirs(model, peers.foolbox, "L2DeepFoolAttack", {"steps": ITERS})),
        Entrant("torchattacks", theirs(model, peers.torchattacks, "DeepFool", {"steps": ITERS}), slow=True),
        Entrant("art", theirs(model, peers.art, "DeepFool", art)),
    ]


def timed(entrant: Entrant, samples: Samples, batch_size: int) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    entrant.standing = entrant.work(samples, batch_size)
    if samples.x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def race(entrants: list[Entrant], samples: Samples, options: argparse.Namespace) -> None:
    """Give each its best batch size, then run them by turns, so that a slow minute hits all alike."""
    for entrant in entrants:
        entrant.n = min(len(samples), options.slow_n) if entrant.slow else len(samples)
        timed(entrant, samples[:8], 8)  # the first call of all pays for loading
        tried = {size: timed(entrant, samples[: entrant.n], size) for size in options.batch_sizes}
        entrant.batch_size = min(tried, key=lambda size: tried[size])
    for turn in range(options.runs):
        first = turn % len(entrants)
        for entrant in entrants[first:] + entrants[:first]:
            entrant.seconds.append(timed(entrant, samples[: entrant.n], entrant.batch_size))


def table(entrants: list[Entrant]) -> str:
    """One line an entrant: seconds for all n samples, median and range of the runs."""
    n = max(entrant.n for entrant in entrants)
    scaled = [[seconds * n / entrant.n for seconds in entrant.seconds] for entrant in entrants]
    fastest = min(map(statistics.median, scaled))
    rows = [
        [
            entrant.name,
            entrant.batch_size,
            f"{statistics.median(seconds):.3f}",
            f"{min(seconds):.3f} to {max(seconds):.3f}",
            f"{statistics.median(seconds) / fastest:.1f}",
            " ".join(map(str, entrant.standing)),
            str(n) if entrant.n == n else f"{entrant.n}, seconds scaled to {n}",
        ]
        for entrant, seconds in zip(entrants, scaled, strict=True)
    ]
    headers = ["", "batch", "seconds", "range", "x fastest", "standing", "of"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def network(options: argparse.Namespace) -> nn.Module:
    """The network of `--checkpoint`, or a fresh one trained for a few epochs; its parameters frozen."""
    if options.checkpoint:
        saved = checkpoint.load(options.checkpoint)
        model = load_model(ModelSpec(**saved.model), saved.state_dict, options.checkpoint)
    else:
        limit, epochs = (500, 1) if options.quick else (4000, 3)
        spec = TrainSpec(dataset=options.dataset, model="mnist-cnn", epochs=epochs, limit=limit, validation=0.0)
        prepared = prepare(spec, data_dir=options.data_dir, device=options.device)
        fit(prepared.job, Run())
        model = prepared.job.model
    return model.to(options.device).eval().requires_grad_(False)


def digits(model: nn.Module, options: argparse.Namespace) -> tuple[Samples, str]:
    """The first n test digits that the network gets right, and their data set's fingerprint."""
    images = load(DataSpec(dataset=options.dataset, data_dir=options.data_dir))
    if options.checkpoint:
        saved = checkpoint.load(options.checkpoint)
        if overlap(saved.data["source"], saved.train_ids, images):
            raise SystemExit(f"{options.checkpoint}: trained on digits of {images.name}; name --data-dir")
    x = images.pixels(slice(2 * options.n), options.device)
    y = images.y[: len(x)].to(options.device)
    right: Tensor = (predict(model, x, 128) == y).nonzero()[: options.n, 0]
    print(f"{len(right)} digits of {images.name}, all classified right before")
    return Samples(x, y, images.ids[: len(x)].to(options.device))[right], images.fingerprint


def parse_options() -> argparse.Namespace:
    """The command line, with `--quick` filled in."""
    parser = argparse.ArgumentParser(description="Times our attacks and the peers' on the same network and digits.")
    parser.add_argument("--n", type=int, default=1000, help="digits")
    parser.add_argument("--slow-n", type=int, default=50, help="digits for peers that loop over single samples")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES, help="each takes its best of these")
    parser.add_argument("--only", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--checkpoint", type=Path, help="an mnist-cnn; without it one is trained for a few epochs")
    parser.add_argument("--dataset", choices=["mnist", SAMPLE], default="mnist")
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies; without any, the bundled sample is taken")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.dataset = SAMPLE
        options.n, options.slow_n, options.runs, options.batch_sizes = 40, 10, 2, [8, 40]
    return options


TASKS: dict[str, tuple[str, Callable[[nn.Module], list[Entrant]]]] = {
    "fgsm": (f"FGSM, Linf, eps {', '.join(map(str, BUDGETS))}", fgsm),
    "pgd": (f"PGD, Linf, eps {EPS}, {STEPS} steps from a random start", pgd),
    "deepfool": (f"DeepFool, L2, {ITERS} iterations", deepfool),
}


def main() -> None:
    """Prints one table an attack."""
    options = parse_options()
    warnings.simplefilter("ignore")  # the peers' own
    logging.disable()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)  # the peers' random starts
    model = network(options)
    samples, fingerprint = digits(model, options)
    facts = provenance(seed=0, device=options.device, data_fingerprint=fingerprint)
    installed = {name: package for name, package in PACKAGES.items() if find_spec(name)}
    versions = facts["versions"] | {package: version(package) for package in installed.values()}
    print(facts["command"])
    print(f"commit {facts['commit']}, {facts['hardware']}, {facts['threads']} threads, {facts['time']}")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    for missing in sorted(PACKAGES.keys() - installed.keys()):
        print(f"{missing} is not installed and left out: run `make peers`, then .venv-peers/bin/python")
    for name in options.only:
        title, build = TASKS[name]
        entrants = [entrant for entrant in build(model) if entrant.name not in PACKAGES.keys() - installed.keys()]
        race(entrants, samples, options)
        print(f"\n{title}; median of {options.runs} runs\n\n{table(entrants)}")


if __name__ == "__main__":
    main()
