"""The program: its commands, its exit codes, and one line for every mistake. No torch before a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from robustcli import __version__
from robustcli.cli import (
    attack,
    compare,
    data,
    doctor,
    evaluate,
    init,
    listing,
    replay,
    report,
    reproduce,
    results,
    train,
)
from robustcli.cli.completion import VARIABLE, answer
from robustcli.cli.console import drop, fail, open_streams, reason
from robustcli.cli.outputs import JSON_HINT, check_given
from robustcli.cli.processes import share
from robustcli.cli.signals import ignore_signals, raise_on_signals
from robustcli.errors import ConfigError, RobustCliError, lookup, memory_guard, nearest

app = typer.Typer(
    name="robustcli",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(init.init)
app.command("train")(train.train)
app.command("attack")(attack.attack)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("replay")(replay.replay)
app.command("plot")(report.plot)
app.command("reproduce")(reproduce.reproduce)
app.command("doctor")(doctor.doctor)
app.add_typer(results.results, name="results")
app.add_typer(data.data, name="data")
app.command("list")(listing.list_names)


@app.callback(invoke_without_command=True)
def robustcli(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train an image classifier, attack it, measure how robust it really is, and compare checkpoints."""
    if version:
        typer.echo(f"robustcli {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit with its documented code."""
    if instruction := os.environ.get(VARIABLE):
        sys.exit(answer(typer.main.get_command(app), instruction))
    code = run(sys.argv[1:] if arguments is None else arguments)
    ignore_signals()
    sys.exit(code)


@raise_on_signals
def run(arguments: list[str]) -> int:
    """Run a command line; a user's mistake is one line on stderr. Returns the exit code."""
    open_streams()
    try:
        code = _invoke(arguments)
        sys.stdout.flush()  # here and not when Python ends, so that a full disk is an error
    except RobustCliError as error:
        fail(str(error))
        return error.exit_code
    except typer.TyperException as error:
        fail(usage_error(error, arguments))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted")
        return 130
    except BrokenPipeError:
        drop(sys.stdout)
        return 1
    except OSError as error:  # such as a full disk under stdout
        fail(reason(error))
        drop(sys.stdout)
        return 1
    return code


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    if arguments and not arguments[0].startswith("-"):
        lookup(getattr(command, "commands", {}), arguments[0], "command")
    check_given(command, arguments)
    if arguments and not arguments[0].startswith("-") and not {"-h", "--help"} & set(arguments):
        _check_folder()
    try:
        # Not `command.main`, which would turn Ctrl-C into an exit without a word.
        with (
            memory_guard(),
            share(arguments) as ranks,
            command.make_context("robustcli", list(arguments), obj=ranks) as context,
        ):
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return 0


def _check_folder() -> None:
    """Refuse a working folder that is gone, before files in it are said to be missing.

    Raises:
        ConfigError: it was removed, or may not be read.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(f"the working folder cannot be used ({error.strerror}); it may have been removed") from None


def usage_error(error: typer.TyperException, arguments: list[str]) -> str:
    """One line for what the parser refused, with the nearest valid name."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if message == "Option '--json' requires an argument":
        message += f": {JSON_HINT}"
    command, parameter = getattr(getattr(error, "ctx", None), "command", None), getattr(error, "param", None)
    if type(error).__name__ == "NoSuchOption" and command is not None:
        wrong = str(getattr(error, "option_name", ""))
        names = [name for parameter in command.params for name in parameter.opts]
        if (argument := wrong.removeprefix("--")) in names:  # a name without dashes is an argument's
            return f"{command.name}: no such option {wrong}; write robustcli {command.name} {argument.upper()}"
        options = [name for name in names if name.startswith("--")]
        return f"{command.name}: no such option {wrong}{nearest(wrong, options)}"
    if type(error).__name__ == "BadParameter" and parameter is not None and parameter.opts[0].startswith("--"):
        reason = message.partition(": ")[2] or message
        return f"{parameter.opts[0]} {_value_after(parameter.opts[0], arguments)}: {reason[0].lower()}{reason[1:]}"
    return message[0].lower() + message[1:]


def _value_after(option: str, arguments: list[str]) -> str:
    """What the user gave an option, as `--option value` or `--option=value`."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    found = [
        after if part == option else part.partition("=")[2] for part, after in pairs if part.split("=")[0] == option
    ]
    return found[-1] if found else ""
