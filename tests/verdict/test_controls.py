"""What a run is held against: affine models, the undefended network, other checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustcli.attacks import PGD, parse_attack
from robustcli.attacks.norms import NORMS
from robustcli.config import DataSpec
from robustcli.data.load import load
from robustcli.engine.run import Samples
from robustcli.measure.pairs import pairs
from robustcli.measure.record import Subject
from robustcli.measure.transfer import Transferred
from robustcli.models import checkpoint
from robustcli.verdict.controls import (
    UNDEFENDED,
    control,
    controlled,
    self_test,
    transfer_finding,
    transferred,
    undefended,
)
from robustcli.verdict.paired import comparison, effort, judge_cells, judge_pairs, threat_model

from .conftest import last, make_row

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def digits() -> Samples:
    images = load(DataSpec(dataset="mnist-sample", limit=24))
    return Samples(images.pixels(slice(None)), images.y, images.ids)


@pytest.mark.parametrize("norm", NORMS.values(), ids=lambda norm: norm.label)
def test_the_attacks_here_agree_with_the_closed_form(norm: object) -> None:
    (finding,) = self_test([norm])  # type: ignore[list-item]
    assert finding.level == "OK", finding


def test_an_attack_that_goes_the_wrong_way_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PGD, "_ascend", lambda self, model, start, x, aim: start)
    (finding,) = self_test([NORMS["linf"]])
    assert finding.level == "INVALID"
    assert "off the closed form" in finding.message
    assert "this installation is broken" in finding.message


def test_a_good_attack_breaks_the_undefended_network(digits: Samples) -> None:
    (finding,) = control("mnist", digits, [parse_attack("fgsm:eps=0.3"), parse_attack("pgd:eps=0.3")], seed=0)
    assert (finding.level, finding.value) == ("OK", 0)


def test_an_attack_with_steps_too_short_leaves_the_undefended_network_standing(digits: Samples) -> None:
    (finding,) = control("mnist", digits, [parse_attack("pgd:eps=0.3,steps=2,step_size=0.001,random_start=false")], 0)
    assert finding.level == "WARN"


@pytest.mark.parametrize("spec", ["fgsm:eps=0.3", "pgd:eps=0.1", "pgd:eps=2,norm=l2", "square:eps=0.3", "deepfool"])
def test_what_may_leave_something_is_no_control(digits: Samples, spec: str) -> None:
    assert control("mnist", digits, [parse_attack(spec)], 0) == []


def test_data_sets_of_the_zoo_have_an_undefended_network() -> None:
    sample = load(DataSpec(dataset="mnist-sample", limit=1))
    assert controlled(sample)
    assert controlled(replace(sample, name="cifar10"))
    assert not controlled(replace(sample, name="bars"))


@pytest.mark.parametrize("dataset", UNDEFENDED)
def test_an_undefended_network_is_one_of_its_data_set(dataset: str) -> None:
    saved = checkpoint.load(UNDEFENDED[dataset])
    assert saved.data["name"] == dataset.removesuffix("-sample")
    assert saved.spec["method"] == {"name": "vanilla"}


@pytest.mark.parametrize(("own", "other", "level"), [(95, 94, "OK"), (40, 60, "OK"), (98, 58, "SUSPECT")])
def test_images_of_another_network_must_not_be_better(own: int, other: int, level: str) -> None:
    row = make_row("fgsm:eps=0.3", own)
    finding = transfer_finding("Linf 0.3", row, range(100), [1] * other + [0] * (100 - other))
    assert finding.level == level


def test_a_row_that_its_own_gradient_cannot_explain_is_suspect(digits: Samples) -> None:
    blind = make_row("fgsm:eps=0.3", 24, n=24)  # says that FGSM breaks nothing
    found = transferred("mnist", undefended("mnist")[0], digits, torch.arange(24), [blind], seed=0)
    assert [finding.level for finding in found] == ["SUSPECT"]
    itself = replace(blind, subject=Subject("a.pt", undefended("mnist")[1], "mnist-cnn", "vanilla"))
    assert transferred("mnist", undefended("mnist")[0], digits, torch.arange(24), [itself], seed=0) == []
    assert (
        transferred("mnist", undefended("mnist")[0], digits, torch.arange(24), [make_row("fgsm:eps=0.4", 24, n=24)], 0)
        == []
    )


def test_two_checkpoints_that_cannot_be_told_apart_are_not_ranked() -> None:
    other = Subject("b.pt", "b" * 64, "mnist-cnn", "vanilla")
    a, b = make_row("pgd:eps=0.1", 50), make_row("pgd:eps=0.1", 52, subject=other)
    near = pairs([[a], [b]])
    (far,) = pairs([[a], [make_row("pgd:eps=0.1", 90, subject=other)]])
    assert (comparison(near[0]).level, comparison(far).level) == ("INFO", "OK")
    assert {name: [one.id for one in found] for name, found in judge_pairs(near).items()} == {
        "a.pt": ["R21", "R19", "R20"],
        "b.pt": ["R21", "R19", "R20"],
    }


def test_unequal_effort_is_told_and_unequal_threat_models_are_invalid() -> None:
    a, b = make_row("pgd:eps=0.1", 50), make_row("pgd:eps=0.1", last(50))
    assert (effort(a, b).level, threat_model(a, b).level) == ("OK", "OK")
    assert effort(a, replace(b, forwards=100)).level == "INFO"
    finding = threat_model(a, make_row("pgd:eps=0.2", 50))
    assert (finding.level, "eps 0.1 and 0.2" in finding.message) == ("INVALID", True)


def test_images_of_another_checkpoint_that_break_more_than_its_own_are_suspect() -> None:
    other = Subject("b.pt", "b" * 64, "mnist-cnn", "vanilla")
    rows = [make_row("pgd:eps=0.3", 80), make_row("pgd:eps=0.3", 40, subject=other), make_row("pgd:eps=0.4", 80)]
    cells = [
        Transferred(source, row.subject, row.attack, row.ids, (1,) * 50 + (0,) * 50)
        for row in rows
        for source in (rows[0].subject, other)
    ]
    found = judge_cells(cells, rows, SHAPE)
    assert {name: [(one.id, one.level) for one in told] for name, told in found.items()} == {
        "a.pt": [("R14", "SUSPECT")],
        "b.pt": [("R14", "OK")],
    }, "one's own images and budgets above the usual do not count"
    assert "pgd:steps=20 at Linf 0.3 leaves 80 of 100; its images of b.pt leave 50" in found["a.pt"][0].message
    assert judge_cells(cells, [], SHAPE) == {}
