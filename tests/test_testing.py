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


def batch_norm_that_goes_on_learning(net, x):
    h = net[0](x)
    net[1].running_mean.add_(0.1 * h.detach().mean((0, 2, 3)))
    return net[1:](h)


def draws_and_ignores(net, x):
    torch.rand(1)
    return net(x)


def writes_into_its_images(net, x):
    with torch.no_grad():
        x.mul_(0.5)
    return net(x)


def stays_in_train_mode(net, x):
    net[2].training = True
    return net(x)


def own_generator():
    generator = torch.Generator().manual_seed(0)
    return lambda net, x: net(x) + torch.rand((), generator=generator, dtype=x.dtype)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        # batch norm that ignores eval mode, and a place in the batch
        (lambda net, x: net[2:](F.batch_norm(net[0](x), None, None, training=True)), "depend on the batch: they move"),
        (lambda net, x: net(x) + 0.01 * torch.arange(len(x))[:, None], "logits depend on the batch: they move by"),
        (batch_norm_that_goes_on_learning, "the model changed the buffer net.1.running_mean"),
        (lambda net, x: net(F.dropout(x, 0.5, training=True)), "the model changed the global random state of torch"),
        (draws_and_ignores, "the model changed the global random state of torch"),
        (own_generator(), "gave other logits for the same images in eval mode"),
        (lambda net, x: net(x) / 0.0, "the model returned NaN or infinite logits"),
        (lambda net, x: net(x).flatten(), r"returned shape \(15,\); should be \(5, 3\)"),
        (lambda net, x: net(x)[:, :-1], r"returned shape \(5, 2\); should be \(5, 3\)"),
        (lambda net, x: net(x.detach()), "passes no gradient to its images"),
        (lambda net, x: net(x).detach(), "passes no gradient to its images"),
        (lambda net, x: net((x > 0.5).to(x.dtype) + 0 * x), "gradient of the loss is zero for 5 of 5 images"),
        (lambda net, x: 1e4 * net(x), "gradient of the loss is zero for . of 5 images"),
        (lambda net, x: net(x) + (x * 0).sum((1, 2, 3)).sqrt()[:, None], "gradient of the loss is NaN or infinite"),
        (writes_into_its_images, "the model changed its input"),
        (stays_in_train_mode, "the model changed the train/eval flag of net.2"),
    ],
)
def test_a_bad_model_fails_for_its_own_mistake(how, message):
    with torch.random.fork_rng(devices=[]), pytest.raises(AssertionError, match=message):
        check_model(Wrapped(how), SHAPE, CLASSES)


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


# --- Objectives: each takes (model, x, y, noise), and gives the loss and the logits


def of_standard(change):
    """The standard objective, with its loss and logits changed by `change(model, loss, logits)`."""
    return lambda model, x, y, noise: change(model, *standard(model, x, y, noise))


def before_standard(change):
    """The standard objective, after `change(model, x, y)`."""

    def objective(model, x, y, noise):
        with torch.no_grad():
            change(model, x, y)
        return standard(model, x, y, noise)

    return objective


def head_only(model, x, y, noise):
    with torch.no_grad():
        h = model[:-1](x)
    logits = model[-1](h)
    return F.cross_entropy(logits, y), logits


def leaves_gradients(model, x, y, noise):
    x = x.clone().requires_grad_()
    cross_entropy(model(x), y).sum().backward()
    return standard(model, (x + 0.1 * x.grad.sign()).detach(), y, noise)


def forgets_train_mode(model, x, y, noise):
    model.eval()
    return standard(model, FGSM(0.1).perturb(model, x, y, noise), y, noise)


def random_loss():
    generator = torch.Generator().manual_seed(0)
    return of_standard(lambda model, loss, logits: (loss * (1 + torch.rand((), generator=generator)), logits))


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            lambda model, x, y, noise: (cross_entropy(model(x), y), model(x)),
            r"of shape \(8,\); should be a scalar",
        ),
        (of_standard(lambda model, loss, logits: (loss * torch.nan, logits)), "returned a loss of nan"),
        (of_standard(lambda model, loss, logits: (loss / (len(logits) > 1), logits)), "returned a loss of inf"),
        (of_standard(lambda model, loss, logits: (loss.detach(), logits)), "a loss without a gradient"),
        (head_only, "gives 0.weight no gradient"),
        (
            of_standard(lambda model, loss, logits: (loss + (model[0].weight * 0).sum().sqrt(), logits)),
            "gives 0.weight a gradient of NaN or infinity",
        ),
        (of_standard(lambda model, loss, logits: (loss, logits[:4])), r"logits of shape \(4, 3\); should be \(8, 3\)"),
        (before_standard(lambda model, x, y: x.add_(0.1).clamp_(0, 1)), "changed its input"),
        (before_standard(lambda model, x, y: y.fill_(0)), "changed the labels"),
        (leaves_gradients, "changed the gradient of 0.weight"),
        (forgets_train_mode, "changed the train/eval flag of the model"),
        (before_standard(lambda model, x, y: model[0].bias.requires_grad_(False)), "changed requires_grad of 0.bias"),
        (
            of_standard(lambda model, loss, logits: (loss * (1 + random.random()), logits)),
            "changed the global random state of Python",
        ),
        (random_loss(), "another loss for the same seed"),
        (before_standard(lambda model, x, y: model[-1].bias.add_(0.1)), "changed the parameter 6.bias"),
    ],
)
def test_a_bad_objective_fails_for_its_own_mistake(objective, message):
    with pytest.raises(AssertionError, match=message):
        check_objective(objective)


def input_gradient_penalty(model, x, y, noise):
    loss, logits = standard(model, x, y, noise)
    gradient, _ = input_gradient(model, cross_entropy, x, y)
    return loss + gradient.square().mean(), logits


@pytest.mark.parametrize(
    "objective",
    [
        standard,
        adversarial(FGSM(0.1), 0.5, "eval"),
        input_gradient_penalty,
        lambda model, x, y, noise: standard(model, noise.stream("jitter").uniform(x), y, noise),
    ],
)
def test_a_good_objective_passes(objective):
    check_objective(objective)


def test_checking_an_objective_leaves_the_global_rng():
    before = torch.get_rng_state()
    check_objective(lambda model, x, y, noise: standard(model, x + 0 * torch.rand_like(x), y, noise))
    assert torch.equal(torch.get_rng_state(), before)
