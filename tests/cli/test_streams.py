"""Where stdout and stderr cannot take what is written: closed, full, or in an encoding that lacks its characters."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from robustcli.cli.main import run

from .conftest import Call

ENCODINGS = ("cp1252", "latin-1", "ascii", "cp437", "utf-8")
STYLES = ("table", "json", "csv", "markdown", "latex")


@pytest.fixture
def odd(models: Path) -> Path:
    """A checkpoint whose name no code page has whole, with a byte that is not UTF-8."""
    path = models / os.fsdecode("caf\u00e9 \u4e2d\u2603".encode() + b"\xff.pt")
    (models / "vanilla.pt").rename(path)
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("what", ["--curve", "--fail-under=100"])
def test_every_encoding_takes_every_format(
    odd: Path, here: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, what: str
) -> None:
    flags = [what, "--limit", "4", "--no-store", "--checks", "off"]
    flags += ["--attack", "fmn:iters=3"] if what == "--curve" else ["--attack", "fgsm:eps=0.1"]
    commands = [["evaluate", str(odd), *flags, "--format", style] for style in STYLES]
    for arguments in [*commands, ["list", "zoo"]]:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert run(arguments) in (0, 4), arguments
        for stream in (out, err):
            stream.flush()
            assert b"Traceback" not in stream.buffer.read()  # type: ignore[attr-defined]
            shown = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
            assert "\x1b" not in shown


def test_a_sparkline_is_digits_where_blocks_are_lacking(
    models: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert run(["evaluate", "--curve", "--attack", "fmn:iters=3", "--limit", "6"]) == 0
    out.flush()
    lines = out.buffer.getvalue().decode("ascii").splitlines()  # type: ignore[attr-defined]
    assert sum(re.search(r"\|[1-8]+ *\|", line) is not None for line in lines) == 4


def started(*arguments: str, shell: str = "", **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process, with redirections of the shell."""
    line = f'exec "$@" {shell}'
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "robustcli", *arguments],
        text=True,
        capture_output=True,
        check=False,
        **kwargs,
    )


@pytest.mark.parametrize("arguments", [("list", "datasets"), ("--help",), ("--version",)])
def test_a_closed_stdout_is_one_line(arguments: tuple[str, ...]) -> None:
    done = started(*arguments, shell=">&-")
    assert (done.returncode, done.stderr) == (1, "error: output: stdout is closed\n")


def test_a_closed_stdout_does_not_cost_what_was_measured(models: Path, here: Path) -> None:
    done = started("evaluate", "--attack", "fgsm:eps=0.1", "--limit", "4", "--json", "r.json", shell=">&-")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "error: output: stdout is closed")
    assert b'"rows"' in Path("r.json").read_bytes()
    assert "Traceback" not in done.stderr


def test_a_closed_stderr_changes_nothing(here: Path) -> None:
    assert "mnist" in started("list", "datasets", shell="2>&-").stdout
    assert started("list", "modles", shell="2>&-").returncode == 2
    assert started("list", "zoo", shell=">&- 2>&-").returncode == 1


@pytest.mark.parametrize("arguments", [("list", "datasets"), ("--version",), ("--help",)])
def test_a_full_stdout_is_one_line(arguments: tuple[str, ...]) -> None:
    done = started(*arguments, shell=">/dev/full")
    assert (done.returncode, done.stderr) == (1, f"error: output: {os.strerror(errno.ENOSPC)}\n")


def test_a_full_stderr_does_not_cost_the_result(models: Path, here: Path) -> None:
    done = started("evaluate", "--attack", "fgsm:eps=0.1", "--limit", "4", "--format", "csv", shell="2>/dev/full")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)


@pytest.mark.parametrize("arguments", [("list", "datasets"), ("--version",)])
def test_a_reader_that_went_away_is_no_traceback(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "robustcli", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_too_many_open_files_are_told_as_such(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("robustcli.report.formats.print_tables", failing)
    monkeypatch.setattr("robustcli.cli.listing.out", failing)
    assert call("list", "datasets").error == "error: too many open files; raise the limit, such as by ulimit -n 1024"
