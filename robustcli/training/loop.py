"""The training loop: one straight `fit`, resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustcli.config import TrainSpec
from robustcli.data.images import Images
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import TrainingError
from robustcli.noise import Noise
from robustcli.training.augment import AUGMENT
from robustcli.training.overfitting import watch
from robustcli.training.recipe import Recipe
from robustcli.training.schedules import learning_rate, make_optimizer

VALIDATION_ATTACKED = 512
"""At most so many validation images are attacked after each epoch."""

Weights = dict[str, Tensor]


@dataclass
class Run:
    """A training run as it stands: what `fit` changes, and what a checkpoint keeps to go on from.

    Attributes:
        step: optimiser steps done.
        loss_sum, right, seen: of the current epoch so far; loss summed over samples.
        history: one entry a finished epoch.
        best: the weights of the best epoch so far, `best_epoch`, and `best_score`, its validation score.
        optimizer: its state_dict, or None before the first step.
        rng: the CPU generator's state and each GPU's, or None before the first step.
    """

    step: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seen: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: Weights | None = None
    best_epoch: int = 0
    best_score: float = -1.0
    optimizer: dict[str, Any] | None = None
    rng: list[Tensor] | None = None


@dataclass(frozen=True)
class Step:
    """One optimiser step, for the progress bar: means over the current epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    samples: int


@dataclass(frozen=True)
class Job:
    """What a run works on: all that stays the same while it trains, but for the model's weights."""

    model: nn.Module
    recipe: Recipe
    spec: TrainSpec
    train: Images
    validation: Images
    device: str = "cpu"


def steps_per_epoch(spec: TrainSpec, n: int) -> int:
    """Batches an epoch; the last one may be smaller."""
    return -(-n // spec.batch_size)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """(n,) the order of the samples in an epoch: a function of (n, seed, epoch) alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def fit(
    job: Job,
    run: Run,
    *,
    on_step: Callable[[Step], None] = lambda _: None,
    on_epoch: Callable[[Run], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train `job.model` in place from where `run` stands, and say whether it came to the end.

    It stops after a step when `should_stop()` says so. Going on from the `run` it leaves, with the model's weights,
    gives the same weights bit for bit, on the CPU, as never having stopped. The global RNG is left as it was.

    Raises:
        TrainingError: the loss is not finite.
    """
    spec, n = job.spec, len(job.train)
    per_epoch = steps_per_epoch(spec, n)
    steps = spec.epochs * per_epoch
    optimizer = make_optimizer(spec, job.model.parameters())
    _restore_optimizer(run, optimizer)
    with torch.random.fork_rng(devices=_gpus(job.device)):
        _restore_rng(run, spec.seed, job.device)
        while run.step < steps:
            epoch, done = divmod(run.step, per_epoch)
            order = epoch_order(n, spec.seed, epoch)
            started = time.perf_counter()
            for index in torch.split(order, min(spec.batch_size, n))[done:]:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(spec, run.step, steps)
                loss, right = _train_step(job, optimizer, index, epoch)
                run.step += 1
                run.loss_sum += loss * len(index)
                run.right += right
                run.seen += len(index)
                on_step(Step(epoch + 1, run.step, steps, run.loss_sum / run.seen, run.right / run.seen, len(index)))
                if should_stop() and run.seen < n:
                    _keep_state(run, optimizer, job.device)
                    return False
            _end_epoch(job, run, time.perf_counter() - started)
            _keep_state(run, optimizer, job.device)
            on_epoch(run)
            if should_stop() and run.step < steps:
                return False
    return True


def _train_step(job: Job, optimizer: torch.optim.Optimizer, index: Tensor, epoch: int) -> tuple[float, int]:
    """One step on the samples `index`; returns the mean loss and how many were classified right."""
    noise = Noise(job.spec.seed, job.train.ids[index]).stream(f"epoch {epoch}")
    x, y = job.train.batch(index, job.device), job.train.y[index].to(job.device)
    x = AUGMENT[job.spec.augment](x, noise).contiguous(memory_format=torch.channels_last)
    job.model.train()
    with torch.autocast(torch.device(job.device).type, torch.bfloat16, enabled=job.spec.dtype == "bfloat16"):
        loss, logits = job.recipe.objective(job.model, x, y, noise)
    if not bool(loss.isfinite()):
        raise _diverged("the loss", epoch + 1, job.spec)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item(), int((logits.argmax(1) == y).sum())


def _diverged(what: str, epoch: int, spec: TrainSpec) -> TrainingError:
    return TrainingError(f"{what} became NaN or infinite in epoch {epoch}; try a smaller --lr than {spec.lr:g}")


def _end_epoch(job: Job, run: Run, seconds: float) -> None:
    """Measure the validation part, note the epoch in the history, and keep the weights if they are the best."""
    entry = {
        "epoch": len(run.history) + 1,
        "loss": run.loss_sum / run.seen,
        "accuracy": run.right / run.seen,
        "seconds": seconds,
    }
    if not all(bool(parameter.isfinite().all()) for parameter in job.model.parameters()):
        raise _diverged("a weight", len(run.history) + 1, job.spec)
    score = float(len(run.history))
    job.model.eval()
    if len(job.validation):
        measured = _validate(job)
        entry |= measured
        share = job.recipe.fraction
        score = (1 - share) * measured["val_accuracy"] + share * measured.get("val_robust_accuracy", 0.0)
    run.history.append(entry)
    run.loss_sum, run.right, run.seen = 0.0, 0, 0
    if score >= run.best_score:
        run.best_epoch, run.best_score = len(run.history), score
        run.best = {key: value.detach().clone() for key, value in job.model.state_dict().items()}


def _validate(job: Job) -> dict[str, float]:
    """Accuracy on the validation part, clean and, where the method trains against an attack, under it."""
    measured = {"val_accuracy": _accuracy(job.model, job.validation, job.device)}
    if job.recipe.attack is not None:
        part = job.validation.take(slice(VALIDATION_ATTACKED))
        samples = Samples(part.batch(slice(None), job.device), part.y.to(job.device), part.ids.to(job.device))
        (outcome,) = run_attack(job.model, job.recipe.attack, samples, seed=job.spec.seed)
        measured["val_robust_accuracy"] = int(outcome.robust.sum()) / len(part)
        measured |= watch(job.model, job.recipe.attack, samples, job.spec.seed)
    return measured


def _accuracy(model: nn.Module, images: Images, device: str) -> float:
    right = 0
    with torch.no_grad():
        for index in torch.split(torch.arange(len(images)), 256):
            right += int((model(images.batch(index, device)).argmax(1).cpu() == images.y[index]).sum())
    return right / len(images)


def _keep_state(run: Run, optimizer: torch.optim.Optimizer, device: str) -> None:
    run.optimizer = optimizer.state_dict()
    run.rng = [torch.get_rng_state(), *(torch.cuda.get_rng_state(gpu) for gpu in _gpus(device))]


def _restore_optimizer(run: Run, optimizer: torch.optim.Optimizer) -> None:
    if run.optimizer is None:
        return
    # The groups are this run's own: its spec decides them, and the kernel may be another.
    optimizer.load_state_dict(run.optimizer | {"param_groups": optimizer.state_dict()["param_groups"]})
    # The fused kernels walk through memory: a state laid out unlike its parameter would be mixed up without a word.
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor):  # a copy: in a file, two may be one and the same
                same = value.shape == parameter.shape
                state[key] = torch.empty_like(parameter).copy_(value.detach()) if same else value.detach().clone()


def _restore_rng(run: Run, seed: int, device: str) -> None:
    if run.rng is None:
        torch.manual_seed(seed)
        return
    torch.set_rng_state(run.rng[0])
    for gpu, state in zip(_gpus(device), run.rng[1:], strict=False):
        torch.cuda.set_rng_state(state, gpu)


def _gpus(device: str) -> list[int]:
    return [torch.device(device).index or 0] if device.startswith("cuda") else []
