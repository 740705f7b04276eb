import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks.losses import (
    cross_entropy,
    dlr,
    input_gradient,
    is_right,
    lead,
    margin,
    mean_logits,
    runners_up,
    targeted_dlr,
)
from robustcli.errors import AttackError
from robustcli.noise import Noise

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0]])
seeds = st.integers(0, 10**6)


def draw(seed, n=6, classes=5):
    return 3 * Noise(seed, torch.arange(n)).normal(torch.empty(n, classes, dtype=torch.float64))


@pytest.mark.parametrize(("y", "ratio"), [(0, -1 / 2), (2, 1 / 2), (4, 4 / 2)])
def test_dlr_is_the_ratio_of_the_paper(y, ratio):
    assert dlr(LOGITS, torch.tensor([y])).item() == pytest.approx(ratio)


@pytest.mark.parametrize(("y", "target", "ratio"), [(0, 2, -1 / 2.5), (2, 0, 1 / 2.5), (0, 4, -4 / 2.5)])
def test_targeted_dlr_is_the_ratio_of_the_paper(y, target, ratio):
    assert targeted_dlr(LOGITS, torch.tensor([y]), torch.tensor([target])).item() == pytest.approx(ratio)


@given(seeds, st.floats(0.01, 100), st.floats(-50, 50))
def test_the_ratios_do_not_change_with_scale_and_shift(seed, scale, shift):
    logits, y = draw(seed), torch.arange(6) % 5
    target = (y + 1) % 5
    assert torch.allclose(dlr(logits * scale + shift, y), dlr(logits, y), rtol=1e-6)
    assert torch.allclose(targeted_dlr(logits * scale + shift, y, target), targeted_dlr(logits, y, target), rtol=1e-6)


@given(seeds)
def test_dlr_is_positive_exactly_where_the_sample_is_broken(seed):
    logits, y = draw(seed), torch.arange(6) % 5
    assert torch.equal(dlr(logits, y) > 0, ~is_right(logits, y))


@given(seeds)
def test_the_lead_of_the_best_wrong_class_is_the_negated_margin(seed):
    logits, y = draw(seed), torch.arange(6) % 5
    assert torch.allclose(lead(logits, y, runners_up(logits, y)[:, 0]), -margin(logits, y))


def test_runners_up_are_all_wrong_classes_the_best_first():
    assert runners_up(LOGITS, torch.tensor([2])).tolist() == [[0, 3, 1, 4]]


def test_equal_logits_give_a_finite_loss():
    assert dlr(torch.zeros(1, 4), torch.tensor([0])).isfinite()
    assert targeted_dlr(torch.zeros(1, 4), torch.tensor([0]), torch.tensor([1])).isfinite()


def test_too_few_classes_are_named():
    y = torch.zeros(2).long()
    with pytest.raises(AttackError, match="loss dlr: needs at least 3 classes; the model has 2"):
        dlr(torch.zeros(2, 2), y)
    with pytest.raises(AttackError, match="loss targeted dlr: needs at least 4 classes; the model has 3"):
        targeted_dlr(torch.zeros(2, 3), y, y + 1)


def test_of_a_randomised_model_gradient_and_logits_are_means_over_the_passes():
    scales = iter([1.0, 3.0, 2.0, 4.0])
    x, y = torch.rand(2, 3, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(2).long()

    def model(x):
        return x * next(scales)

    def linear(logits, y):
        return logits.sum(1)

    gradient, logits = input_gradient(model, linear, x, y, eot=2)
    assert torch.equal(gradient, torch.full_like(x, 2.0))
    assert torch.allclose(logits, 2 * x)
    assert torch.allclose(mean_logits(model, x, eot=2), 3 * x)


def test_one_pass_is_no_mean():
    x, y = torch.ones(1, 3), torch.zeros(1).long()
    gradient, logits = input_gradient(lambda x: 2 * x, cross_entropy, x, y)
    assert torch.equal(logits, mean_logits(lambda x: 2 * x, x))
    assert gradient.shape == x.shape
