"""What a network from elsewhere needs before it and after it, found out on images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustcli.config import EvalSpec
from robustcli.data.images import Images
from robustcli.errors import CheckpointError, ConfigError
from robustcli.measure import fitting
from robustcli.models.imagenet import wordnet_ids
from robustcli.models.inputs import NORMALISATIONS, Preprocessing
from robustcli.models.target import Target, Wants

COLOURS = torch.eye(3) * 180 + 40
NAMES = ("red", "green", "blue")


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

    def forward(self, x: Tensor) -> Tensor:
        colours: Tensor = self.colours  # type: ignore[assignment]
        gap = (x.mean((2, 3))[:, None] - colours).norm(dim=2)
        # Far from all that it knows, everything is red.
        return torch.where(gap.min(1, keepdim=True).values < 0.3, -gap, torch.tensor([1.0, 0.0, 0.0]))


def target(module: nn.Module, classes: tuple[str, ...] = (), **wants: object) -> Target:
    return Target(module.eval(), "net.py:make", "key", None, classes, wants=Wants(**wants))  # type: ignore[arg-type]


def fit(one: Target, images: Images, **spec: object) -> Target:
    return fitting.fit_target(one, images, lambda: images, EvalSpec(**spec), "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["none", "imagenet", "half"])
def test_auto_takes_the_normalisation_that_the_network_expects(name: str) -> None:
    fitted = fit(target(ByColour(name)), pictures())
    assert fitted.input["normalize"] == name
    assert f"normalisation: {name} (right of 60 images: none" in fitted.notices[0]
    assert fitted.classes == NAMES
    assert fitted.shape == (3, 8, 8)


def test_auto_is_off_for_random_weights_and_for_what_the_source_says() -> None:
    assert fit(target(ByColour("imagenet"), random=True), pictures()).input["normalize"] == "none"
    own = Preprocessing("own", *NORMALISATIONS["half"])
    known = fit(target(ByColour("half"), preprocessing=own, known=True), pictures())
    assert known.input["mean"] == [0.5, 0.5, 0.5]
    assert not known.notices
    guessed = fit(target(ByColour("imagenet"), preprocessing=own, known=False), pictures())
    assert guessed.input["normalize"] == "imagenet"


def test_the_choice_is_a_part_of_the_key_and_the_same_for_every_limit() -> None:
    whole, one = pictures(), target(ByColour("imagenet"))
    first = fitting.fit_target(one, whole.take(slice(0, 5)), lambda: whole, EvalSpec(limit=5), "cpu")
    assert first.input["normalize"] == "imagenet"
    assert first.key == fit(one, whole).key
    assert first.key != fit(one, whole, normalize="none").key
    assert first.key == fit(one, whole, normalize="imagenet").key


def test_an_explicit_choice_is_taken_as_it_is() -> None:
    fitted = fit(target(ByColour()), pictures(), normalize="mean=0.5,std=0.25")
    assert fitted.input["mean"] == [0.5] * 3
    assert not fitted.notices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", "did you mean 'imagenet'"),
        ("mnist", "for 3 channels"),
        ("mean=1,2,std=1", "1 or 3 values each"),
        ("mean=a,std=1", "should be numbers"),
        ("mean=0,std=0", "std above 0"),
    ],
)
def test_a_normalisation_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(target(ByColour()), pictures(), normalize=text)


def test_images_of_another_size_are_resized_as_the_source_says_or_straight() -> None:
    own = Preprocessing("own", *NORMALISATIONS["half"], resize=6, crop=(4, 4), interpolation="bicubic")
    fitted = fit(target(ByColour("half"), preprocessing=own, known=True, size=(4, 4)), pictures())
    assert (fitted.input["resize"], fitted.input["crop"], fitted.input["interpolation"]) == (6, [4, 4], "bicubic")
    straight = fit(target(ByColour(), size=(5, 7)), pictures())
    assert (straight.input["resize"], straight.input.get("crop")) == ([5, 7], None)
    same = fit(target(ByColour("half"), preprocessing=own, known=True, size=(8, 8)), pictures())
    assert "resize" not in same.input
    flags = fit(
        target(ByColour("half"), preprocessing=own, known=True, size=(4, 4)), pictures(), resize="6", crop="none"
    )
    assert (flags.input["resize"], flags.input.get("crop")) == (6, None)
    with pytest.raises(ConfigError, match="--resize 0: should be none or a number of pixels"):
        fit(target(ByColour()), pictures(), resize="0")


def linear(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, outputs))


def test_classes_are_matched_by_name() -> None:
    names = ("white", "blue, navy", "Red", "light_green", "green")
    one = target(linear(5), names, random=True)
    fitted = fit(one, pictures())
    x = pictures().batch(slice(0, 4))
    assert torch.equal(fitted.module(x), one.module(x)[:, [2, 4, 1]])
    assert "its 5 outputs are matched to the 3 classes by name" in fitted.notices[0]


def test_imagenets_classes_are_matched_by_wordnet_id() -> None:
    ids = wordnet_ids()
    fitted = fit(target(linear(1000), random=True), pictures(classes=(ids[7], ids[3], ids[999])))
    assert fitted.module.order.tolist() == [7, 3, 999]  # type: ignore[union-attr, operator]


def test_names_that_differ_are_taken_in_order_and_said() -> None:
    fitted = fit(target(linear(3), ("a", "b", "c"), random=True), pictures())
    assert "taken in order" in fitted.notices[0]
    assert not fit(target(linear(3), ("a", "b", "c"), random=True), pictures(classes=("0", "1", "2"))).notices


@pytest.mark.parametrize("outputs", [2, 4, 1000])
def test_a_count_that_does_not_fit_shows_both(outputs: int) -> None:
    with pytest.raises(CheckpointError, match=rf"has {outputs} outputs; colours has 3 classes \(red, green, blue\)"):
        fit(target(linear(outputs), random=True), pictures())


def test_a_network_that_fails_on_the_images_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="does not take images of 3x9x9 of colours") as caught:
        fit(target(linear(3), random=True), pictures(size=9))
    assert "\n" not in str(caught.value)


def test_one_that_is_held_against_its_reference() -> None:
    seen: list[tuple[int, ...]] = []
    reason = ["it cannot be"]
    one = target(
        ByColour(),
        size=(4, 4),
        random=True,
        compare=lambda x: seen.append(tuple(x.shape)),
        without_gradients=lambda: reason[0],
    )
    fitted = fit(one, pictures())
    assert seen == [(16, 3, 4, 4)]
    assert fitted.without_gradients == "it cannot be"
    assert "it has no gradients" in fitted.notices[0]


def test_images_are_taken_even_over_the_classes() -> None:
    y = torch.tensor([0] * 50 + [1] * 3 + [2] * 10)
    index = fitting._even(y, 12)
    assert y[index].bincount().tolist() == [5, 3, 4]
    assert index.tolist()[:5] == [0, 1, 2, 3, 4]
