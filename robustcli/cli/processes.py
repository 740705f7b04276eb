"""A command in several processes, as torchrun starts them: rank 0 speaks for all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustcli.cli.signals import INTERRUPTED
from robustcli.errors import ConfigError, ProcessError, RobustCliError, one_line

if TYPE_CHECKING:
    from robustcli.engine.ranks import Ranks

SHARED = ("evaluate", "compare")


@contextmanager
def share(arguments: Sequence[str]) -> Iterator[Ranks | None]:
    """The processes that share a command; None where there is one.

    All but rank 0 are silent within it. What ends one of them is told to the others, and ends it with an exit code.

    Raises:
        ConfigError: the command is none that is shared.
    """
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdigit() and size.isdigit() and int(size) > 1):
        yield None
        return
    if arguments and arguments[0] not in SHARED:
        if rank != "0":
            raise typer.Exit(2)
        raise ConfigError(f"{arguments[0]}: runs in one process; torchrun starts {size}, for {' and '.join(SHARED)}")

    from robustcli.engine.ranks import ENDED, FAILED, Ranks

    ranks = Ranks()
    try:
        if ranks.rank == 0:
            yield ranks
            return
        with Path(os.devnull).open("w") as null, redirect_stdout(null), redirect_stderr(null):
            yield ranks
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if ranks.rank == 0:
            raise
        if isinstance(error, ProcessError) and ranks.word(ENDED) is not None:
            raise typer.Exit from None
        if not isinstance(error, ProcessError | KeyboardInterrupt):
            ranks.tell(FAILED, f"rank {ranks.rank}: {one_line(error)}")
        if not isinstance(error, RobustCliError | typer.TyperException | KeyboardInterrupt):
            raise
        raise typer.Exit(getattr(error, "exit_code", INTERRUPTED)) from None
    finally:
        ranks.leave()
