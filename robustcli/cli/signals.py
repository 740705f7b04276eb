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

from robustcli.cli.console import redirect_to_null

SIGNALS: list[int] = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
INTERRUPTED = 128 + signal.SIGINT
REPEAT = 2.0
"""Seconds after a signal in which another one wishes the same: it must not cut short the saving of results."""


@contextmanager
def handle_signals(
    handler: Callable[[int, FrameType | None], None], *, always: tuple[int, ...] = ()
) -> Iterator[dict[int, Any]]:
    """Let `handler` handle the signals, and give the handlers of before.

    One that is ignored stays so, as nohup and the background of a script want it, but for those in `always`. Python
    takes signals in its main thread: elsewhere nothing changes.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            old = signal.getsignal(number)
            if number in always or old not in (None, signal.SIG_IGN):
                before[number] = old
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def raise_on_signals(run: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Let each signal raise KeyboardInterrupt while `run` runs, so that what saves results on Ctrl-C does so for all.

    An exit code of 130 becomes that of the first signal: 143 for SIGTERM, 129 for SIGHUP.
    """

    @wraps(run)
    def run_with_signals(arguments: list[str]) -> int:
        signals: list[int] = []
        last = -REPEAT

        def interrupt(number: int, frame: FrameType | None) -> None:
            nonlocal last
            signals.append(number)
            if number != signal.SIGINT:
                _leave_dead_terminal()
            since, last = time.monotonic() - last, time.monotonic()
            if since >= REPEAT or len(signals) == 1:
                raise KeyboardInterrupt

        with handle_signals(interrupt):
            code = run(arguments)
        return 128 + signals[0] if signals and code == INTERRUPTED else code

    return run_with_signals


def ignore_signals() -> None:
    """Once all is done: Python takes a moment to end, and what comes in it must not change the exit code."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGCHLD"):  # torch raises an error where a process that decodes images has died
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _leave_dead_terminal() -> None:
    """Where the terminal is gone, writing to it would fail, and with it all that comes after."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            redirect_to_null(descriptor)
