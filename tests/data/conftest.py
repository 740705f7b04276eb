"""Small data sets on disk, and neither a network nor a data folder but the test's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustcli.config import DataSpec
from robustcli.data import load as data
from robustcli.data.images import Images
from robustcli.data.load import load
from robustcli.errors import DataError


@pytest.fixture(autouse=True)
def probes(monkeypatch, tmp_path):
    """No network and no data folder but the test's own; the hosts that were asked for."""
    asked = []
    monkeypatch.setattr(data, "reachable", lambda host: asked.append(host))
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "none"))
    return asked


def draw(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


def arrays(**changes: object) -> dict[str, object]:
    """A valid data set of 3 classes, 8x8 and grey, with some arrays replaced, or left out where None."""
    valid = {
        "x_train": draw(6, 8, 8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": draw(3, 8, 8),
        "y_test": np.array([2, 1, 0]),
    }
    return {name: array for name, array in (valid | changes).items() if array is not None}


def write_npz(path: Path, **changes: object) -> Path:
    np.savez(path, **arrays(**changes))
    return path


def write_idx(root: Path, n: int = 4, layout: str = "MNIST") -> None:
    """The four files of an MNIST of n images a split, as torchvision reads them."""
    raw = root / layout / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = b"".join(size.to_bytes(4, "big") for size in (0x803, n, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + draw(n, 28, 28).tobytes())
        header = b"".join(size.to_bytes(4, "big") for size in (0x801, n))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(range(n)))


def write_images(folder: Path, count: int, mode: str = "L", size: tuple[int, int] = (8, 8), level: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new(mode, size, (level + i) if mode == "L" else (level + i, 0, 255)).save(folder / f"{i:02}.png")


def load_path(path: Path, **spec: object) -> Images:
    return load(DataSpec(dataset=str(path), **spec))


def failure(dataset: object, **spec: object) -> str:
    with pytest.raises(DataError) as caught:
        load(DataSpec(dataset=str(dataset), **spec))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)
