"""Each bad model and objective makes one mistake that a published one has made; the contract must name it."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustcli.attacks import FGSM
from robustcli.attacks.losses import cross_entropy, input_gradient
from robustcli.testing import check_model, check_objective, tiny_net
from robustcli.training.objectives import adversarial, standard

SHAPE, CLASSES = (1, 8, 8), 3


class Wrapped(nn.Module):
    """A good network whose forward pass is `how(net, x)`."""

    def __init__(self, how):
        super().__init__()
        self.net = tiny_net()
        self.register_buffer("calls", torch.zeros(()))
        self.how = how

    def forward(self, x):
        return self.how(self.net, x)


def batch_norm_that_ignores_eval(net, x):
    h = F.batch_norm(net[0](x), None, None, training=True)
    return net[2:](h)


def batch_norm_that_goes_on_learning(net, x):
    h = net[0](x)
    net[1].running_mean.add_(0.1 * h.detach().mean((0, 2, 3)))
    return net[1:](h)


def dropout_left_on(net, x):
    return net(F.dropout(x, 0.5, training=True))


def depends_on_the_place_in_the_batch(net, x):
    return net(x) + 0.01 * torch.arange(len(x), dtype=x.dtype)[:, None]


def draws_and_ignores(net, x):
    torch.rand(1)
    return net(x)


def nan(net, x):
    return net(x) / 0.0


def flat_logits(net, x):
    return net(x).flatten()


def one_class_too_few(net, x):
    return net(x)[:, :-1]


def detached(net, x):
    return net(x.detach())


def without_gradients(net, x):
    with torch.no_grad():
        return net(x)


def rounded(net, x):
    return net((x > 0.5).to(x.dtype) + 0 * x)


def saturated(net, x):
    return 1e4 * net(x)


def root_of_zero(net, x):
    return net(x) + (x * 0).sum((1, 2, 3)).sqrt()[:, None]


def writes_into_its_images(net, x):
    with torch.no_grad():
        x.mul_(0.5)
    return net(x)


def stays_in_train_mode(net, x):
    net[2].training = True
    return net(x)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (batch_norm_that_ignores_eval, "logits depend on the batch: they move by"),
        (depends_on_the_place_in_the_batch, "logits depend on the batch: they move by"),
        (batch_norm_that_goes_on_learning, "the model changed the buffer net.1.running_mean"),
        (dropout_left_on, "the model changed the global random state of torch"),
        (draws_and_ignores, "the model changed the global random state of torch"),
        (nan, "the model returned NaN or infinite logits"),
        (flat_logits, r"returned shape \(15,\); should be \(5, 3\)"),
        (one_class_too_few, r"returned shape \(5, 2\); should be \(5, 3\)"),
        (detached, "passes no gradient to its images"),
        (without_gradients, "passes no gradient to its images"),
        (rounded, "gradient of the loss is zero for 5 of 5 images"),
        (saturated, "gradient of the loss is zero for . of 5 images"),
        (root_of_zero, "gradient of the loss is NaN or infinite"),
        (writes_into_its_images, "the model changed its input"),
        (stays_in_train_mode, "the model changed the train/eval flag of net.2"),
    ],
)
def test_a_bad_model_fails_for_its_own_mistake(how, message):
    with torch.random.fork_rng(devices=[]), pytest.raises(AssertionError, match=message):
        check_model(Wrapped(how), SHAPE, CLASSES)


def test_a_model_with_a_generator_of_its_own_is_not_deterministic():
    generator = torch.Generator().manual_seed(0)
    model = Wrapped(lambda net, x: net(x) + torch.rand((), generator=generator, dtype=x.dtype))
    with pytest.raises(AssertionError, match="gave other logits for the same images in eval mode"):
        check_model(model, SHAPE, CLASSES)


@pytest.mark.parametrize("how", [lambda net, x: net(x), lambda net, x: net(x).softmax(1)])
def test_a_good_model_passes_with_or_without_a_softmax(how):
    check_model(Wrapped(how), SHAPE, CLASSES)


def test_a_model_without_parameters_passes():
    check_model(nn.Flatten(), (1, 2, 2), 4)


def test_the_checked_model_is_given_back_as_it_was():
    model = tiny_net()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_model(model, SHAPE, CLASSES)
    assert [module.training for module in model.modules()] == [True, True, False, *[True] * 5]
    assert not model[0].weight.requires_grad
    assert model[0].bias.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def mean_of_each_sample(model, x, y, noise):
    return cross_entropy(model(x), y), model(x)


def nan_loss(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    return loss * torch.nan, logits


def detached_loss(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    return loss.detach(), logits


def head_only(model, x, y, noise):
    with torch.no_grad():
        h = model[:-1](x)
    logits = model[-1](h)
    return F.cross_entropy(logits, y), logits


def root_at_zero(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    return loss + (model[0].weight * 0).sum().sqrt(), logits


def logits_of_half(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    return loss, logits[: len(x) // 2]


def adversarial_in_place(model, x, y, noise):
    with torch.no_grad():
        x.add_(0.1).clamp_(0, 1)
    return standard(model, x, y, noise)


def relabels(model, x, y, noise):
    y.fill_(0)
    return standard(model, x, y, noise)


def leaves_gradients(model, x, y, noise):
    x = x.clone().requires_grad_()
    cross_entropy(model(x), y).sum().backward()
    return standard(model, (x + 0.1 * x.grad.sign()).detach(), y, noise)


def forgets_train_mode(model, x, y, noise):
    model.eval()
    return standard(model, FGSM(0.1).perturb(model, x, y, noise), y, noise)


def stays_frozen(model, x, y, noise):
    model[0].bias.requires_grad_(False)
    return standard(model, x, y, noise)


def python_random(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    return loss * (1 + random.random()), logits


def own_generator():
    generator = torch.Generator().manual_seed(0)

    def objective(model, x, y, noise):
        return standard(model, x + torch.rand(x.shape, generator=generator, dtype=x.dtype), y, noise)

    return objective


def steps_by_itself(model, x, y, noise):
    with torch.no_grad():
        model[-1].bias.add_(0.1)
    return standard(model, x, y, noise)


def no_batch_of_one(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    return loss + logits.std(0).sum() / max(len(x) - 1, 0) if len(x) > 1 else loss * torch.inf, logits


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (mean_of_each_sample, r"loss of shape \(8,\); should be a scalar"),
        (nan_loss, "returned a loss of nan"),
        (no_batch_of_one, "returned a loss of inf"),
        (detached_loss, "a loss without a gradient"),
        (head_only, "gives 0.weight no gradient"),
        (root_at_zero, "gives 0.weight a gradient of NaN or infinity"),
        (logits_of_half, r"logits of shape \(4, 3\); should be \(8, 3\)"),
        (adversarial_in_place, "changed its input"),
        (relabels, "changed the labels"),
        (leaves_gradients, "changed the gradient of 0.weight"),
        (forgets_train_mode, "changed the train/eval flag of the model"),
        (stays_frozen, "changed requires_grad of 0.bias"),
        (python_random, "changed the global random state of Python"),
        (own_generator(), "another loss for the same seed"),
        (steps_by_itself, "changed the parameter 6.bias"),
    ],
)
def test_a_bad_objective_fails_for_its_own_mistake(objective, message):
    with pytest.raises(AssertionError, match=message):
        check_objective(objective)


def test_the_good_objectives_that_the_saboteurs_are_made_of_pass():
    check_objective(standard)
    check_objective(adversarial(FGSM(0.1), 0.5, "eval"))


def input_gradient_penalty(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    gradient, _ = input_gradient(model, cross_entropy, x, y)
    return loss + gradient.square().mean(), logits


def test_an_objective_may_use_the_input_gradient_and_its_noise():
    check_objective(input_gradient_penalty)
    check_objective(lambda model, x, y, noise: standard(model, noise.stream("jitter").uniform(x), y, noise))


def test_checking_an_objective_leaves_the_global_rng():
    before = torch.get_rng_state()
    check_objective(lambda model, x, y, noise: standard(model, x + 0 * torch.rand_like(x), y, noise))
    assert torch.equal(torch.get_rng_state(), before)
