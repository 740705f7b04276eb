"""Normalisation inside the network, and the slots before its ReLUs."""

import pytest
import torch
from torch import nn

from robustcli.config import ModelSpec
from robustcli.errors import ConfigError
from robustcli.models import MODELS, BatchOut, GaussianNoise, Normalize, fill_slots
from robustcli.models.nets import build_model

SIZES = {"mnist-cnn": 1, "cifar-cnn": 3}


def network(name):
    model = build_model(ModelSpec(name=name, channels=SIZES[name], height=8, width=8, classes=3)).eval()
    x = torch.rand(2, SIZES[name], 8, 8, generator=torch.Generator().manual_seed(0))
    return model, x


def slots(name):
    return [(name, slot) for slot in MODELS[name].slot_names]


class Force(nn.Module):
    """Replaces activations by one value, and keeps what came in."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, h):
        self.seen = h
        return torch.full_like(h, self.value)


def test_normalize_shifts_and_scales_each_channel():
    x = torch.tensor([0.2, 0.4]).reshape(1, 2, 1, 1)
    found = Normalize((0.1, 0.5), (0.5, 0.1))(x)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.2, -1.0]))


@pytest.mark.parametrize(("name", "slot"), [*slots("mnist-cnn"), *slots("cifar-cnn")])
def test_every_slot_lies_on_the_way_to_the_logits_and_before_its_relu(name, slot):
    model, x = network(name)
    logits = []
    for value in (-1.0, -7.0, 7.0):
        fill_slots(model, {slot: Force(value)})
        logits.append(model(x))
    assert torch.equal(logits[0], logits[1]), "a ReLU after the slot ends all negative numbers alike"
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("name", SIZES)
def test_what_enters_a_slot_is_its_layers_output(name):
    model, x = network(name)
    outputs, layers = [], {slot: Force(1.0) for slot in model.slot_names}
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, _, out: outputs.append(out))
    fill_slots(model, layers)
    model(x)
    for layer, output in zip(layers.values(), outputs, strict=False):
        assert layer.seen is output
    assert len(outputs) == len(layers) + 1, "the last layer gives the logits and has no slot"


@pytest.mark.parametrize("name", SIZES)
def test_the_slots_are_named_in_their_order(name):
    model, x = network(name)
    visited = []
    for slot in model.slot_names:
        model.slots[slot].register_forward_hook(lambda *_, slot=slot: visited.append(slot))
    model(x)
    assert tuple(visited) == model.slot_names
    assert len(model.paper_eta) == len(model.slot_names)


@pytest.mark.parametrize("layer", [BatchOut(0.5), GaussianNoise(0.5)])
@pytest.mark.parametrize("name", SIZES)
def test_a_filled_network_is_the_empty_one_in_its_weights_and_in_eval_mode_and_another_in_training(name, layer):
    model, x = network(name)
    model.dropout.p = 0.0
    keys, logits = list(model.state_dict()), model(x)
    fill_slots(model, dict.fromkeys(model.slot_names, layer))
    assert list(model.state_dict()) == keys
    assert torch.equal(model.eval()(x), logits)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert any(not torch.allclose(model.train()(x), logits) for _ in range(5))


@pytest.mark.parametrize(("model", "allowed"), [(network("mnist-cnn")[0], "c1, c2, f1"), (nn.Linear(2, 2), "none")])
def test_an_unknown_slot_names_the_flag_and_what_is_allowed(model, allowed):
    with pytest.raises(ConfigError, match=rf"--layers 'f2' is unknown \(allowed: {allowed}\)"):
        fill_slots(model, {"f2": BatchOut(0.1)})
