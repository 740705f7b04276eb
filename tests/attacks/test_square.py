import math
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from robustcli.attacks import Square, parse_attack
from robustcli.attacks.square import L2Moves, LinfMoves, moves_in
from robustcli.engine.run import Samples, run_attack
from robustcli.errors import ConfigError
from robustcli.noise import Noise
from robustcli.testing import linear_model, linear_samples, tiny_net, tiny_samples

norms = pytest.mark.parametrize("norm", ["linf", "l2"])
EPS = {"linf": 0.1, "l2": 0.6}


def perturb(attack, model, samples, seed=0):
    return attack.perturb(model, samples.x, samples.y, Noise(seed, samples.ids))


def grey(n=3, channels=1, height=9, width=11):
    return torch.full((n, channels, height, width), 0.5, dtype=torch.float64)


def draws(n, count, seed=0):
    return Noise(seed, torch.arange(n)).uniform(torch.empty(n, count, dtype=torch.float32))


@norms
@pytest.mark.parametrize(("share", "left"), [(0.5, 0), (1.02, 2)])
def test_a_linear_model_falls_within_the_ball_and_stands_outside(norm, share, left):
    attack = Square(EPS[norm], queries=1000, norm=norm)
    model = linear_model(attack.norm)
    outcome = run_attack(model, attack, linear_samples(model, attack.norm, [share * EPS[norm]]))[0]
    assert int(outcome.robust.sum()) == left


def test_its_squares_shrink_as_in_the_paper():
    blocks = list(Square(0.1, queries=10_000)._blocks(LinfMoves(0.1), torch.empty(1, 1, 32, 32)))
    lengths = [(side, sum(count for _, count in group)) for side, group in groupby(blocks, key=lambda block: block[0])]
    sides = [max(1, round(math.sqrt(0.8 / 2**k) * 32)) for k in range(10)]
    assert [side for side, _ in lengths] == list(dict.fromkeys(sides))
    assert [count for _, count in lengths][:4] == [11, 40, 150, 300]
    assert sum(count for _, count in blocks) == 10_000


@given(st.integers(1, 3000), st.sampled_from(["linf", "l2"]), st.integers(4, 40), st.integers(4, 40))
def test_any_number_of_queries_fits_any_image(queries, norm, height, width):
    attack = Square(0.1, queries=queries, norm=norm)
    blocks = list(attack._blocks(moves_in(attack.norm, 0.1), torch.empty(1, 1, height, width)))
    assert sum(count for _, count in blocks) == queries
    assert all(1 <= side <= min(height, width) for side, _ in blocks)
    assert [side for side, _ in blocks] == sorted((side for side, _ in blocks), reverse=True)


@norms
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_sample_takes_so_many_queries_and_no_more(norm, restarts):
    sizes = []

    def stubborn(x):
        sizes.append(len(x))
        return torch.stack((torch.ones(len(x)), torch.zeros(len(x))), 1)

    samples = Samples(grey(), torch.zeros(3).long(), torch.arange(3))
    perturb(Square(0.1, queries=70, restarts=restarts, norm=norm), stubborn, samples)
    between = 3 * (restarts - 1)  # what says whether a restart is needed
    assert sum(sizes) == 3 * (1 + 70) * restarts + between


def test_a_broken_sample_takes_no_more_queries():
    seen = {}

    def falls_one_after_the_other(x):
        ids = x[:, 0, 0, 0].round(decimals=1)
        for key in ids.tolist():
            seen[key] = seen.get(key, 0) + 1
        stands = torch.tensor([seen[key] <= 100 * key for key in ids.tolist()])
        return torch.stack((stands.double(), (~stands).double()), 1)

    x = grey(4)
    x[:, 0, 0, 0] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    perturb(Square(0.0, queries=200), falls_one_after_the_other, Samples(x, torch.zeros(4).long(), torch.arange(4)))
    assert seen == {0.1: 11, 0.2: 21, 0.3: 31, 0.4: 41}


@norms
def test_images_that_the_start_breaks_cost_one_query_and_no_empty_batch(norm):
    sizes = []

    def always_wrong(x):
        sizes.append(len(x))
        return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    samples = Samples(grey(), torch.zeros(3).long(), torch.arange(3))
    perturb(Square(0.1, queries=50, restarts=2, norm=norm), always_wrong, samples)
    assert sizes == [3, 3]  # the second says that no restart is needed


@norms
def test_no_images_are_no_error(norm):
    nothing = Samples(grey(0), torch.zeros(0).long(), torch.arange(0))
    assert perturb(Square(0.1, queries=5, norm=norm), tiny_net(), nothing).shape == (0, 1, 9, 11)


@norms
def test_more_restarts_never_leave_more(norm):
    net = tiny_net()
    samples = tiny_samples(net, 40)
    counts = [
        int(run_attack(net, Square(EPS[norm] / 2, queries=15, restarts=n, norm=norm), samples)[0].robust.sum())
        for n in (1, 2, 5)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@norms
def test_what_changes_logits_by_rounding_alone_is_no_improvement(norm):
    def rounds_by_the_batch(x):
        wave = 5e-16 * torch.cos(x.flatten(1).sum(1) * 1e6 + len(x))
        return torch.stack((1 + wave, 1 - wave), 1) * torch.tensor([2.0, 1.0], dtype=x.dtype)

    samples = Samples(grey(), torch.zeros(3).long(), torch.arange(3))
    attack = Square(0.1, queries=50, norm=norm)
    start = moves_in(attack.norm, 0.1).start(samples.x, Noise(0, samples.ids).stream("attempt 0").stream("start"))
    assert torch.equal(perturb(attack, rounds_by_the_batch, samples), start)


@norms
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 5), (2, 5, 12)])
def test_images_of_any_shape_and_number_of_channels_stay_in_the_ball(norm, shape):
    x = Noise(3, torch.arange(5)).uniform(torch.empty(5, *shape, dtype=torch.float64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3)).double()
    samples = Samples(x, model(x).argmax(1), torch.arange(5))
    attack = Square(0.05, queries=100, norm=norm)
    x_adv = perturb(attack, model, samples)
    assert (attack.norm.distance(x_adv, x) <= 0.05 * (1 + 1e-9)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


@norms
@pytest.mark.parametrize("side", [1, 3, 9])
def test_squares_reach_every_row_and_column(norm, side):
    x, moves = grey(2000), LinfMoves(0.1) if norm == "linf" else L2Moves(0.1)
    changed = moves.candidate(x, x, moves.pattern(side, x), draws(2000, moves.numbers(1))) != x
    assert changed.any(0).all()
    assert int(changed.flatten(1).sum(1).max()) <= side * side


def test_a_square_that_would_change_nothing_takes_the_other_colour():
    x, moves = grey(200, channels=3), LinfMoves(0.1)
    up = (x + 0.1).clamp(0, 1)
    for side in (1, 4):
        assert (moves.candidate(x, up, moves.pattern(side, x), draws(200, 5)) != up).flatten(1).any(1).all()


def test_an_l2_step_spends_the_whole_budget():
    x, moves = grey(channels=2), L2Moves(0.3)
    x_adv = moves.start(x, Noise(0, torch.arange(3)))
    for i in range(50):
        assert torch.allclose((x_adv - x).flatten(1).norm(dim=1), torch.tensor(0.3).double(), atol=1e-9)
        x_adv = moves.candidate(x, x_adv, moves.pattern(3 + 2 * (i % 4), x), draws(3, moves.numbers(2), seed=i))


@norms
@pytest.mark.parametrize("side", [3, 5])
def test_a_candidate_differs_in_its_squares_alone(norm, side):
    x, moves = grey(50, channels=2), moves_in(parse_attack("square", {"eps": 0.3, "norm": norm}).norm, 0.3)
    before = moves.start(x, Noise(0, torch.arange(50)))
    after = moves.candidate(x, before, moves.pattern(side, x), draws(50, moves.numbers(2)))
    squares = {"linf": 1, "l2": 2}[norm]
    changed = (after != before).any(1).flatten(1).sum(1)
    assert (changed > 0).all()
    assert (changed <= squares * side * side).all()


@pytest.mark.parametrize("side", [3, 5, 9])
def test_a_pattern_is_the_papers(side):
    """Two bumps of opposite sign, each a sum over growing rectangles of 1 / k^2, written out as loops."""
    expected = torch.zeros(side, side, dtype=torch.float64)
    for top, height, sign in ((0, side // 2, 1), (side // 2, side - side // 2, -1)):
        bump = torch.zeros(height, side, dtype=torch.float64)
        for k in range(max(height, side) // 2 + 1):
            row, column = height // 2, side // 2
            bump[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += 1 / (k + 1) ** 2
        expected[top : top + height] = sign * bump / bump.norm()
    assert torch.allclose(L2Moves(1.0).pattern(side, expected), expected / expected.norm())


def test_another_norm_is_refused_by_name():
    with pytest.raises(ConfigError, match="--attack square: norm=l1: should be linf or l2"):
        parse_attack("square", {"eps": 1, "norm": "l1"})


@pytest.mark.parametrize(("option", "reason"), [("p_init=0", "greater than 0"), ("p_init=1.1", "less than or equal")])
def test_a_share_is_above_0_and_at_most_1(option, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_attack(f"square:eps=0.1,{option}")
