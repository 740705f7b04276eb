"""Networks that come whole in one file: `.pt2` of torch.export and TorchScript."""

from __future__ import annotations

import logging
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from robustcli.disk import open_regular
from robustcli.errors import CheckpointError
from robustcli.models.archive import checked_archive
from robustcli.models.logits import logits_of
from robustcli.tensorfile import refusals

MANY = 2**31
"""Images, that no batch has."""


class FixedBatch(nn.Module):
    """A network that takes batches of certain sizes only: larger ones are split, smaller ones filled up.

    Args:
        network: returns logits first, as `logits_of` takes them.
        low, high: the smallest and the largest batch.
    """

    def __init__(self, network: nn.Module, low: int, high: int) -> None:
        super().__init__()
        self.network, self.low, self.high = network, low, high

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) to logits (n, classes)."""
        parts = []
        for chunk in torch.split(x, self.high):
            lacking = max(0, self.low - len(chunk))
            filled = torch.cat([chunk, chunk[:1].expand(lacking, *chunk.shape[1:])]) if lacking else chunk
            parts.append(logits_of(self.network(filled), filled)[: len(chunk)])
        return torch.cat(parts)


def load_torchscript(path: Path) -> nn.Module | None:
    """The network of a TorchScript file, on the CPU; None for another file.

    Its code, which lies beside its tensors, runs when it is called: whoever names it trusts it.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return None
    if not any("/code/" in name for name in names) or not any(name.endswith("/constants.pkl") for name in names):
        return None
    with refusals(path, "is no TorchScript file that can be read: {}"), warnings.catch_warnings(action="ignore"):
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module


def load_exported(path: Path) -> tuple[nn.Module, tuple[int, int] | None]:
    """The network of a `.pt2` file, and the (h, w) that it takes, where they are fixed.

    `torch.export.load` unpickles what `weights_only` refuses and evaluates the sizes of a graph as Python: so every
    part of the archive is checked first, and what could run anything is refused.

    Raises:
        CheckpointError: the file is damaged, of another kind, or holds an object, a foreign operator or other code.
    """
    with refusals(path, "is no .pt2 file that can be read: {}"):
        with open_regular(path) as file:
            data = file.read()
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        program = torch.export.load(checked_archive(data, path))
        try:
            module = program.module(check_guards=False)
        except TypeError:  # before torch 2.9
            module = program.module()
        names = program.graph_signature.user_inputs
        if len(names) != 1:
            raise CheckpointError(f"{path}: takes {len(names)} inputs; should take one batch of images")
        node = next(node for node in program.graph.nodes if node.name == names[0])
        batch, *rest = node.meta["val"].shape
        low, high = 1, MANY
        if isinstance(batch, int):
            low, high = batch, batch
        elif (limits := program.range_constraints.get(batch.node.expr)) is not None:
            low, high = max(1, int(limits.lower)), int(min(limits.upper, MANY))
    size = (rest[1], rest[2]) if len(rest) == 3 and all(isinstance(one, int) for one in rest) else None
    return (FixedBatch(module, low, high) if low > 1 or high < MANY else module), size
