"""The document in a file: what was written is read, and whatever else lies there is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from robustcli.errors import DataError
from robustcli.measure.document import make_document, read_document, records_of

from ..records import documents, record


@pytest.mark.parametrize("name", documents())
def test_what_was_written_is_read(name: str, tmp_path: Path) -> None:
    made = documents()[name]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(made, allow_nan=False))
    assert read_document(path) == json.loads(json.dumps(made))
    assert [one.as_dict() for one in records_of(read_document(path))] == made["rows"]


def test_what_was_not_asked_for_has_no_key_and_an_interrupted_run_may_have_no_rows() -> None:
    keys = {"schema", "command", "rows", "pairs", "verdict", "notes", "provenance"}
    assert make_document("evaluate", [], {"seed": 0}).keys() == keys
    more = make_document("evaluate", [], {}, curves=[{}], anytime={"left_out": []}, transfer=[{}], families=[{}])
    assert more.keys() - keys == {"curves", "anytime", "transfer", "families"}


GOOD = json.loads(json.dumps(make_document("evaluate", [record()], {})))
ROW = GOOD["rows"][0]


def with_row(**changes: Any) -> str:
    return json.dumps(GOOD | {"rows": [ROW, ROW | changes]})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        *[
            ("", "is no JSON; should be what --json or --format json wrote"),
            ("{", "is no JSON"),
            (b"\xff\xfe", "is no JSON"),
        ],
        *[("[" * 100_000, "is no JSON"), ('{"a":' * 100_000, "is no JSON"), ("9" * 5000, "is no JSON")],
        *[("[]", "is no result"), ("3", "is no result"), ("{}", "is no result"), ('{"rows": {}}', "is no result")],
        *[('{"rows": []}', "is of schema None; this version reads 1")],
        *[(json.dumps(GOOD | {"schema": other}), f"is of schema {other!r}; ") for other in (2, "1")],
        (
            '{"schema": 1, "rows": [], "pairs": [], "verdict": null, "provenance": {}}',
            "was written by an earlier version",
        ),
        *[(json.dumps(GOOD | {"command": name}), "command: ") for name in ("train", None, [])],
        *[
            (json.dumps({k: v for k, v in GOOD.items() if k != key}), f"{key}: ")
            for key in ("pairs", "verdict", "notes")
        ],
        *[(json.dumps(GOOD | {"pairs": [{"kind": kind}]}), "pairs.0") for kind in ("samples", "seeds", "odd")],
        *[(json.dumps(GOOD | {"notes": notes}), "notes") for notes in (3, [1], [["notice"]], [["notice", 1]])],
        *[(json.dumps(GOOD | {"verdict": verdict}), "verdict") for verdict in ("INVALID", [], {}, {"word": 1})],
        *[(json.dumps(GOOD | {"curves": curves}), "curves") for curves in (3, [1], [{}])],
        *[(json.dumps(GOOD | {"rows": [ROW, row]}), r"rows\[1\]: should be an object") for row in (None, [], "x")],
        *[(with_row(robust=[1]), r"rows\[1\]: robust: has 1 values"), (with_row(budget="x"), r"rows\[1\]: budget: ")],
        *[(with_row().replace('"seconds": 2.04', f'"seconds": {odd}'), "is no JSON") for odd in ("NaN", "-Infinity")],
        (with_row().replace('"seconds": 2.04', '"seconds": 1e999'), r"rows\[0\]: seconds: "),
    ],
)
def test_what_is_no_document_is_one_line(content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"r.json: {told}") as caught:
        read_document(path)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (3, False)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "nul"])
def test_what_is_no_file_is_one_line_and_no_pipe_is_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a\0b" if kind == "nul" else kind)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(DataError) as caught:
        read_document(path)
    assert "\n" not in str(caught.value)
