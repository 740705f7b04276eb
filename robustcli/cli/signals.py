"""What ends a command early: Ctrl-C, and SIGTERM and SIGHUP, which batch systems, containers and terminals send."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any

SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
INTERRUPTED = 128 + signal.SIGINT
REPEAT = 2.0
"""Seconds after a signal in which another one wishes the same: it must not cut short the keeping of what is done."""


@contextmanager
def answer(
    handler: Callable[[int, FrameType | None], None], *, always: tuple[int, ...] = ()
) -> Iterator[dict[int, Any]]:
    """Let `handler` answer the signals, and give the handlers of before.

    One that is ignored stays so, as nohup and the background of a script want it, but for those in `always`. Python
    takes signals in its main thread: elsewhere nothing changes.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in SIGNALS}
        taken = {number for number, old in found.items() if old is not None and old is not signal.SIG_IGN}
        before = {number: found[number] for number in found if number in taken or number in always}
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def heeding(run: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Let each signal raise KeyboardInterrupt while `run` runs: whatever keeps things then keeps them for all.

    An exit code of 130 becomes that of the first signal: 143 for SIGTERM, 129 for SIGHUP.
    """

    @wraps(run)
    def heeded(arguments: list[str]) -> int:
        came: list[int] = []
        last = -REPEAT

        def interrupt(number: int, frame: FrameType | None) -> None:
            nonlocal last
            came.append(number)
            if number != signal.SIGINT:
                _leave_dead_terminal()
            since, last = time.monotonic() - last, time.monotonic()
            if since >= REPEAT or len(came) == 1:
                raise KeyboardInterrupt

        with answer(interrupt):
            code = run(arguments)
        return 128 + came[0] if came and code == INTERRUPTED else code

    return heeded


def ignore_signals() -> None:
    """Once all is done: Python takes a moment to end, and what comes in it must not change the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave_dead_terminal() -> None:
    """Where the terminal is gone, writing to it would fail, and with it all that comes after."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
