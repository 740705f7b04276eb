"""Parts without their data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robustcli.studies.batchout.design import Part
from robustcli.studies.batchout.run import with_data
from robustcli.studies.batchout.studies import parts

from ..conftest import TINY
from .conftest import (
    bench_in,
    never,
)


def names(wanted: list[Part]) -> list[str]:
    return [part.name for part in wanted]


def test_a_quick_look_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    there, problem = with_data(list(parts(TINY).values()), bench_in(tmp_path))
    assert names(there) == ["fig1", "mnist", "fig2", "fig4b", "fig5a", "fig5b", "stopgrad"]
    assert problem is not None
    assert "--dataset cifar10: not in" in str(problem)


def test_a_quick_look_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustcli.data.load.reachable", never)
    with_data(list(parts(TINY).values()), bench_in(tmp_path))
    more_seeds = replace(TINY, seeds=3)
    with_data(list(parts(more_seeds).values()), bench_in(tmp_path, scale=more_seeds))


def test_with_the_data_nothing_is_left_out(tmp_path: Path, colours: Path) -> None:
    wanted = list(parts(TINY).values())
    assert with_data(wanted, bench_in(tmp_path, data_dir=colours)) == (wanted, None)


def test_the_study_itself_leaves_out_what_can_neither_be_found_nor_got(tmp_path: Path) -> None:
    full = replace(TINY, mnist="mnist", quick=False)
    there, problem = with_data(list(parts(full).values()), bench_in(tmp_path, scale=full))
    assert names(there) == ["fig1"]
    assert str(problem).startswith("--dataset mnist: not in")
    assert list(tmp_path.iterdir()) == []
