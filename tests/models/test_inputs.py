"""The layers before a network: against torchvision's own, differentiable, and in eval mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as tv

from robustcli.models.inputs import Interpolation, Prepared, Preprocessing, resize
from tests.models import foreign


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [24, (11, 13)])
def test_resize_stays_in_the_box(size: int | tuple[int, int], interpolation: Interpolation) -> None:
    x = torch.randint(0, 2, (2, 3, 20, 30), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    resized = resize(x, size, interpolation)
    assert resized.shape[2:] == ((24, 36) if size == 24 else size)
    assert resized.min() >= 0
    assert resized.max() <= 1
    assert torch.autograd.grad(resized.sum(), x)[0].abs().sum() > 0


def test_nothing_before_a_network_changes_nothing() -> None:
    net, x = foreign.network(), foreign.images()
    assert torch.equal(Prepared(net, Preprocessing())(x), net(x))


def test_all_of_it_together_and_back() -> None:
    net, x = foreign.network(), torch.rand(2, 3, 20, 30)
    settings = Preprocessing("x", (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), 10, (8, 8), "bilinear")
    model = Prepared(net, settings, order=[2, 0])
    by_hand = tv.normalize(tv.center_crop(tv.resize(x, [10], antialias=True), [8, 8]), [0.4, 0.5, 0.6], [0.2, 0.2, 0.3])
    assert torch.allclose(model(x), net(by_hand)[:, [2, 0]], atol=1e-5)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    assert gradient.abs().sum() > 0
    assert model.otherwise(Preprocessing(resize=(8, 8))).order is not None
    assert settings.as_dict() == {
        "normalize": "x",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.3],
        "resize": 10,
        "crop": [8, 8],
        "interpolation": "bilinear",
    }


def test_a_network_in_train_mode_is_seen_as_such() -> None:
    model = Prepared(foreign.network().train(), Preprocessing("x", (0.5,) * 3, (0.5,) * 3))
    assert model.network.training
    in_train_mode = [name for name, module in model.named_modules() if module.training]
    assert "normalize" not in in_train_mode
    assert not any(module.training for module in Prepared(nn.Identity().eval(), Preprocessing()).modules())
