"""BatchOut against a hand loop of the paper's Algorithm 1, and what must not flow, move or change."""

import pytest
import torch
from torch import nn

from robustcli.models import BatchOut, batchout
from robustcli.models.augmentation import draw_eta, n_augmented

ETA = 0.3


def activations(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def algorithm_1(h, partners, eta, k):
    """The paper's Algorithm 1 and equation 2, one number at a time."""
    out = h.clone()
    for i in range(k):
        for j in range(h[i].numel()):
            own, other = h[i].flatten()[j], h[partners[i]].flatten()[j]
            out[i].view(-1)[j] = own + eta[i] * (other - own)
    return out


@pytest.fixture
def _seeded():
    """The layer draws from the global RNG, as Dropout does; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("shape", [(7, 5), (6, 2, 3, 4), (2, 1)])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_it_is_algorithm_1_element_by_element(shape, k):
    h = activations(*shape)
    partners = torch.arange(len(h)).flip(0)
    expected = algorithm_1(h, partners, [ETA] * k, k)
    torch.testing.assert_close(batchout(h, partners, ETA, k), expected, rtol=0, atol=1e-15)
    assert torch.equal(h, activations(*shape)), "the input is left as it is"


def test_one_eta_a_sample_reaches_its_own_sample():
    h, partners, eta = activations(6, 2, 3, 4), torch.tensor([5, 0, 2, 1, 1, 4]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = algorithm_1(h, partners, eta, 4)
    torch.testing.assert_close(batchout(h, partners, eta[:, None, None, None], 4), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_in_place_it_is_the_same_step_with_the_same_gradient(memory_format):
    partners, results = torch.tensor([1, 0, 2, 1, 5, 4]), []
    for inplace in (False, True):
        x = activations(6, 2, 4, 4).contiguous(memory_format=memory_format).requires_grad_()
        h = x * 2
        moved = batchout(h, partners, ETA, 3, inplace=inplace)
        assert (moved.data_ptr() == h.data_ptr()) == inplace
        moved.square().sum().backward()
        results.append((moved.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_in_place_nobody_gets_a_wrong_gradient_of_what_was_changed():
    h = activations(6, 4).requires_grad_().exp()
    moved = batchout(h, torch.arange(6).flip(0), ETA, 3, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        moved.sum().backward()


@pytest.mark.parametrize(
    ("fraction", "m", "k"),
    [(0.5, 7, 3), (0.5, 8, 4), (0.5, 1, 0), (0.29, 100, 29), (0.57, 100, 57), (1.0, 7, 7), (0.0, 7, 0), (1e-5, 9, 0)],
)
def test_k_is_the_fraction_rounded_down_in_decimal(fraction, m, k):
    assert n_augmented(fraction, m) == k


@pytest.mark.usefixtures("_seeded")
@pytest.mark.parametrize(("fraction", "moved"), [(0.0, 0), (0.29, 29), (0.5, 50), (1.0, 100)])
def test_the_layer_moves_the_first_k_samples_and_no_other(fraction, moved):
    h = activations(100, 4)
    changed = (BatchOut(ETA, fraction)(h) != h).any(1)
    assert not changed[moved:].any()
    assert changed[:moved].sum() >= moved - 5  # a sample may draw itself


def test_it_is_the_identity_in_eval_mode():
    h = activations(6, 4)
    assert BatchOut(ETA).eval()(h) is h


def gradient(h, eta, **options):
    h = h.clone().requires_grad_()
    out = batchout(h, torch.tensor([3, 2, 1, 0]), eta, 2, **options)
    (out * activations(4, 3, seed=1)).sum().backward()
    return h.grad


def test_no_gradient_flows_through_the_perturbation():
    h = activations(4, 3)
    as_a_constant = gradient(h, 0.0)
    assert torch.equal(gradient(h, ETA), as_a_constant)


def test_the_gradient_flows_when_it_is_not_stopped():
    found, weights = gradient(activations(4, 3), ETA, stop_gradient=False), activations(4, 3, seed=1)
    expected = weights.clone()
    expected[:2] *= 1 - ETA
    expected[[3, 2]] += ETA * weights[:2]
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("_seeded")
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_layer_hands_its_stop_gradient_on(stop_gradient):
    h = activations(8, 3).requires_grad_()
    (BatchOut(ETA, 0.5, stop_gradient)(h) * activations(8, 3, seed=1)).sum().backward()
    assert torch.equal(h.grad, activations(8, 3, seed=1)) == stop_gradient


@pytest.mark.usefixtures("_seeded")
def test_partners_come_with_replacement_from_the_whole_batch_and_itself():
    m = 16
    h = torch.eye(m)
    drawn = torch.stack([BatchOut(1.0, 0.5)(h)[: m // 2].argmax(1) for _ in range(200)])
    counts = torch.bincount(drawn.flatten(), minlength=m)
    assert counts.min() > 60, "100 expected of each, the second half of the batch included"
    assert (drawn == torch.arange(m // 2)).any(), "a sample may draw itself"
    assert any(len(row.unique()) < len(row) for row in drawn), "with replacement"


def test_eta_of_a_range_is_drawn_for_each_sample_and_stays_inside():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        eta = draw_eta((0.05, 0.15), torch.zeros(1000, 2, 3, 4))
    assert eta.shape == (1000, 1, 1, 1)
    assert 0.05 <= eta.min() < 0.051
    assert 0.149 < eta.max() <= 0.15
    assert abs(float(eta.mean()) - 0.1) < 0.003


@pytest.mark.usefixtures("_seeded")
def test_the_layer_draws_one_eta_a_sample_not_one_a_number():
    h = torch.cat([torch.zeros(50, 4), torch.ones(50, 4)])
    moved = BatchOut((0.0, 0.2), 0.5)(h)[:50]
    moved = moved[moved[:, 0] > 0]
    assert (moved == moved[:, :1]).all()
    assert len(moved[:, 0].unique()) == len(moved)


def test_it_has_no_state_and_says_its_options():
    layer = BatchOut((0.0, 0.1), 0.25, stop_gradient=False)
    assert not layer.state_dict()
    assert repr(nn.Sequential(layer)[0]) == "BatchOut(eta=(0.0, 0.1), fraction=0.25, stop_gradient=False)"
    assert repr(BatchOut(0.1, inplace=True)).endswith("stop_gradient=True, inplace=True)")
