"""On a GPU as on the CPU: skipped where there is none."""

import pytest
import torch

from robustcli.attacks import ATTACKS, parse_attack
from robustcli.attacks.base import norms
from robustcli.engine.run import Samples, run_attack
from robustcli.testing import tiny_net, tiny_samples
from robustcli.testing.effort import small_attack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def there(samples, device):
    return Samples(*(part.to(device) for part in (samples.x, samples.y, samples.ids)))


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in ATTACKS for norm in norms(ATTACKS[name])])
def test_the_same_samples_break(net, name, norm):
    samples = tiny_samples(net, n=40)
    attack = small_attack(name, norm)
    here = run_attack(net, attack, samples)[-1]
    found = run_attack(tiny_net().cuda(), attack, there(samples, "cuda"), batch_size=11)[-1]
    assert torch.equal(found.robust, here.robust)
    assert torch.allclose(found.distance, here.distance, rtol=1e-6, atol=1e-9)


def test_what_bfloat16_breaks_is_broken():
    net = tiny_net().float().cuda()
    samples = tiny_samples(tiny_net(), n=40)
    samples = there(Samples(samples.x.float(), samples.y, samples.ids), "cuda")
    attack = parse_attack("autoattack:eps=0.1,rounds=5,queries=20")
    outcome = run_attack(net, attack, samples, dtype=torch.bfloat16, keep_images=True)[-1]
    assert torch.equal(net(outcome.x_adv.cuda()).argmax(1).cpu() == samples.y.cpu(), outcome.robust)
