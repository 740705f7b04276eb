import pytest
import torch
from torch import nn

from robustcli.attacks import FGSM, MIFGSM, PGD
from robustcli.attacks.losses import cross_entropy, input_gradient
from robustcli.engine.run import Samples
from robustcli.noise import Noise

norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
SMALL = {"linf": 0.01, "l2": 0.08, "l1": 0.3}


def images(attack, net, samples):
    return attack.perturb(net, samples.x, samples.y, Noise(0, samples.ids))


@norms
def test_one_step_is_fgsm(net, samples, norm):
    one = images(MIFGSM(SMALL[norm], steps=1, norm=norm, early_stop=False), net, samples)
    assert torch.allclose(one, images(FGSM(SMALL[norm], norm=norm), net, samples), rtol=0, atol=1e-12)


@norms
def test_without_memory_it_is_pgd_from_the_image_itself(net, samples, norm):
    options = {"steps": 5, "step_size": SMALL[norm], "norm": norm}
    ours = images(MIFGSM(3 * SMALL[norm], decay=0, **options), net, samples)
    pgd = images(PGD(3 * SMALL[norm], random_start=False, **options), net, samples)
    assert torch.allclose(ours, pgd, rtol=0, atol=1e-12)


def test_the_second_step_follows_the_papers_sum_of_gradients(net, samples):
    attack = MIFGSM(0.5, steps=2, step_size=0.03, decay=0.7, norm="l2", early_stop=False)
    x = samples.x * 0.5 + 0.25  # away from the box
    inside = Samples(x, samples.y, samples.ids)
    momentum, x_adv = torch.zeros_like(x), x
    for _ in range(2):
        gradient, _ = input_gradient(net, cross_entropy, x_adv, samples.y)
        momentum = 0.7 * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        x_adv = x_adv + 0.03 * momentum / momentum.square().sum((1, 2, 3), keepdim=True).sqrt()
    assert torch.allclose(images(attack, net, inside), x_adv, rtol=0, atol=1e-12)


def test_its_steps_just_reach_the_edge_of_the_ball(net, samples):
    attack = MIFGSM(0.05, steps=7, early_stop=False)
    distance = attack.norm.distance(images(attack, net, samples), samples.x)
    assert 0.05 * 0.99 < float(distance.max()) <= 0.05 * (1 + 1e-12)


def test_the_gradients_of_a_saturated_model_do_not_vanish(net, samples):
    net, single = net.float(), Samples(samples.x.float(), samples.y, samples.ids)

    class Flat(nn.Module):
        def forward(self, x):
            return net(x) * 1e-38

    attack = MIFGSM(0.1, norm="l2", early_stop=False)
    moved = attack.norm.distance(images(attack, Flat(), single), single.x)
    assert (moved > 0.05).all()
