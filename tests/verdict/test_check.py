"""A check is one decorated function and an attack one class: nothing else has to know of a new one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from robustcli.attacks import ATTACKS, FGSM, parse_attack
from robustcli.attacks.base import Kind, Losses, Needs
from robustcli.attacks.losses import Model
from robustcli.attacks.norms import Linf, NormField
from robustcli.cli.main import run
from robustcli.fields import STRICT, Budget
from robustcli.measure.record import Record
from robustcli.noise import Noise
from robustcli.testing import check_attack
from robustcli.verdict.check import CHECKS, LEVELS, RULES, Finding, also, check, findings
from robustcli.verdict.judge import judge
from robustcli.verdict.rows import Results

from .conftest import levels, make_row, results


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    checks, rules = dict(CHECKS), list(RULES)
    yield
    CHECKS.clear()
    CHECKS.update(checks)
    RULES[:] = rules


def declared(name: str, **changes: Any) -> Any:
    """The decorator of a check of this name, as any other."""
    options: dict[str, Any] = {"level": "SUSPECT", "when": "reuse", "source": "ours"}
    return check(name, "even numbers", "an even number stands", **(options | changes))


def test_every_check_is_declared_once_with_all_that_a_reader_needs() -> None:
    assert list(CHECKS) == [f"P{i}" for i in range(1, 19)] + [f"R{i}" for i in range(2, 25)]
    for one in CHECKS.values():
        assert one.title
        assert one.criterion
        assert one.source
        assert one.level in LEVELS
    assert {rule.check for rule in RULES} == CHECKS.keys()


@pytest.mark.usefixtures("registry")
def test_an_id_is_given_once_and_that_of_a_check_that_is_gone_never_again() -> None:
    for name in ("R1", "R5"):
        with pytest.raises(AssertionError, match=name):
            declared(name)


@pytest.mark.usefixtures("registry")
def test_a_new_check_is_listed_runs_and_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    @declared("R99")
    def even(rows: Results) -> Iterator[Finding]:
        """Whether an even number stands."""
        for row in rows.common:
            yield Finding("OK" if row.correct % 2 else "SUSPECT", f"{row.correct} stand")

    assert list(CHECKS)[-1] == "R99"
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    assert "| R99  | even numbers " in importlib.import_module("make_verdict").checks_table()
    rows = [make_row("pgd:eps=0.1", 50)]
    found = list(findings(results(*rows), "reuse"))
    assert found[-1] == Finding("SUSPECT", "50 stand", id="R99")
    assert judge("a.pt", found, rows).reason == "R99: 50 stand"
    assert "R99" in judge("a.pt", [], rows).not_run
    assert even(results(make_row("pgd:eps=0.1", 51))) == [Finding("OK", "51 stand", id="R99")]


@pytest.mark.usefixtures("registry")
def test_a_check_may_be_answered_at_another_time_too() -> None:
    @also("R5", when="compare")
    def another(rows: Results) -> Finding:
        return Finding("INFO", "again")

    assert list(findings(results(), "compare")) == another(results()) == [Finding("INFO", "again", id="R5")]


@pytest.mark.usefixtures("registry")
def test_a_check_says_nothing_worse_than_it_declares_and_says_what_it_takes() -> None:
    @declared("R99", level="INFO")
    def loud(rows: Results) -> Finding:
        return Finding("WARN", "!")

    with pytest.raises(AssertionError, match="R99 says WARN"):
        loud(results())
    with pytest.raises(AssertionError, match="does not say what it takes"):
        declared("R98")(lambda rows: None)


@dataclass(frozen=True, config=STRICT)
class Repeated:
    """FGSM again and again, each time from where it was before."""

    eps: Budget
    steps: PositiveInt = 5
    norm: NormField = Linf()

    name: ClassVar[str] = "repeated"
    summary: ClassVar[str] = "FGSM, repeated (Nobody 2024)"
    kind: ClassVar[Kind] = "budget"
    needs: ClassVar[Needs] = "gradients"
    losses: ClassVar[Losses] = ("cross-entropy",)
    parameter_free: ClassVar[bool] = False

    @property
    def weak(self) -> bool:
        """A single step proves little."""
        return self.steps == 1

    @property
    def cost(self) -> int:
        """Passes of an image at most."""
        return 2 * self.steps

    def perturb(self, model: Model, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Adversarial images (n, c, h, w)."""
        x_adv = x
        for _ in range(self.steps):
            stepped = FGSM(self.eps / self.steps, norm=self.norm).perturb(model, x_adv, y, noise)
            x_adv = self.norm.confine(stepped, x, self.eps)
        return x_adv


@dataclass(frozen=True, config=STRICT)
class Guess(Repeated):
    """The same, and it says that it needs decisions only."""

    name: ClassVar[str] = "guess"
    needs: ClassVar[Needs] = "decisions"
    losses: ClassVar[Losses] = ()


@pytest.fixture
def new(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each."""
    monkeypatch.setitem(ATTACKS, "repeated", Repeated)
    monkeypatch.setitem(ATTACKS, "guess", Guess)


@pytest.mark.usefixtures("new")
def test_a_new_attack_is_listed_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run(["list", "attacks"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("repeated")]
    assert line.split()[:6] == ["repeated", "budget", "gradients", "linf", "l2", "l1"]
    check_attack(parse_attack("repeated:eps=0.1"))


@pytest.mark.usefixtures("new")
def test_a_new_attack_is_judged_as_what_it_is() -> None:
    one, many = make_row("repeated:eps=0.1,steps=1", 40), make_row("repeated:eps=0.1", 60)
    trained = make_row("repeated:eps=0.1", 60, method="pgd")

    def said(*rows: Record) -> dict[str, str]:
        return levels(findings(results(*rows), "reuse"))

    assert said(one)["R23"] == "WARN", "it is weak with a single step"
    assert said(one, many)["R6"] == "SUSPECT"
    assert said(one, many)["R23"] == "OK"
    assert said(trained)["R22"] == "WARN", "it takes steps up the cross-entropy, as PGD does"
    assert said(many, make_row("guess:eps=0.1", 20))["R12"] == "SUSPECT", "a black-box attack finds more"
    assert said(many, make_row("apgd:eps=0.1,loss=dlr", 20))["R15"] == "WARN", "the cross-entropy is masked"
