"""Checks of a model that memory holds no more than a few samples of."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from robustcli.engine.memory import ChunkSize
from robustcli.verdict.judge import _of_model
from robustcli.verdict.survivors import _moving

from ..engine.test_memory import Small
from .conftest import measured


def test_the_preflight_has_as_many_samples_as_fit() -> None:
    images, found = measured(Small("forward", 99)).images, []
    for model in (Small("forward", 99), Small("forward"), Small("backward")):
        item: Any = SimpleNamespace(images=images, target=SimpleNamespace(module=model.float()))
        found.append({one.id for one in _of_model(item, [], "cpu")})
    assert found[0] == found[1] == found[2] >= {"P5", "P8", "P11"}


def test_what_still_moves_does_not_depend_on_the_chunks() -> None:
    (group,) = measured(Small("forward", 99).float(), "pgd:eps=0.15,steps=3").survivors
    whole = _moving(group, 6)
    assert len(group.standing) > 3
    assert _moving(replace(group, model=Small("backward").float(), chunk=ChunkSize(3)), 6) == whole
