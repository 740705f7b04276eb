from __future__ import annotations

import dataclasses
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustcli.fields import Eps
from robustcli.models.checkpoint import Checkpoint, load, save

from .conftest import fails, make, names, same


@pytest.mark.parametrize(
    "changes", [{}, {"complete": False, "resume": None, "train_ids": torch.arange(3, dtype=torch.int32)}]
)
def test_round_trip(tmp_path: Path, changes: dict[str, Any]) -> None:
    path, checkpoint = tmp_path / "new" / "folder" / "run.pt", make(**changes)
    save(path, checkpoint)
    loaded = load(path)
    for field in dataclasses.fields(Checkpoint):
        expected = getattr(checkpoint, field.name)
        expected = dict(expected) if isinstance(expected, OrderedDict) else expected
        assert same(getattr(loaded, field.name), expected), field.name
    assert names(path.parent) == ["run.pt"]
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    network.load_state_dict(loaded.state_dict, strict=True)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=3))
@settings(max_examples=40, deadline=None)
def test_round_trip_of_nested_plain_values(tmp_path_factory: pytest.TempPathFactory, resume: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("plain") / "run.pt"
    save(path, make(resume=resume))
    assert same(load(path).resume, resume)


def test_tensors_are_stored_contiguous_without_their_storage(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    big = torch.zeros(500_000)
    parameter = torch.nn.Parameter(torch.ones(2))
    state = {"weight": weight, "view": big[:3], "parameter": parameter}
    save(tmp_path / "run.pt", make(state_dict=state, resume={"last": dict(state)}))
    loaded = load(tmp_path / "run.pt")
    assert loaded.resume is not None
    for read in (loaded.state_dict, loaded.resume["last"]):
        assert torch.equal(read["weight"], weight)
        assert read["weight"].is_contiguous()
        assert type(read["parameter"]) is torch.Tensor
        assert not read["parameter"].requires_grad
    assert (tmp_path / "run.pt").stat().st_size < 50_000
    assert not weight.is_contiguous()
    assert parameter.requires_grad


def test_subclasses_of_plain_types_become_plain(tmp_path: Path) -> None:
    save(tmp_path / "run.pt", make(spec={"eps": Eps("8/255")}, metrics={"loss": np.float64(0.5)}))
    loaded = load(tmp_path / "run.pt")
    assert same(loaded.spec, {"eps": 8 / 255})
    assert same(loaded.metrics, {"loss": 0.5})


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make())
    before = path.read_bytes()
    for bad in (Path("x"), np.zeros(2), {1, 2}, torch.float32):
        message = fails(path, lambda path, bad=bad: save(path, make(resume={"optimizer": [1, {"state": bad}]})))
        assert message == (
            f"cannot be written: resume.optimizer[1].state is a {type(bad).__name__}, not a tensor or a plain value"
        )
    assert path.read_bytes() == before


def test_saving_replaces_the_file_and_keeps_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, make(metrics={"accuracy": 0.1}))
    save(path, make(metrics={"accuracy": 0.2}))
    assert load(path).metrics == {"accuracy": 0.2}
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_written_to_the_streams(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "run.pt", make())
    load(tmp_path / "run.pt")
    (tmp_path / "legacy.pt").write_bytes(legacy())
    fails(tmp_path / "legacy.pt")
    assert capfd.readouterr() == ("", "")


def legacy() -> bytes:
    """torch's file format of before 1.6."""
    file = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()
