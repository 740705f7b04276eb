"""The binarisation test: an adversarial is there by construction; who misses it is told."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustcli.attacks import FGSM, PGD, Attack, DeepFool, UniformNoise
from robustcli.attacks.norms import L1, L2, Linf, Norm
from robustcli.errors import AttackError
from robustcli.measure.binarisation import CLOSENESS, Binarised, TwoClasses, binarise, find_last_linear, separate
from robustcli.testing import linear_model, linear_samples, tiny_net, tiny_samples
from robustcli.testing.masked import MASKS, Wrapped

EPS = 0.1
ATTACK = PGD(EPS, steps=10)
LINF = Linf()


MASKED = {mask.name: mask.build for mask in MASKS}


def images(n: int = 6) -> Tensor:
    return tiny_samples(tiny_net(), n).x


def binarised(model: nn.Module, attack: Attack = ATTACK, norm: Norm = LINF, eps: float = EPS) -> Binarised:
    return binarise(model, attack, images(), eps, norm, inner=64, draws=40)


@pytest.mark.parametrize(("norm", "eps"), [(Linf(), 0.1), (L2(), 0.8), (L1(), 4.0)])
def test_pgd_passes_on_a_smooth_net_in_each_norm(norm: Norm, eps: float) -> None:
    test = binarised(tiny_net(), norm=norm, eps=eps)
    assert test.passed
    assert (test.n, test.asr) == (6, 1.0)
    assert (test.attack.norm, test.eps) == (norm, eps)


@pytest.mark.parametrize("norm", [Linf(), L2()])
def test_pgd_passes_on_a_linear_model(norm: Norm) -> None:
    model = linear_model(norm)
    x = linear_samples(model, norm, [0.02, 0.2]).x
    test = binarise(model, ATTACK, x, 0.1, norm, inner=32, draws=40)
    assert (test.n, test.asr) == (4, 1.0)
    assert test.random_asr < 0.5


def test_a_minimal_norm_attack_counts_where_it_ends_within_the_ball() -> None:
    model = linear_model(L2())
    x = linear_samples(model, L2(), [0.2]).x
    assert binarise(model, DeepFool(), x, 0.5, L2(), inner=32, draws=10).asr == 1.0


@pytest.mark.parametrize("name", ["input in 8 levels", "zero-gradient layer", "logits x 1e4"])
def test_pgd_fails_where_its_gradients_are_masked(name: str) -> None:
    test = binarised(MASKED[name](tiny_net()), eps=0.1)
    assert test.asr < 0.5
    assert not test.passed


def test_probabilities_in_the_place_of_logits_do_not_hide_it() -> None:
    assert binarised(MASKED["softmax outputs"](tiny_net())).passed


def test_large_weights_of_the_last_layer_saturate_here_too() -> None:
    net = tiny_net()
    with torch.no_grad():
        for parameter in net[6].parameters():
            parameter.mul_(1e5)
    assert not binarised(net).passed


def test_noise_is_no_attack() -> None:
    assert not binarised(tiny_net(), UniformNoise(EPS, draws=10)).passed


def test_the_seed_repeats_it_and_neither_batch_size_nor_neighbours_change_it() -> None:
    net, x, ids = tiny_net(), images(), torch.arange(6) + 10
    runs = [
        binarise(net, FGSM(EPS), part, 0.02, Linf(), 3, ids=own, inner=40, draws=20, batch_size=size)
        for part, own, size in ((x, ids, 128), (x, ids, 7), (x.flip(0), ids.flip(0), 128), (x[2:4], ids[2:4], 128))
    ]
    first, smaller, backwards, part = [
        {i: (a, b) for i, a, b in zip(run.ids, run.found, run.found_at_random, strict=True)} for run in runs
    ]
    assert first == smaller == backwards
    assert part == {i: first[i] for i in (12, 13)}


def test_the_model_is_left_as_it_was() -> None:
    net = tiny_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    binarised(net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(not module._forward_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_dictionary_is_json() -> None:
    loaded = json.loads(json.dumps(binarised(tiny_net()).as_dict(), allow_nan=False))
    assert (loaded["attack"]["name"], loaded["norm"], loaded["eps"]) == ("pgd", "linf", EPS)
    assert (loaded["asr"], loaded["passed"], loaded["ids"]) == (1.0, True, list(range(6)))


# --- The last linear layer


class PastTheLayer(nn.Module):
    """Pixels reach the logits by another way too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x) + x[:, :1]
        return logits


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (lambda: [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 3, 8), nn.Flatten()], "the model has no linear layer"),
        (lambda: [nn.Linear(64, 64)] * 2, "in 2 uses"),
        (
            lambda: [nn.Linear(64, 16), nn.Unflatten(1, (16, 1, 1)), nn.Conv2d(16, 3, 1), nn.Flatten()],
            r"gives \(2, 16\) in 1 uses for logits \(2, 3\)",
        ),
        (lambda: [PastTheLayer()], "are not made of its last linear layer's one by one"),
        (lambda: [Wrapped(nn.Linear(64, 3), after=torch.neg)], "are not made of its last linear layer's one by one"),
        (lambda: [Wrapped(nn.Linear(64, 3), after=nn.functional.normalize)], "gives each two classes one margin"),
        (lambda: [nn.Linear(64, 3), nn.BatchNorm1d(3)], "takes no two classes"),
    ],
)
def test_a_model_without_such_a_layer_is_refused(layers: Callable[[], list[nn.Module]], words: str) -> None:
    with pytest.raises(AttackError, match=f"binarisation: .*{words}"):
        binarise(nn.Sequential(nn.Flatten(), *layers()).double().eval(), ATTACK, images(2), EPS, Linf())


def test_the_last_layer_is_found_in_the_order_of_calls_not_of_names() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(5, 3), nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.first(x.flatten(1)).relu())
            return 3 * logits

    model = Odd().double().eval()
    assert find_last_linear(model, images(1)) is model.last


def test_a_blind_model_takes_no_part() -> None:
    blind = Wrapped(tiny_net(), before=torch.zeros_like)
    with pytest.raises(AttackError, match=r"no point at Linf 0\.1 can be told from those inside"):
        binarised(blind)


def test_a_head_has_the_inner_points_on_one_side_and_keeps_the_size_of_the_logits() -> None:
    draw = np.random.default_rng(0)
    inner, planted = draw.uniform(-1, 1, (50, 8)), np.full(8, 1.2)
    head = separate(inner, planted, 7.0)
    assert head is not None
    logits = np.concatenate([inner, planted[None]]) @ head[0].T + head[1]
    margins = logits[:, 1] - logits[:, 0]
    assert margins[0] == pytest.approx(-7)
    assert (margins[:-1] < 0).all()
    assert margins[-1] / (margins[-1] - margins[:-1].max()) == pytest.approx(1 - CLOSENESS)


def test_no_head_tells_a_point_from_those_around_it() -> None:
    inner = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    assert separate(inner, np.zeros(3), 1.0) is None
    assert separate(np.zeros((4, 3)), np.zeros(3), 1.0) is None


def test_the_head_is_there_only_while_the_model_is_asked() -> None:
    net = tiny_net()
    before = net(images(2))
    two = TwoClasses(net, net[6], torch.zeros(2, 32).double(), torch.tensor([1.0, -1.0]).double()).eval()
    assert two(images(2)).tolist() == [[1.0, -1.0]] * 2
    assert torch.equal(net(images(2)), before)
