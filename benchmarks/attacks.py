"""Times our attacks and the peers' on the same network and digits: see README.md beside this file.

.venv-peers/bin/python benchmarks/attacks.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peers
import torch
from timing import Comparison, Entry, Goal, time_by_turns
from torch import Tensor, nn

from robustcli.attacks import FGSM, PGD, Attack, DeepFool
from robustcli.config import DataSpec, ModelSpec, TrainSpec
from robustcli.data.images import Images, overlap
from robustcli.data.load import SAMPLE, load
from robustcli.device import keep_freed_memory
from robustcli.disk import write_whole
from robustcli.engine.run import Samples, predict, run_attack
from robustcli.models import checkpoint
from robustcli.models.nets import load_model
from robustcli.provenance import provenance
from robustcli.training.loop import Run, fit
from robustcli.training.train import prepare

BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)
EPS, STEPS = 0.1, 40
ITERS = 5
SHAPE = (1, 28, 28)
BATCH_SIZES = (32, 64, 128, 256, 512)
PACKAGES = {"foolbox": "foolbox", "torchattacks": "torchattacks", "art": "adversarial-robustness-toolbox"}


def ours(name: str, model: nn.Module, attack: Attack, budgets: Sequence[float] = ()) -> Entry:
    """What `robustcli attack` runs after its one clean pass, its checks and counts included; all were right before."""

    def work(samples: Samples, batch_size: int) -> list[int]:
        outcomes = run_attack(model, attack, samples, budgets=budgets, batch_size=batch_size, pred=samples.y)
        return [int(outcome.robust.sum()) for outcome in outcomes]

    return Entry(name, work)


def theirs(
    peer: Callable[..., peers.Run], model: nn.Module, attack: str, *runs: dict[str, Any], slow: bool = False
) -> Entry:
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

    return Entry(peer.__name__, work, peer=True, slow=slow)


def fgsm(model: nn.Module) -> list[Entry]:
    """Seven budgets."""
    runs = [{"eps": eps} for eps in BUDGETS]
    return [
        ours("robustcli", model, FGSM(eps=0), BUDGETS),
        theirs(peers.foolbox, model, "LinfFastGradientAttack", *runs),
        theirs(peers.torchattacks, model, "FGSM", *runs),
        theirs(peers.art, model, "FastGradientMethod", *runs),
    ]


def pgd(model: nn.Module) -> list[Entry]:
    """40 steps from one random start; the same step for all."""
    step = 2.5 * EPS / STEPS
    art = {"eps": EPS, "eps_step": step, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    return [
        ours("robustcli", model, PGD(eps=EPS, steps=STEPS)),
        ours("robustcli, early_stop=false", model, PGD(eps=EPS, steps=STEPS, early_stop=False)),
        theirs(peers.foolbox, model, "LinfPGD", {"eps": EPS, "steps": STEPS, "abs_stepsize": step}),
        theirs(peers.torchattacks, model, "PGD", {"eps": EPS, "steps": STEPS, "alpha": step}),
        theirs(peers.art, model, "ProjectedGradientDescent", art),
    ]


def deepfool(model: nn.Module) -> list[Entry]:
    """5 iterations, L2, overshoot 0.02."""
    art = {"max_iter": ITERS, "epsilon": 0.02, "verbose": False}
    return [
        ours("robustcli, box=project", model, DeepFool(iters=ITERS)),
        ours("robustcli, box=clip", model, DeepFool(iters=ITERS, box="clip")),
        theirs(peers.foolbox, model, "L2DeepFoolAttack", {"steps": ITERS}),
        theirs(peers.torchattacks, model, "DeepFool", {"steps": ITERS}, slow=True),
        theirs(peers.art, model, "DeepFool", art),
    ]


@dataclass(frozen=True)
class Task:
    """What is compared; `build` gives the entries for a model, ours first."""

    title: str
    goal: Goal
    build: Callable[[nn.Module], list[Entry]]


TASKS = {
    "fgsm": Task(f"FGSM, Linf, eps {', '.join(map(str, BUDGETS))}", Goal(0.4), fgsm),
    "pgd": Task(f"PGD, Linf, eps {EPS}, {STEPS} steps from a random start", Goal(0.7), pgd),
    "deepfool": Task(f"DeepFool, L2, {ITERS} iterations", Goal(0.25, broken=0.98), deepfool),
}


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


def digits(model: nn.Module, options: argparse.Namespace) -> tuple[Samples, Images]:
    """The first n test digits that the network gets right, and the data set they are from."""
    images = load(DataSpec(dataset=options.dataset, data_dir=options.data_dir))
    if options.checkpoint:
        saved = checkpoint.load(options.checkpoint)
        if overlap(saved.data["source"], saved.train_ids, images):
            raise SystemExit(f"{options.checkpoint}: trained on digits of {images.name}; name --data-dir")
    x = images.batch(slice(2 * options.n), options.device)
    y = images.y[: len(x)].to(options.device)
    right: Tensor = (predict(model, x, 128) == y).nonzero()[: options.n, 0]
    return Samples(x, y, images.ids[: len(x)].to(options.device))[right], images


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
    parser.add_argument("--json", type=Path, help="also write times, ratios and where they are from to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.dataset = SAMPLE
        options.n, options.slow_n, options.runs, options.batch_sizes = 40, 10, 2, [8, 40]
    return options


def document(
    comparisons: list[Comparison], samples: Samples, images: Images, options: argparse.Namespace
) -> dict[str, Any]:
    """What `--json` writes: the comparisons, and what a reader needs in order to run them again."""
    saved = checkpoint.sha256(options.checkpoint) if options.checkpoint else None
    origin = provenance(seed=0, device=options.device, data_fingerprint=images.fingerprint)
    packages = {package: version(package) for name, package in PACKAGES.items() if find_spec(name)}
    return {
        "schema": 1,
        "dataset": images.name,
        "n": len(samples),
        "runs": options.runs,
        "checkpoint_sha256": saved,
        "races": [one.as_dict() for one in comparisons],
        "provenance": origin | {"versions": origin["versions"] | packages},
    }


def main() -> None:
    """Prints one table an attack."""
    options = parse_options()
    warnings.simplefilter("ignore")  # the peers' own
    logging.disable()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)  # the peers' random starts
    keep_freed_memory()  # as `robustcli` does; it is good for all
    model = network(options)
    samples, images = digits(model, options)
    facts = document([], samples, images, options)["provenance"]
    print(f"{len(samples)} digits of {images.name}, all classified right before")
    print(facts["command"])
    print(f"commit {facts['commit']}, {facts['hardware']}, {facts['threads']} threads, {facts['time']}")
    print(", ".join(f"{name} {number}" for name, number in facts["versions"].items()))
    missing = sorted(name for name in PACKAGES if not find_spec(name))
    for name in missing:
        print(f"{name} is not installed and left out: run `make peers`, then .venv-peers/bin/python")
    comparisons = []
    for name in options.only:
        task = TASKS[name]
        entries = [entry for entry in task.build(model) if entry.name not in missing]
        time_by_turns(entries, samples, turns=options.runs, batch_sizes=options.batch_sizes, slow_n=options.slow_n)
        comparisons.append(Comparison(name, task.title, task.goal, entries))
        title = f"{task.title}; median of {options.runs} runs"
        print(f"\n{title}\n\n{comparisons[-1].table()}\n\n{comparisons[-1].verdict()}", flush=True)
        if options.json is not None:  # after each, for the next takes minutes
            text = json.dumps(document(comparisons, samples, images, options), indent=1) + "\n"
            write_whole(options.json, text.encode(), "--json")


if __name__ == "__main__":
    main()
