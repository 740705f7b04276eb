import pytest
import torch

from robustcli.attacks.losses import cross_entropy, is_right
from robustcli.engine.run import Samples
from robustcli.noise import Noise
from robustcli.testing import tiny_net


def learn(x, y):
    """A tiny net that has learnt the classes `y` (n,) of the images `x` (n, 1, 8, 8)."""
    net = tiny_net()
    optimizer = torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(net(x), y).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return net


@pytest.fixture(scope="package")
def trained():
    """A tiny net that has learnt whether the left or the right half is brighter, and 60 images of the task."""
    ids = torch.arange(60)
    x = Noise(5, ids).uniform(torch.empty(60, 1, 8, 8, dtype=torch.float64))
    y = ids % 2
    x[y == 1, :, :, 4:] = x[y == 1, :, :, 4:] * 0.6 + 0.4
    x[y == 0, :, :, :4] = x[y == 0, :, :, :4] * 0.6 + 0.4
    net = learn(x, y)
    assert int(is_right(net(x), y).sum()) >= 50
    return net, Samples(x, y, ids)
