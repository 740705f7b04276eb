"""Lines that are written while a bar is shown."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest

from robustcli.cli.console import fail, moving_bar, notice, progress, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("write", [notice, warn, fail])
def test_a_line_stands_alone_while_a_bar_is_shown(monkeypatch: pytest.MonkeyPatch, write: object) -> None:
    assert callable(write)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress() as bar:
        task = bar.add_task("attacking", total=3)
        for number in range(3):
            bar.update(task, advance=1, refresh=True)
            write(f"line {number}")
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", terminal.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", shown) if "line" in line]
    assert [line.removeprefix("warning: ").removeprefix("error: ") for line in lines] == ["line 0", "line 1", "line 2"]
    assert "attacking" in shown


@pytest.mark.parametrize("before", [(0, 60, "a.pt: pgd", 60.0), (1, -30, "a.pt: pgd", -29.0)])  # recalled; more is left
def test_the_speed_is_that_of_what_is_computed_and_not_of_what_is_known(
    monkeypatch: pytest.MonkeyPatch, before: tuple[float, float, str, float]
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("robustcli.cli.console.time", SimpleNamespace(monotonic=lambda: clock.now))
    with moving_bar(100) as advance:
        advance(*before)
        clock.now += 10
        advance(10, 10, "a.pt: pgd", 20.0)
    assert re.findall(r"([\d.]+) images/s", terminal.getvalue())[-1] == "2.0"
