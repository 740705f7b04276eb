import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustcli.attacks.norms import L1, NORMS
from robustcli.attacks.projection import project_onto_hyperplane

from .conftest import box_optimum

DIMENSIONS = 6


REACHED = st.floats(0.01, 0.99)
OUT_OF_REACH = st.floats(1.01, 100)


@st.composite
def problems(draw, share=REACHED):
    """w, low, high (d,) and a target that the box reaches; some weights are 0, some pixels are at a bound."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = rng.normal(size=DIMENSIONS) * (rng.random(DIMENSIONS) > 0.2) * 10.0 ** draw(st.integers(-6, 3))
    w[0] = w[0] or 1.0
    x = np.clip(rng.random(DIMENSIONS) * 1.4 - 0.2, 0, 1)
    low, high = -x, 1 - x
    reach = np.maximum(w * low, w * high).sum()
    return w, low, high, draw(share) * reach


def solve(norm, w, low, high, target):
    w, low, high = (torch.tensor(part)[None] for part in (w, low, high))
    step = project_onto_hyperplane(norm, w, torch.tensor([target]), low, high)
    return step.delta[0].numpy(), bool(step.reached[0])


@given(st.sampled_from(list(NORMS.values())), problems())
def test_the_step_lies_in_the_box_and_on_the_hyperplane(norm, problem):
    w, low, high, target = problem
    delta, reached = solve(norm, w, low, high, target)
    assert reached
    assert (delta >= low - 1e-12).all()
    assert (delta <= high + 1e-12).all()
    assert w @ delta == pytest.approx(target, rel=1e-9, abs=1e-15)


@given(st.sampled_from(list(NORMS.values())), problems())
def test_the_step_is_as_short_as_a_general_solver_finds(norm, problem):
    delta, _ = solve(norm, *problem)
    length = np.linalg.norm(delta, {"linf": np.inf, "l2": 2, "l1": 1}[norm.name])
    w, low, high, target = problem
    assert length == pytest.approx(box_optimum(norm, w, target, low, high), rel=1e-6, abs=1e-7)


@given(st.sampled_from(list(NORMS.values())), problems(share=OUT_OF_REACH))
def test_a_boundary_out_of_reach_gives_the_far_corner(norm, problem):
    w, low, high, target = problem
    delta, reached = solve(norm, w, low, high, target)
    assert not reached
    assert delta == pytest.approx(np.where(w > 0, high, np.where(w < 0, low, 0)), abs=1e-12)


@given(st.sampled_from(list(NORMS.values())), problems())
def test_a_wide_box_is_no_box(norm, problem):
    w, _, _, target = problem
    free = project_onto_hyperplane(norm, torch.tensor(w)[None], torch.tensor([target]), None, None)
    for bound in [1e9] if norm == L1() else [1e9, np.inf]:
        boxed, _ = solve(norm, w, np.full(DIMENSIONS, -bound), np.full(DIMENSIONS, bound), target)
        assert boxed == pytest.approx(free.delta[0].numpy(), rel=1e-9)


@pytest.mark.parametrize("norm", NORMS.values())
@pytest.mark.parametrize("box", [None, 1.0])
def test_a_plane_without_a_normal_is_not_reached(norm, box):
    bound = None if box is None else torch.full((1, 4), box)
    step = project_onto_hyperplane(norm, torch.zeros(1, 4), torch.ones(1), None if bound is None else -bound, bound)
    assert not step.reached
    assert not step.delta.any()


@pytest.mark.parametrize("norm", NORMS.values())
def test_a_boundary_underfoot_needs_no_step(norm):
    step = project_onto_hyperplane(norm, torch.ones(1, 4), torch.zeros(1), -torch.ones(1, 4), torch.ones(1, 4))
    assert step.reached
    assert not step.delta.any()


@pytest.mark.parametrize("norm", NORMS.values())
@pytest.mark.parametrize("target", [0.5, 9.0])
def test_a_weight_that_underflows_does_not_spoil_the_others(norm, target):
    w = torch.tensor([[1.0, 1.0, 1e-42]])
    step = project_onto_hyperplane(norm, w, torch.tensor([target]), -torch.full((1, 3), 0.5), torch.full((1, 3), 0.5))
    assert step.delta.isfinite().all()
    assert bool(step.reached) == (target < 1)


@pytest.mark.parametrize("norm", NORMS.values())
def test_rows_are_solved_apart(norm):
    torch_rng = torch.Generator().manual_seed(0)
    w, x = torch.randn(20, 5, generator=torch_rng).double(), torch.rand(20, 5, generator=torch_rng).double()
    target = torch.linspace(0, 3, 20).double()
    whole = project_onto_hyperplane(norm, w, target, -x, 1 - x)
    for i in range(20):
        one = project_onto_hyperplane(norm, w[i : i + 1], target[i : i + 1], -x[i : i + 1], 1 - x[i : i + 1])
        assert torch.allclose(one.delta[0], whole.delta[i], rtol=0, atol=1e-12)
