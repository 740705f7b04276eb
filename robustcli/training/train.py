"""From a spec to a checkpoint: the library call behind `robustcli train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from robustcli import checkpoint
from robustcli.checkpoint import Checkpoint
from robustcli.config import DataSpec, ModelSpec, TrainSpec, default_budgets, validated
from robustcli.data import DATASETS, load
from robustcli.device import pick_device
from robustcli.errors import CheckpointError, ConfigError, DataError, TrainingError
from robustcli.images import Images, split_validation
from robustcli.models import MODELS
from robustcli.models.layers import fill_slots
from robustcli.models.loading import build_model, design
from robustcli.provenance import provenance
from robustcli.training.loop import Job, Run, Step, fit
from robustcli.training.methods import describe_method, parse_method
from robustcli.training.recipe import Setting


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train: its job, with the spec resolved, the network's spec, its images and its origin."""

    job: Job
    model_spec: ModelSpec
    images: Images
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Observers:
    """Who is told what while a run trains (of an epoch, the history up to it), and who may stop it."""

    on_step: Callable[[Step], None] = lambda _: None
    on_epoch: Callable[[Sequence[Mapping[str, float]]], None] = lambda _: None
    should_stop: Callable[[], bool] = lambda: False


def prepare(
    spec: TrainSpec, data_dir: Path | None = None, *, allow_sample: bool = True, device: str = "auto"
) -> Prepared:
    """Load the data, build the network and decide every open option.

    Raises:
        RobustCliError: the data set, the network, the method or an option is unknown or does not fit.
    """
    method = parse_method(spec.method)
    images = load(
        DataSpec(dataset=spec.dataset, data_dir=data_dir, split="train", limit=spec.limit, allow_sample=allow_sample)
    )
    train, validation = split_validation(images, spec.validation, spec.seed)
    model_spec = design(spec.model, train.x, len(images.classes))
    model = build_model(model_spec, spec.seed)
    network = MODELS[model_spec.name]
    method = method.resolved(Setting(network.slot_names, network.paper_eta, default_budgets(images.shape)[1]))
    recipe = method.recipe()
    fill_slots(model, recipe.filling)
    dataset = images.name if spec.dataset in DATASETS else str(Path(spec.dataset).expanduser().resolve())
    resolved = spec.model_copy(update={"method": describe_method(method), "model": model_spec.name, "dataset": dataset})
    place = pick_device(device)
    origin = provenance(seed=spec.seed, device=place, data_fingerprint=images.fingerprint)
    return Prepared(Job(model.to(place), recipe, resolved, train, validation, place), model_spec, images, origin)


def train(prepared: Prepared, output: Path, run: Run | None = None, observers: Observers | None = None) -> Checkpoint:
    """Train, writing `output` at the start, after each epoch and when stopped.

    A file that is there already stays as it is until the first epoch is done.

    Args:
        prepared: what `prepare` made.
        output: the checkpoint's file.
        run: where to go on from; None starts anew.
        observers: told of each step and epoch.

    Returns:
        The checkpoint as written last; `complete` says whether the run came to its end.

    Raises:
        TrainingError: the loss became NaN or infinite; the epochs before are kept in `output`.
    """
    job, run, observers = prepared.job, run or Run(), observers or Observers()
    fresh = not output.exists()
    if fresh:
        checkpoint.save(output, _checkpoint(prepared, run))
    else:
        checkpoint.check_writable(output)

    def on_epoch(run: Run) -> None:
        checkpoint.save(output, _checkpoint(prepared, run))
        observers.on_epoch(run.history)

    try:
        finished = fit(job, run, on_step=observers.on_step, on_epoch=on_epoch, should_stop=observers.should_stop)
    except TrainingError as error:
        if fresh and not run.history:
            output.unlink(missing_ok=True)
        epochs = len(run.history)
        before = "epoch before is" if epochs == 1 else f"{epochs} epochs before are"
        raise TrainingError(f"{error}; the {before} kept in {output}" if epochs else str(error)) from None
    if not finished:
        checkpoint.save(output, _checkpoint(prepared, run))
    return _checkpoint(prepared, run)


def resume(path: Path, *, data_dir: Path | None = None, device: str = "auto") -> tuple[Prepared, Run]:
    """The run of an incomplete checkpoint, ready to go on.

    Raises:
        CheckpointError: it holds no state to go on from, or one that does not fit.
        DataError: the training images are not those that it began with.
    """
    saved = checkpoint.load(path)
    if saved.resume is None:
        raise CheckpointError(f"--resume {path}: holds no optimiser state to go on from")
    try:
        prepared = prepare(validated(TrainSpec, saved.spec, "its spec"), data_dir, allow_sample=False, device=device)
    except ConfigError as error:
        raise CheckpointError(f"--resume {path}: {error}") from None
    if prepared.images.fingerprint != saved.data["fingerprint"]:
        raise DataError(f"--resume {path}: the training images are not those that the run began with")
    state = dict(saved.resume)
    try:
        prepared.job.model.load_state_dict(state.pop("last"))
        run = Run(history=[dict(entry) for entry in saved.history], **state)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"--resume {path}: its state is not that of its run: {reason}") from None
    again = {key: prepared.provenance[key] for key in ("command", "commit", "time")}
    origin = saved.provenance | {"resumed": [*saved.provenance.get("resumed", ()), again]}
    return replace(prepared, provenance=origin), run


def _checkpoint(prepared: Prepared, run: Run) -> Checkpoint:
    job, images = prepared.job, prepared.images
    last = _weights(job.model)
    state = {key: value for key, value in vars(run).items() if key != "history"}
    return Checkpoint(
        spec=job.spec.as_dict(),
        model=prepared.model_spec.as_dict(),
        data={
            "name": images.name,
            "source": images.source,
            "classes": list(images.classes),
            "fingerprint": images.fingerprint,
            "n_train": len(job.train),
            "n_validation": len(job.validation),
        },
        train_ids=images.ids,
        state_dict=last if run.best is None else run.best,
        history=list(run.history),
        metrics=dict(run.history[run.best_epoch - 1]) if run.best_epoch else {},
        provenance=prepared.provenance,
        complete=len(run.history) == job.spec.epochs,
        resume={"last": last, **state},
    )


def _weights(model: nn.Module) -> dict[str, Any]:
    return {key: value.detach() for key, value in model.state_dict().items()}
