"""`robustcli train`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from robustcli.cli import options, train_options
from robustcli.cli.console import fail, notice, progress, result, warn
from robustcli.cli.measurement import announce_sample, warn_of_slow
from robustcli.cli.outputs import check_output, read_by
from robustcli.cli.request import CHECKPOINTS, given_flags
from robustcli.cli.signals import INTERRUPTED, handle_signals
from robustcli.config import TrainSpec, field_names, parse_yaml, read_yaml, shown, validated
from robustcli.data.named import locate
from robustcli.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from robustcli.models.checkpoint import Checkpoint
    from robustcli.training.loop import Run, Step
    from robustcli.training.train import Prepared

METHOD_FLAGS = ("eta", "fraction", "layers", "eps")


def train(
    context: typer.Context,
    method: train_options.MethodName = None,
    dataset: options.Dataset = None,
    model: train_options.Model = None,
    config: train_options.Config = None,
    settings: train_options.Settings = None,
    epochs: train_options.Epochs = None,
    batch_size: train_options.BatchSize = None,
    lr: train_options.LearningRate = None,
    seed: options.Seed = None,
    eta: train_options.Eta = None,
    fraction: train_options.Fraction = None,
    layers: train_options.Layers = None,
    eps: train_options.Eps = None,
    limit: train_options.Limit = None,
    data_dir: options.DataDir = None,
    no_sample: options.NoSample = False,
    device: options.Device = None,
    output: train_options.Output = None,
    force: train_options.Force = False,
    resume: train_options.Resume = None,
    tensorboard: train_options.TensorBoard = None,
) -> None:
    """Train a model and write its checkpoint. Ctrl-C saves; `--resume` goes on to the same weights, bit for bit.

    Example: `robustcli train --method batchout --dataset mnist`
    """
    flags = given_flags(context.params)
    if resume is not None:
        _resume(resume, flags)
        return
    spec = train_spec(flags)
    locate(spec.dataset)
    if output is not None:
        _refuse_existing(output, force)
        check_output(output, "--output", read_by(config, spec.dataset))

    from robustcli.training.loop import Run
    from robustcli.training.train import prepare

    prepared = prepare(spec, data_dir=data_dir, allow_sample=not no_sample, device=device or "auto")
    with _claim(prepared, output, force) as path:
        _train(prepared, path, Run(), tensorboard)


def _refuse_existing(output: Path, force: bool) -> None:
    try:
        if output.is_dir():
            raise ConfigError(f"--output {output}: is a folder; should be a file, such as {output}.pt")
        if output.exists() and not force:
            raise ConfigError(f"--output {output}: exists already; give another name, or --force to replace it")
    except OSError as error:  # such as a name that is too long
        raise ConfigError(f"--output {output}: {error.strerror or error}") from None


@contextmanager
def _claim(prepared: Prepared, output: Path | None, force: bool) -> Iterator[Path]:
    """The file to write, which no other run writes or has finished meanwhile.

    Raises:
        ConfigError: another run writes `output` or has finished it, or it cannot be written.
    """
    from robustcli.models import checkpoint

    if output is None:
        spec, names = prepared.job.spec, (prepared.images.name, prepared.model_spec.name)
        paths = checkpoint.default_paths(CHECKPOINTS, names[0], spec.method["name"], names[1], spec.seed)
        with checkpoint.claim_first(paths) as path:
            yield path
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(checkpoint.claim(output))
        except (checkpoint.InUseError, CheckpointError) as error:
            raise ConfigError(f"--output {error}") from None
        _refuse_existing(output, force)
        yield output


def train_spec(flags: Mapping[str, Any]) -> TrainSpec:
    """Built-in defaults < YAML < flags and `--set`."""
    values: dict[str, Any] = read_yaml(flags["config"]) if "config" in flags else {}
    settings: dict[str, Any] = {}
    for key, value in map(_setting, flags.get("settings", ())):
        if key in settings:
            raise ConfigError(f"--set {shown(key)}: is given twice")
        settings[key] = value
    method = values.get("method", "vanilla")
    options_of = dict(method) if isinstance(method, dict) else {"name": method}
    name = settings.pop("method", flags.get("method", options_of.get("name")))
    if name != options_of.get("name"):  # the options of another method mean nothing to this one
        options_of = {"name": name}
    options_of |= {key: flags[key] for key in METHOD_FLAGS if key in flags}
    options_of |= {key.removeprefix("method."): value for key, value in settings.items() if key.startswith("method.")}
    own = {key: value for key, value in settings.items() if not key.startswith("method.")}
    given = {key: flags[key] for key in field_names(TrainSpec) if key in flags and key not in ("method", *own)}
    config = [f"--config {flags['config']}"] if "config" in flags else []
    where = " and ".join([*config, "--set"] if own or not config else config)
    return validated(TrainSpec, values | given | own | {"method": options_of}, where, flags=frozenset(given))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        return key.strip(), parse_yaml(value if equals else "[")
    except ValueError as error:
        reason = f" ({error})" if equals else ""
        raise ConfigError(
            f"--set {shown(text)}: should be KEY=VALUE, such as schedule=cosine or method.steps=7{reason}"
        ) from None


def _resume(path: Path, flags: Mapping[str, Any]) -> None:
    extra = sorted(flags.keys() - {"resume", "data_dir", "device", "tensorboard"})
    if extra:
        names = ", ".join("--set" if name == "settings" else f"--{name.replace('_', '-')}" for name in extra)
        raise ConfigError(
            f"{names}: comes from the checkpoint (beside --resume, allowed are --data-dir, --device and --tensorboard)"
        )

    from robustcli.models import checkpoint
    from robustcli.training.train import resume

    if checkpoint.peek(path).complete:
        notice(f"{path}: is complete already")
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(checkpoint.claim(path))
        except checkpoint.InUseError as error:
            raise ConfigError(f"--resume {error}") from None
        prepared, run = resume(path, data_dir=flags.get("data_dir"), device=flags.get("device", "auto"))
        epochs = prepared.job.spec.epochs
        notice(f"going on with {path} after step {run.step} (epoch {min(len(run.history) + 1, epochs)} of {epochs})")
        _train(prepared, path, run, flags.get("tensorboard"))


def _train(prepared: Prepared, path: Path, run: Run, curves: Path | None = None) -> None:
    """Train, and say what came of it."""
    job = prepared.job
    announce_sample(prepared.images)
    warn_of_slow(job.spec.dtype, job.device)
    if warning := prepared.size_warning():
        warn(warning)
    notice(
        f"{job.spec.method['name']} {prepared.model_spec.name} on {prepared.images.name}: "
        f"{len(job.train)} training and {len(job.validation)} validation images, {job.device}, to {path}"
    )
    saved = train_with_bar(prepared, path, run, curves)
    if not saved.complete:
        fail(f"saved; go on with: robustcli train --resume {path}", "interrupted")
        raise typer.Exit(INTERRUPTED)
    best = saved.metrics
    accuracy = f", validation accuracy {100 * best['val_accuracy']:.2f} %" if "val_accuracy" in best else ""
    result(f"{path}: epoch {int(best['epoch'])} of {job.spec.epochs} kept{accuracy}")


def train_with_bar(prepared: Prepared, path: Path, run: Run, curves: Path | None = None) -> Checkpoint:
    """Train under a progress bar; a signal stops it after the step, and the checkpoint says that it is not complete."""
    from robustcli.device import keep_freed_memory
    from robustcli.training.tensorboard import curves_in
    from robustcli.training.train import train

    keep_freed_memory()
    epochs = prepared.job.spec.epochs
    bar = progress("{task.fields[state]}")
    folder = None if curves is None else curves / path.stem
    with bar, curves_in(folder, prepared.job, run) as write, _stop_on_signal() as stopping:
        task = bar.add_task("training", total=None, state="")
        began, samples = time.perf_counter(), 0

        def on_step(step: Step) -> None:
            nonlocal samples
            samples += step.samples
            rate = samples / max(1e-9, time.perf_counter() - began)
            state = f"loss {step.loss:.4f}  accuracy {100 * step.accuracy:.2f} %  {rate:,.0f} samples/s"
            name = f"epoch {step.epoch}/{epochs}"
            bar.update(task, total=step.steps, completed=step.step, description=name, state=state)

        def on_epoch(run: Run) -> None:
            _print_epoch(run)
            write(run.history[-1])

        return train(prepared, path, run, on_step=on_step, on_epoch=on_epoch, should_stop=lambda: bool(stopping))


def _print_epoch(run: Run) -> None:
    """A line for the last epoch, and a warning with the first one that shows catastrophic overfitting."""
    from robustcli.training.overfitting import overfitting

    history = run.history
    entry = history[-1]
    parts = [
        f"epoch {int(entry['epoch']):>2}",
        f"loss {entry['loss']:.4f}",
        f"accuracy {100 * entry['accuracy']:.2f} %",
    ]
    if "val_accuracy" in entry:
        parts.append(f"validation {100 * entry['val_accuracy']:.2f} %")
    if "val_robust_accuracy" in entry:
        parts.append(f"attacked {100 * entry['val_robust_accuracy']:.2f} %")
        parts.append(f"PGD-10 {100 * entry['val_pgd_accuracy']:.2f} %")
    notice("  ".join([*parts, f"{entry['seconds']:.1f} s"]))
    warning = overfitting(history)
    if warning and not overfitting(history[:-1]):
        warn(warning)


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that a signal makes true, so that a step is never cut in two; Ctrl-C after it interrupts at once."""
    stopping: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if callable(before[number]):  # it notes the signal for the exit code
            with suppress(KeyboardInterrupt):
                before[number](number, frame)
        if stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopping.append(number)
        if len(stopping) == 1:
            with suppress(OSError):
                notice("stopping after this step (Ctrl-C again to quit without saving it)")

    with handle_signals(on_signal, always=(signal.SIGINT,)) as before:
        yield stopping
