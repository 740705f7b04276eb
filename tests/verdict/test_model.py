"""Each check of a model speaks of one built for it, and is silent on a good one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustcli.attacks import parse_attack
from robustcli.testing import tiny_net, tiny_samples
from robustcli.testing.masked import MASKS, Mask
from robustcli.testing.state import state_of
from robustcli.verdict.check import LEVELS, Finding, findings
from robustcli.verdict.model import Inspection, clean_accuracy, inspect_model

from .conftest import Answers, inspected


def found(seen: Inspection, *specs: str) -> dict[str, Finding]:
    """What is said of an inspection, with these attacks in place of its own."""
    attacks = tuple(map(parse_attack, specs)) or seen.attacks
    return {finding.id: finding for finding in findings(replace(seen, attacks=attacks), "preflight")}


def test_a_good_model_raises_nothing_above_info() -> None:
    seen = inspected()
    spread = torch.nn.functional.one_hot(seen.y, 3) + 0.1 * seen.logits  # the tiny net has a favourite class
    by_id = found(replace(seen, logits=spread))
    assert by_id.keys() == {f"P{i}" for i in range(1, 13)}
    assert {finding.level for finding in by_id.values()} <= {"OK", "INFO"}


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
def test_a_masked_model_raises_at_least_its_check(mask: Mask) -> None:
    finding = found(inspected(mask.build(tiny_net())))[mask.check]
    assert finding.rank >= LEVELS.index(mask.level), finding  # type: ignore[arg-type]


def test_train_mode_is_told() -> None:
    net = tiny_net()
    net[1].training = True  # type: ignore[index]
    finding = found(inspected(net))["P1"]
    assert (finding.level, finding.message) == ("WARN", "1 came in train mode; measured in eval mode")


def test_normalised_pixels_are_invalid() -> None:
    samples = tiny_samples(tiny_net())
    finding = found(inspect_model(tiny_net(), replace(samples, x=2 * samples.x - 1)))["P2"]
    assert finding.level == "INVALID"
    assert "put the normalisation inside the model" in finding.message


def test_pixels_a_rounding_beyond_the_range_pass() -> None:
    samples = tiny_samples(tiny_net())
    assert found(inspect_model(tiny_net(), replace(samples, x=samples.x * (1 + 1e-5))))["P2"].level == "OK"


def test_many_saturated_points_alone_are_no_fault() -> None:
    seen = inspected()
    assert found(replace(seen, logits=200 * seen.logits))["P4"].level in ("INFO", "WARN")
    far = torch.nn.functional.one_hot(seen.y, 3).double()
    assert found(replace(seen, logits=20 * far))["P4"].level == "INFO"
    assert found(replace(seen, logits=200 * far))["P4"].level == "WARN"


def test_a_randomised_model_is_not_judged_on_batches() -> None:
    def noisy(net: nn.Module, x: Tensor) -> Tensor:
        return net(x) + 0.1 * torch.randn(len(x), 3, dtype=x.dtype)

    by_id = found(inspected(Answers(noisy)))
    assert by_id["P5"].level == "WARN"
    assert "P6" not in by_id


def test_gradients_averaged_over_twenty_passes_answer_a_randomised_model() -> None:
    seen = inspected()
    noisy = replace(seen, passes=(*seen.passes, seen.passes[0] * torch.tensor([1.0, 3.0, 2.0])))
    assert found(noisy, "pgd:eps=0.1,eot=20")["P5"].level == "INFO"
    assert found(noisy)["P5"].level == "WARN"


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ("autoattack:eps=0.1", "WARN"),
        ("autoattack:eps=0.1,version=rand", "INFO"),
        ("autoattack:eps=0.1,eot=20", "INFO"),
        ("autoattack:eps=0.1,version=rand,eot=5", "WARN"),
        ("square:eps=0.1", "INFO"),
    ],
)
def test_an_ensemble_averages_as_its_members_do(spec: str, level: str) -> None:
    seen = inspected()
    noisy = replace(seen, passes=(*seen.passes, seen.passes[0] * torch.tensor([1.0, 3.0, 2.0])))
    finding = found(noisy, spec)["P5"]
    assert finding.level == level
    assert ("no attack takes a gradient" in finding.message) == spec.startswith("square")


def test_a_model_that_refuses_an_image_alone_depends_on_batches() -> None:
    def fussy(net: nn.Module, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("expected more than one")
        return net(x)

    assert found(inspected(Answers(fussy)))["P6"].level == "INVALID"


def test_a_cut_graph_is_invalid_where_an_attack_needs_gradients() -> None:
    seen = inspected(Answers(lambda net, x: net(x.detach()).detach()))
    assert (seen.broken != "", found(seen)["P7"].level) == (True, "INVALID")
    assert "try square" in found(seen)["P7"].message
    square = found(seen, "square:eps=0.1")
    assert (square["P7"].level, "P8" in square) == ("INFO", False)


def test_what_zero_gradients_mean_depends_on_the_losses_that_are_used() -> None:
    scaled = inspected(Answers(lambda net, x: 1e5 * net(x)))
    assert found(scaled)["P8"].level == "SUSPECT"
    assert "apgd:loss=dlr" in found(scaled)["P8"].message
    other = found(scaled, "apgd:eps=0.1,loss=dlr")["P8"]
    assert other.level == "WARN"


def test_a_gradient_inside_the_forward_pass_is_told() -> None:
    def purified(net: nn.Module, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            (step,) = torch.autograd.grad(net(inner).square().sum(), inner)
        return net(x - 0.01 * step)

    assert found(inspected(Answers(purified)))["P9"].level == "WARN"


@pytest.mark.parametrize(("classes", "level"), [(2, "INFO"), (3, "INFO"), (4, "OK")])
def test_few_classes_are_told(classes: int, level: str) -> None:
    seen = inspected()
    logits = torch.zeros(len(seen.y), classes, dtype=torch.float64)
    assert found(replace(seen, logits=logits))["P10"].level == level


def test_chance_is_not_a_clean_accuracy() -> None:
    seen = inspected()
    assert found(replace(seen, logits=torch.zeros_like(seen.logits)))["P11"].level == "WARN"


def test_one_class_alone_is_no_clean_accuracy_though_all_of_it_is_right() -> None:
    seen = inspected()
    one = torch.zeros_like(seen.y)
    always = torch.nn.functional.one_hot(one, 3).double()
    (finding,) = clean_accuracy(replace(seen, y=one, logits=always))
    assert (finding.level, finding.value) == ("WARN", 1.0)
    assert "of one class" in finding.message


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("pgd:eps=0.3,steps=5,step_size=0.01", "cannot reach eps 0.3"),
        ("pgd:eps=0.1,step_size=0.5", "more than twice eps 0.1"),
        ("pgd:eps=8/255,norm=l2", "Linf-sized"),
        ("fgsm:eps=0", "a budget of 0 changes nothing"),
        ("pgd:eps=0,norm=l2", "a budget of 0 changes nothing"),
        ("pgd:eps=0.001", "below half a grey level; was it divided by 255 twice?"),
    ],
)
def test_budgets_that_fit_nothing_are_told(spec: str, problem: str) -> None:
    finding = found(inspected(), spec)["P12"]
    assert finding.level == "WARN"
    assert problem in finding.message


def test_an_inspection_leaves_model_and_random_state_as_they_were() -> None:
    model = MASKS[4].build(tiny_net())
    samples = tiny_samples(tiny_net())
    before = state_of(model, samples)
    inspect_model(model, samples)
    after = state_of(model, samples)
    assert {key for key, value in before.items() if not _same(value, after[key])} == set()


def _same(value: object, now: object) -> bool:
    return torch.equal(value, now) if isinstance(value, Tensor) and isinstance(now, Tensor) else value == now


def test_an_inspection_watches_autograd_no_longer_than_it_lasts() -> None:
    original = torch.autograd.grad
    inspected()
    assert torch.autograd.grad is original
