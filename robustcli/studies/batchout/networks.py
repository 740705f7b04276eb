"""The study's networks: each is trained once, and an interrupted training goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from robustcli.config import TrainSpec
from robustcli.errors import CheckpointError
from robustcli.models import checkpoint, zoo
from robustcli.models.checkpoint import Checkpoint
from robustcli.studies.batchout.experiments import Network
from robustcli.studies.batchout.study import Study, move_aside
from robustcli.training.loop import Run
from robustcli.training.train import prepare, resume


def checkpoint_path(study: Study, network: Network) -> Path:
    """The network's checkpoint: the one that was trained here or, without one, that of the zoo."""
    own, name = own_path(study, network), network.name.removesuffix("-seed0")
    if not study.zoo or name not in zoo.entries() or _read(study, network, own) is not None:
        return own
    shipped = Path(f"{zoo.PREFIX}{name}")
    return own if _read(study, network, shipped) is None else shipped


def own_path(study: Study, network: Network) -> Path:
    """Where the network's checkpoint lies once it is trained here."""
    return study.folder / "models" / f"{network.name}.pt"


def find_checkpoint(study: Study, network: Network) -> Checkpoint | None:
    """What is there of the network, without its tensors' values; None where spec or images differ."""
    return _read(study, network, checkpoint_path(study, network))


def train_network(study: Study, network: Network) -> Path:
    """The network's complete checkpoint: found, gone on with, or trained from the start.

    A checkpoint of another spec, such as an older recipe's, is replaced.

    Raises:
        KeyboardInterrupt: training was interrupted; it goes on from there the next time.
        RobustCliError: data are missing, or training failed.
    """
    path, found = checkpoint_path(study, network), find_checkpoint(study, network)
    if found is not None and found.complete:
        if path != own_path(study, network):
            study.say(f"{network.name}: {path}, which ships with the package (--no-zoo trains it here)")
        return path
    path = own_path(study, network)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            checkpoint.sweep(path)
            found = find_checkpoint(study, network)  # another process may have gone on with it in between
            return path if found is not None and found.complete else _train(study, network, path, found)
    except Timeout:
        raise CheckpointError(f"{path}: is being trained by another process") from None


def _train(study: Study, network: Network, path: Path, found: Checkpoint | None) -> Path:
    if found is not None:
        study.say(f"{network.name}: going on after epoch {len(found.history)} of {network.spec.epochs}")
        prepared, run = resume(path, data_dir=study.data_dir, device=study.device)
    else:
        study.say(f"{network.name}: training for {network.spec.epochs} epochs")
        prepared, run = prepare(network.spec, study.data_dir, allow_sample=False, device=study.device), Run()
        if path.exists():
            aside = move_aside(path)
            study.say(f"{path}: has another recipe or other images, or is damaged; it is kept as {aside.name}")
    if not study.train(prepared, path, run).complete:
        raise KeyboardInterrupt
    return path


def _read(study: Study, network: Network, path: Path) -> Checkpoint | None:
    try:
        found = checkpoint.peek(path)
    except CheckpointError:
        return None
    try:
        same = TrainSpec(**found.spec) == network.spec  # a key that is new since has its default
    except ValidationError:
        return None
    return found if same and found.data["fingerprint"] == study.fingerprint(network, "train") else None
