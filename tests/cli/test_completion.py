"""What a shell offers: the protocol of each, without torch and without a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from robustcli.attacks import ATTACKS
from robustcli.attacks.norms import NORMS
from robustcli.cli import completion
from robustcli.cli.completion import COMPLETERS, answer, declared
from robustcli.cli.listing import LISTS
from robustcli.cli.main import app
from robustcli.cli.request import CHECKS
from robustcli.config import field_names
from robustcli.models import MODELS
from robustcli.models.zoo import entries
from robustcli.report.charts import CHARTS
from robustcli.report.exports import EXPORTS
from robustcli.report.formats import FORMATS
from robustcli.studies.batchout import PARTS
from robustcli.training.methods import METHODS

from .conftest import Call
from .test_help import HEAVY


def offered(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str = "zsh"
) -> list[str]:
    """What zsh is offered for a line that is typed, or bash, which cuts words up and gets what comes after the cut."""
    capsys.readouterr()
    if shell == "bash":
        words = line.replace(":", "\n:\n").replace("=", "\n=\n").replace(" ", "\n").replace("\n\n", "\n").split("\n")
        words = [word for word in words[:-1] if word] + ([words[-1]] if words[-1] or line.endswith(" ") else [])
        monkeypatch.setenv("COMP_WORDS", "\n".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert answer(typer.main.get_command(app), f"complete_{shell}") in (0, 1)
    ended = capsys.readouterr()
    assert ended.err == ""
    found = ended.out.splitlines()
    if shell == "zsh":
        words = [re.match(r'(?:_arguments .*\(\()?"([^"]*)"', line) for line in found]
        return [word[1].replace("\\\\:", ":") for word in words if word]
    return [word.split("\t")[0] for word in found if word]


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path) -> object:
    return lambda line, shell="fish": offered(line, monkeypatch, capsys, shell)


@pytest.mark.parametrize(
    ("table", "folder", "classes"), [("ATTACKS", "attacks", ATTACKS), ("METHODS", "training", METHODS)]
)
def test_what_the_sources_declare_is_what_there_is(table: str, folder: str, classes: dict[str, type]) -> None:
    assert {name: tuple(fields) for name, fields in declared(table, folder).items()} == {
        name: field_names(made) for name, made in classes.items()
    }
    assert list(declared(table, folder)) == list(classes)


def test_defaults_are_offered_as_they_are_written() -> None:
    pgd = declared("ATTACKS", "attacks")["pgd"]
    assert (pgd["steps"], pgd["random_start"], pgd["eps"], pgd["target"]) == ("20", "true", "", "")
    assert declared("ATTACKS", "attacks")["apgd"]["loss"] == "ce"


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--norm", NORMS), ("--format", FORMATS), ("--checks", CHECKS), ("--model", MODELS), ("--method", METHODS)],
)
def test_words_are_those_that_a_flag_takes(flag: str, words: object) -> None:
    assert COMPLETERS[flag](incomplete="") == list(words)  # type: ignore[call-overload]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("robustcli ev", ["evaluate"]),
        ("robustcli results sh", ["show"]),
        ("robustcli evaluate --ep", ["--eps"]),
        ("robustcli attack --attack pg", ["pgd"]),
        ("robustcli evaluate --preset ", ["quick", "paper", "standard", "fast"]),
        ("robustcli train --method b", ["batchout"]),
        ("robustcli train --dataset mnist-", ["mnist-sample"]),
        ("robustcli evaluate --dtype b", ["bfloat16"]),
        ("robustcli evaluate --split te", ["test"]),
        ("robustcli init --for e", ["evaluate"]),
        ("robustcli evaluate ch", ["checkpoints/"]),
        ("robustcli evaluate checkpoints/va", ["checkpoints/vanilla.pt"]),
        ("robustcli compare checkpoints/vanilla.pt checkpoints/ba", ["checkpoints/batchout.pt"]),
        ("robustcli replay checkpoints/va", ["checkpoints/vanilla.pt"]),
        ("robustcli doctor checkpoints/va", ["checkpoints/vanilla.pt"]),
        ("robustcli data info mnist-", ["mnist-sample"]),
        ("robustcli data verify mnist-", ["mnist-sample"]),
        ("robustcli list ", list(LISTS)),
        ("robustcli reproduce ", [*PARTS, "all"]),
        ("robustcli plot ", list(CHARTS)),
        ("robustcli report --format ", [*FORMATS, *EXPORTS]),
        ("robustcli replay --format ", ["table", "json"]),
        ("robustcli results list --format ", ["table", "json"]),
        ("robustcli data list --format ", ["table", "json"]),
    ],
)
def test_what_is_offered(offers: object, models: Path, line: str, among: list[str], shell: str) -> None:
    found = offers(line, shell)  # type: ignore[operator]
    assert [word for word in among if word not in found] == []
    assert all(word.startswith(line.rpartition(" ")[2]) for word in found)


FREE = {"init file", "report files", "plot files", "results export file", "results merge stores"}
"""Arguments that may be any file."""


def parameters(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    for name, one in inner.items():
        yield from parameters(one, f"{path}{name} ")
    yield from ((path, parameter) for parameter in (() if inner else command.params))


def test_each_argument_and_flag_that_takes_names_offers_them() -> None:
    found = list(parameters(typer.main.get_command(app)))
    named = [(path, one) for path, one in found if not one.opts[0].startswith("-") or one.opts[0] in COMPLETERS]
    silent = {f"{path}{one.opts[0]}" for path, one in named if one._custom_shell_complete is None}
    assert silent == FREE


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_files_of_the_home_are_offered_as_they_are_typed(
    offers: object, here: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv("HOME", str(here))
    for name in ("net.pt", "kept.npz"):
        (here / name).touch()
    assert offers("robustcli evaluate ~/", shell) == ["~/net.pt"]  # type: ignore[operator]
    assert offers("robustcli replay ~/", shell) == ["~/net.pt", "~/kept.npz"]  # type: ignore[operator]


def test_models_are_checkpoints_the_zoo_prefixes_and_files(offers: object, models: Path, here: Path) -> None:
    for name in ("net.py", "net.onnx", "photo.png", ".hidden.pt"):
        (here / name).touch()
    found = offers("robustcli evaluate ")  # type: ignore[operator]
    assert {f"zoo:{name}" for name in entries()} < set(found)
    assert {"tv:", "timm:", "hf:", "checkpoints/vanilla.pt", "net.py", "net.onnx", "checkpoints/"} < set(found)
    assert "photo.png" not in found


def test_keys_follow_an_attack_that_is_named(offers: object) -> None:
    keys = offers("robustcli attack --attack pgd:")  # type: ignore[operator]
    assert {f"pgd:{key}=" for key in field_names(ATTACKS["pgd"])} <= set(keys)
    assert "pgd:steps=20" in keys
    more = offers("robustcli attack --attack pgd:steps=5,")  # type: ignore[operator]
    assert "pgd:steps=5,restarts=" in more
    assert not [word for word in more if word.count("steps=") > 1]
    norms = offers("robustcli attack --attack fgsm:norm=")  # type: ignore[operator]
    assert set(norms) == {"fgsm:norm=", "fgsm:norm=linf", "fgsm:norm=l2", "fgsm:norm=l1"}


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("robustcli attack --attack pgd:ste", {"steps=", "steps=20", "step_size="}),
        ("robustcli attack --attack pgd:steps=5,restarts=", {"", "1"}),
        ("robustcli attack --attack=fgsm:norm=l", {"linf", "l2", "l1"}),
        ("robustcli evaluate zoo:mnist-v", {"mnist-vanilla"}),
    ],
)
def test_bash_gets_what_comes_after_the_last_sign_that_it_cuts_at(offers: object, line: str, rest: set[str]) -> None:
    found = offers(line, "bash")  # type: ignore[operator]
    assert set(found) == rest - {""}


def test_rows_of_the_store_are_offered_to_show(offers: object, call: Call, models: Path, here: Path) -> None:
    few = ("--limit", "4", "--checks", "off")
    assert call("evaluate", models / "vanilla.pt", "--attack", "fgsm", "--eps", "0.1,0.2", *few).code == 0
    assert len(offers("robustcli results show ")) >= 2  # type: ignore[operator]
    assert set(offers("robustcli results export all.csv ")) == set(offers("robustcli results show "))  # type: ignore[operator]
    assert set(offers("robustcli results show ")) < set(offers("robustcli replay "))  # type: ignore[operator]
    assert not set("12") & set(offers("robustcli replay --store none.db "))  # type: ignore[operator]
    assert offers("robustcli results show --store none.db ") == []  # type: ignore[operator]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_that_a_shell_would_act_on_are_not_offered(offers: object, here: Path, shell: str) -> None:
    (here / "checkpoints").mkdir()
    nasty = [
        "a b.pt",
        "$(touch x).pt",
        "\\$(touch x).pt",
        "`x`.pt",
        "a'b.pt",
        'a"b.pt',
        "a;b.pt",
        "a\nb.pt",
        "a\u202eb.pt",
    ]
    for name in [*nasty, "good-1.pt"]:
        (here / "checkpoints" / name).touch()
    (here / "a$(x).py").touch()
    assert offers("robustcli evaluate checkpoints/", shell) == ["checkpoints/good-1.pt"]  # type: ignore[operator]


@pytest.mark.parametrize(
    "line",
    [
        "robustcli evaluate --no-such-flag ",
        "robustcli nothing ",
        "robustcli attack --attack nothing:",
        "robustcli attack --attack 'pgd",
        "robustcli results show --store . ",
        "robustcli evaluate /no/such/folder/",
        "robustcli --attack =:= ",
    ],
)
@pytest.mark.parametrize("instruction", ["complete_bash", "complete_zsh", "complete_fish", "nothing", "complete_none"])
def test_a_mistake_offers_nothing_and_shows_no_traceback(
    here: Path, line: str, instruction: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", line.replace(" ", "\n"))
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    answer(typer.main.get_command(app), instruction)
    ended = capsys.readouterr()
    assert ended.err == ""
    assert "Traceback" not in ended.out


def test_a_failure_inside_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(completion, "declared", lambda *_: 1 / 0)
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "robustcli attack --attack p")
    assert answer(typer.main.get_command(app), "complete_zsh") == 1
    assert (capsys.readouterr().out.strip(), "") == ("", "")


@pytest.mark.parametrize(
    "line",
    [
        *("robustcli attack --attack pgd:", "robustcli evaluate ", "robustcli train --method ", "robustcli plot "),
        *("robustcli results show ", "robustcli replay ", "robustcli report --format "),
    ],
)
def test_nothing_heavy_is_imported_to_complete(line: str, tmp_path: Path) -> None:
    program = (
        "import atexit, json, sys; atexit.register(lambda: json.dump(sorted(sys.modules), sys.stderr));"
        "from robustcli.cli.main import main; main()"
    )
    words = {"_ROBUSTCLI_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | words,
        cwd=tmp_path,
    )
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in json.loads(done.stderr))
    assert done.stdout.startswith(("_arguments", "_files")) or line.endswith("show ")


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish/completions/robustcli.fish")]
)
def test_it_installs_itself_into_each_shell(shell: str, file: str, tmp_path: Path) -> None:
    program = (
        "import sys, typer._completion_shared as shared; shared._get_shell_name = lambda: sys.argv[1];"
        "from robustcli.cli.main import main; main(['--install-completion'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, shell],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert (tmp_path / file).is_file()
    assert f"_ROBUSTCLI_COMPLETE=complete_{shell}" in written


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_itself_completes(tmp_path: Path) -> None:
    command = tmp_path / "robustcli"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m robustcli "$@"\n')
    command.chmod(0o755)
    script = """
      eval "$(robustcli --show-completion)"
      COMP_WORDS=(robustcli attack --attack pgd : rest); COMP_CWORD=5
      _robustcli_completion robustcli
      printf '%s\\n' "${COMPREPLY[@]}"
    """
    show = [
        sys.executable,
        "-c",
        "import typer.completion as own; own._get_shell_name = lambda: 'bash';"
        "from robustcli.cli.main import main; main(['--show-completion'])",
    ]
    source = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    script = script.replace('eval "$(robustcli --show-completion)"', source)
    path = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=False, env=path, cwd=tmp_path
    )
    assert done.stdout.split() == ["restarts=", "restarts=1"], done.stderr
