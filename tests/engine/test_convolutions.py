import pytest
import torch
from torch import nn

from robustcli.attacks import PGD
from robustcli.attacks.losses import cross_entropy, input_gradient
from robustcli.engine.convolutions import quick_convolutions
from robustcli.engine.guard import frozen
from robustcli.engine.run import run_attack
from robustcli.testing import tiny_net, tiny_samples

FIT = [
    nn.Conv2d(1, 8, 3, padding=1),
    nn.Conv2d(3, 5, 5, padding="same"),
    nn.Conv2d(1, 4, 3, padding="valid", bias=False),
    nn.Conv2d(2, 6, (3, 5), stride=(2, 1), padding=(0, 2)),
    nn.Conv2d(3, 4, 3, padding="same", dilation=2),
    nn.Conv2d(4, 4, 2, stride=3, padding=1, dilation=2),
]
LEFT = [
    nn.Conv2d(5, 4, 3),
    nn.Conv2d(4, 4, 3, groups=2),
    nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(1, 4, 4, padding="same"),
]


def gradient_and_node(layer, dtype=torch.float64, memory_format=torch.contiguous_format):
    net = nn.Sequential(layer, nn.Tanh()).to(dtype).eval().to(memory_format=memory_format)
    x = torch.linspace(0, 1, 2 * layer.in_channels * 9 * 11, dtype=dtype).cos().reshape(2, -1, 9, 11).requires_grad_()
    with frozen(net):
        hidden = layer(x)
        (gradient,) = torch.autograd.grad(net[1](hidden).square().sum(), x)
    return gradient, type(hidden.grad_fn).__name__


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", FIT + LEFT, ids=str)
def test_the_gradient_is_the_librarys(layer, memory_format, dtype, rounding):
    expected, _ = gradient_and_node(layer, dtype, memory_format)
    with quick_convolutions(layer):
        found, node = gradient_and_node(layer, dtype, memory_format)
    assert torch.allclose(found, expected, rtol=rounding, atol=rounding)
    assert node.startswith("_Folded") == (layer in FIT)
    assert torch.equal(gradient_and_node(layer, dtype, memory_format)[0], expected), "all is as before"


def test_under_autocast_the_gradient_is_of_the_images_type():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    x = tiny_samples(tiny_net()).x.float()
    gradients = []
    with frozen(net), torch.autocast("cpu", torch.bfloat16):
        gradients.append(input_gradient(net, cross_entropy, x, torch.arange(11) % 3)[0])
        with quick_convolutions(net):
            gradients.append(input_gradient(net, cross_entropy, x, torch.arange(11) % 3)[0])
    assert gradients[1].dtype == torch.float32
    assert torch.allclose(*gradients, rtol=0.02, atol=0.02 * float(gradients[0].abs().max()))


def test_an_activation_in_place_may_follow():
    gradients = []
    for inplace in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
        with frozen(net), quick_convolutions(net):
            gradients.append(input_gradient(net, cross_entropy, tiny_samples(tiny_net()).x, torch.arange(11) % 3)[0])
    assert torch.equal(*gradients)


def test_parameters_that_train_get_their_gradients():
    layer = nn.Conv2d(1, 4, 3)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with quick_convolutions(layer):
        layer(x).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    assert x.grad is not None


def test_the_hooks_are_gone_after_an_exception():
    net = tiny_net()

    def fails():
        with quick_convolutions(net):
            assert net[0]._forward_hooks
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not net[0]._forward_hooks


def test_a_large_image_is_left_to_the_library(monkeypatch):
    monkeypatch.setattr("robustcli.engine.convolutions.MOST_COLUMNS", 10)
    with quick_convolutions(FIT[0]):
        assert not gradient_and_node(FIT[0])[1].startswith("_Folded")


def test_the_driver_finds_the_same_with_and_without(net, samples, monkeypatch):
    attack = PGD(0.05, norm="l2")
    quick = run_attack(net, attack, samples, keep_images=True)[0]
    monkeypatch.setattr("robustcli.engine.convolutions.FEW_CHANNELS", 0)
    plain = run_attack(net, attack, samples, keep_images=True)[0]
    assert torch.equal(quick.robust, plain.robust)
    assert torch.allclose(quick.x_adv, plain.x_adv, rtol=0, atol=1e-9)
    assert (quick.forwards, quick.backwards) == (plain.forwards, plain.backwards)
