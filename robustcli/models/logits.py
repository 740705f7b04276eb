"""From what a model returns to logits: whatever is no batch of logits is refused, and says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

import torch
from torch import Tensor

from robustcli.errors import AttackError, ModelError, RobustCliError, memory_error

TWO_OUTPUTS = (
    "one output neuron has one class, which nothing can break; give it two outputs, such as "
    "torch.cat([-z, z], 1) for the one logit z of shape (n, 1)"
)


def call_model(model: Any, x: Tensor) -> Any:
    """What the model returns for images `x` (n, c, h, w), of which it gets its own copy: it may change them in place.

    Raises:
        ModelError: it failed; names its own message.
        OutOfMemoryError: it needs more memory than there is.
    """
    try:
        return model(x.clone())
    except (RobustCliError, CancelledError):
        raise
    except Exception as error:
        if (memory := memory_error(error)) is not None:
            raise memory from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}{_mismatch_hint(model, x)}"
        raise ModelError(f"the model failed on images of shape {tuple(x.shape)}: {reason}") from error


def _mismatch_hint(model: Any, x: Tensor) -> str:
    """Where the model's weights are, if not where the images are; in most failures it is that."""
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    if weight is None or (weight.device == x.device and weight.dtype == x.dtype):
        return ""
    return f" (its weights are {weight.dtype} on {weight.device}, the images {x.dtype} on {x.device})"


def logits_of(output: Any, x: Tensor, largest: int = -1) -> Tensor:
    """The logits (n, classes) in what a model returned for images `x`, in the type of the images.

    Taken are a tensor; `logits` of a mapping or an object, as transformers and torchvision return them; and of a tuple
    or a list the first tensor of floats of shape (n, classes). Where these have several widths, such as features and
    logits, it is the one as wide as there are classes, which `largest`, the largest label, tells.

    Raises:
        AttackError: there are none; says what came.
    """
    logits = _find_logits(output, len(x), largest)
    if logits is None:
        raise AttackError(
            f"the model returned {_describe(output)}; it should be logits of shape (n, classes), n={len(x)}"
        )
    shape = tuple(logits.shape)
    if shape in ((len(x), 1), (len(x),)) and logits.is_floating_point():
        raise AttackError(f"the model returned shape {shape}; it should be (n, classes), n={len(x)}: {TWO_OUTPUTS}")
    if logits.ndim != 2 or len(logits) != len(x) or not shape[1]:
        many = ": one answer an image, and not one a pixel or patch" if logits.ndim > 2 and shape[0] == len(x) else ""
        raise AttackError(f"the model returned shape {shape}; it should be (n, classes), n={len(x)}{many}")
    if not logits.is_floating_point():
        raise AttackError(f"the model returned {logits.dtype}; it should be logits in floats, not classes or counts")
    if logits.device != x.device:
        raise AttackError(f"the model returned logits on {logits.device} for images on {x.device}")
    if logits.layout is not torch.strided:
        raise AttackError(f"the model returned logits as {logits.layout}; they should be dense")
    if logits.is_inference() and not torch.is_inference_mode_enabled():
        logits = logits.clone()  # torch refuses to work on with such a tensor
    return logits.to(x.dtype)


def _find_logits(output: Any, n: int, largest: int) -> Tensor | None:
    """The tensor that is meant, whatever its shape is."""
    if isinstance(output, Tensor):
        return output
    inner = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(inner, Tensor):
        return inner
    if isinstance(output, tuple | list):
        parts = [part for part in output if isinstance(part, Tensor) and part.is_floating_point() and part.ndim == 2]
        fitting = [part for part in parts if len(part) == n]
        wide = [part for part in fitting if part.shape[1] > 1] or fitting
        widths = [part.shape[1] for part in wide]
        if largest >= 0 and len(set(widths)) > 1:
            if largest + 1 not in widths:
                raise AttackError(
                    f"the model returned tensors of {' and '.join(map(str, widths))} columns, and the labels go up to "
                    f"{largest}: which of them are the logits? return them alone"
                )
            return wide[widths.index(largest + 1)]
        return next(iter(wide), None)
    return None


def _describe(output: Any) -> str:
    """What a model returned, in a few words."""
    if isinstance(output, Mapping):
        keys = ", ".join(map(repr, list(output)[:5])) or "none"
        return f"a {type(output).__name__} without 'logits' (its keys: {keys})"
    if isinstance(output, tuple | list):
        parts = ", ".join(
            f"a tensor of shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            for part in output[:5]
        )
        return f"a {type(output).__name__} of {parts or 'nothing'}"
    return f"{type(output).__name__}"
