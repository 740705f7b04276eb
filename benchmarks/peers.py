"""The peers' attacks behind one signature, for the benchmarks and the reference tests.

A peer is imported when its function is called: without it, that is a ModuleNotFoundError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Run = Callable[[Tensor, Tensor], Tensor]
"""Images (n, c, h, w) in [0, 1] and their classes (n,) to adversarial images; the model is in eval mode."""


def foolbox(model: nn.Module, attack: str, eps: float | None = None, **options: Any) -> Run:
    """Foolbox's attack of this name; `eps` is None for the minimal-norm ones, which know no ball."""
    library: Any = import_module("foolbox")
    wrapped = library.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    perturb = getattr(library.attacks, attack)(**options)
    budget = {} if eps is None else {"epsilon": eps}

    def run(x: Tensor, y: Tensor) -> Tensor:
        # Not the attack's __call__, which adds a forward pass of its own to see who still stands.
        x_adv: Tensor = perturb.run(wrapped, x, library.criteria.Misclassification(y), **budget)
        return x_adv

    return run


def torchattacks(model: nn.Module, attack: str, **options: Any) -> Run:
    """The attack of this name of torchattacks."""
    library: Any = import_module("torchattacks")
    run: Run = getattr(library, attack)(model, **options)
    return run


class Cast(nn.Module):
    """Makes its input of one type: ART's HopSkipJump asks about float64 images whatever it was given."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) as they are."""
        return x.to(self.dtype)


def art(model: nn.Module, attack: str, shape: tuple[int, ...], *, clip: bool = True, **options: Any) -> Run:
    """ART's evasion attack of this name, in the model's precision. ART makes a folder `~/.art`.

    Args:
        model: in float32 or float64, with ten classes.
        attack: a class of `art.attacks.evasion`.
        shape: (c, h, w) of an image.
        clip: tell ART that pixels end at 0 and 1.
        options: the attack's.
    """
    estimators: Any = import_module("art.estimators.classification")
    attacks: Any = import_module("art.attacks.evasion")
    dtype = next(model.parameters()).dtype
    classifier = estimators.PyTorchClassifier(
        nn.Sequential(Cast(dtype), model).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=10,
        clip_values=(0.0, 1.0) if clip else None,
        device_type="gpu" if next(model.parameters()).is_cuda else "cpu",
    )
    perturb = getattr(attacks, attack)(classifier, **options)

    def run(x: Tensor, y: Tensor) -> Tensor:
        set_art_dtype(dtype)
        return torch.from_numpy(perturb.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    return run


def set_art_dtype(dtype: torch.dtype) -> None:
    """Let ART compute in float32 or float64: a constant, of which each of its modules has a copy."""
    for name, module in sys.modules.items():
        if name.startswith("art.") and hasattr(module, "ART_NUMPY_DTYPE"):
            vars(module)["ART_NUMPY_DTYPE"] = np.float64 if dtype == torch.float64 else np.float32
