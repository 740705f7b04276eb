"""Objectives: which images are replaced, on what network, and what is left behind. And the pinned first losses."""

import pytest
import torch
import torch.nn.functional as F

from robustcli.attacks import FGSM, PGD
from robustcli.noise import Noise
from robustcli.testing import check_objective, tiny_net, tiny_samples
from robustcli.training.loop import Run, fit
from robustcli.training.methods import METHODS, parse_method
from robustcli.training.objectives import adversarial, standard

EPS = 0.1


@pytest.fixture
def net():
    """A tiny net in train mode; its Dropout asks the global RNG, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield tiny_net().train()


def batch(m):
    samples = tiny_samples(tiny_net(), m)
    return samples.x, samples.y, Noise(0, samples.ids)


class Spy:
    """An attack that adds a little, and notes what the network was like meanwhile."""

    name, summary, eps = "spy", "notes", EPS

    def perturb(self, model, x, y, noise):
        self.modes = [module.training for module in model.modules()]
        self.learning = [parameter.requires_grad for parameter in model.parameters()]
        self.given = (x, y, noise.ids)
        model(x)
        return (x + EPS / 2).clamp(0, 1)


def last_input(net):
    seen = []
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


def test_standard_is_cross_entropy_of_the_batch_as_it_is(net):
    x, y, noise = batch(6)
    net.eval()
    loss, logits = standard(net, x, y, noise)
    assert torch.equal(logits, net(x))
    assert torch.equal(loss, F.cross_entropy(logits, y))


@pytest.mark.parametrize(("fraction", "m", "k"), [(0.5, 8, 4), (0.5, 7, 3), (0.29, 7, 2), (1.0, 7, 7), (0.0, 7, 0)])
def test_exactly_the_first_k_images_are_given_to_the_attack_and_replaced(net, fraction, m, k):
    x, y, noise = batch(m)
    seen, spy = last_input(net), Spy()
    adversarial(spy, fraction, "eval")(net, x, y, noise)
    assert all(torch.equal(found, given[:k]) for found, given in zip(spy.given, (x, y, noise.ids), strict=True))
    moved = (seen[-1] != x).flatten(1).any(1)
    assert moved.tolist() == [True] * k + [False] * (m - k)
    assert not seen[-1].requires_grad


def test_the_images_are_made_on_the_network_as_it_stands(net):
    x, y, noise = batch(8)
    seen = last_input(net)
    objective = adversarial(FGSM(EPS), 1.0, "eval")
    objective(net, x, y, noise)
    before = seen[-1]
    with torch.no_grad():
        net[0].weight.neg_()
    objective(net, x, y, noise)
    assert not torch.equal(seen[-1], before)


@pytest.mark.parametrize(("craft", "training"), [("eval", False), ("train", True)])
def test_the_network_is_attacked_in_the_chosen_mode_without_parameter_gradients(net, craft, training):
    spy = Spy()
    adversarial(spy, 0.5, craft)(net, *batch(8))
    assert set(spy.modes) == {training}
    assert set(spy.learning) == {False}


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize(("craft", "first"), [("eval", False), ("train", True)])
def test_the_methods_craft_option_switches_dropout_while_the_images_are_made(net, name, craft, first):
    modes = []
    net[4].register_forward_hook(lambda module, *_: modes.append(module.training))
    parse_method({"name": name, "eps": EPS, "craft": craft}).recipe().objective(net, *batch(8))
    assert modes[0] == first
    assert modes[-1], "the loss itself is taken in train mode"


@pytest.mark.parametrize("craft", ["eval", "train"])
def test_crafting_leaves_no_gradient_and_does_not_move_running_statistics(net, craft):
    adversarial(PGD(EPS, steps=3), 0.5, craft)(net, *batch(8))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net[1].num_batches_tracked == 1, "the loss's own forward pass, and no other"


def test_pgd_training_goes_on_where_a_sample_is_already_broken(net):
    x, _, noise = batch(8)
    wrong = (tiny_net()(x).argmax(1) + 1) % 3
    sizes = []
    net.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    parse_method({"name": "pgd", "eps": EPS, "steps": 4}).recipe().objective(net, x, wrong, noise)
    assert sizes == [8] * 5


@pytest.mark.parametrize("craft", ["eval", "train"])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("attack", [FGSM(EPS), PGD(EPS, steps=2)])
def test_any_mix_keeps_the_contract_down_to_a_batch_of_one(attack, fraction, craft):
    check_objective(adversarial(attack, fraction, craft))


PINNED = {
    "vanilla": [1.09730, 1.10605, 1.10660],
    "fgsm": [1.09958, 1.11213, 1.11325],
    "pgd": [1.11999, 1.12963, 1.12750],
    "batchout": [1.11613, 1.09876, 1.09806],
    "gaussian": [1.11226, 1.10670, 1.09945],
}
"""Mean training loss after 1, 2 and 3 steps from seed 0 on the blobs, all options at their defaults, float32 CPU."""


@pytest.mark.parametrize("name", METHODS)
def test_the_first_losses_are_those_of_the_last_release(make, name):
    """A change here changes every number that the method has published: it belongs in the CHANGELOG."""
    losses = []
    fit(make(method=name, epochs=1).job, Run(), on_step=lambda step: losses.append(step.loss))
    assert losses[:3] == pytest.approx(PINNED[name], abs=1e-4)
