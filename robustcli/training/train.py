"""From a spec to a checkpoint: the library call behind `robustcli train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustcli.config import DataSpec, ModelSpec, TrainSpec, default_budgets, validated
from robustcli.data.images import Images, split_validation
from robustcli.data.load import data_folder, is_here, load
from robustcli.data.named import expand, known_name
from robustcli.device import pick_device
from robustcli.errors import CheckpointError, ConfigError, DataError, TrainingError
from robustcli.models import MODELS, checkpoint
from robustcli.models.augmentation import fill_slots
from robustcli.models.checkpoint import Checkpoint
from robustcli.models.nets import build_model, design
from robustcli.provenance import provenance
from robustcli.training.loop import Job, Run, Step, fit
from robustcli.training.methods import describe_method, parse_method
from robustcli.training.resumption import check_state

LARGE_WEIGHTS, LARGE_BYTES = 20_000_000, 200_000_000
"""More weights or a larger file than this calls for a warning before the training."""


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train: its job, with the spec resolved, the network's spec, its images and its origin.

    `data_dir` is where a data set with a name is searched for; None for others.
    """

    job: Job
    model_spec: ModelSpec
    images: Images
    provenance: dict[str, Any]
    data_dir: Path | None = None

    def size_warning(self) -> str | None:
        """A line where the network is large for what the paper's are made for; None where it is not."""
        parameters = sum(parameter.numel() for parameter in self.job.model.parameters())
        # Best and last weights, and what the optimiser keeps of each.
        copies = 2 + (2 if self.job.spec.optimizer == "adam" else int(self.job.spec.momentum > 0))
        size = 4 * copies * parameters
        if parameters <= LARGE_WEIGHTS and size <= LARGE_BYTES:
            return None
        spec = self.model_spec
        return (
            f"{spec.name} has {parameters / 1e6:,.0f} million weights for images of {spec.height}x{spec.width}, and a "
            f"checkpoint {size / 1e9:.1f} GB; both grow with the images' area: half the side makes about a quarter"
        )


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
    ).in_memory()
    train, validation = split_validation(images, spec.validation, spec.seed)
    model_spec = design(spec.model, train.x[:], len(images.classes))
    model = build_model(model_spec, spec.seed)
    method = method.resolve(MODELS[model_spec.name], default_budgets(images.shape)[1])
    recipe = method.recipe()
    fill_slots(model, recipe.filling)
    dataset = images.name if known_name(spec.dataset) else str(expand(Path(spec.dataset), "--dataset").resolve())
    resolved = spec.model_copy(update={"method": describe_method(method), "model": model_spec.name, "dataset": dataset})
    place = pick_device(device)
    origin = provenance(seed=spec.seed, device=place, data_fingerprint=images.fingerprint)
    folder = data_folder(data_dir).absolute() if known_name(dataset) else None
    job = Job(model.to(place), recipe, resolved, train, validation, place)
    return Prepared(job, model_spec, images, origin, folder)


def train(
    prepared: Prepared,
    output: Path,
    run: Run | None = None,
    *,
    on_step: Callable[[Step], None] = lambda _: None,
    on_epoch: Callable[[Run], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Train, writing `output` at the start, after each epoch and when stopped.

    A file that is there already stays as it is until the first epoch is done.

    Args:
        prepared: what `prepare` made.
        output: the checkpoint's file.
        run: where to go on from; None starts anew.
        on_step: called after each step.
        on_epoch: called after each epoch, once it is in `output`.
        should_stop: called after each step; True ends the training there.

    Returns:
        The checkpoint as written last; `complete` says whether the run came to its end.

    Raises:
        TrainingError: the loss became NaN or infinite; the epochs before are kept in `output`.
    """
    job, run = prepared.job, run or Run()
    fresh = not output.exists()
    if fresh:
        checkpoint.save(output, _checkpoint(prepared, run))

    def save_epoch(run: Run) -> None:
        checkpoint.save(output, _checkpoint(prepared, run))
        on_epoch(run)

    try:
        begun = run.step
        finished = fit(job, run, on_step=on_step, on_epoch=save_epoch, should_stop=should_stop)
    except TrainingError as error:
        if fresh and not run.history:
            output.unlink(missing_ok=True)
        epochs = len(run.history)
        before = "epoch before is" if epochs == 1 else f"{epochs} epochs before are"
        raise TrainingError(f"{error}; the {before} kept in {output}" if epochs else str(error)) from None
    if not finished or run.step == begun:
        checkpoint.save(output, _checkpoint(prepared, run))
    return _checkpoint(prepared, run)


def resume(path: Path, *, data_dir: Path | None = None, device: str = "auto") -> tuple[Prepared, Run]:
    """The run of an incomplete checkpoint, ready to go on.

    Args:
        path: the checkpoint.
        data_dir: None looks where the run had its data set, then where any run looks.
        device: as for `prepare`.

    Raises:
        CheckpointError: it holds no state to go on from, or one that does not fit.
        DataError: the training images are not those that it began with.
    """
    saved = checkpoint.load(path)
    if saved.resume is None:
        raise CheckpointError(f"--resume {path}: holds no optimiser state to go on from; train anew")
    state = dict(saved.resume)
    folder, before = state.pop("data_dir", None), saved.provenance.get("resumed", [])
    if not isinstance(folder, str | None) or not isinstance(before, list | tuple):
        raise CheckpointError(f"--resume {path}: its data_dir should be text, and 'resumed' of its provenance a list")
    try:
        spec = validated(TrainSpec, saved.spec, "its spec")
        if data_dir is None and folder and known_name(spec.dataset) and is_here(spec.dataset, Path(folder)):
            data_dir = Path(folder)
        prepared = prepare(spec, data_dir, allow_sample=False, device=device)
    except ConfigError as error:
        raise CheckpointError(f"--resume {path}: {error}") from None
    if prepared.images.fingerprint != saved.data["fingerprint"]:
        raise DataError(
            f"--resume {path}: the training images are not those that the run began with; name their --data-dir"
        )
    try:
        run, last = check_state(state, saved.history, prepared.job)
    except ValueError as error:
        raise CheckpointError(f"--resume {path}: its state is not that of its run: {error}") from None
    prepared.job.model.load_state_dict(last)
    again = {key: prepared.provenance[key] for key in ("command", "commit", "time")}
    origin = saved.provenance | {"resumed": [*before, again]}
    return replace(prepared, provenance=origin), run


def _checkpoint(prepared: Prepared, run: Run) -> Checkpoint:
    job, images = prepared.job, prepared.images
    last = {key: value.detach() for key, value in job.model.state_dict().items()}
    state = {key: value for key, value in vars(run).items() if key != "history"}
    state["data_dir"] = None if prepared.data_dir is None else str(prepared.data_dir)
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
        train_hashes=images.hashes.sort().values,
    )
