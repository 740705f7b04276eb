import itertools

import pytest
import torch

import robustcli.attacks.hopskipjump as module
from robustcli.attacks import DeepFool, HopSkipJump
from robustcli.attacks.losses import is_right
from robustcli.engine.run import Samples, run_attack
from robustcli.noise import Noise
from robustcli.testing import boundary_distance, linear_model, linear_samples

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
QUICK = {"iters": 4, "directions": 40}


def trace(attack, model, samples):
    return list(attack.trace(model, samples.x, samples.y, Noise(0, samples.ids)))


def only(label):
    """A model that always says `label`."""
    return lambda x: torch.zeros(len(x), 3, dtype=x.dtype).index_fill(1, torch.tensor(label), 1.0)


@norms
def test_on_a_linear_model_it_comes_close_to_the_boundary(norm):
    attack = HopSkipJump(iters=12, norm=norm)
    model = linear_model(attack.norm)
    samples = linear_samples(model, attack.norm, [0.05, 0.2])
    outcome = run_attack(model, attack, samples)[0]
    ratio = outcome.distance / boundary_distance(model, attack.norm, samples)
    assert not outcome.robust.any()
    assert (ratio > 1).all()
    assert (ratio < 1.1).all()


@norms
def test_it_comes_as_close_as_deepfool_without_a_gradient(net, samples, norm):
    found = [run_attack(net, a, samples)[0] for a in (HopSkipJump(iters=12, norm=norm), DeepFool(norm=norm))]
    ours, deepfool = (outcome.distance[outcome.clean] for outcome in found)
    assert found[0].backwards == 0
    assert float((ours / deepfool).median()) < 1.1


@norms
def test_the_closest_image_only_comes_closer_and_stays_misclassified(net, samples, norm):
    attack = HopSkipJump(norm=norm, **QUICK)
    started = (trace(attack, net, samples)[0] != samples.x).flatten(1).any(1)
    assert int(started.sum()) >= 8
    distances = []
    for x_adv in trace(attack, net, samples):
        assert not is_right(net(x_adv), samples.y)[started].any()
        distances.append(attack.norm.distance(x_adv, samples.x)[started])
    assert len(distances) == 4
    assert all((after <= before).all() for before, after in itertools.pairwise(distances))
    assert int((distances[-1] < distances[0]).sum()) >= 7


def test_fewer_iterations_are_the_beginning_of_more(net, samples):
    long, short = (trace(HopSkipJump(iters=n, directions=20), net, samples) for n in (4, 2))
    assert all(torch.equal(a, b) for a, b in zip(long, short, strict=False))


@pytest.mark.parametrize("rows", [64, 100, 10_000])  # one sample's directions, some samples', all
def test_how_many_images_a_call_takes_changes_nothing(net, samples, monkeypatch, rows):
    attack = HopSkipJump(iters=2, directions=150)
    expected = trace(attack, net, samples)[-1]
    monkeypatch.setattr(module, "ROWS", rows)
    assert torch.allclose(trace(attack, net, samples)[-1], expected, rtol=0, atol=1e-9)


def test_a_call_takes_no_more_images_than_it_may(net, samples):
    sizes = []

    def counting(x):
        sizes.append(len(x))
        return net(x)

    trace(HopSkipJump(iters=2, directions=150), counting, samples)
    assert max(sizes) == module.ROWS


def test_directions_grow_with_the_root_of_the_iteration(net, samples):
    one = samples[:1]
    forwards = [run_attack(net, HopSkipJump(iters=iters, directions=1000), one)[0].forwards for iters in (1, 4)]
    growth = 1000 * (2**0.5 + 3**0.5 + 2)
    assert growth < forwards[1] - forwards[0] < growth + 3 * 60


def test_a_sample_without_a_start_is_left_as_it_is_and_costs_its_tries():
    samples = Samples(torch.full((2, 1, 8, 8), 0.5), torch.zeros(2).long(), torch.arange(2))
    calls = []

    def never_wrong(x):
        calls.append(len(x))
        return only(0)(x)

    assert trace(HopSkipJump(tries=7), never_wrong, samples) == []
    assert sum(calls) == 2 * (1 + 7)
    x_adv = HopSkipJump(tries=7).perturb(never_wrong, samples.x, samples.y, Noise(0, samples.ids))
    assert torch.equal(x_adv, samples.x)
    assert x_adv.data_ptr() != samples.x.data_ptr()


def test_a_sample_without_a_start_changes_no_other(net, samples):
    def hard_on_the_first_class(x):
        logits = net(x)
        return logits + 100 * torch.eye(3, dtype=x.dtype)[0] * (logits.argmax(1) == 0)[:, None]

    attack = HopSkipJump(tries=1, **QUICK)
    together = trace(attack, hard_on_the_first_class, samples)[-1]
    moved = (together != samples.x).flatten(1).any(1)
    right = is_right(net(samples.x), samples.y)
    assert (right & ~moved).any(), "some have no start"
    alone = trace(attack, hard_on_the_first_class, samples[moved.nonzero()[:, 0]])[-1]
    assert torch.allclose(together[moved], alone, rtol=0, atol=1e-9)


def test_coarser_noise_finds_a_start_where_fine_noise_is_all_one_class():
    def sees_the_mean_of_corners(x):
        corner = x[:, :, :4, :4].mean((1, 2, 3))
        return torch.stack((torch.full_like(corner, 0.7), corner), 1)

    samples = Samples(torch.full((20, 1, 8, 8), 0.2), torch.zeros(20).long(), torch.arange(20))
    fine = Noise(0, samples.ids).uniform(samples.x)
    assert is_right(sees_the_mean_of_corners(fine), samples.y).all()
    x_adv = HopSkipJump(iters=1).perturb(sees_the_mean_of_corners, samples.x, samples.y, Noise(0, samples.ids))
    assert not is_right(sees_the_mean_of_corners(x_adv), samples.y).any()


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_coarse_noise_has_one_value_a_block_and_covers_the_image(side):
    image = module._blocks(torch.empty(3, 2, 9, 11), side, Noise(0, torch.arange(3)))
    assert image.shape == (3, 2, 9, 11)
    assert len(image[0, 0].unique()) == -(-9 // side) * -(-11 // side)
    assert torch.equal(image[:, :, 0, 0], image[:, :, min(side, 9) - 1, min(side, 11) - 1])


def test_gradients_stay_on_between_two_iterates(net, samples):
    for _ in HopSkipJump(**QUICK).trace(net, samples.x, samples.y, Noise(0, samples.ids)):
        assert torch.is_grad_enabled()
