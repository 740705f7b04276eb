"""Networks: the paper's own, what augments them, checkpoints, and where any model comes from.

Public names load on first use: the zoo's index is read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_NETS = ("MODELS", "CifarCNN", "MnistCNN", "Normalize")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'robustcli.models' has no attribute '{name}'")
    return getattr(import_module(f"robustcli.models.{'nets' if name in _NETS else 'augmentation'}"), name)
