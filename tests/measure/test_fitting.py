"""What a network from elsewhere needs before it and after it, found out on images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustcli.config import EvalSpec
from robustcli.data.images import Images
from robustcli.errors import CheckpointError, ConfigError
from robustcli.measure import fitting
from robustcli.models.inputs import NORMALISATIONS, Preprocessing
from robustcli.models.sources import open_target
from robustcli.models.target import Target
from tests.models import foreign

COLOURS = torch.eye(3) * 180 + 40
NAMES = ("red", "green", "blue")
AUTO, NONE = Preprocessing("auto"), Preprocessing("none")


def pictures(n: int = 60, classes: tuple[str, ...] = NAMES, size: int = 8) -> Images:
    """One colour a class, with noise; sorted by class, as folders are."""
    noise = torch.randint(-30, 31, (n, 3, size, size), generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) * 3 // n
    x = (COLOURS[y][:, :, None, None] + noise).clamp(0, 255).byte()
    return Images(x, y, torch.arange(n), classes, "colours", "colours/test")


class ByColour(nn.Module):
    """Right on `pictures` that are normalised as it expects, and only then."""

    def __init__(self, name: str = "none") -> None:
        super().__init__()
        mean, std = NORMALISATIONS.get(name, ((0.0,) * 3, (1.0,) * 3))
        self.register_buffer("colours", (COLOURS / 255 - torch.tensor(mean)) / torch.tensor(std))
        self.scale = 255.0 if name == "bytes" else 1.0

    def forward(self, x: Tensor) -> Tensor:
        colours: Tensor = self.colours  # type: ignore[assignment]
        gap = (x.mean((2, 3))[:, None] - colours).norm(dim=2) / self.scale
        # Far from all that it knows, everything is red.
        return torch.where(gap.min(1, keepdim=True).values < 0.3, -gap, torch.tensor([1.0, 0.0, 0.0]))


def target(module: nn.Module, classes: tuple[str, ...] = (), said: Preprocessing = AUTO) -> Target:
    return Target(module.eval(), "net.py:make", "key", None, classes, input=said)


def fit(one: Target, images: Images, **spec: object) -> Target:
    return fitting.fit_target(one, images, lambda: images, EvalSpec(**spec), "cpu")  # type: ignore[arg-type]


def row(fitted: Target) -> dict[str, object]:
    """What a row says of the input."""
    assert fitted.input is not None
    return fitted.input.as_dict()


@pytest.mark.parametrize("name", ["none", "imagenet", "half", "bytes"])
def test_auto_takes_the_normalisation_that_the_network_expects(name: str) -> None:
    fitted = fit(target(ByColour(name)), pictures())
    assert row(fitted)["normalize"] == name
    assert f"normalisation: {name} (right of 60 images: none" in fitted.notices[0]
    assert fitted.classes == NAMES
    assert fitted.shape == (3, 8, 8)


def test_auto_is_off_for_random_weights_and_for_what_the_source_says() -> None:
    assert row(fit(target(ByColour("imagenet"), said=NONE), pictures()))["normalize"] == "none"
    own = Preprocessing("own", *NORMALISATIONS["half"])
    known = fit(target(ByColour("half"), said=own), pictures())
    assert row(known)["mean"] == [0.5, 0.5, 0.5]
    assert not known.notices
    guessed = fit(target(ByColour("imagenet"), said=own.with_normalization("auto")), pictures())
    assert row(guessed)["normalize"] == "imagenet"


def test_the_choice_is_a_part_of_the_key_and_the_same_for_every_limit() -> None:
    whole, one = pictures(), target(ByColour("imagenet"))
    first = fitting.fit_target(one, whole.take(slice(0, 5)), lambda: whole, EvalSpec(limit=5), "cpu")
    assert row(first)["normalize"] == "imagenet"
    assert first.key == fit(one, whole).key
    assert first.key != fit(one, whole, normalize="none").key
    assert first.key == fit(one, whole, normalize="imagenet").key


def test_an_explicit_choice_is_taken_as_it_is() -> None:
    fitted = fit(target(ByColour()), pictures(), normalize="mean=0.5,std=0.25")
    assert row(fitted)["mean"] == [0.5] * 3
    assert not fitted.notices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", "did you mean 'imagenet'"),
        ("mnist", "for 3 channels"),
        ("mean=1,2,std=1", "1 or 3 values each"),
        ("mean=a,std=1", "should be numbers"),
        ("mean=0,std=0", "std above 0"),
        ("mean=125,std=60", "divide by 255"),
    ],
)
def test_a_normalisation_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(target(ByColour()), pictures(), normalize=text)


def test_images_of_another_size_are_resized_as_the_source_says_or_straight() -> None:
    own = Preprocessing("own", *NORMALISATIONS["half"], resize=6, crop=(4, 4), interpolation="bicubic")
    fitted = fit(target(ByColour("half"), said=own), pictures())
    assert (row(fitted)["resize"], row(fitted)["crop"], row(fitted)["interpolation"]) == (6, [4, 4], "bicubic")
    straight = fit(target(ByColour(), said=Preprocessing("auto", resize=(5, 7))), pictures())
    assert (row(straight)["resize"], row(straight).get("crop")) == ([5, 7], None)
    same = fit(target(ByColour("half"), said=replace(own, crop=(8, 8))), pictures())
    assert "resize" not in row(same)
    flags = fit(target(ByColour("half"), said=own), pictures(), resize="6", crop="none")
    assert (row(flags)["resize"], row(flags).get("crop")) == (6, None)
    with pytest.raises(ConfigError, match="--resize 0: should be none or a number of pixels"):
        fit(target(ByColour()), pictures(), resize="0")


def linear(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, outputs))


def test_classes_are_matched_by_name() -> None:
    names = ("white", "blue, navy", "Red", "light_green", "green")
    one = target(linear(5), names, said=NONE)
    fitted = fit(one, pictures())
    x = pictures().batch(slice(0, 4))
    assert torch.equal(fitted.module(x), one.module(x)[:, [2, 4, 1]])
    assert "its 5 outputs are matched to the 3 classes by name" in fitted.notices[0]


def test_imagenets_classes_are_matched_by_wordnet_id() -> None:
    ids = fitting.wordnet_ids()
    fitted = fit(target(linear(1000), said=NONE), pictures(classes=(ids[7], ids[3], ids[999])))
    assert fitted.module.order.tolist() == [7, 3, 999]  # type: ignore[union-attr, operator]


def test_names_that_differ_are_taken_in_order_and_said() -> None:
    fitted = fit(target(linear(3), ("a", "b", "c"), said=NONE), pictures())
    assert "taken in order" in fitted.notices[0]
    assert not fit(target(linear(3), ("a", "b", "c"), said=NONE), pictures(classes=("0", "1", "2"))).notices


@pytest.mark.parametrize("outputs", [2, 4, 1000])
def test_a_count_that_does_not_fit_shows_both(outputs: int) -> None:
    with pytest.raises(CheckpointError, match=rf"has {outputs} outputs; colours has 3 classes \(red, green, blue\)"):
        fit(target(linear(outputs), said=NONE), pictures())


def test_a_network_that_fails_on_the_images_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="fails on images of 3x9x9 of colours") as caught:
        fit(target(linear(3), said=NONE), pictures(size=9))
    assert "\n" not in str(caught.value)


def test_one_that_is_held_against_its_reference_as_images_reach_it(tmp_path: Path) -> None:
    pytest.importorskip("onnx2pytorch", reason="the extra onnx is not installed")
    one = open_target(foreign.export_onnx(foreign.network(), tmp_path / "net.onnx"))
    assert not fit(one, pictures(size=16), normalize="none").without_gradients
    with torch.no_grad():
        next(one.module.parameters()).add_(0.5)
    fitted = fit(one, pictures(size=16), normalize="none")
    assert row(fitted)["resize"] == [8, 8]
    assert "differ from onnxruntime's" in fitted.without_gradients
    assert "it has no gradients" in fitted.notices[0]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_held_against_its_reference_too(batch: int, tmp_path: Path) -> None:
    pytest.importorskip("onnx2pytorch", reason="the extra onnx is not installed")
    one = open_target(foreign.export_onnx(foreign.network(), tmp_path / "net.onnx", batch))
    assert not fit(one, pictures(size=8), normalize="none").without_gradients


class WithFeatures(ByColour):
    """Returns features beside its logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x.flatten(1), super().forward(x)


def test_logits_beside_features_are_those_as_wide_as_there_are_classes() -> None:
    fitted = fit(target(WithFeatures()), pictures())
    assert fitted.module(pictures().batch(slice(4))).shape == (4, 3)


def test_a_candidate_that_fails_is_said() -> None:
    class Picky(ByColour):
        def forward(self, x: Tensor) -> Tensor:
            if x.min() < 0:
                raise ValueError("negative")
            return super().forward(x)

    assert "imagenet fails, cifar10 fails, half fails" in fit(target(Picky()), pictures()).notices[0]


def test_the_size_is_a_part_of_the_key() -> None:
    keys = {fit(target(ByColour()), pictures(), normalize="none", resize=size).key for size in ("none", "6", "7")}
    assert len(keys) == 3


def test_images_are_taken_even_over_the_classes() -> None:
    y = torch.tensor([0] * 50 + [1] * 3 + [2] * 10)
    index = fitting._even(y, 12)
    assert y[index].bincount().tolist() == [5, 3, 4]
    assert index.tolist()[:5] == [0, 1, 2, 3, 4]
