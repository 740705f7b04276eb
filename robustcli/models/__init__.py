"""The networks, by the name that `--model` takes."""

from __future__ import annotations

from robustcli.models.batchout import BatchOut, batchout
from robustcli.models.gaussian import GaussianNoise, gaussian
from robustcli.models.layers import Normalize, fill_slots
from robustcli.models.nets import CifarCNN, MnistCNN

__all__ = [
    "MODELS",
    "BatchOut",
    "CifarCNN",
    "GaussianNoise",
    "MnistCNN",
    "Normalize",
    "batchout",
    "fill_slots",
    "gaussian",
]

MODELS: dict[str, type[MnistCNN] | type[CifarCNN]] = {
    "mnist-cnn": MnistCNN,
    "cifar-cnn": CifarCNN,
}
