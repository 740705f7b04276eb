"""From a spec and weights to a network, and each way in which they do not fit."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from robustcli.config import ModelSpec
from robustcli.errors import CheckpointError, ConfigError
from robustcli.models.nets import build_model, channel_statistics, design, load_model

SPEC = ModelSpec(name="mnist-cnn", channels=1, height=8, width=8, classes=3)


def images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("channels", "name"), [(1, "mnist-cnn"), (3, "cifar-cnn")])
def test_the_default_network_goes_by_the_number_of_channels_and_takes_statistics_where_it_normalises(channels, name):
    x = images(5, channels, 9, 8)
    spec = design(None, x, 4)
    assert (spec.name, spec.channels, spec.height, spec.width, spec.classes) == (name, channels, 9, 8, 4)
    assert (spec.mean, spec.std) == ((None, None) if name == "mnist-cnn" else channel_statistics(x))


def test_an_unknown_network_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"--model 'mnist-cn' is unknown .*did you mean 'mnist-cnn'"):
        design("mnist-cn", images(5, 1, 8, 8), 3)


@pytest.mark.parametrize("size", [(3, 8), (8, 3), (1, 1)])
def test_images_too_small_to_pool_twice_are_refused(size):
    with pytest.raises(ConfigError, match=f"images of {size[0]}x{size[1]} pixels are too small"):
        design("mnist-cnn", images(5, 1, *size), 3)


def test_statistics_are_those_of_float64_pixels_channel_by_channel():
    x = images(20, 2, 5, 7)
    x[:, 1] //= 3
    pixels = x.double() / 255
    mean, std = channel_statistics(x)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=6e-5)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=6e-5)


def test_a_constant_channel_does_not_divide_by_zero():
    assert channel_statistics(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8)) == ((0.2,), (1e-4,))


@pytest.mark.data
def test_the_statistics_of_cifar10_are_the_published_ones():
    shared = Path(__file__).parents[3] / "shared" / "data"
    file = Path(os.environ.get("ROBUSTCLI_DATA", shared)) / "cifar10.npz"
    if not file.exists():
        pytest.skip("CIFAR-10 is not here")
    with np.load(file) as arrays:
        x = torch.from_numpy(arrays["x_train"]).permute(0, 3, 1, 2)
    assert channel_statistics(x) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def test_a_seed_gives_its_own_weights_and_leaves_the_global_rng():
    before = torch.get_rng_state()
    first, again, other = build_model(SPEC, 0), build_model(SPEC, 0), build_model(SPEC, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.fc1.weight, again.fc1.weight)
    assert not torch.equal(first.fc1.weight, other.fc1.weight)


def test_loaded_weights_are_the_given_ones_in_eval_mode():
    state = build_model(SPEC, 5).state_dict()
    model = load_model(SPEC, state, "a.pt")
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def changed(**changes):
    state = build_model(SPEC).state_dict() | changes
    return {key.replace("_", "."): value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(**{"fc2.bias": None}), r"'fc2\.bias' is no such tensor, should be \(3,\)"),
        (changed(extra=torch.zeros(2)), r"'extra' is \(2,\), should be no such tensor"),
        (changed(**{"fc1.weight": torch.zeros(256, 9)}), r"'fc1\.weight' is \(256, 9\), should be \(256, 128\)"),
        ({}, r"'conv1\.bias' is no such tensor"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(state, message):
    with pytest.raises(CheckpointError, match=f"^a.pt: weights do not fit mnist-cnn: {message}") as caught:
        load_model(SPEC, state, "a.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_floating_type_become_float32(dtype):
    state = {key: value.to(dtype) for key, value in build_model(SPEC, 5).state_dict().items()}
    model = load_model(SPEC, state, "a.pt")
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    assert all(torch.equal(value, state[key].float()) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_a_type_that_is_none_of_a_networks_are_refused(dtype):
    state = changed(**{"fc2.bias": torch.zeros(3).to(dtype)})
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        CheckpointError, match=rf"weights do not fit mnist-cnn: 'fc2\.bias' is {name}, should be float32"
    ):
        load_model(SPEC, state, "a.pt")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"classes": 10**10}, r"'fc2\.bias' is \(3,\), should be \(10000000000,\)"),
        ({"channels": 10**9}, r"'conv1\.weight' is \(32, 1, 5, 5\), should be \(32, 1000000000, 5, 5\)"),
        ({"height": 10**6, "width": 10**6}, r"'fc1\.weight' is \(256, 128\), should be \(256, 2000000000000\)"),
        (
            {"classes": 10**30},
            "its model: there is no network of 1000000000000000000000000000000 classes and images of",
        ),
        ({"height": 10**12, "width": 10**12}, "its model: there is no network of 3 classes and images of 1x10"),
        ({"mean": (0.5, 0.5)}, "its model: mean has 2 values for 1 channels"),
    ],
)
def test_a_network_of_any_size_is_compared_before_it_is_built(claim, message, monkeypatch):
    monkeypatch.setattr("robustcli.models.nets.build_model", lambda spec: pytest.fail("built"))
    state = build_model(SPEC).state_dict()
    with pytest.raises(CheckpointError, match=f"^a.pt: .*{message}"):
        load_model(SPEC.model_copy(update=claim), state, "a.pt")
