"""The paper's two networks, tensor by tensor."""

import pytest
import torch
import torch.nn.functional as F

from robustcli.config import ModelSpec
from robustcli.models import MODELS, BatchOut
from robustcli.models.augmentation import fill_slots
from robustcli.models.nets import build_model
from robustcli.testing import check_model

MNIST = {
    "conv1.weight": (32, 1, 5, 5),
    "conv1.bias": (32,),
    "conv2.weight": (32, 32, 5, 5),
    "conv2.bias": (32,),
    "fc1.weight": (256, 32 * 7 * 7),
    "fc1.bias": (256,),
    "fc2.weight": (10, 256),
    "fc2.bias": (10,),
}
CIFAR = {
    "normalize.mean": (3, 1, 1),
    "normalize.std": (3, 1, 1),
    "conv1.weight": (32, 3, 3, 3),
    "conv1.bias": (32,),
    "conv2.weight": (64, 32, 3, 3),
    "conv2.bias": (64,),
    "conv3.weight": (64, 64, 3, 3),
    "conv3.bias": (64,),
    "conv4.weight": (64, 64, 3, 3),
    "conv4.bias": (64,),
    "conv5.weight": (64, 64, 3, 3),
    "conv5.bias": (64,),
    "fc1.weight": (512, 64 * 8 * 8),
    "fc1.bias": (512,),
    "fc2.weight": (512, 512),
    "fc2.bias": (512,),
    "fc3.weight": (10, 512),
    "fc3.bias": (10,),
}
MNIST_SPEC = ModelSpec(name="mnist-cnn", channels=1, height=28, width=28, classes=10)
CIFAR_SPEC = ModelSpec(name="cifar-cnn", channels=3, height=32, width=32, classes=10)


def small(name, **changes):
    channels = 1 if name == "mnist-cnn" else 3
    return ModelSpec(**({"name": name, "channels": channels, "height": 8, "width": 8, "classes": 3} | changes))


@pytest.mark.parametrize(
    ("spec", "tensors", "parameters"), [(MNIST_SPEC, MNIST, 430_698), (CIFAR_SPEC, CIFAR, 2_495_626)]
)
def test_the_tensors_are_those_of_the_papers_table(spec, tensors, parameters):
    model = build_model(spec)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == tensors
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.dropout.p == 0.5


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    model = build_model(small(name))
    x = torch.rand(4, model.conv1.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        F.cross_entropy(model.train()(x), torch.tensor([0, 1, 2, 0])).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"classes": 2}, {"channels": 2}, {"height": 4, "width": 4}, {"height": 32, "width": 28}, {"classes": 100}],
)
def test_a_network_of_any_size_keeps_the_contract(name, changes):
    spec = small(name, **changes)
    check_model(build_model(spec), (spec.channels, spec.height, spec.width), spec.classes)


def test_the_papers_eta_are_those_of_its_tables():
    assert MODELS["mnist-cnn"].paper_eta == (0.05, 0.1, 0.1)
    assert MODELS["cifar-cnn"].paper_eta == ((0, 0.1),) * 4 + ((0, 0.15),) * 3


def test_normalisation_is_left_out_where_the_spec_has_none():
    state = build_model(small("cifar-cnn")).state_dict()
    assert not state["normalize.mean"].any()
    assert (state["normalize.std"] == 1).all()


def with_the_relu_first(model, x):
    """The network as the paper draws it: each ReLU before the pooling that follows it."""
    if not hasattr(model, "conv3"):
        h = model.pool(model.slots["c1"](model.conv1(x)).relu())
        h = model.pool(model.slots["c2"](model.conv2(h)).relu())
        h = model.slots["f1"](model.fc1(model.dropout(h.flatten(1)))).relu()
        return model.fc2(model.dropout(h))
    h = model.slots["c1"](model.conv1(model.normalize(x))).relu()
    h = model.pool(model.slots["c2"](model.conv2(h)).relu())
    h = model.slots["c3"](model.conv3(h)).relu()
    h = model.slots["c4"](model.conv4(h)).relu()
    h = model.pool(model.slots["c5"](model.conv5(h)).relu())
    h = model.slots["f1"](model.fc1(model.dropout(h.flatten(1)))).relu()
    return model.fc3(model.dropout(model.slots["f2"](model.fc2(h)).relu()))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("slots", ["empty", "filled"])
@pytest.mark.parametrize("name", ["mnist-cnn", "cifar-cnn"])
def test_values_and_gradients_are_those_of_the_papers_table(name, slots, mode):
    """Bit for bit: a ReLU is monotone, and where a whole window is negative both orders have no gradient."""
    statistics = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)} if name == "cifar-cnn" else {}
    model = build_model(small(name, height=12, width=12, **statistics)).train(mode == "train")
    if slots == "filled":
        fill_slots(model, {slot: BatchOut(0.1) for slot in model.slot_names})
    x = torch.rand(6, model.conv1.in_channels, 12, 12, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last)
    found = []
    for forward in (model, lambda x: with_the_relu_first(model, x)):
        leaf = x.clone().requires_grad_()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            logits = forward(leaf)
        gradients = torch.autograd.grad(
            F.cross_entropy(logits, torch.arange(6) % 3), [leaf, *model.parameters()], materialize_grads=True
        )
        found.append([logits, *gradients])
    assert all(value.any() for value in found[0])
    assert all(map(torch.equal, *found))
