"""`robustcli.evaluate`: the command's document from one call, and what cannot be measured is one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import robustcli
from robustcli.data.images import Images
from robustcli.errors import AttackError, ConfigError, DataError
from tests.models import foreign

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return (foreign.images(12) * 255).round() / 255


@pytest.fixture(scope="module")
def y(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return foreign.network()(x).argmax(1)


def evaluate(x: Any, y: Any, **options: Any) -> robustcli.Evaluation:
    settings = {"attacks": "fgsm", "eps": 0.01, "normalize": "none", "checks": "off"} | options
    return robustcli.evaluate(foreign.network(), (x, y), **settings)


def test_the_same_numbers_as_the_engine(x: torch.Tensor, y: torch.Tensor) -> None:
    attack = robustcli.PGD(eps=0.02, steps=3)
    result = evaluate(x, y, attacks=[attack, "fgsm"], eps=["0.01", 0.03], seed=3)
    assert [(row["label"], row["budget"]) for row in result.rows] == [
        ("fgsm", "0.01"),
        ("fgsm", "0.03"),
        ("pgd:steps=3", "0.02"),
    ]
    samples = robustcli.Samples(x, y, torch.arange(12))
    (outcome,) = robustcli.run_attack(foreign.network(), attack, samples, seed=3)
    assert result.rows[-1]["robust"] == outcome.robust.int().tolist()


def test_arrays_tensors_levels_and_images_are_one(x: torch.Tensor, y: torch.Tensor) -> None:
    levels = (x * 255).round().byte()
    images = Images(levels, y, torch.arange(12), ("0", "1", "2"), "arrays", "s")
    found = [
        evaluate(x, y),
        evaluate(levels, y),
        evaluate(x.numpy(), y.tolist()),
        evaluate(levels.numpy(), y.numpy().astype(np.uint8)),
        robustcli.evaluate(foreign.network(), images, attacks="fgsm", eps="0.01", normalize="none", checks="off"),
    ]
    assert len({tuple(one.rows[0]["robust"]) for one in found}) == 1
    assert not any("rounded" in line for one in found for _, line in one.document["notes"])


def test_other_floats_are_rounded_and_said(y: torch.Tensor) -> None:
    notes = evaluate(foreign.images(12), y).document["notes"]
    assert any("rounded to 8 bits" in line for _, line in notes)


def test_what_it_returns_is_saved_printed_and_shown(x: torch.Tensor, y: torch.Tensor, tmp_path: Path) -> None:
    result = evaluate(x, y, checks="quick")
    assert result.verdict == result.document["verdict"]["word"]
    result.save(tmp_path / "r.json")
    again = robustcli.Evaluation.read(tmp_path / "r.json")
    assert again.document == result.document
    assert str(again) == result.table()
    assert "| fgsm" in result.table("markdown")
    assert "<pre>" in result._repr_html_()
    assert evaluate(x, y).verdict is None


def test_a_store_computes_nothing_twice(x: torch.Tensor, y: torch.Tensor, tmp_path: Path) -> None:
    first, second = (evaluate(x, y, store=tmp_path / "s.db") for _ in range(2))
    assert first.rows[0]["cached"] == 0
    assert second.rows[0]["cached"] == 12
    assert second.rows[0]["robust"] == first.rows[0]["robust"]


def test_a_model_that_the_checks_refuse_is_not_measured_unless_forced(x: torch.Tensor, y: torch.Tensor) -> None:
    class Dependent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return foreign.network()(x) + x.mean()

    options: dict[str, Any] = {"attacks": "fgsm", "eps": 0.01, "normalize": "none"}
    refused = robustcli.evaluate(Dependent().eval(), (x, y), **options)
    assert refused.verdict == "INVALID"
    assert not refused.rows
    assert robustcli.evaluate(Dependent().eval(), (x, y), force=True, **options).rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.rand(12, 8, 8)}, r"should be \(n, c, h, w\) and \(n,\)"),
        ({"x": torch.rand(12, 3, 8, 8) * 255}, r"without normalisation"),
        ({"x": torch.zeros(12, 3, 8, 8).int()}, "should be uint8 or floats"),
        ({"y": torch.zeros(12)}, "integers from 0"),
        ({"y": torch.zeros(3).long()}, r"y \(3,\)"),
        ({"attacks": "fgsn"}, "did you mean 'fgsm'"),
        ({"attacks": ["quick", "standard"]}, "2 presets"),
        ({"checks": "fulll"}, "did you mean 'full'"),
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"attacks": [robustcli.PGD(eps=0.1)], "eps": 0.2}, "none of the attacks leaves it open"),
        ({"attacks": [3]}, "has a int; should be"),
        ({"weights": "w.pt"}, "a module has its own"),
        ({"x": [[1], [2, 3]]}, "should be arrays of numbers"),
        ({"y": ["a"] * 12}, "should be arrays of numbers"),
    ],
)
def test_a_mistake_is_one_line(change: dict[str, Any], message: str, x: torch.Tensor, y: torch.Tensor) -> None:
    options = {"x": x, "y": y} | change
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        evaluate(**options)
    assert "\n" not in str(caught.value)


def test_only_modules_and_texts_are_models(x: torch.Tensor, y: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"should be a torch\.nn\.Module or the text"):
        robustcli.evaluate(lambda x: x, (x, y))  # type: ignore[arg-type]
    with pytest.raises((AttackError, robustcli.CheckpointError)):
        robustcli.evaluate(nn.Identity(), (x, y))


def test_the_code_of_its_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/python.md", "exec"), {})
    assert (tmp_path / "result.json").is_file()
