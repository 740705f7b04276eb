import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog
from torch import nn

from robustcli.attacks.losses import cross_entropy, is_right
from robustcli.engine.run import Samples
from robustcli.noise import Noise
from robustcli.testing import tiny_net


def box_optimum(norm, w, target, low, high):
    """The least norm of a delta (d,) with w . delta = target between `low` and `high`; infinite out of reach."""
    d, scale = len(w), np.abs(w).max()
    w, target = w / scale, target / scale
    if np.maximum(w * low, w * high).sum() < target:
        return np.inf
    if norm.name == "l2":
        beyond_each_edge = target + 1 / np.abs(w[w != 0]).min()
        multiplier = brentq(lambda t: w @ np.clip(t * w, low, high) - target, 0, beyond_each_edge, xtol=1e-14)
        return np.linalg.norm(np.clip(multiplier * w, low, high))
    if norm.name == "l1":
        bounds = [*((0, bound) for bound in high), *((0, -bound) for bound in low)]
        return linprog(np.ones(2 * d), A_eq=np.concatenate((w, -w))[None], b_eq=[target], bounds=bounds).fun
    limits = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
    bounds = [*zip(low, high, strict=True), (0, None)]
    return linprog(np.eye(d + 1)[-1], limits, np.zeros(2 * d), np.append(w, 0)[None], [target], bounds).fun


def random_linear(classes):
    """A linear model of images (n, 1, 8, 8), with weights from a keyed draw."""
    model = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 64, classes, dtype=torch.float64))
    weight = torch.empty(1, classes, 64, dtype=torch.float64)
    with torch.no_grad():
        model[1].weight.copy_(Noise(1, torch.zeros(1).long()).normal(weight)[0])
        model[1].bias.zero_()
    return model


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
