import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robustcli.attacks import Square, incremental, parse_attack, square
from robustcli.attacks.incremental import Incremental, trail
from robustcli.attacks.losses import margin
from robustcli.attacks.windows import moves_in
from robustcli.config import ModelSpec
from robustcli.models.nets import build_model
from robustcli.noise import Noise

SHAPE = (2, 24, 20)


def seeded(net, dtype=torch.float64):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    return net.to(dtype).eval().requires_grad_(False)


class TwoPaths(nn.Module):
    """Two convolutions of the same map."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 5, padding=2)

    def forward(self, x):
        self.other(x)
        return self.one(x)


class Residual(nn.Module):
    """Adds two maps, which no window can."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x.relu())


NETS = {
    "convolution": lambda: [nn.Conv2d(2, 4, 3)],
    "strides": lambda: [nn.Conv2d(2, 4, 5, stride=2, padding=2), nn.Tanh(), nn.Conv2d(4, 4, 3, stride=3)],
    "padding": lambda: [nn.Conv2d(2, 4, 5, padding="same"), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, bias=False)],
    "pools": lambda: [
        nn.Conv2d(2, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 2),
        nn.AvgPool2d(3, 2),
    ],
    "overlapping pools": lambda: [nn.MaxPool2d(3, 1), nn.Conv2d(2, 4, 3, groups=2), nn.Sigmoid()],
    "one after another": lambda: [nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3), nn.Conv2d(3, 4, 5, padding=2)],
    "two paths": lambda: [TwoPaths(), nn.ReLU(), nn.Conv2d(4, 4, 3)],
    "residual": lambda: [nn.Conv2d(2, 4, 3), Residual(), nn.Conv2d(4, 3, 3)],
    "wide kernels": lambda: [nn.Conv2d(2, 4, 3, padding=3), nn.Conv2d(4, 4, 3, padding=3), nn.Conv2d(4, 2, 3)],
    "others": lambda: [
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.MaxPool2d(2, padding=1),
    ],
    "reflected": lambda: [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
}


def built(name):
    net = nn.Sequential(*NETS[name](), nn.Flatten())
    net.eval()
    with torch.no_grad():
        width = net(torch.zeros(1, *SHAPE)).shape[1]
    return seeded(nn.Sequential(net, nn.Linear(width, 5)))


@pytest.fixture(autouse=True)
def small_savings_count(monkeypatch):
    monkeypatch.setattr(trail, "LEAST_SAVED", 0)


def images(n, seed):
    return Noise(seed, torch.arange(n)).uniform(torch.empty(n, *SHAPE, dtype=torch.float64))


def changed(x, side, count, seed):
    """Images with new windows, and where these are: in corners and at edges too."""
    draws = Noise(seed, torch.arange(len(x))).uniform(torch.empty(len(x), count, 2))
    spans = [length - side for length in x.shape[2:]]
    corners = [
        tuple((draws[:, k, i] * 1.4 * span - 0.2 * span).round().clamp(0, span).long() for i, span in enumerate(spans))
        for k in range(count)
    ]
    new, x = images(len(x), seed + 1), x.clone()
    for top, left in corners:
        for i in range(len(x)):
            place = (i, slice(None), slice(int(top[i]), int(top[i]) + side), slice(int(left[i]), int(left[i]) + side))
            x[place] = new[place]
    return x, corners


def question(asker, x, seed):
    """The images to ask about next, and their windows."""
    return changed(x.repeat_interleave(asker.at_once, 0), asker.side, asker.trail.count, seed)


def ask_in_turn(net, side, count, turns=6, dtype=torch.float64):
    """Answers to questions about windows, some of which are taken, then fewer samples; the model's own beside them."""
    x = images(7, 0).to(dtype)
    asker = Incremental.at(net, x, side, count)
    for turn in range(turns):
        used, at_once = asker.trail.pays, asker.at_once
        candidate, corners = question(asker, x, 10 * turn + 1)
        yield asker.ask(candidate, corners), net(candidate)
        assert asker.trail.pays == used, "its answers are the model's own"
        taken = (torch.arange(len(x)) * (turn + 3)) % (at_once + 2) - 2
        asker.keep(taken.clamp_min(-1))
        chosen = candidate[(torch.arange(len(x)) * at_once + taken).clamp_min(0)]
        x = torch.where((taken >= 0)[:, None, None, None], chosen, x)
        if turn == turns // 2:
            kept = torch.tensor([True, False, True, True, False, True, False])
            asker, x = asker[kept], x[kept]


@pytest.fixture(params=[7, 14], ids=["one at once", "several at once"])
def in_a_call(request, monkeypatch):
    """One question an image of seven or two, then one of four or three."""
    monkeypatch.setattr(incremental, "IN_A_CALL", request.param)


@pytest.mark.usefixtures("in_a_call")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("side", "count"), [(1, 1), (3, 1), (4, 2), (11, 1)])
def test_the_logits_are_the_models_own(name, side, count):
    with torch.no_grad():
        for logits, own in ask_in_turn(built(name), side, count):
            assert torch.allclose(logits, own, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("in_a_call")
@pytest.mark.parametrize("name", ["padding", "pools", "wide kernels"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rounding_sends_no_type_back_to_the_whole(name, dtype):
    net = built(name).to(dtype)
    with torch.no_grad():
        assert Incremental.at(net, images(7, 0).to(dtype), 2, 1).trail.pays
        for logits, own in ask_in_turn(net, 2, 1, turns=30, dtype=dtype):
            assert (logits - own).abs().max() <= 8 * torch.finfo(dtype).eps * own.abs().max()


@given(
    side=st.integers(1, 6),
    count=st.integers(1, 2),
    size=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_any_convolution_and_pool_reach_what_they_reach(side, count, size, stride, padding):
    net = nn.Sequential(
        nn.Conv2d(2, 3, size, stride, min(padding, size)), nn.MaxPool2d(2, stride), nn.Conv2d(3, 3, 3, padding=1)
    )
    seeded(net)
    with torch.no_grad():
        for logits, own in ask_in_turn(lambda x: net(x).flatten(1), side, count, turns=2):
            assert torch.allclose(logits, own, rtol=0, atol=1e-12)


def test_a_handful_of_small_images_is_just_asked_about(monkeypatch):
    net = seeded(build_model(ModelSpec(name="mnist-cnn", channels=1, height=28, width=28, classes=10)))
    monkeypatch.undo()
    with torch.no_grad():
        few, many = (Incremental.at(net, torch.zeros(n, 1, 28, 28, dtype=torch.float64), 2, 1) for n in (2, 60))
        assert not few.trail.pays
        assert many.trail.pays
        assert not many[torch.arange(60) < 2].trail.pays


@pytest.mark.parametrize("name", ["mnist-cnn", "cifar-cnn"])
def test_the_papers_networks_compute_windows_alone(name):
    side = {"mnist-cnn": 28, "cifar-cnn": 32}[name]
    channels = {"mnist-cnn": 1, "cifar-cnn": 3}[name]
    net = seeded(build_model(ModelSpec(name=name, channels=channels, height=side, width=side, classes=10)))
    x = Noise(0, torch.arange(3)).uniform(torch.empty(3, channels, side, side, dtype=torch.float64))
    with torch.no_grad():
        assert Incremental.at(net, x, side=2, count=1).trail.pays
        assert not Incremental.at(net, x, side=20, count=1).trail.pays


def test_the_fewer_images_the_more_questions_at_once(monkeypatch):
    net = built("padding")
    with torch.no_grad():
        asker = Incremental.at(net, images(70, 0), 2, 1)
        assert asker.at_once == 1
        assert asker[torch.arange(70) < 50].at_once == 2
        assert asker[torch.arange(70) < 3].at_once == 4
        assert Incremental.at(lambda x: x[:, 0, 0], images(3, 0), 2, 1).at_once == 1, "nothing is done in windows"
        monkeypatch.setattr(incremental, "HELD_IN_A_CALL", 9 * asker.trail.numbers)
        assert asker[torch.arange(70) < 3].at_once == 3
        monkeypatch.setattr(incremental, "PRODUCTS_IN_A_CALL", 6 * asker.trail.products[1])
        assert asker[torch.arange(70) < 3].at_once == 2


def test_so_they_are_asked_of_a_model_that_is_just_called_on_a_gpu(monkeypatch):
    monkeypatch.setattr(incremental, "WINDOWS_PAY_ON", ())
    net, calls = built("padding"), []

    def heard(x):
        calls.append(len(x))
        return net(x)

    with torch.no_grad():
        asker = Incremental.at(heard, images(7, 0), 2, 1)
        assert (asker.at_once, asker.trail.pays, calls) == (4, False, [1])
        assert pytest.approx(1, abs=0.1) == incremental.PRODUCTS_ELSEWHERE / (1000 * 50_435_072), "cifar-cnn's"
        monkeypatch.setattr(incremental, "PRODUCTS_ELSEWHERE", 16 * asker.products)
        assert Incremental.at(heard, images(7, 0), 2, 1).at_once == 2
        assert asker[torch.arange(7) < 5].at_once == 3
        assert Incremental.at(heard, images(17, 0), 2, 1).at_once == 1


def test_products_are_those_of_one_image_in_attention_too():
    x, mha = torch.zeros(5, 3, 32, 32), torch.backends.mha
    with torch.no_grad():
        assert incremental._products(nn.Conv2d(3, 8, 3, padding=1), x) == 32 * 32 * 8 * 27
        encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
        counted = incremental._products(lambda x: encoder(x.reshape(len(x), -1, 16)), x)
        tokens = 3 * 32 * 32 // 16
        assert counted >= tokens * (4 * 16 * 16 + 2 * 16 * 32), "its linear layers at least"
    assert mha.get_fastpath_enabled()


@pytest.mark.parametrize("model", [lambda x: x[:, 0, 0], lambda x: x.no_such], ids=["no products", "it fails"])
def test_one_question_at_a_time_where_products_cannot_be_counted(model, monkeypatch):
    monkeypatch.setattr(incremental, "WINDOWS_PAY_ON", ())
    assert Incremental.at(model, images(3, 0), 2, 1).at_once == 1


def test_few_numbers_are_computed():
    net, x, seen = built("padding"), images(7, 0), []
    net[0][2].register_forward_hook(lambda module, args, out: seen.append(getattr(args[0], "patches", x).shape))
    with torch.no_grad():
        asker = Incremental.at(net, x, 2, 1)
        asker.ask(*question(asker, x, 1))
    assert seen[1][-2:] == (6, 6), "2 pixels and 2 more on each side"


class Stumbles(nn.Module):
    """Convolves, and then does what windows do not allow."""

    def __init__(self, how):
        super().__init__()
        self.how, self.conv = how, nn.Conv2d(2, 5, 3)

    def forward(self, x):
        return self.how(self.conv(x)).mean((2, 3))


def noisy(h):
    return h + torch.randn(5, 1, 1)


def halved(h):
    return h.mul_(0.5)


def counted(h, calls=[]):  # noqa: B006
    calls.append(1)
    return h.relu() if len(calls) % 2 else h.tanh()


def quantised(h):
    return (h * 64).to(torch.int64).to(h.dtype) / 64


def by_the_brightest(h):
    return (h / h.amax((1, 2, 3), keepdim=True)).relu()


def sometimes(h, calls=[]):  # noqa: B006
    calls.append(1)
    kernel = torch.full((5, 5, 3, 3), 0.1 if len(calls) % 4 else 0.2, dtype=h.dtype)
    return nn.functional.conv2d(h, kernel)


def scaled(h, scale=torch.ones((), dtype=torch.float64)):  # noqa: B008
    return h / scale.copy_(h.sum().abs() + 1)


class Gated(nn.Module):
    """Takes a shorter way where the images are dark."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 5, 3)

    def forward(self, x):
        h = self.one(x)
        return (self.other(h) if float(self.brightness(x)) > 0.5 else h).mean((2, 3))

    def brightness(self, x):
        return next(self.turns)


def test_a_shorter_way_is_no_answer():
    net = seeded(Gated())
    net.turns = iter([1, 1, 1, 0, 0, 1, 1, 1])
    with torch.no_grad():
        x = images(7, 0)
        asker = Incremental.at(net, x, 2, 1)
        assert asker.trail.pays
        for turn in range(2):
            asker.ask(*question(asker, x, turn))
            assert asker.trail.pays == (turn == 0)
            asker.keep(torch.zeros(7, dtype=torch.long))


def plain(h):
    assert type(h) is torch.Tensor
    return h.relu()


@pytest.mark.parametrize("how", [quantised, by_the_brightest, sometimes, scaled, plain], ids=lambda how: how.__name__)
@pytest.mark.parametrize("n", [1, 7])
def test_no_model_gives_logits_that_are_not_its_own(how, n):
    net = seeded(Stumbles(how))
    with torch.no_grad():
        x = images(n, 0)
        asker = Incremental.at(net, x, 2, 1)
        for turn in range(9):
            candidate, corners = question(asker, x, turn)
            logits = asker.ask(candidate, corners)
            assert min(float((logits - net(candidate)).abs().max()) for _ in range(4)) < 1e-12
            asker.keep(torch.zeros(n, dtype=torch.long))
            x = candidate[:: len(candidate) // n]


@pytest.mark.parametrize("how", [noisy, halved, counted], ids=lambda how: how.__name__)
def test_a_model_that_is_not_itself_in_windows_is_just_called(how):
    net = seeded(Stumbles(how))
    with torch.no_grad(), torch.random.fork_rng():
        x = images(7, 0)
        asker = Incremental.at(net, x, 2, 1)
        for turn in range(3):
            asker.ask(*question(asker, x, turn))
            asker.keep(torch.full((7,), -1))
        assert not asker.trail.pays


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("options", [{}, {"restarts": 2}, {"target": "random"}], ids=str)
def test_the_square_attack_finds_the_same_images(norm, options, monkeypatch):
    net, x, noise = built("pools"), images(12, 3), Noise(0, torch.arange(12))
    with torch.no_grad():
        net[1].bias -= net(x).mean(0)  # else all are of one class, and none is broken
    y = net(x).argmax(1)
    attack = parse_attack("square", {"eps": {"linf": 0.02, "l2": 0.2}[norm], "queries": 150, "norm": norm} | options)
    monkeypatch.setattr(square, "BLOCK", 8)
    found = attack.perturb(net, x, y, noise)
    broken = int((net(found).argmax(1) != y).sum())
    assert 1 < broken < 11, broken
    in_turn = (incremental, "MOST_AT_ONCE", 1), (square, "STRETCH", 1), (trail, "WORTHWHILE", 0)
    for module, limit, value in (*in_turn, (incremental, "WINDOWS_PAY_ON", ())):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            other = attack.perturb(net, x, y, noise)
        same = (found - other).abs().flatten(1).amax(1) <= 1e-12
        # A window that changes no logit is kept or not as rounding has it, and rounding is the processor's.
        tied = (margin(net(found), y) - margin(net(other), y)).abs() <= 1e-12
        assert bool((same | tied).all()), limit


def test_square_on_a_gpu_counts_once_a_size_and_asks_four_at_once(monkeypatch):
    monkeypatch.setattr(incremental, "WINDOWS_PAY_ON", ())
    net, x, calls = built("pools"), images(6, 3), []

    def heard(x):
        calls.append(len(x))
        return net(x)

    attack = Square(1e-9, queries=150)
    sides = {side for side, _ in attack._blocks(moves_in(attack.norm, attack.eps), x)}
    attack.perturb(heard, x, net(x).argmax(1), Noise(0, torch.arange(6)))
    assert (calls.count(1), calls[0], set(calls)) == (len(sides), 6, {1, 6, 24})
    assert calls.count(6) == 1, "the start"


def test_the_square_attack_goes_on_with_a_model_that_turns_out_to_be_unfit(monkeypatch):
    monkeypatch.setattr(incremental, "HELD_AGAINST", 1)
    net, x, noise = built("pools"), images(6, 3), Noise(0, torch.arange(6))
    y = net(x).argmax(1)
    calls = []

    def unfit(x):
        calls.append(len(x))
        logits = net(x)
        return logits if type(x) is torch.Tensor or len(calls) < 60 else logits.flip(1)

    attack = Square(0.02, queries=150)
    assert torch.allclose(attack.perturb(unfit, x, y, noise), attack.perturb(net, x, y, noise), rtol=0, atol=1e-12)
    assert calls[20:60].count(24) > 30, "several at once"
    assert calls[60:].count(6) > 50
