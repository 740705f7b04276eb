"""Images made on one model, asked of another: what comes out is known for linear models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustcli.attacks import attack_from, parse_attack
from robustcli.config import EvalSpec
from robustcli.engine.run import Samples, run_attack
from robustcli.measure.evaluate import evaluate
from robustcli.measure.record import Record
from robustcli.measure.session import Session, open_session
from robustcli.measure.transfer import Matrix, Transferred, transfer

from ..records import record

N, PIXELS = 40, 6
FGSM = parse_attack("fgsm:eps=0.1")


class Linear(nn.Module):
    """Two classes on either side of a plane through the middle of the box."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        normal = torch.randn(PIXELS, generator=torch.Generator().manual_seed(seed))
        self.normal = nn.Parameter(normal)
        self.dropout = nn.Dropout(0.5)

    def margin(self, x: Tensor) -> Tensor:
        """(n,), above 0 where the class is 0."""
        return (x.flatten(1) - 0.5) @ self.normal

    def forward(self, x: Tensor) -> Tensor:
        margin = self.dropout(self.margin(x))
        return torch.stack([margin, -margin], dim=1)


@dataclass(frozen=True)
class Case:
    source: Linear
    target: Linear
    samples: Samples


@pytest.fixture
def case() -> Case:
    """Samples so far inside the box that no budget here leaves it; each model is wrong on some."""
    x = 0.3 + 0.4 * torch.rand(N, 1, 2, 3, generator=torch.Generator().manual_seed(3))
    source, target = Linear(1), Linear(2)
    y = (torch.arange(N) % 4 == 0).long()
    y[: N // 2] = (target.margin(x[: N // 2]) < 0).long()
    return Case(source, target, Samples(x, y, torch.arange(N)))


def expected(case: Case, eps: float) -> tuple[Tensor, Tensor]:
    """Before and after, from the planes: a step of FGSM on the source is -eps sign(normal) for class 0."""
    sign = 1 - 2 * case.samples.y
    with torch.no_grad():
        right = sign * case.source.margin(case.samples.x) > 0
        before = sign * case.target.margin(case.samples.x)
        moved = eps * (case.target.normal @ case.source.normal.sign())
        after = torch.where(right, before - moved, before)
    return before > 0, (before > 0) & (after > 0)


@pytest.mark.parametrize("eps", ["0.02", "0.1", "0.3"])
@pytest.mark.parametrize("batch_size", [7, 128])
def test_what_a_step_on_one_plane_does_to_another_is_known(case: Case, eps: str, batch_size: int) -> None:
    attack = parse_attack("fgsm", {"eps": eps})
    clean, robust = transfer(case.source, case.target, attack, case.samples, batch_size=batch_size)
    before, after = expected(case, float(eps))
    assert torch.equal(clean, before)
    assert torch.equal(robust, after)


def test_planes_at_right_angles_take_nothing_from_each_other(case: Case) -> None:
    with torch.no_grad():
        case.source.normal.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
        case.target.normal.fill_(1.0)
    clean, robust = transfer(case.source, case.target, FGSM, case.samples)
    assert torch.equal(clean, robust)


@pytest.mark.parametrize("spec", ["fgsm:eps=0.1", "pgd:eps=0.1,steps=3", "deepfool"])
def test_a_model_asked_of_itself_is_attacked_as_ever(case: Case, spec: str) -> None:
    attack = parse_attack(spec)
    clean, robust = transfer(case.target, case.target, attack, case.samples, seed=4)
    (outcome,) = run_attack(case.target, attack, case.samples, seed=4)
    assert torch.equal(clean, outcome.clean)
    assert torch.equal(robust, outcome.robust)


def test_what_the_target_gets_wrong_is_never_robust(case: Case) -> None:
    """Even where an image made on the source moves it to the right side."""
    with torch.no_grad():
        case.target.normal.copy_(-case.source.normal)  # a step against the source helps the target
    clean, robust = transfer(case.source, case.target, parse_attack("fgsm:eps=0.5"), case.samples)
    assert not clean.all()
    assert not (robust & ~clean).any()


@pytest.mark.parametrize("training", [True, False])
def test_both_models_are_left_as_they_were(case: Case, training: bool) -> None:
    models = (case.source, case.target)
    for model in models:
        model.train(training)
    before = [model.normal.detach().clone() for model in models]
    images, state = case.samples.x.clone(), torch.get_rng_state()
    first, second = (transfer(*models, FGSM, case.samples) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True)), "dropout is off"
    for model, normal in zip(models, before, strict=True):
        assert [module.training for module in model.modules()] == [training] * 2
        assert torch.equal(model.normal, normal)
        assert model.normal.requires_grad
        assert model.normal.grad is None
    assert torch.equal(case.samples.x, images)
    assert torch.equal(torch.get_rng_state(), state)


# --- The matrix


@dataclass(frozen=True)
class Crossed:
    session: Session
    rows: list[Record]
    matrix: Matrix
    asked: list[int]


@pytest.fixture(scope="module")
def crossed(checkpoints: tuple[Path, Path]) -> Crossed:
    spec = EvalSpec(attacks=("fgsm", "autoattack:rounds=2,queries=3,eps=0.1", "deepfool:iters=1"), eps=("0.05", "0.2"))
    session = open_session(checkpoints, spec.model_copy(update={"limit": 20}))
    matrix, rows, asked = Matrix(session), [], []
    for result in evaluate(session, keep_images=True):
        rows.append(result.record)
        asked += matrix.take(result)
    return Crossed(session, rows, matrix, asked)


def test_every_model_is_asked_of_the_images_of_every_budget_attack(crossed: Crossed) -> None:
    cells = crossed.matrix.cells
    names = [(Path(c.source.checkpoint).name, Path(c.target.checkpoint).name, c.record.attack["name"]) for c in cells]
    pairs = [("a.pt", "a.pt"), ("a.pt", "b.pt"), ("b.pt", "a.pt"), ("b.pt", "b.pt")]
    assert sorted(names) == sorted((*pair, attack) for pair in pairs for attack in ("fgsm", "fgsm", "autoattack"))


def test_the_diagonal_is_the_models_own_attack(crossed: Crossed) -> None:
    own = {(row.subject, row.setting): row.robust for row in crossed.rows if row.ensemble is None}
    for cell in crossed.matrix.cells:
        if cell.source == cell.target:
            assert cell.robust == own[cell.target, cell.record.setting]


def test_a_cell_is_what_a_transfer_alone_gives(crossed: Crossed) -> None:
    models = {item.subject: item.target.module for item in crossed.session.items}
    images = crossed.session.items[0].images
    samples = Samples(images.batch(slice(None)), images.y, images.ids)
    for cell in crossed.matrix.cells:
        if cell.record.label == "fgsm":
            attack = attack_from(cell.record.attack, cell.record.budget)
            _, robust = transfer(models[cell.source], models[cell.target], attack, samples)
            assert cell.robust == tuple(robust.int().tolist())
            assert cell.record.ids == tuple(images.ids.tolist())


def test_what_is_asked_adds_up_to_the_total(crossed: Crossed) -> None:
    assert sum(crossed.asked) == crossed.matrix.total


def test_cells_are_json_with_what_only_they_break(crossed: Crossed) -> None:
    own = {(row.subject.checkpoint, row.eps): row for row in crossed.rows if row.label == "fgsm"}
    for cell in json.loads(json.dumps(crossed.matrix.as_dicts(crossed.rows), allow_nan=False)):
        assert cell["correct"] == sum(cell["robust"])
        if cell["attack"]["name"] == "fgsm":
            stood = own[cell["target"], cell["eps"]].robust
            broken = [i for i, a, b in zip(cell["ids"], stood, cell["robust"], strict=True) if a > b]
            assert cell["broken_beyond"] == broken
        if cell["source"] == cell["target"]:
            assert cell["broken_beyond"] == []


def test_what_another_models_images_break_and_the_own_attack_does_not_is_named() -> None:
    own, other = record(robust="1100", ids=(7, 8, 9, 10), name="b.pt"), record(ids=(7, 8, 9, 10), name="a.pt")
    cell = Transferred(other, own.subject, (1, 0, 1, 0))
    assert cell.as_dict(own)["broken_beyond"] == [8]
    assert cell.as_dict(None)["broken_beyond"] == [], "an interrupted run has no record to compare with"
