"""Train, attack, evaluate and compare image classifiers, with numbers that can be defended.

The public names below are loaded when first used, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "robustcli.attacks": (
        "APGD",
        "APGDT",
        "ATTACKS",
        "FAB",
        "FABT",
        "FGSM",
        "FMN",
        "MIFGSM",
        "PGD",
        "AutoAttack",
        "Bisection",
        "CarliniWagner",
        "DeepFool",
        "HopSkipJump",
        "Square",
        "UniformNoise",
        "parse_attack",
    ),
    "robustcli.engine.run": ("Outcome", "Samples", "run_attack", "stream_attack"),
    "robustcli.attacks.norms": ("L1", "L2", "Linf"),
    "robustcli.models.checkpoint": ("Checkpoint",),
    "robustcli.config": ("DataSpec", "EvalSpec", "ModelSpec", "TrainSpec"),
    "robustcli.data.load": ("load",),
    "robustcli.errors": (
        "RobustCliError",
        "AttackError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "ModelError",
        "OutOfMemoryError",
        "TrainingError",
    ),
    "robustcli.measure.binarisation": ("Binarised", "binarise"),
    "robustcli.measure.curve": ("Curve", "curves"),
    "robustcli.api": ("Evaluation", "evaluate"),
    "robustcli.measure.session": ("open_session",),
    "robustcli.fields": ("Eps",),
    "robustcli.data.images": ("Images",),
    "robustcli.models": ("MODELS", "BatchOut", "GaussianNoise"),
    "robustcli.noise": ("Noise",),
    "robustcli.training.methods": ("METHODS",),
    "robustcli.training.train": ("prepare", "resume", "train"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'robustcli' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
