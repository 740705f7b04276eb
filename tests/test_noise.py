import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robustcli.noise import Noise

MANY = torch.arange(1000)
IDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8)


def like(n, *shape, dtype=torch.float64):
    return torch.empty(n, *(shape or (50,)), dtype=dtype)


def uniform(seed=0, ids=MANY, stream="", **form):
    return Noise(seed, ids).stream(stream).uniform(like(len(ids), **form))


def test_uniform_draws_have_the_moments_of_a_uniform():
    draws = uniform()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert draws.mean() == pytest.approx(1 / 2, abs=5 / (12 * draws.numel()) ** 0.5)
    assert draws.var() == pytest.approx(1 / 12, rel=0.02)


@pytest.mark.parametrize("ids", [MANY, MANY * 2**40, -MANY], ids=["small", "huge", "negative"])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_column_and_every_row_is_spread_evenly(ids, axis):
    draws = uniform(ids=ids)
    for line in (draws.T if axis == 0 else draws.reshape(50, 1000))[:10]:
        counts = torch.histc(line, 20, 0, 1).numpy()
        assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbouring_samples_and_pixels_are_uncorrelated():
    draws = uniform() - 0.5
    for pair in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1])):
        assert float((pair[0] * pair[1]).mean() * 12) == pytest.approx(0, abs=5 / draws.numel() ** 0.5)


def test_normal_draws_are_normal():
    draws = Noise(0, MANY).normal(like(1000))
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"stream": "b"}, {"ids": MANY + 1000}], ids=["seed", "stream", "samples"]
)
def test_another_source_gives_independent_draws(other):
    mine, theirs = uniform(stream="a") - 0.5, uniform(**{"stream": "a"} | other) - 0.5
    assert not (mine == theirs).all(1).any()
    assert float((mine * theirs).mean() * 12) == pytest.approx(0, abs=5 / mine.numel() ** 0.5)


def test_the_order_of_streams_matters_and_names_do_not_run_together():
    noise = Noise(0, MANY)
    paths = [("a", "b"), ("b", "a"), ("ab",), ("a",), ()]
    found = []
    for path in paths:
        source = noise
        for name in path:
            source = source.stream(name)
        found.append(float(source.uniform(like(1000))[0, 0]))
    assert len(set(found)) == len(paths)


@given(IDS, st.integers(0, 99), st.randoms())
def test_a_samples_draws_depend_on_its_id_only(ids, seed, rng):
    ids = torch.tensor(ids)
    order = torch.tensor(rng.sample(range(len(ids)), rng.randint(1, len(ids))))
    whole = Noise(seed, ids).uniform(like(len(ids), 2, 3))
    assert torch.equal(Noise(seed, ids)[order].uniform(like(len(order), 2, 3)), whole[order])


def test_more_pixels_begin_with_the_same_draws():
    assert torch.equal(Noise(0, MANY).uniform(like(1000, 9))[:, :4], Noise(0, MANY).uniform(like(1000, 4)))


@given(IDS)
def test_float32_draws_are_the_float64_ones(ids):
    ids = torch.tensor(ids)
    single, double = (Noise(0, ids).uniform(like(len(ids), dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert single.dtype == torch.float32
    assert torch.equal(single.double(), double)


def test_float32_normals_agree_with_float64():
    single, double = (Noise(0, MANY).normal(like(1000, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", [0.0, 1 - 2.0**-24])
def test_the_rarest_draws_are_finite_normals(monkeypatch, dtype, extreme):
    monkeypatch.setattr(Noise, "uniform", lambda self, like: torch.full_like(like, extreme))
    assert Noise(0, MANY).normal(like(2, dtype=dtype)).isfinite().all()


def test_draws_are_those_that_results_were_published_with():
    assert (uniform(ids=torch.tensor([0, 7]))[:, :3] * 2**24).long().tolist() == [
        [10267919, 8051136, 13914184],
        [7418827, 8052035, 3303198],
    ]


def test_the_global_generator_is_neither_asked_nor_set():
    before = torch.get_rng_state()
    first = uniform()
    torch.rand(3)
    assert torch.equal(uniform(), first)
    torch.set_rng_state(before)


@pytest.mark.parametrize("draw", [Noise.uniform, Noise.normal])
def test_no_samples_and_no_pixels_are_no_error(draw):
    none = torch.empty(0).long()
    assert draw(Noise(0, none), like(0, 1, 8, 8)).shape == (0, 1, 8, 8)
    assert draw(Noise(0, MANY), torch.empty(1000)).shape == (1000,)
