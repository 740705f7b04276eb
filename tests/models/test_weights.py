"""State dicts as training scripts leave them, and files that are none."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustcli.errors import CheckpointError
from robustcli.models.weights import put_weights, read_weights
from tests.models import foreign


def wrapped(how: str, weights: dict[str, Tensor]) -> Any:
    prefix = {"parallel": "module.", "compiled": "_orig_mod.", "both": "module._orig_mod.", "lightning": "model."}
    if how in prefix:
        return {"state_dict": {prefix[how] + key: value for key, value in weights.items()}, "epoch": 3}
    if how in ("state_dict", "model", "net", "ema"):
        return {"epoch": 3, how: weights, "optimizer": {"lr": 0.1}}
    return weights


@pytest.mark.parametrize(
    "how", ["bare", "state_dict", "model", "net", "ema", "parallel", "compiled", "both", "lightning"]
)
def test_wherever_a_script_keeps_them_and_whatever_stands_before_them(how: str, tmp_path: Path) -> None:
    net, other = foreign.network(), foreign.network(2)
    torch.save(wrapped(how, net.state_dict()), tmp_path / "w.pth")
    put_weights(other, read_weights(tmp_path / "w.pth"), "w.pth")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())


def test_averaged_weights_beside_the_others_are_said(tmp_path: Path) -> None:
    net, averaged = foreign.network(), foreign.network(2)
    torch.save({"model": net.state_dict(), "model_ema": averaged.state_dict()}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="under 'model' are taken; it holds 'model_ema' too"):
        found = read_weights(tmp_path / "w.pth")
    assert all(torch.equal(value, found[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_older_versions(zipped: bool, tmp_path: Path) -> None:
    torch.save(foreign.network().state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert read_weights(tmp_path / "w.pth").keys() == foreign.network().state_dict().keys()


def test_safetensors_and_half_precision(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net = foreign.network()
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    put_weights(net, read_weights(tmp_path / "w.safetensors"), "w")
    assert {value.dtype for value in net.parameters()} == {torch.float32}


def test_what_does_not_fit_is_named_with_the_nearest() -> None:
    net = foreign.network()
    weights = dict(net.state_dict())
    weights["heads.weight"] = weights.pop("head.weight")
    with pytest.raises(CheckpointError, match=r"lacks 'head.weight' \(near 'heads.weight'\); it has unexpected 'heads"):
        put_weights(net, weights, "w.pt")
    many = {f"x{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(CheckpointError, match=r"'x4' and 4 more"):
        put_weights(net, net.state_dict() | many, "w.pt")
    with pytest.raises(CheckpointError, match=r"'head.bias' is \(4,\), should be \(3,\)"):
        put_weights(net, net.state_dict() | {"head.bias": torch.zeros(4)}, "w.pt")


def test_counters_that_eval_mode_does_not_read_may_lack_or_be_left_over() -> None:
    net = foreign.network()
    weights = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    put_weights(net, weights | {"n_averaged": torch.tensor(3)}, "w.pt")


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


class Grows:
    """Becomes gigabytes of a few bytes, by what torch's safe unpickler allows."""

    def __reduce__(self) -> Any:
        return (bytearray, (5 * 10**9,))


def header(size: int) -> bytes:
    return struct.pack("<Q", size) + b"{}"


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 50_000_000)
    return buffer.getvalue()


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name, content in (("module.pt", foreign.network()), ("global.pt", {"state_dict": {}, "args": Bomb(mark)})):
        torch.save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match=r"holds a pickled object .*save the network's weights alone"):
            read_weights(tmp_path / name)
    torch.save(Bomb(mark), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "old.pt")
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_grows_is_refused(zipped: bool, tmp_path: Path) -> None:
    torch.save({"x": Grows()}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="may unpack to any size"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", header(2**60), "no weights that can be read"),
        ("w.safetensors", header(2), "lacks 'conv.weight'"),
        ("w.pt", zip_bomb(), "is compressed"),
        ("w.pt", b"", "no weights that can be read"),
        ("w.pt", b"PK\x03\x04 and no more", "no weights that can be read"),
    ],
)
def test_a_file_that_holds_none_is_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        put_weights(foreign.network(), read_weights(tmp_path / name), name)
    assert "\n" not in str(caught.value)


def test_other_contents_are_named(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "lr": 0.1}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"holds no state_dict.*it holds: 'epoch', 'lr'"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "absent.pt")
