from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from robustcli import __version__
from robustcli.cli.main import app

from .conftest import Call

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SHARED = {"dataset", "data_dir", "split", "limit", "batch_size", "seed", "device", "norm", "eps", "steps", "iters"}
SHARED |= {"style", "json_file", "store", "no_store"}
HEAVY = {"torch", "torchvision", "numpy", "scipy", "matplotlib", "pandas"}


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["--version"], ["list", "datasets"]])
def test_nothing_heavy_is_imported_to_answer(arguments: list[str]) -> None:
    program = (
        "import json, sys; from robustcli.cli.main import run; assert run(sys.argv[1:]) == 0;"
        "json.dump(sorted({name.partition('.')[0] for name in sys.modules}), sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(json.loads(done.stderr))


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "robustcli", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"robustcli {__version__}")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command_and_goes_to_stdout(call: Call, arguments: tuple[str, ...]) -> None:
    ended = call(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert all(command in ended.out for command in COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "results"])
def test_a_command_has_help_for_each_option_and_argument(call: Call, command: str) -> None:
    ended = call(command, "--help")
    parameters = COMMANDS[command].params
    names = [name for parameter in parameters for name in parameter.opts if name.startswith("--")]
    assert ended.code == 0
    assert [name for name in names if name not in ended.out] == []
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", None)] == []


@pytest.mark.parametrize("command", ["attack", "evaluate", "compare"])
def test_what_measures_takes_the_flags_that_the_design_lists(command: str) -> None:
    assert {parameter.name for parameter in COMMANDS[command].params} >= SHARED
