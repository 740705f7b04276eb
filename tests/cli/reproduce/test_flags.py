"""What `reproduce` is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustcli.studies.batchout import PARTS

from ..conftest import Call


def test_an_unknown_part_is_an_error_that_names_the_nearest(call: Call, here: Path) -> None:
    ended = call("reproduce", "minst")
    assert (ended.code, ended.out) == (2, "")
    assert "reproduce: 'minst' is unknown (allowed: all, " in ended.error
    assert "did you mean 'mnist'" in ended.error
    assert all(part in ended.error for part in PARTS)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stopgrad", "--seeds", "0"], "--seeds 0: should be at least 1"),
        (["stopgrad", "--seeds", "two"], "--seeds two: "),
        (["stopgrad", "--quik"], "no such option --quik; did you mean '--quick'?"),
        ([], "argument"),
        (["stopgrad", "fig1"], "fig1"),
        (["stopgrad", "--quick", "--device", "abacus"], "--device 'abacus' is unknown"),
    ],
)
def test_a_wrong_flag_is_one_line(call: Call, here: Path, arguments: list[str], said: str) -> None:
    ended = call("reproduce", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.error
