"""The curves of a training run for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from robustcli.errors import ConfigError, require_extra
from robustcli.training.loop import Job, Run, steps_per_epoch
from robustcli.training.schedules import learning_rate


@contextmanager
def curves_in(folder: Path | None, job: Job, run: Run) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """What writes an epoch, as a run's history has it, with its last step's learning rate; without a folder, nothing.

    The epochs before are written first, and take the place of what the folder had of this run: so a run that goes on
    has whole curves, wherever it began.

    Raises:
        ConfigError: TensorBoard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield lambda _: None
        return
    require_extra("tensorboard", "tensorboard", f"--tensorboard {folder.parent}")
    from torch.utils.tensorboard import SummaryWriter

    per_epoch = steps_per_epoch(job.spec, len(job.train))
    try:
        opened = SummaryWriter(str(folder), purge_step=0)
    except OSError as error:
        raise ConfigError(f"--tensorboard {folder.parent}: {error.strerror or error}") from None
    with opened as writer:

        def write(entry: Mapping[str, float]) -> None:
            epoch = int(entry["epoch"])
            rate = learning_rate(job.spec, epoch * per_epoch - 1, job.spec.epochs * per_epoch)
            for name in entry.keys() - {"epoch"}:
                writer.add_scalar(name, entry[name], epoch)
            writer.add_scalar("lr", rate, epoch)
            writer.flush()

        for entry in run.history:
            write(entry)
        yield write
