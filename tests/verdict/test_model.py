"""Each check of a model speaks of one built for it, and is silent on a good one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from robustcli.attacks import parse_attack
from robustcli.testing import tiny_net, tiny_samples
from robustcli.testing.masked import MASKS, Mask, Wrapped
from robustcli.testing.state import require_unchanged, state_of
from robustcli.verdict.check import LEVELS, Finding, findings
from robustcli.verdict.model import Inspection, clean_accuracy, inspect_model

from .conftest import Answers, inspected


def found(seen: Inspection, *specs: str) -> dict[str, Finding]:
    """What is said of an inspection, with these attacks in place of its own."""
    attacks = tuple(map(parse_attack, specs)) or seen.attacks
    return {finding.id: finding for finding in findings(replace(seen, attacks=attacks), "preflight")}


@pytest.fixture
def seen() -> Inspection:
    return inspected()


@pytest.fixture
def noisy(seen: Inspection) -> Inspection:
    """A model that answers otherwise in a sixth pass."""
    return replace(seen, passes=(*seen.passes, seen.passes[0] * torch.tensor([1.0, 3.0, 2.0])))


def test_a_good_model_raises_nothing_above_info(seen: Inspection) -> None:
    spread = one_hot(seen.samples.y, 3) + 0.1 * seen.logits  # the tiny net has a favourite class
    by_id = found(replace(seen, logits=spread))
    assert by_id.keys() == {*(f"P{i}" for i in range(1, 13))}
    assert {finding.level for finding in by_id.values()} <= {"OK", "INFO"}


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
def test_a_masked_model_raises_at_least_its_check(mask: Mask) -> None:
    finding = found(inspected(mask.build(tiny_net())))[mask.check]
    assert finding.rank >= LEVELS.index(mask.level), finding  # type: ignore[arg-type]


def test_train_mode_is_reported() -> None:
    net = tiny_net()
    net[1].training = True  # type: ignore[index]
    finding = found(inspected(net))["P1"]
    assert (finding.level, finding.message) == ("WARN", "1 came in train mode; measured in eval mode")


def test_pixels_must_be_in_their_range_but_for_a_rounding() -> None:
    samples = tiny_samples(tiny_net())
    rounded, normalised = (
        found(inspect_model(tiny_net(), replace(samples, x=x)))["P2"]
        for x in (samples.x * (1 + 1e-5), 2 * samples.x - 1)
    )
    assert (rounded.level, normalised.level) == ("OK", "INVALID")
    assert "put the normalisation inside the model" in normalised.message


@pytest.mark.parametrize(("scale", "level"), [(20, "INFO"), (200, "WARN")])
def test_many_saturated_points_alone_are_no_fault(seen: Inspection, scale: float, level: str) -> None:
    assert found(replace(seen, logits=scale * one_hot(seen.samples.y, 3).double()))["P4"].level == level


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ("pgd:eps=0.1", "WARN"),
        ("pgd:eps=0.1,eot=20", "INFO"),
        ("autoattack:eps=0.1", "WARN"),
        ("autoattack:eps=0.1,version=rand", "INFO"),
        ("autoattack:eps=0.1,eot=20", "INFO"),
        ("autoattack:eps=0.1,version=rand,eot=5", "WARN"),
        ("square:eps=0.1", "INFO"),
    ],
)
def test_gradients_averaged_over_twenty_passes_answer_a_randomised_model(
    noisy: Inspection, spec: str, level: str
) -> None:
    by_id = found(noisy, spec)
    assert by_id["P5"].level == level
    assert ("no attack takes a gradient" in by_id["P5"].message) == spec.startswith("square")
    assert "P6" not in by_id, "whether its logits depend on the batch cannot be seen"


def fussy(net: nn.Module, x: Tensor) -> Tensor:
    if len(x) == 1:
        raise ValueError("expected more than one")
    logits: Tensor = net(x)
    return logits


def purified(net: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        inner = x.detach().requires_grad_()
        (step,) = torch.autograd.grad(net(inner).square().sum(), inner)
    logits: Tensor = net(x - 0.01 * step)
    return logits


@pytest.mark.parametrize(
    ("answer", "specs", "check", "level", "words"),
    [
        (fussy, [], "P6", "INVALID", "an image alone is refused"),
        (purified, [], "P9", "WARN", "only an adaptive attack can judge it"),
        (lambda net, x: net(x.detach()).detach(), [], "P7", "INVALID", "try square"),
        (lambda net, x: net(x.detach()).detach(), ["square:eps=0.1"], "P7", "INFO", "no attack needs one"),
        (lambda net, x: 1e5 * net(x), [], "P8", "SUSPECT", "apgd:loss=dlr"),
        (lambda net, x: 1e5 * net(x), ["apgd:eps=0.1,loss=dlr"], "P8", "WARN", "blind"),
    ],
)
def test_a_model_is_judged_by_what_it_does_and_what_attacks_need(
    answer: Callable[[nn.Module, Tensor], Tensor], specs: list[str], check: str, level: str, words: str
) -> None:
    by_id = found(inspected(Answers(answer)), *specs)
    assert (by_id[check].level, words in by_id[check].message) == (level, True)
    assert ("P8" in by_id) == (check != "P7"), "without a gradient none is zero"


@pytest.mark.parametrize(("classes", "level"), [(2, "INFO"), (3, "INFO"), (4, "OK")])
def test_few_classes_are_reported(seen: Inspection, classes: int, level: str) -> None:
    logits = torch.zeros(len(seen.samples), classes, dtype=torch.float64)
    samples = replace(seen.samples, y=seen.samples.y.clamp(max=classes - 1))
    assert found(replace(seen, logits=logits, samples=samples))["P10"].level == level


def test_chance_is_not_a_clean_accuracy_nor_is_one_class_alone(seen: Inspection) -> None:
    assert found(replace(seen, logits=torch.zeros_like(seen.logits)))["P11"].level == "WARN"
    one = torch.zeros_like(seen.samples.y)
    (finding,) = clean_accuracy(replace(seen, samples=replace(seen.samples, y=one), logits=one_hot(one, 3).double()))
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
def test_budgets_that_fit_nothing_are_reported(seen: Inspection, spec: str, problem: str) -> None:
    finding = found(seen, spec)["P12"]
    assert finding.level == "WARN"
    assert problem in finding.message


def test_an_inspection_leaves_model_random_state_and_autograd_as_they_were() -> None:
    model = next(mask for mask in MASKS if mask.name == "dropout left on").build(tiny_net())
    samples, autograd = tiny_samples(tiny_net()), torch.autograd.grad
    before = state_of(model, samples)
    inspect_model(model, samples)
    require_unchanged("the inspection", before, state_of(model, samples))
    assert torch.autograd.grad is autograd


def test_a_clamp_that_stops_the_gradient_of_black_and_white_pixels_is_named() -> None:
    samples = tiny_samples(tiny_net(), 20)
    black_or_white = replace(samples, x=torch.where(samples.x < 0.5, samples.x, 1.0))
    clamped = Wrapped(tiny_net(), before=lambda x: x.clamp(0, 1))
    assert "is there a clamp?" in found(inspect_model(clamped, black_or_white))["P8"].message
    assert found(inspect_model(tiny_net(), black_or_white))["P8"].level == "OK"
