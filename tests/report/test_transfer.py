from __future__ import annotations

import pytest

from robustcli.attacks import FGSM, PGD, Attack
from robustcli.fields import Eps
from robustcli.measure.record import Row, Subject
from robustcli.measure.transfer import Transferred
from robustcli.report.tables import to_rich, to_text
from robustcli.report.transfer import transfer_sheets

SUBJECTS = [Subject(f"runs/mnist-{name}.pt", name, "mnist-cnn", name) for name in ("vanilla", "fgsm")]
ATTACKS: list[Attack] = [FGSM(Eps("8/255")), PGD(0.3)]
FLAGS = {(0, 0): (1, 0, 0, 0), (0, 1): (1, 0, 0, 0), (1, 0): (1, 1, 0, 0), (1, 1): (1, 1, 1, 0)}


def cell(source: int, target: int, attack: Attack) -> Transferred:
    return Transferred(SUBJECTS[source], SUBJECTS[target], attack, (0, 1, 2, 3), FLAGS[source, target])


def row(i: int, attack: Attack) -> Row:
    return Row(SUBJECTS[i], "mnist", attack, (0, 1, 2, 3), FLAGS[i, i], 4, None, (), 1.0, 1, 1)


GROUPS = [[row(i, attack) for attack in ATTACKS] for i in (0, 1)]
CELLS = [cell(*places, attack) for attack in ATTACKS for places in FLAGS]


def test_a_sheet_for_each_attack_has_a_source_a_row_and_a_target_a_column() -> None:
    sheets = transfer_sheets(CELLS, GROUPS)
    assert [sheet.title for sheet in sheets] == ["Transfer: fgsm Linf 8/255", "Transfer: pgd:steps=20 Linf 0.3"]
    for sheet in sheets:
        assert sheet.headers == ("made on", "vanilla\nasked", "fgsm\nasked")
        assert sheet.cells == (("vanilla", "25.0", "25.0"), ("fgsm", "50.0", "75.0"))


def test_what_only_another_models_images_break_is_told() -> None:
    first, *_ = transfer_sheets(CELLS, GROUPS)
    told = "fgsm: images made on vanilla break 2 of 4 samples that its own attack left standing."
    assert first.notes[:-1] == (told,)


def test_what_an_interrupted_run_did_not_come_to_is_a_dash() -> None:
    (sheet,) = transfer_sheets([cell(0, 0, ATTACKS[0]), cell(0, 1, ATTACKS[0])], GROUPS[:1])
    assert sheet.cells[1] == ("runs/mnist-fgsm.pt", "-", "-")


@pytest.mark.parametrize("style", ["markdown", "latex"])
def test_every_format_takes_the_sheets(style: str) -> None:
    (first, *_) = transfer_sheets(CELLS, GROUPS)
    assert "75.0" in to_text(first, style)
    assert to_rich(first, 80)
