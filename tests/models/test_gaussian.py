"""The Gaussian baseline: a step of BatchOut's relative size, in a random direction."""

import pytest
import torch

from robustcli.models import GaussianNoise, gaussian
from robustcli.models.augmentation import _normals

ETA = 0.1


def draws(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lengths(h):
    return h.flatten(1).norm(dim=1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 2, 3, 4)])
@pytest.mark.parametrize("scale", ["matched", "printed"])
def test_a_step_is_equation_5_in_each_sample(shape, scale):
    h, noise = draws(*shape), draws(*shape, seed=1)
    expected = [h[i] + ETA * h[i].norm() * noise[i] / noise[i].norm() ** (1 + (scale == "printed")) for i in range(5)]
    torch.testing.assert_close(gaussian(h, noise, ETA, scale), torch.stack(expected))


def test_one_eta_a_sample_reaches_its_own_sample():
    h, eta = draws(3, 2, 4), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    moved = gaussian(h, draws(3, 2, 4, seed=1), eta[:, None, None])
    torch.testing.assert_close(lengths(moved - h) / lengths(h), eta)


def test_no_gradient_flows_through_the_noise_and_the_input_is_left_as_it_is():
    h = draws(4, 3).requires_grad_()
    (gaussian(h, draws(4, 3, seed=1), ETA) * draws(4, 3, seed=2)).sum().backward()
    assert torch.equal(h.grad, draws(4, 3, seed=2))
    assert torch.equal(h, draws(4, 3))


def test_an_activation_of_zeros_stays_finite():
    assert torch.equal(gaussian(torch.zeros(2, 3), torch.ones(2, 3), ETA), torch.zeros(2, 3))


@pytest.mark.parametrize(("fraction", "moved"), [(0.0, 0), (0.29, 29), (0.5, 50), (1.0, 100)])
def test_the_layer_moves_the_first_k_samples_and_no_other(fraction, moved):
    h = draws(100, 4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        changed = (GaussianNoise(ETA, fraction)(h) != h).any(1)
    assert changed.tolist() == [True] * moved + [False] * (100 - moved)


@pytest.mark.parametrize("scale", ["matched", "printed"])
def test_the_layer_hands_its_scale_and_range_on(scale):
    h = draws(100, 50)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = lengths(GaussianNoise((0.1, 0.2), 1.0, scale)(h) - h) / lengths(h)
    unit = 1 if scale == "matched" else 50**-0.5
    assert 0.07 * unit < size.min() < 0.12 * unit
    assert 0.18 * unit < size.max() < 0.26 * unit


def test_it_is_the_identity_in_eval_mode():
    h = draws(6, 4)
    assert GaussianNoise(ETA).eval()(h) is h


def test_it_has_no_state_and_says_its_options():
    layer = GaussianNoise(0.1, 0.25, "printed")
    assert not layer.state_dict()
    assert repr(layer) == "GaussianNoise(eta=0.1, fraction=0.25, scale=printed)"


# Draws in the memory order of the activations


def activations(*shape, last=False, dtype=torch.float32):
    h = torch.zeros(shape, dtype=dtype)
    return h.to(memory_format=torch.channels_last) if last else h


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "h", [activations(3, 4, 5, 6), activations(3, 4, 5, 6, last=True), activations(3, 7)], ids=["first", "last", "flat"]
)
def test_draws_have_the_shape_type_and_memory_order_of_the_activations(h, dtype):
    h = h.to(dtype)
    noise = _normals(h)
    assert (noise.shape, noise.dtype, noise.device) == (h.shape, h.dtype, h.device)
    assert noise.stride() == h.stride()


@pytest.mark.parametrize("last", [False, True])
def test_draws_are_standard_normal(last):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = _normals(activations(20, 16, 14, 14, last=last)).double()
    n = noise.numel()
    assert abs(noise.mean()) < 4 / n**0.5
    assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((noise**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / n) ** 0.5
    # Neighbours in any direction are independent: a draw shared along one axis would show here.
    for dim in range(4):
        size = noise.shape[dim]
        product = noise.narrow(dim, 0, size - 1) * noise.narrow(dim, 1, size - 1)
        assert abs(product.mean()) < 4 / product.numel() ** 0.5


@pytest.mark.parametrize("last", [False, True])
def test_the_layer_keeps_the_memory_order(last):
    h = draws(6, 4, 5, 5).float()
    h = h.to(memory_format=torch.channels_last) if last else h
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        moved = GaussianNoise(ETA, 0.5)(h)
    assert moved.stride() == h.stride()
    torch.testing.assert_close(lengths(moved - h)[:3], ETA * lengths(h)[:3])
    assert torch.equal(moved[3:], h[3:])
