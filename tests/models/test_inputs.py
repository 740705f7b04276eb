"""The layers before a network: against torchvision's own, differentiable, and in eval mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.transforms.v2 import functional as tv

from robustcli.models.inputs import CenterCrop, Prepared, Preprocessing, Resize
from tests.models import foreign


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (8, 8), (51, 17)])
@pytest.mark.parametrize("wanted", [6, 24, (11, 13)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_torchvisions(size: tuple[int, int], wanted: int | tuple[int, int], interpolation: str) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    mode = tv.InterpolationMode.BILINEAR if interpolation == "bilinear" else tv.InterpolationMode.BICUBIC
    theirs = tv.resize(x, [wanted] if isinstance(wanted, int) else list(wanted), mode, antialias=True)
    ours = Resize(wanted, interpolation)(x)  # type: ignore[arg-type]
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs.clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("size", [(20, 30), (21, 31), (5, 9), (12, 12)])
@pytest.mark.parametrize("wanted", [(12, 12), (7, 8)])
def test_crop_is_torchvisions(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    assert torch.equal(CenterCrop(wanted)(x), tv.center_crop(x, list(wanted)))


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
    assert not any(name.startswith("before") for name in in_train_mode)
    assert not any(module.training for module in Prepared(nn.Identity().eval(), Preprocessing()).modules())
