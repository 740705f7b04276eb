"""The trained networks that ship with the package: `zoo:NAME`, wherever a checkpoint is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustcli.errors import CheckpointError, nearest

PREFIX = "zoo:"
FOLDER = Path(__file__).parents[1] / "assets" / "zoo"
INDEX = FOLDER / "zoo.json"


@dataclass(frozen=True)
class Entry:
    """A shipped network: what it is, where it comes from, and what was measured of these very weights.

    Attributes:
        name: after the prefix.
        sha256: of its file.
        dataset, model, epochs, seed: of its training spec.
        method: the training method with its options.
        spec: the whole training spec: `robustcli train` with these keys in a config trains it again.
        rows: one an attack and budget, as in a result's JSON, without what is per sample, with its own origin.
        provenance: of the training.
    """

    name: str
    sha256: str
    dataset: str
    model: str
    epochs: int
    seed: int
    method: Mapping[str, Any]
    spec: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    provenance: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Its checkpoint."""
        return FOLDER / f"{self.name}.pt"


def entries() -> dict[str, Entry]:
    """The shipped networks by name, in the order of the index."""
    content = json.loads(INDEX.read_text(encoding="utf-8"))["networks"]
    return {entry["name"]: Entry(**(entry | {"rows": tuple(entry["rows"])})) for entry in content}


def locate(path: Path) -> Path:
    """The file behind a checkpoint's path: that of `zoo:NAME`, and of any other path itself.

    Raises:
        CheckpointError: the zoo has no network of that name.
    """
    if not str(path).startswith(PREFIX):
        return path
    name, there = str(path).removeprefix(PREFIX), entries()
    if name not in there:
        listed = ", ".join(there)
        raise CheckpointError(f"{path}: is not in the zoo (allowed: {listed}){nearest(name, there)}")
    return there[name].path
