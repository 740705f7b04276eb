"""The authors' AutoAttack and its members, github.com/fra31/auto-attack, called as its documentation says.

Nothing of it is a part of ours: a checkout is named by `--reference`. It is imported when a function is called.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.attacks.losses import is_right
from robustcli.attacks.norms import Norm

MEMBERS = {"apgd-ce": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}
"""The members of `standard`, in their order, and what they are called in the ensemble."""


def find(folder: Path) -> str | None:
    """Make the checkout in `folder` importable, and say which commit it is, where that is known."""
    if not (folder / "autoattack" / "autopgd_base.py").is_file():
        link = "https://github.com/fra31/auto-attack"
        raise SystemExit(f"--reference {folder}: is no checkout of fra31/auto-attack (git clone {link} {folder})")
    sys.path.insert(0, str(folder))  # first: the script beside this file has the package's name
    command = ["git", "-C", str(folder), "rev-parse", "HEAD", "--show-prefix"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    commit, prefix = answer if len(answer) == 2 else ("", "")
    return None if prefix else commit or None  # a folder of another checkout has that one's commit


def device_of(model: nn.Module) -> str:
    """Where a network computes."""
    return str(next(model.parameters()).device)


COSTS = ("seconds", "cpu_seconds")
"""What a run took by the clock, and on a processor in all threads, which others on the machine do not lengthen."""


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """It prints, warns and draws from the global generator."""
    with torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(seed)
        yield


def _finish() -> None:
    """Wait for what a GPU has not finished yet."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Clock:
    """What has been spent since it was made."""

    def __init__(self) -> None:
        _finish()
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def cost(self) -> dict[str, float]:
        """`COSTS`."""
        _finish()
        spent = time.perf_counter() - self.wall, time.process_time() - self.processor
        return dict(zip(COSTS, spent, strict=True))


@dataclass
class Stopwatch:
    """In place of a member: the same `perturb`, timed; its images are judged after the run.

    Attributes:
        member: the reference's own attack.
        seconds: so far.
        batches: labels and the images that were found.
    """

    member: Any
    seconds: float = 0.0
    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The member's images."""
        clock = Clock()
        x_adv: Tensor = self.member(x, y)
        self.seconds += clock.cost()["seconds"]
        self.batches.append((y, x_adv))
        return x_adv

    def standing(self, model: nn.Module) -> int:
        """How many samples it left."""
        with torch.no_grad():
            return sum(int(is_right(model(x_adv), y).sum()) for y, x_adv in self.batches)


@dataclass(frozen=True)
class Whole:
    """A run of the ensemble: its images, what it took, and what each member left and took."""

    x_adv: Tensor
    cost: dict[str, float]
    members: list[dict[str, Any]]


def ensemble(model: nn.Module, norm: Norm, eps: float, x: Tensor, y: Tensor, seed: int, batch_size: int) -> Whole:
    """`standard`, on all of the images; only the attack is timed."""
    with _quiet(seed):
        whole = import_module("autoattack").AutoAttack(
            model, norm=norm.label, eps=eps, seed=seed, version="standard", device=device_of(model), verbose=False
        )
        watches = {name: Stopwatch(getattr(whole, own).perturb) for name, own in MEMBERS.items()}
        for name, own in MEMBERS.items():
            getattr(whole, own).perturb = watches[name]
        clock = Clock()
        x_adv = whole.run_standard_evaluation(x, y, bs=batch_size)
        cost = clock.cost()
    members = [
        {"name": name, "seconds": watch.seconds, "standing": watch.standing(model)} for name, watch in watches.items()
    ]
    return Whole(x_adv, cost, members)


class Climber:
    """A single run of APGD from random starts, which it tells: on the cross-entropy, or towards a class."""

    def __init__(self, model: nn.Module, norm: Norm, eps: float, steps: int, targeted: bool) -> None:
        library = import_module("autoattack.autopgd_base")
        build = library.APGDAttack_targeted if targeted else library.APGDAttack
        self.model, self.targeted = model, targeted
        self.attack = build(model, n_iter=steps, norm=norm.label, eps=eps, device=device_of(model))

    def climb(self, x: Tensor, y: Tensor, seed: int, rank: int = 0) -> tuple[Tensor, Tensor]:
        """The starts that it drew and the images that it found, both (n, c, h, w); `rank` counts the wrong classes."""
        seen: list[Tensor] = []
        with _quiet(seed), torch.no_grad():
            self.attack.init_hyperparam(x)
            if self.targeted:
                self.attack.y_target = self.model(x).sort(dim=1)[1][:, -2 - rank]
            # The first images that a run asks the network about are its starts.
            handle = self.model.register_forward_pre_hook(
                lambda _, args: seen.append(args[0].detach().clone()) if not seen else None
            )
            try:
                *_, x_adv = self.attack.attack_single_run(x.clone(), y)
            finally:
                handle.remove()
        return seen[0], x_adv.detach()


def fab(model: nn.Module, norm: Norm, x: Tensor, y: Tensor, rank: int | None, iters: int) -> Tensor:
    """The closest images of one run, the sample itself where it found none: towards a wrong class, or towards all."""
    attack = import_module("autoattack.fab_pt").FABAttack_PT(
        model, norm=norm.label, n_iter=iters, device=device_of(model)
    )
    attack.target_class = None if rank is None else rank + 2
    with _quiet(0):
        x_adv: Tensor = attack.attack_single_run(x, y, is_targeted=rank is not None)
    return x_adv


def square(
    model: nn.Module, norm: Norm, eps: float, x: Tensor, y: Tensor, seed: int, queries: int, scaled: bool
) -> Tensor:
    """Images after so many queries, the start not counted; `scaled` fits its schedule to their number."""
    attack = import_module("autoattack.square").SquareAttack(
        model, norm=norm.label, eps=eps, n_queries=queries, seed=seed, resc_schedule=scaled, device=device_of(model)
    )
    with _quiet(seed):
        x_adv: Tensor = attack.perturb(x, y)
    return x_adv


def probe(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> float:
    """Seconds of a few moves of APGD and queries of Square on all of the images, in batches of this size."""
    shared = {"norm": "Linf", "eps": 0.01, "device": device_of(model)}
    climb = import_module("autoattack.autopgd_base").APGDAttack(model, n_iter=4, **shared)
    search = import_module("autoattack.square").SquareAttack(model, n_queries=20, **shared)
    clock = Clock()
    with _quiet(0):
        for images, classes in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            climb.perturb(images, classes)
            search.perturb(images, classes)
    return clock.cost()["seconds"]
