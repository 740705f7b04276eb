"""The peers' attacks behind one signature, for the benchmarks and the reference tests.

A peer is imported when its function is called: without it, that is a ModuleNotFoundError.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[[Tensor, Tensor], Tensor]
"""Images (n, c, h, w) in [0, 1] and their classes (n,) to adversarial images; the model is in eval mode."""


def foolbox(model: nn.Module, attack: str, eps: float | None = None, **options: Any) -> Run:
    """Foolbox's attack of this name; `eps` is None for the minimal-norm ones, which are then not cut to a ball."""
    library: Any = import_module("foolbox")
    wrapped = library.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    perturb = getattr(library.attacks, attack)(**options)

    def run(x: Tensor, y: Tensor) -> Tensor:
        raw: Tensor = perturb(wrapped, x, y, epsilons=eps)[0]
        return raw

    return run


def torchattacks(model: nn.Module, attack: str, **options: Any) -> Run:
    """The attack of this name of torchattacks."""
    library: Any = import_module("torchattacks")
    run: Run = getattr(library, attack)(model, **options)
    return run


def art(model: nn.Module, attack: str, shape: tuple[int, ...], *, clip: bool = True, **options: Any) -> Run:
    """ART's evasion attack of this name. It computes in float32, whatever it is given.

    Args:
        model: in float32, with ten classes.
        attack: a class of `art.attacks.evasion`.
        shape: (c, h, w) of an image.
        clip: tell ART that pixels end at 0 and 1.
        options: the attack's.
    """
    # At its import ART writes a settings file, by default into the user's home.
    os.environ.setdefault("ART_DATA_PATH", str(Path(sys.prefix) / "share"))
    estimators: Any = import_module("art.estimators.classification")
    attacks: Any = import_module("art.attacks.evasion")
    classifier = estimators.PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=10,
        clip_values=(0.0, 1.0) if clip else None,
        device_type="gpu" if next(model.parameters()).is_cuda else "cpu",
    )
    perturb = getattr(attacks, attack)(classifier, verbose=False, **options) if attack != "FastGradientMethod" else None
    perturb = perturb or attacks.FastGradientMethod(classifier, **options)

    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(perturb.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    return run
