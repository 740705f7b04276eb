"""Images that are made in bfloat16 and judged in float32."""

import pytest
import torch
from torch import nn

from robustcli.attacks import FGSM, PGD, AutoAttack, DeepFool
from robustcli.engine.guard import Meter
from robustcli.engine.run import Samples, run_attack
from robustcli.noise import Noise
from robustcli.testing import tiny_net, tiny_samples

ROUNDED = torch.bfloat16


@pytest.fixture
def single():
    net = tiny_net()
    samples = tiny_samples(net)
    return net.float(), Samples(samples.x.float(), samples.y, samples.ids)


class Watched(nn.Module):
    """Notes whether autocast was on, a word a pass."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.seen = []

    def forward(self, x):
        self.seen.append("rounded" if torch.is_autocast_enabled("cpu") else "exact")
        return self.net(x)


def test_logits_come_back_in_the_type_of_the_images(single):
    net, samples = single
    meter = Meter(net, ROUNDED)
    assert meter(samples.x).dtype == torch.float32
    assert torch.equal(meter.exact(samples.x), net(samples.x))
    assert not torch.equal(meter(samples.x), net(samples.x))
    assert meter.forwards == 3 * len(samples)


def test_images_are_made_rounded_and_judged_exactly(single):
    net, samples = single
    watched = Watched(net)
    run_attack(watched, FGSM(1e-4), samples, dtype=ROUNDED)
    assert watched.seen[:3] == ["exact", "rounded", "exact"]  # clean, the gradient, the verdict


@pytest.mark.parametrize("attack", [DeepFool(iters=3)])
def test_a_minimal_norm_attack_is_never_rounded(single, attack):
    net, samples = single
    watched = Watched(net)
    run_attack(watched, attack, samples, dtype=ROUNDED)
    assert set(watched.seen) == {"exact"}


def test_without_a_dtype_nothing_is_rounded(single):
    net, samples = single
    watched = Watched(net)
    run_attack(watched, PGD(0.1, steps=2), samples)
    assert set(watched.seen) == {"exact"}


class Misled(nn.Module):
    """Two classes by the mean grey; under autocast it calls everything the second one."""

    def forward(self, x):
        grey = x.flatten(1).mean(1)
        logits = torch.stack((0.5 - grey, grey - 0.5), 1)
        return logits + torch.tensor([0.0, 9.0]) if torch.is_autocast_enabled("cpu") else logits


@pytest.mark.parametrize("attack", [PGD(0.2, steps=5), AutoAttack(0.2, rounds=2, queries=5)])
def test_what_only_rounding_broke_is_attacked_again(attack):
    # The rounded run stops at once and leaves the images where they are; the exact one takes them over the boundary.
    x = 0.4 + 0.01 * Noise(0, torch.arange(6)).uniform(torch.empty(6, 1, 4, 4))
    samples = Samples(x, torch.zeros(6).long(), torch.arange(6))
    outcome = run_attack(Misled(), attack, samples, dtype=ROUNDED)[-1]
    assert outcome.clean.all()
    assert not outcome.robust.any()
    far = run_attack(Misled(), PGD(0.01, steps=5), samples, dtype=ROUNDED)[0]
    assert far.robust.all()


def test_flags_in_bfloat16_are_nearly_those_in_float32(single):
    net, samples = single
    flags = [run_attack(net, PGD(0.05, steps=5), samples, dtype=dtype)[0].robust for dtype in (torch.float32, ROUNDED)]
    assert int((flags[0] != flags[1]).sum()) <= 1
