"""The checks of a network from elsewhere: each mistake is named by the check that is meant for it, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustcli.config import EvalSpec
from robustcli.data.images import Images
from robustcli.engine.samples import Samples
from robustcli.measure.fitting import fit_target
from robustcli.verdict.check import Finding, findings
from robustcli.verdict.foreign import try_alternatives
from robustcli.verdict.model import inspect_model
from tests.measure.test_fitting import ByColour, pictures, target

IMAGES = pictures(240)


class Changed(nn.Module):
    """A network that sees other pixels, or gives its logits in another order."""

    def __init__(self, network: nn.Module, order: tuple[int, ...] = (0, 1, 2), flip: bool = False) -> None:
        super().__init__()
        self.network, self.order, self.flip = network, list(order), flip

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.flip(1) if self.flip else x)[:, self.order]
        return logits


class Twice(ByColour):
    """What expects pixels that are normalised twice."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        normalised = (x - mean[:, None, None]) / std[:, None, None]
        return super().forward((normalised - mean[:, None, None]) / std[:, None, None])


def check(module: nn.Module, normalize: str = "none", images: Images = IMAGES) -> dict[str, Finding]:
    fitted = fit_target(target(module), images, lambda: images, EvalSpec(normalize=normalize), "cpu")
    samples = Samples(images.batch(slice(None)), images.y, images.ids)
    found = try_alternatives(fitted.module, inspect_model(fitted.module, samples))
    return {one.id: one for one in findings(found, "preflight")}


def warned(found: dict[str, Finding]) -> set[str]:
    return {name for name, one in found.items() if one.level != "OK"}


@pytest.mark.parametrize("normalize", ["none", "auto"])
def test_a_good_network_is_left_in_peace(normalize: str) -> None:
    assert not warned(check(ByColour(), normalize))
    assert not warned(check(ByColour("imagenet"), "imagenet"))


def test_a_missing_normalisation() -> None:
    found = check(ByColour("imagenet"))
    assert warned(found) == {"P16"}
    assert "the normalisation imagenet gains" in found["P16"].message


def test_a_doubled_one() -> None:
    found = check(ByColour(), "imagenet")
    assert warned(found) == {"P16"}
    assert "no normalisation gains" in found["P16"].message
    assert "applied twice" in found["P16"].message


@pytest.mark.parametrize("normalize", ["none", "auto"])
def test_one_that_the_network_applies_twice_itself(normalize: str) -> None:
    found = check(Twice("imagenet"), normalize)
    assert warned(found) == {"P16"}
    assert "the inverse of imagenet gains" in found["P16"].message


def test_blue_first() -> None:
    assert warned(check(Changed(ByColour(), flip=True))) >= {"P17"}


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
def test_labels_that_are_shifted_or_in_another_order(order: tuple[int, ...]) -> None:
    found = check(Changed(ByColour(), order))
    assert "P18" in warned(found)
    assert found["P18"].level == "SUSPECT"


def test_a_network_that_knows_nothing_is_left_in_peace() -> None:
    y = torch.randint(0, 3, (240,), generator=torch.Generator().manual_seed(1))
    assert not warned(check(ByColour(), images=replace(IMAGES, y=y)))
