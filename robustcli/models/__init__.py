"""Networks: the paper's own, what augments them, checkpoints, and where any model comes from."""

from __future__ import annotations

from robustcli.models.augmentation import BatchOut, GaussianNoise, batchout, fill_slots, gaussian
from robustcli.models.nets import MODELS, CifarCNN, MnistCNN, Normalize

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
