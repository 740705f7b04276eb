"""What a run is held against: affine models, the undefended network, other checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustcli.attacks import PGD, parse_attack
from robustcli.attacks.base import Attack
from robustcli.attacks.norms import NORMS
from robustcli.config import DataSpec
from robustcli.data.images import Images
from robustcli.data.load import load
from robustcli.measure.record import Record, Subject
from robustcli.measure.transfer import Transferred
from robustcli.models import checkpoint
from robustcli.testing import tiny_net, tiny_samples
from robustcli.verdict.check import Finding
from robustcli.verdict.controls import (
    UNDEFENDED,
    Setup,
    classes_in_sample,
    self_test,
    transfer_finding,
    transfer_not_better,
    undefended,
    undefended_control,
)
from robustcli.verdict.probes import Measurement

from .conftest import make_row


@pytest.fixture(scope="module")
def digits() -> Images:
    return load(DataSpec(dataset="mnist-sample", limit=24))


def control(images: Images, *specs: str) -> list[Finding]:
    attacks: list[Attack] = list(map(parse_attack, specs))
    return undefended_control(Setup(images, attacks))


def transferred(images: Images, *rows: Record, cells: tuple[Transferred, ...] = ()) -> list[Finding]:
    """R14 of the undefended network, whatever its rows say that it is."""
    return transfer_not_better(Measurement(undefended("mnist")[0], images, rows, transfers=cells))


def test_the_attacks_here_agree_with_the_closed_form_in_each_norm(digits: Images) -> None:
    attacks = [parse_attack(f"pgd:eps=1,norm={norm}") for norm in NORMS]
    assert [finding.level for finding in self_test(Setup(digits, attacks))] == ["OK"] * len(NORMS)


def test_an_attack_that_goes_the_wrong_way_is_invalid(digits: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PGD, "_ascend", lambda self, model, start, x, aim: start)
    (finding,) = self_test(Setup(digits, [PGD(0.1)]))
    assert finding.level == "INVALID"
    assert "off the closed form" in finding.message
    assert "this installation is broken" in finding.message


def test_the_undefended_network_falls_but_to_steps_that_are_too_short(digits: Images) -> None:
    (good,) = control(digits, "fgsm:eps=0.3", "pgd:eps=0.3")
    (short,) = control(digits, "pgd:eps=0.3,steps=2,step_size=0.001,random_start=false")
    assert ((good.level, good.value), short.level) == (("OK", 0), "WARN")


@pytest.mark.parametrize("spec", ["fgsm:eps=0.3", "pgd:eps=0.1", "pgd:eps=2,norm=l2", "square:eps=0.3", "deepfool"])
def test_what_may_leave_something_is_no_control(digits: Images, spec: str) -> None:
    assert control(digits, spec) == []


def test_other_data_sets_have_no_undefended_network(digits: Images) -> None:
    bars = replace(digits, name="bars")
    assert control(bars, "pgd:eps=0.3") == []
    assert transferred(bars, make_row("fgsm:eps=0.3", 24, n=24)) == []


@pytest.mark.parametrize("dataset", UNDEFENDED)
def test_an_undefended_network_is_one_of_its_data_set(dataset: str) -> None:
    saved = checkpoint.load(UNDEFENDED[dataset])
    assert saved.data["name"] == dataset.removesuffix("-sample")
    assert saved.spec["method"] == {"name": "vanilla"}


@pytest.mark.parametrize(("own", "other", "level"), [(95, 94, "OK"), (40, 60, "OK"), (98, 58, "SUSPECT")])
def test_images_of_another_network_must_not_be_better(own: int, other: int, level: str) -> None:
    row = make_row("fgsm:eps=0.3", own)
    finding = transfer_finding(row, range(100), [1] * other + [0] * (100 - other))
    assert finding.level == level


def test_a_row_that_its_own_gradient_cannot_explain_is_suspect(digits: Images) -> None:
    blind = make_row("fgsm:eps=0.3", 24, n=24)  # says that FGSM breaks nothing
    assert [finding.level for finding in transferred(digits, blind)] == ["SUSPECT"]
    itself = replace(blind, subject=Subject("a.pt", undefended("mnist")[1], "mnist-cnn", "vanilla"))
    assert transferred(digits, itself) == []
    assert transferred(digits, make_row("fgsm:eps=0.4", 24, n=24)) == []


def test_images_of_another_checkpoint_that_break_more_than_its_own_are_suspect(digits: Images) -> None:
    bars, other = replace(digits, name="bars"), Subject("b.pt", "b" * 64, "mnist-cnn", "vanilla")
    rows = [make_row("pgd:eps=0.3", 20, n=24), make_row("pgd:eps=0.4", 20, n=24)]
    cells = tuple(
        Transferred(make_row(spec, 20, n=30, subject=source), rows[0].subject, (1,) * 8 + (0,) * 22)
        for spec in ("pgd:eps=0.3", "pgd:eps=0.4")
        for source in (rows[0].subject, other)
    )
    (finding,) = transferred(bars, *rows, cells=cells)  # its own images, and budgets above the usual, do not count
    assert (finding.id, finding.level) == ("R14", "SUSPECT")
    assert "pgd:steps=20 at Linf 0.3 leaves 20 of 24; its images of b.pt leave 8" in finding.message
    assert transferred(bars, cells=cells) == []


@pytest.mark.parametrize(
    ("counts", "population", "level"),
    [
        ((30, 30, 30), (), "OK"),
        ((90, 0, 0), (), "WARN"),
        ((60, 30, 0), (), "WARN"),
        ((0, 0, 1), (300, 300, 300), "WARN"),
        ((34, 28, 28), (300, 300, 300), "OK"),
        ((88, 1, 1), (300, 300, 300), "WARN"),
        ((81, 5, 4), (900, 50, 50), "OK"),
        ((30, 30, 30), (900, 50, 50), "OK"),
        ((20, 20, 50), (900, 50, 50), "WARN"),
    ],
    ids=str,
)
def test_a_sample_holds_the_classes_in_about_their_shares(
    counts: tuple[int, ...], population: tuple[int, ...], level: str
) -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    x = tiny_samples(tiny_net(), 1).x.float().expand(len(labels), -1, -1, -1)
    images = Images((255 * x).to(torch.uint8), labels, torch.arange(len(labels)), ("a", "b", "c"), "tiny", "tiny/test")
    measured = Measurement(tiny_net().float(), replace(images, population=population), [])
    assert [finding.level for finding in classes_in_sample(measured)] == [level]
