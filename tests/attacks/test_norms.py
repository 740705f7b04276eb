import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from robustcli.attacks.norms import L1, L2, NORMS, Linf, check_budget, greedy, norm_named
from robustcli.errors import ConfigError
from robustcli.fields import ball_edge
from robustcli.noise import Noise

norms = st.sampled_from(list(NORMS.values()))
seeds = st.integers(0, 10**6)
budgets = st.floats(0, 2)
scales = st.sampled_from([1e-30, 1e-3, 1.0, 1e3])


def draw(seed, n=5, dtype=torch.float64):
    """(n, 1, 3, 4) normal draws."""
    return Noise(seed, torch.arange(n)).normal(torch.empty(n, 1, 3, 4, dtype=dtype))


@given(norms, seeds, budgets)
def test_project_lands_in_the_ball(norm, seed, eps):
    x, far = draw(seed), draw(seed + 1)
    assert (norm.distance(norm.project(far, x, eps), x) <= eps * (1 + 1e-12) + 1e-15).all()


@given(norms, seeds, budgets)
def test_project_twice_is_project_once(norm, seed, eps):
    x, far = draw(seed), draw(seed + 1)
    once = norm.project(far, x, eps)
    assert torch.allclose(norm.project(once, x, eps), once, rtol=0, atol=1e-12)


@given(norms, seeds)
def test_project_leaves_a_point_of_the_ball_alone(norm, seed):
    x, near = draw(seed), draw(seed) + 0.01
    assert torch.allclose(norm.project(near, x, 1.0), near, rtol=0, atol=1e-12)


@given(norms, seeds, st.floats(0.01, 2))
def test_no_point_of_the_ball_is_nearer_than_the_projection(norm, seed, eps):
    x, far = draw(seed), draw(seed + 1)
    nearest = L2().distance(norm.project(far, x, eps), far)
    for candidate in range(10):
        point = norm.spread(x, eps, Noise(candidate, torch.arange(len(x))))
        assert (L2().distance(point, far) >= nearest - 1e-12).all()


@given(norms, seeds, scales)
def test_steepest_has_length_1(norm, seed, scale):
    step = norm.steepest(draw(seed) * scale)
    assert torch.allclose(norm.distance(step, torch.zeros_like(step)), torch.ones(5).double())


@given(norms, seeds, scales)
def test_no_step_of_length_1_climbs_faster_than_steepest(norm, seed, scale):
    gradient = draw(seed) * scale
    best = (gradient * norm.steepest(gradient)).flatten(1).sum(1)
    for candidate in range(10):
        step = draw(seed + 1 + candidate)
        step = step / norm.distance(step, torch.zeros_like(step)).reshape(-1, 1, 1, 1)
        assert ((gradient * step).flatten(1).sum(1) <= best * (1 + 1e-12)).all()


def pixels(seed, n=5):
    """(n, 1, 3, 4) pixels, of which many are black or white."""
    return (Noise(seed, torch.arange(n)).uniform(torch.empty(n, 1, 3, 4, dtype=torch.float64)) * 2 - 0.5).clamp(0, 1)


@given(norms, seeds, budgets)
def test_confine_lands_in_ball_and_box_and_stays_there(norm, seed, eps):
    x, far = pixels(seed), draw(seed + 1)
    once = norm.confine(far, x, eps)
    assert (norm.distance(once, x) <= eps * (1 + 1e-12) + 1e-15).all()
    assert ((once >= 0) & (once <= 1)).all()
    assert torch.allclose(norm.confine(once, x, eps), once, rtol=0, atol=1e-12)


@given(st.sampled_from([Linf(), L1()]), seeds, st.floats(0.01, 4))
def test_no_point_of_ball_and_box_is_nearer_than_what_confine_gives(norm, seed, eps):
    x, far = pixels(seed), draw(seed + 1)
    nearest = norm.confine(far, x, eps)
    for candidate in range(10):
        point = norm.spread(x, eps, Noise(candidate, torch.arange(len(x)))).clamp(0, 1)
        # In a convex set, each other point lies behind the plane through the nearest one.
        assert (((far - nearest) * (point - nearest)).flatten(1).sum(1) <= 1e-12).all()


@given(seeds, st.floats(0.01, 4))
def test_l1_confine_is_what_a_general_solver_finds(seed, eps):
    x, far = pixels(seed, 1), draw(seed + 1, 1)
    delta, low, high = (far - x).flatten().numpy(), -x.flatten().numpy(), 1 - x.flatten().numpy()

    def shrunk(t):
        return np.clip(np.sign(delta) * np.maximum(np.abs(delta) - t, 0), low, high)

    t = 0.0 if np.abs(shrunk(0)).sum() <= eps else brentq(lambda t: np.abs(shrunk(t)).sum() - eps, 0, 100, xtol=1e-14)
    assert L1().confine(far, x, eps).flatten().numpy() == pytest.approx(x.flatten().numpy() + shrunk(t), abs=1e-11)


@given(norms, seeds, st.floats(0.01, 4))
def test_no_step_inside_ball_and_box_climbs_higher_than_climb(norm, seed, eps):
    if norm == L2():  # its clamped step is not the best one
        return
    x, gradient = pixels(seed), draw(seed + 1)
    best = (gradient * (norm.climb(x, gradient, eps).clamp(0, 1) - x)).flatten(1).sum(1)
    for candidate in range(10):
        point = norm.confine(draw(seed + 2 + candidate), x, eps)
        assert ((gradient * (point - x)).flatten(1).sum(1) <= best + 1e-12).all()


@given(seeds, st.floats(0, 30))
def test_l1_climb_stays_in_the_box_and_uses_its_length_up(seed, length):
    x = pixels(seed)
    moved = L1().climb(x, draw(seed + 1), length)
    room = torch.where(draw(seed + 1) > 0, 1 - x, x).flatten(1).sum(1)
    assert ((moved >= -1e-15) & (moved <= 1 + 1e-15)).all()
    assert torch.allclose(L1().distance(moved, x), room.clamp_max(length), rtol=0, atol=1e-12)


def test_the_first_goods_are_bought_first():
    cost = torch.tensor([[2.0, 1.0, 0.0, 4.0]])
    share = greedy(torch.tensor([[1.0, 3.0, 9.0, 2.0]]), cost, torch.tensor([3.0]))
    assert share.tolist() == [[0, 1, 0, 0.5]]


def test_l1_projection_moves_all_large_entries_alike():
    delta = torch.tensor([[3.0, -2.0, 0.5]])
    assert L1().project(delta, torch.zeros(1, 3), 3.0).tolist() == [[2, -1, 0]]


@pytest.mark.parametrize("norm", NORMS.values())
def test_single_precision_keeps_the_ball_on_large_images(norm):
    x = Noise(0, torch.arange(3)).uniform(torch.empty(3, 3, 32, 32))
    far = x + 0.2 * Noise(1, torch.arange(3)).normal(x)
    assert (norm.distance(norm.confine(far, x, 0.03), x) <= ball_edge(0.03)).all()
    assert (norm.distance(norm.confine(far, x, 12.0), x) <= ball_edge(12)).all()


@pytest.mark.parametrize("norm", NORMS.values())
def test_a_zero_gradient_gives_a_zero_step_not_nan(norm):
    assert torch.equal(norm.steepest(torch.zeros(2, 1, 3, 4)), torch.zeros(2, 1, 3, 4))


def test_l2_steepest_does_not_underflow_on_a_saturated_model():
    step = L2().steepest(torch.full((1, 4), 1e-30))
    assert torch.allclose(step, torch.full((1, 4), 0.5))


@given(norms, seeds, budgets)
def test_spread_stays_in_the_ball(norm, seed, eps):
    x = draw(seed)
    point = norm.spread(x, eps, Noise(seed, torch.arange(5)))
    assert (norm.distance(point, x) <= eps * (1 + 1e-12) + 1e-15).all()


@pytest.mark.parametrize("norm", NORMS.values())
def test_spread_fills_the_ball_evenly_up_to_its_edge(norm):
    n, dimensions = 2000, 4
    x = torch.zeros(n, dimensions, dtype=torch.float64)
    radius = norm.distance(norm.spread(x, 1.0, Noise(0, torch.arange(n))), x)
    # The share within r is r^d: uniform after that power.
    uniform = (radius**dimensions).sort().values
    assert (uniform - (torch.arange(n) + 0.5) / n).abs().max() < 1.63 / n**0.5


@pytest.mark.parametrize("norm", NORMS.values())
def test_eps_0_keeps_every_point(norm):
    x = draw(0)
    assert torch.equal(norm.project(draw(1), x, 0.0), x)
    assert torch.equal(norm.spread(x, 0.0, Noise(0, torch.arange(5))), x)


def test_distances_are_those_of_the_norm():
    delta = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    assert Linf().distance(delta, torch.zeros(2, 2)).tolist() == [4, 0]
    assert L2().distance(delta, torch.zeros(2, 2)).tolist() == [5, 0]
    assert L1().distance(delta, torch.zeros(2, 2)).tolist() == [7, 0]


@pytest.mark.parametrize("norm", NORMS.values())
def test_an_empty_batch_is_no_error(norm):
    x = torch.empty(0, 1, 3, 4)
    assert len(norm.confine(x, x, 0.1)) == len(norm.climb(x, x, 0.1)) == 0
    assert len(norm.steepest(x)) == len(norm.project(x, x, 0.1)) == len(norm.distance(x, x)) == 0
    assert norm.spread(x, 0.1, Noise(0, torch.empty(0).long())).shape == x.shape


@pytest.mark.parametrize(
    ("name", "norm"),
    [("linf", Linf()), ("Linf", Linf()), ("inf", Linf()), ("L2", L2()), ("2", L2()), ("L1", L1()), ("1", L1())],
)
def test_a_norm_goes_by_each_of_its_names(name, norm):
    assert norm_named(name) == norm


def test_an_unknown_norm_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"norm 'l3' is unknown \(allowed: l1, l2, linf\)$"):
        norm_named("l3")


@pytest.mark.parametrize(("norm", "label"), [(Linf, "Linf"), (L2, "L2"), (L1, "L1")])
def test_a_norms_name_is_no_field(norm, label):
    assert (norm.name, norm.label) == (label.lower(), label)
    with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
        norm(name="l7")


@pytest.mark.parametrize(("norm", "eps"), [(Linf(), 0), (Linf(), 1), (L2(), 1.5), (L2(), 1000), (L1(), 12)])
def test_a_budget_that_images_can_exhaust_passes(norm, eps):
    check_budget(norm, eps, "here")


@pytest.mark.parametrize(("eps", "hint"), [(1.01, "1.01/255"), (8, "8/255"), (255, "255/255"), (256, None)])
def test_an_linf_budget_over_1_is_refused_with_a_hint(eps, hint):
    with pytest.raises(ConfigError) as caught:
        check_budget(Linf(), eps, "--eps")
    suggestion = f"; did you mean {hint}?" if hint else ""
    assert str(caught.value) == f"--eps: is over 1, the whole range of a pixel (allowed: 0 to 1){suggestion}"
