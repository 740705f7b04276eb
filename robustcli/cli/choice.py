"""Which checkpoints a command measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustcli.cli.console import notice
from robustcli.errors import CheckpointError

CHECKPOINTS = Path("checkpoints")


def chosen(given: Sequence[Path] | None, tell: Callable[[str], None] = notice) -> list[Path]:
    """The checkpoints to measure: those given, or the newest complete one in checkpoints/, which `tell` is told.

    Raises:
        CheckpointError: none is given and none is there.
    """
    if given:
        return list(dict.fromkeys(given))

    from robustcli.models import checkpoint

    path = checkpoint.newest(CHECKPOINTS)
    if path is None:
        raise CheckpointError(f"{CHECKPOINTS}/: holds no complete checkpoint; train one, such as `robustcli train`")
    tell(f"checkpoint: {path}")
    return [path]
