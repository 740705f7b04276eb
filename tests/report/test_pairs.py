from __future__ import annotations

import pytest

from robustcli.attacks import FGSM
from robustcli.fields import Eps
from robustcli.measure.pairs import pairs
from robustcli.measure.record import Row, Subject
from robustcli.report.pairs import pairs_sheet


def row(name: str, robust: str) -> Row:
    return Row(
        subject=Subject(name, "ab12", "mnist-cnn", "vanilla"),
        dataset="mnist",
        attack=FGSM(eps=Eps("8/255")),
        ids=tuple(range(len(robust))),
        robust=tuple(map(int, robust)),
        clean_correct=len(robust),
        median_distance=None,
        by_iter=(),
        seconds=1.0,
        forwards=10,
        backwards=10,
    )


@pytest.mark.parametrize(
    ("robust", "said"),
    [
        ("0" * 20, ("+100.0", "20", "0", "< 0.001", "one is ahead")),
        ("1" * 20, ("+0.0", "0", "0", "1.000", "cannot be told apart at n = 20")),
        (
            "0" * 5 + "1" * 15,
            ("+25.0", "5", "0", "0.062", "cannot be told apart at n = 20; about 29 samples would be needed"),
        ),
    ],
)
def test_only_what_can_be_told_apart_is_ranked(robust: str, said: tuple[str, ...]) -> None:
    groups = [[row("one.pt", "1" * 20)], [row("two.pt", robust)]]
    (line,) = pairs_sheet(pairs(groups), groups).cells
    assert line[:2] == ("one - two", "fgsm Linf 8/255")
    assert (line[2].partition("\n")[0], *line[3:]) == said


def test_whoever_is_ahead_is_named() -> None:
    groups = [[row("one.pt", "0" * 20)], [row("two.pt", "1" * 20)]]
    (line,) = pairs_sheet(pairs(groups), groups).cells
    assert line[-1] == "two is ahead"


def test_many_checkpoints_have_the_pairs_of_the_first_and_the_rest_in_json() -> None:
    groups = [[row(f"{name}.pt", "10")] for name in "abcd"]
    sheet = pairs_sheet(pairs(groups), groups)
    assert [line[0] for line in sheet.cells] == ["a - b", "a - c", "a - d"]
    assert sheet.notes[0] == "The pairs of a; all 6 are in the JSON."
