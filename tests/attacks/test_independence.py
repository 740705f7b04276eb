"""No sample's result depends on what it is attacked beside: whole, in odd splits and in another order, in float64."""

import pytest
import torch

from robustcli.attacks import ATTACKS, parse_attack
from robustcli.attacks.base import norms
from robustcli.engine.run import Samples, run_attack
from robustcli.noise import Noise

from .conftest import learn

N = 37
EPS = {"linf": "0.06", "l2": "0.5", "l1": "3"}
FEW = {
    "square": "square:queries=80,restarts=2",
    "hopskipjump": "hopskipjump:iters=3,directions=30",
    "apgd": "apgd:steps=12,restarts=2",
    "apgd-t": "apgd-t:steps=12,targets=2",
    "autoattack": "autoattack:rounds=5,queries=20",
    "fmn": "fmn:iters=20",
    "fab": "fab:iters=5,restarts=3",
    "fab-t": "fab-t:iters=5,restarts=2",
    "cw": "cw:steps=20,binary_search_steps=3,lr=0.1,initial_const=1",
}


@pytest.fixture(scope="module")
def trained():
    """A tiny net that tells whether the left or the right half is brighter, and images near its boundary and far."""
    ids = torch.arange(N) * 3 + 5
    x = Noise(5, ids).uniform(torch.empty(N, 1, 8, 8, dtype=torch.float64))
    y = torch.arange(N) % 2
    brighter = torch.linspace(0.1, 0.5, N, dtype=torch.float64)[:, None, None, None]
    for label, half in ((0, slice(0, 4)), (1, slice(4, 8))):
        x[y == label, :, :, half] = x[y == label, :, :, half].lerp(torch.ones(()).double(), brighter[y == label])
    return learn(x, y), Samples(x, y, ids)


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in ATTACKS for norm in norms(ATTACKS[name])])
def test_flags_and_images_are_those_of_the_sample_alone(trained, name, norm):
    net, samples = trained
    attack = parse_attack(FEW.get(name, name), {"norm": norm, "eps": EPS[norm]})
    whole = run_attack(net, attack, samples, keep_images=True)[-1]
    assert whole.robust.any() or not hasattr(attack, "eps"), "a budget that leaves some"
    order = Noise(1, samples.ids).uniform(torch.empty(N)).argsort()
    for batch_size in (1, 5, 11):
        for index in (torch.arange(N), order):
            part = run_attack(net, attack, samples[index], batch_size=batch_size, keep_images=True)[-1]
            assert torch.equal(part.robust, whole.robust[index])
            # A gradient that is 0 but for rounding has any sign.
            if attack.needs != "gradients" or norm != "linf":
                assert float((part.x_adv - whole.x_adv[index]).abs().max()) < 1e-6
