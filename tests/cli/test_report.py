"""`robustcli report`: what a run printed, again; of a file that someone altered a right output or one line."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustcli.report.formats import FORMATS

from ..records import documents
from .conftest import Call
from .test_nasty_names import NASTY, assert_harmless

OFF = ("--checks", "off", "--no-store", "--limit", "12")
BOTH = ("--attack", "fgsm:eps=8/255", "--attack", "deepfool:iters=2")
RUNS = {
    "attack": ("attack", "--attack", "pgd:steps=2", "--eps", "0.1,8/255", "--norm", "l2"),  # with a warning
    "evaluate": ("evaluate", *BOTH, "--attack", "autoattack:rounds=2,queries=3,eps=0.1"),
    "curve": ("evaluate", "--curve", "--attack", "fmn:iters=3", "--attack", "fgsm", "--eps", "0.3,8/255"),
    "compare": ("compare", *BOTH, "--transfer"),
}


def write(document: Any, path: str = "r.json") -> str:
    Path(path).write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("name", RUNS)
def test_it_prints_what_the_run_printed(call: Call, models: Path, name: str) -> None:
    if name == "compare":
        for seed, stem in enumerate(("vanilla", "vanilla-1")):
            copied = models / f"{stem}.pt"
            _with_seed(models / "vanilla.pt", copied, seed)
    for style in FORMATS:
        ran = call(*RUNS[name], *OFF, "--format", style, "--json", "r.json")
        again = call("report", "r.json", "--format", style)
        assert (ran.code, again.code) == (0, 0), again.err
        assert (again.out, again.err) == (ran.out, ran.err)
        assert again.out.strip()
        if style == "json":
            Path("stdout.json").write_text(ran.out)
            assert call("report", "stdout.json", "--format", style).out == ran.out
    if name == "compare":
        document = json.loads(Path("r.json").read_text())
        assert {pair["kind"] for pair in document["pairs"]} == {"samples"}
        assert document["families"]
        assert document["transfer"]


def _with_seed(source: Path, path: Path, seed: int) -> None:
    from dataclasses import replace

    from robustcli.models import checkpoint

    saved = checkpoint.load(source)
    checkpoint.save(path, replace(saved, spec=saved.spec | {"seed": seed}))


def test_a_part_of_a_run_is_reported_without_what_was_left_out(call: Call, models: Path) -> None:
    flags = ("--attack", "fgsm", "--eps", "0.1,0.3", "--until-ci", "20", "--batch-size", "8", "--checks", "off")
    ran = call("evaluate", *flags, "--no-store", "--json", "r.json")
    assert call("report", "r.json").out == ran.out


def test_several_files_follow_each_other(call: Call, here: Path) -> None:
    files = [write(made, f"{name}.json") for name, made in documents().items()]
    apart = [call("report", file, "--format", "markdown") for file in files]
    together = call("report", *files, "--format", "markdown")
    assert together.out == "".join(one.out for one in apart)
    assert together.err == "".join(one.err for one in apart)


def test_nothing_is_printed_where_one_of_the_files_is_none(call: Call, here: Path) -> None:
    ended = call("report", write(documents()["evaluate"]), "missing.json")
    assert (ended.code, ended.out) == (3, "")
    assert ended.error == "error: missing.json: No such file or directory"


@pytest.mark.parametrize("style", ["json", "csv"])
def test_an_invalid_verdict_is_exit_5(call: Call, here: Path, style: str) -> None:
    verdicts = ({"word": "INVALID", "checkpoints": []}, {"word": "RELIABLE", "checkpoints": []}, None)
    bad, good, none = (
        write(documents()["no rows"] | {"verdict": verdict}, f"{i}.json") for i, verdict in enumerate(verdicts)
    )
    codes = [call("report", *files, "--format", style).code for files in ([bad], [good], [none], [none, bad, good])]
    assert codes == [5, 0, 0, 5]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("report",), 2, "report: give a FILE.json, or --store FILE"),
        (("report", "r.json", "--format", "yaml"), 2, "--format 'yaml' is unknown"),
        (("report", "folder"), 3, "folder: "),
        (("report", "pipe"), 3, "pipe: "),
        (("report", "old.json"), 3, "old.json: was written by an earlier version"),
        (("report", "text"), 3, "text: is no JSON"),
        (("report", "row.json"), 3, "row.json: rows[0]: robust: has 1 values for 4 ids"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(call: Call, here: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    good = documents()["attack"]
    write(good)
    write({key: value for key, value in good.items() if key != "command"}, "old.json")
    write(good | {"rows": [good["rows"][0] | {"robust": [1]}]}, "row.json")
    Path("text").write_text("checkpoint,accuracy\n")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    ended = call(*arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.error


# --- What someone altered


CLOSED = ("kind", "bound", "command", "budget", "norm")
"""Keys whose texts no one is free to choose; `norm` is one of three wherever a run wrote it."""


def spoilt(value: Any, key: Any = None) -> Any:
    """The same with something nasty in every text, so that names still agree with each other."""
    if isinstance(value, dict):
        return {name: spoilt(part, name) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [[note[0], spoilt(note[1])] if key == "notes" else spoilt(note, key) for note in value]
    return NASTY + value if isinstance(value, str) and key not in CLOSED else value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where its values are."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("name", documents())
def test_no_text_of_a_file_reaches_the_terminal_raw(call: Call, here: Path, name: str, style: str) -> None:
    ended = call("report", write(spoilt(documents()[name])), "--format", style)
    assert ended.code == 0, ended.err
    assert_harmless(ended.out)
    assert_harmless(ended.err)
    if style == "markdown":
        assert "<script>" not in ended.out
    if style == "latex":
        assert not re.search(r"(?<!\\)[$#_]|\\input", ended.out)


@pytest.mark.parametrize("key", CLOSED)
def test_a_text_that_is_refused_is_not_shown_raw_either(call: Call, here: Path, key: str) -> None:
    good = documents()["attack"]
    row = {key: NASTY} if key in good["rows"][0] else {NASTY: 1}
    ended = call("report", write(good | {"rows": [good["rows"][0] | row]} | ({key: NASTY} if key in good else {})))
    assert ended.code == (0 if key == "norm" else 3)
    assert_harmless(ended.out + ended.err)


ODD = (None, True, 0, -1, 2**70, 10**400, 0.5, 1e308, "", "x", "nan", [], {}, [0], [None], [[]], {"name": "x"})


@pytest.mark.parametrize("name", documents())
def test_an_altered_file_is_one_line_or_a_whole_output(call: Call, here: Path, name: str) -> None:
    """Each key deleted or given a value of another kind, in each format in turn."""
    draw, good, refused = random.Random(name), documents()[name], 0
    whole = {style: call("report", write(good), "--format", style).out for style in FORMATS}
    alike: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for path in places(good):
        alike.setdefault(tuple("" if isinstance(key, int) else key for key in path), []).append(path)
    for i, paths in enumerate(alike.values()):
        path = draw.choice(paths)
        document = copy.deepcopy(good)
        beside, style = parent(document, path), FORMATS[i % len(FORMATS)]
        if i % 3 == 0:
            del beside[path[-1]]
        else:
            beside[path[-1]] = draw.choice(ODD)
        ended = call("report", write(document), "--format", style)
        said = (path, document if len(path) == 1 else beside, ended.err)
        assert "Traceback" not in ended.err, said
        assert ended.code in (0, 3), said
        if ended.code:
            refused += 1
            assert ended.out == "", said
            assert "r.json: " in ended.error, said
        elif style in ("markdown", "latex"):
            assert abs(len(ended.out.splitlines()) - len(whole[style].splitlines())) <= 40, said
        elif style == "json":
            assert json.loads(ended.out) == json.loads(json.dumps(document)), said
    assert refused > len(alike) / 4
