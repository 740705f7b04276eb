"""Trains the robust networks that the verdict's false alarms are counted on (`make_verdict.py`).

    python scripts/robust_networks.py --data-dir DIR          # all that are not there; each under 15 minutes on 2 cores
    python scripts/robust_networks.py --data-dir DIR cifar10-2

PGD-7 training (Madry et al. 2017) with this package's own loop. Robust here means that AutoAttack leaves at least half
of what is right without an attack, at the budget of the training; `make_verdict.py` measures that too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from robustcli.config import ModelSpec, TrainSpec
from robustcli.device import keep_freed_memory
from robustcli.models.nets import build_model
from robustcli.training.loop import Job, Run, Step, fit
from robustcli.training.train import prepare

FOLDER = Path(__file__).resolve().parents[1] / "results" / "calibration" / "models"


class WideCNN(nn.Module):
    """`mnist-cnn` with twice the filters and hidden units."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(spec.channels, 64, 5, padding="same")
        self.conv2 = nn.Conv2d(64, 64, 5, padding="same")
        self.fc1 = nn.Linear(64 * (spec.height // 4) * (spec.width // 4), 512)
        self.fc2 = nn.Linear(512, spec.classes)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        h = self.pool(self.conv1(x)).relu()
        h = self.pool(self.conv2(h)).relu()
        logits: Tensor = self.fc2(self.fc1(h.flatten(1)).relu())
        return logits


class BatchNormCNN(nn.Module):
    """Four 3x3 convolutions, each with BatchNorm, and mean pooling: no hidden layer."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        widths = (spec.channels, 32, 32, 64, 64)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=1 + i % 2, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for i, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.head = nn.Linear(widths[-1] * 16, spec.classes)
        self.pool = nn.AdaptiveAvgPool2d(4)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) in [0, 1] to logits (n, classes)."""
        logits: Tensor = self.head(self.pool(self.layers(x)).flatten(1))
        return logits


@dataclass(frozen=True)
class Network:
    """A robust network.

    Attributes:
        dataset: what it is trained on, and measured on.
        eps: the budget in Linf, as it is written.
        spec: of the training, beside PGD-7 at `eps`.
        build: from a spec to a network of its own; None takes the data set's usual one.
    """

    dataset: str
    eps: str
    spec: dict[str, object]
    build: Callable[[ModelSpec], nn.Module] | None = None

    def train_spec(self) -> TrainSpec:
        """The training."""
        fixed = {"method": {"name": "pgd", "eps": self.eps, "steps": 7}, "dataset": self.dataset, "lr": 0.002}
        return TrainSpec.model_validate(fixed | {"schedule": "onecycle", "dtype": "bfloat16"} | self.spec)

    def make(self, spec: ModelSpec, seed: int) -> nn.Module:
        """The network with fresh weights; the global RNG is left as it was."""
        if self.build is None:
            return build_model(spec, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(spec).to(memory_format=torch.channels_last)


NETWORKS = {
    "mnist-0.3-seed0": Network("mnist", "0.3", {"epochs": 5}),
    "cifar10-2": Network("cifar10", "2/255", {"epochs": 4, "augment": "crop-flip"}),
    "mnist-0.1-seed0": Network("mnist", "0.1", {"epochs": 3}),
    "mnist-0.3-seed1": Network("mnist", "0.3", {"epochs": 5, "seed": 1}),
    "mnist-0.1-batchnorm": Network("mnist", "0.1", {"epochs": 3}, BatchNormCNN),
    "mnist-0.3-wide": Network("mnist", "0.3", {"epochs": 3}, WideCNN),
    "mnist-0.1-seed1": Network("mnist", "0.1", {"epochs": 3, "seed": 1}),
}
"""By name: data set, budget of the training, and what sets it apart."""


def load(name: str) -> nn.Module:
    """A trained network, in eval mode."""
    saved = torch.load(FOLDER / f"{name}.pt", weights_only=True)
    model = NETWORKS[name].make(ModelSpec.model_validate(saved["model"]), 0)
    model.load_state_dict(saved["state_dict"])
    return model.eval()


def train(name: str, data_dir: Path | None) -> None:
    """Train a network and write its weights, its spec and the seconds that it took."""
    network = NETWORKS[name]
    prepared = prepare(network.train_spec(), data_dir, allow_sample=False, device="cpu")
    job, spec = prepared.job, prepared.job.spec
    model = network.make(prepared.model_spec, spec.seed)
    run, started = Run(), time.perf_counter()

    def on_step(step: Step) -> None:
        if step.step % 100 == 0:
            print(f"{name}: {step.step}/{step.steps} {step.loss:.3f} {step.accuracy:.3f}", file=sys.stderr, flush=True)

    fit(Job(model, job.recipe, spec, job.train, job.validation, "cpu"), run, on_step=on_step)
    found = {
        "model": prepared.model_spec.as_dict(),
        "spec": spec.as_dict(),
        "state_dict": run.best,
        "history": run.history,
        "seconds": time.perf_counter() - started,
        "provenance": prepared.provenance,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.save(found, FOLDER / f"{name}.pt")
    print(f"{name}: {run.history[-1]}", flush=True)


def main() -> None:
    """Train the named networks that are not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all if left out")
    parser.add_argument("--data-dir", type=Path, help="where MNIST and CIFAR-10 lie")
    options = parser.parse_args()
    keep_freed_memory()
    for name in options.names or NETWORKS:
        if not (FOLDER / f"{name}.pt").exists():
            train(name, options.data_dir)


if __name__ == "__main__":
    main()
