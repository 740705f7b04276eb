"""Models whose robust set is known on paper."""

import numpy as np
import pytest
import torch
from torch import nn

from robustcli.attacks import FAB, FABT, FGSM, FMN, PGD, Bisection, CarliniWagner, DeepFool
from robustcli.attacks.deepfool import BEYOND
from robustcli.attacks.norms import NORMS
from robustcli.engine.run import Samples, run_attack
from robustcli.noise import Noise
from robustcli.testing import boundary_distance, linear_model, linear_samples

from .conftest import box_optimum

norms = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
EPS = {"linf": 0.1, "l2": 0.6, "l1": 0.15}


SLACK = {"fmn": (1.25, 1.01), "fab": (1.02, 1.01), "bisect": (1.4, 1.05), "cw": (1.7, 1.02)}
"""The largest ratio to the optimum of any sample, and of half of them; all but FAB can settle for the second class."""


def wide_linear_model(classes=4):
    """A linear model of several classes on images of which many pixels are black or white."""
    ids = torch.arange(classes)
    model = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 16, classes, dtype=torch.float64))
    with torch.no_grad():
        model[1].weight.copy_(Noise(1, ids).normal(torch.empty(classes, 16, dtype=torch.float64)))
        model[1].bias.zero_()
    x = (Noise(2, torch.arange(24)).uniform(torch.empty(24, 1, 4, 4, dtype=torch.float64)) * 1.8 - 0.4).clamp(0, 1)
    return model, Samples(x, model(x).argmax(1), torch.arange(24))


@norms
@pytest.mark.parametrize("attack", [FGSM, PGD])
@pytest.mark.parametrize("share", [0.5, 0.95, 1.02, 2.0])
def test_a_sample_is_robust_exactly_where_its_boundary_is_farther_than_eps(attack, norm, share):
    eps = EPS[norm.name]
    model = linear_model(norm)
    samples = linear_samples(model, norm, [share * eps])
    assert run_attack(model, attack(eps=eps, norm=norm), samples)[0].robust.tolist() == [share > 1] * 2


@norms
@pytest.mark.parametrize("box", ["project", "clip", "none"])
@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.5])
def test_deepfool_ends_just_behind_the_boundary(norm, box, overshoot):
    model = linear_model(norm)
    samples = linear_samples(model, norm, [0.02, 0.1, 0.2])
    outcome = run_attack(model, DeepFool(box=box, norm=norm, overshoot=overshoot), samples)[0]
    optimum = boundary_distance(model, norm, samples)
    assert not outcome.robust.any()
    assert (outcome.distance > optimum * (1 - 1e-6)).all()
    assert (outcome.distance < (1 + overshoot) * (optimum + BEYOND) * (1 + 1e-6)).all()


@norms
def test_deepfool_inside_the_box_is_the_box_optimum_over_all_classes(norm):
    model, samples = wide_linear_model()
    outcome = run_attack(model, DeepFool(norm=norm), samples)[0]
    weight = model[1].weight.detach().numpy()
    for x, y, distance in zip(samples.x.flatten(1).numpy(), samples.y, outcome.distance, strict=True):
        normals = weight[y] - np.delete(weight, y, 0)
        dual = [np.linalg.norm(w, {"linf": 1, "l2": 2, "l1": np.inf}[norm.name]) for w in normals]
        optimum = min(box_optimum(norm, -w, w @ x, -x, 1 - x) for w in normals)
        beyond = zip(normals, dual, strict=True)
        aim = min(box_optimum(norm, -w, w @ x + BEYOND * size, -x, 1 - x) for w, size in beyond)
        assert optimum * 0.999 < distance < aim * 1.0201


def minimal_attacks(norm):
    attacks = [FMN(iters=60, norm=norm), FAB(iters=20, norm=norm), Bisection(PGD(0.3, norm=norm, steps=15))]
    if norm.name == "l2":
        attacks.append(CarliniWagner(steps=200, binary_search_steps=6, lr=0.1, initial_const=1))
    return attacks


@norms
def test_inside_the_box_distances_are_close_to_the_optimum_over_all_classes_and_never_below(norm):
    model, samples = wide_linear_model()
    weight = model[1].weight.detach().numpy()
    optimum = torch.tensor(
        [
            min(box_optimum(norm, -w, w @ x, -x, 1 - x) for w in weight[y] - np.delete(weight, y, 0))
            for x, y in zip(samples.x.flatten(1).numpy(), samples.y, strict=True)
        ]
    )
    for attack in minimal_attacks(norm):
        ratio = run_attack(model, attack, samples)[0].distance / optimum
        allowed, usual = SLACK[attack.name]
        assert 0.9999 < float(ratio.min()) <= float(ratio.max()) < allowed, attack
        assert float(ratio.median()) < usual, attack


@norms
@pytest.mark.parametrize("targets", [1, 3])
def test_fab_t_breaks_exactly_the_samples_that_fab_breaks_within_eps(norm, targets):
    model, samples = wide_linear_model()
    distance = run_attack(model, FAB(iters=6, targets=targets, norm=norm), samples)[0].distance
    eps = float(distance.double().median()) * 1.0001
    outcome = run_attack(model, FABT(eps, iters=6, targets=targets, norm=norm), samples)[0]
    assert torch.equal(outcome.robust, distance > eps)
    assert 0 < int(outcome.robust.sum()) < len(samples)


@norms
def test_a_boundary_outside_the_box_leaves_the_sample_robust_and_the_image_valid(norm):
    model = linear_model(norm)
    with torch.no_grad():
        model[1].bias[1] += 100
    samples = Samples(linear_samples(model, norm, [0.1]).x, torch.ones(2).long(), torch.arange(2))
    deepfool = DeepFool(norm=norm, iters=3)
    for attack in (*minimal_attacks(norm), deepfool):
        outcome = run_attack(model, attack, samples, keep_images=True)[0]
        assert outcome.robust.all()
        assert outcome.distance.isinf().all()
        assert outcome.x_adv.min() >= 0
        assert outcome.x_adv.max() <= 1
        assert attack is deepfool or torch.equal(outcome.x_adv, samples.x.float())


@norms
@pytest.mark.parametrize("eps", [0.001, 0.04, 1.0])
def test_bisection_finds_the_distance_wherever_it_starts(norm, eps):
    model = linear_model(norm)
    samples = linear_samples(model, norm, [0.0113, 0.1037, 0.2741])  # none is a budget that is tried: no ties
    attack = PGD(eps, steps=3, norm=norm, random_start=False, early_stop=False)
    ratio = run_attack(model, Bisection(attack, steps=5), samples)[0].distance / boundary_distance(model, norm, samples)
    assert 0.9999 < float(ratio.min()) <= float(ratio.max()) <= 1 + 2**-5


def test_only_without_a_box_is_the_boundary_outside_reached():
    model = linear_model(NORMS["l2"])
    with torch.no_grad():
        model[1].bias[1] += 10
    samples = Samples(torch.full((1, 1, 8, 8), 0.5).double(), torch.ones(1).long(), torch.zeros(1).long())
    robust = {box: bool(run_attack(model, DeepFool(box=box), samples)[0].robust) for box in ("project", "clip", "none")}
    assert robust == {"project": True, "clip": True, "none": False}
