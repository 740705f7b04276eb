"""ONNX: what converts agrees with onnxruntime, what does not has no gradients, and no file outside is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from robustcli.errors import CheckpointError
from tests.models import foreign

pytest.importorskip("onnx2pytorch", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx")

from robustcli.models import onnx_file  # noqa: E402
from robustcli.models.target import key_of  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return foreign.export_onnx(foreign.network(), tmp_path / "net.onnx")


def test_the_converted_network_is_held_against_onnxruntime(path: Path) -> None:
    network, size = onnx_file.load_onnx(path)
    assert size == (8, 8)
    assert isinstance(network, onnx_file.OnnxNetwork)
    network.compare(foreign.images())
    assert not network.reason
    assert network.converted is not None


def test_one_that_disagrees_answers_with_onnxruntime_and_without_gradients(path: Path) -> None:
    network, _ = onnx_file.load_onnx(path)
    assert isinstance(network, onnx_file.OnnxNetwork)
    with torch.no_grad():
        next(network.parameters()).add_(0.5)
    network.compare(foreign.images())
    assert "differ from onnxruntime's" in network.reason
    x = foreign.images()
    assert torch.allclose(network(x), foreign.network()(x), atol=1e-5)
    assert not network(x.requires_grad_()).requires_grad


def test_one_that_cannot_be_converted_says_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> nn.Module:
        raise NotImplementedError("Conversion not implemented for op_type=Strange.")

    monkeypatch.setattr("onnx2pytorch.ConvertModel", fail)
    network, _ = onnx_file.load_onnx(path)
    assert isinstance(network, onnx_file.OnnxNetwork)
    assert "op_type=Strange" in network.reason
    assert torch.allclose(network(foreign.images()), foreign.network()(foreign.images()), atol=1e-5)
    other, _ = onnx_file.load_onnx(foreign.export_onnx(foreign.network(2), path.with_name("other.onnx")))
    assert key_of(network) != key_of(other)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_weights_outside_its_folder_are_refused(location: str, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 10_000)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="names data outside its folder") as caught:
        onnx_file.load_onnx(folder / "net.onnx")
    assert "\n" not in str(caught.value)


def test_weights_beside_it_are_read(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    onnx.save_model(
        onnx.load(path), folder / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    module, _ = onnx_file.load_onnx(folder / "net.onnx")
    assert torch.allclose(module(foreign.images()), foreign.network()(foreign.images()), atol=1e-5)
    (folder / "w.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no file w.bin beside it"):
        onnx_file.load_onnx(folder / "net.onnx")


def test_other_files_are_one_line(tmp_path: Path) -> None:
    for content in (b"", b"no graph", b"\x08" * 100):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            onnx_file.load_onnx(tmp_path / "x.onnx")
        assert "\n" not in str(caught.value)
