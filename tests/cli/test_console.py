"""Lines that are written while a bar is shown."""

from __future__ import annotations

import io
import re
import sys

import pytest

from robustcli.cli.console import fail, notice, progress, warn


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
