"""`FILE.onnx`: converted to torch where that can be done; else onnxruntime runs it, without gradients."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustcli.disk import open_regular
from robustcli.errors import CheckpointError, require_extra
from robustcli.models.exported import FixedBatch

TOLERANCE = 1e-4
"""How far the logits of the converted network may be from onnxruntime's, relative to the largest."""


class OnnxNetwork(nn.Module):
    """A converted network, beside the graph that it was made of.

    Args:
        content: the serialised graph, which onnxruntime runs.
        converted: the network in torch; None where the graph could not be converted.
        reason: why it could not.
    """

    def __init__(self, content: bytes, converted: nn.Module | None, reason: str = "") -> None:
        super().__init__()
        self.network = converted
        self.reason = reason
        self._session = _session(content)
        self._input = self._session.get_inputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) to logits (n, classes); without gradients where the graph was not converted."""
        if self.network is None:
            return self.reference(x)
        logits: Tensor = self.network(x)
        return logits

    def reference(self, x: Tensor) -> Tensor:
        """What onnxruntime gives for the images, on the CPU, in float32."""
        found = self._session.run(None, {self._input: x.detach().float().cpu().numpy()})
        return torch.from_numpy(np.array(found[0])).to(x.device)

    def compare(self, x: Tensor) -> None:
        """Hold the converted network against onnxruntime on images; where they disagree, it is used no more."""
        if self.network is None:
            return
        try:
            with torch.no_grad():
                ours, theirs = self.network(x), self.reference(x)
            gap = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))
        except Exception as error:
            self.network, self.reason = None, _first_line(error)
            return
        if not gap <= TOLERANCE:
            self.network, self.reason = None, f"its logits differ from onnxruntime's by {gap:.2g} of the largest"


def load_onnx(path: Path) -> tuple[nn.Module, OnnxNetwork, tuple[int, int, int] | None]:
    """The network of an ONNX file, what is behind it, and the (c, h, w) that it takes, where they are fixed.

    Weights in files beside it are read from its folder alone.

    Raises:
        CheckpointError: the file is missing, damaged or no image classifier, or names data outside its folder.
        ConfigError: the extra `onnx` is not installed.
    """
    onnx = require_extra("onnx", "onnx", str(path))
    require_extra("onnxruntime", "onnx", str(path))
    try:
        with open_regular(path) as file:
            model = onnx.load_from_string(file.read())
        _check_external(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
        content = model.SerializeToString()
        with _quiet():
            converted, reason = _convert(model)
            network = OnnxNetwork(content, converted, reason)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # what protobuf, onnx and onnxruntime make of a damaged or foreign file
        raise CheckpointError(f"{path}: is no ONNX file that can be read: {_first_line(error)}") from None
    batch, shape = _input_shape(model, path)
    return (FixedBatch(network, batch, batch) if batch else network), network, shape


def _convert(model: Any) -> tuple[nn.Module | None, str]:
    """The graph in torch, or None and why it cannot be converted."""
    try:
        import onnxslim
        from onnx2pytorch import ConvertModel

        return ConvertModel(onnxslim.slim(model), experimental=True).eval(), ""
    except Exception as error:
        return None, _first_line(error)


def _check_external(model: Any, path: Path) -> None:
    """Refuse weights in a file outside the folder, or one that is a link to the outside."""
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                place = (folder / entry.value).resolve()
                if Path(entry.value).is_absolute() or not place.is_relative_to(folder):
                    raise CheckpointError(f"{path}: is refused: it names data outside its folder ({entry.value[:80]})")
                if not place.is_file():
                    raise CheckpointError(f"{path}: its weights are missing: no file {entry.value[:80]} beside it")


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors of a graph, those of attributes, functions and inner graphs included."""
    todo = [message]
    while todo:
        one = todo.pop()
        if one.DESCRIPTOR.name == "TensorProto":
            yield one
            continue
        for field, value in one.ListFields():
            if field.message_type is not None:
                todo += [value] if hasattr(value, "ListFields") else list(value)


def _input_shape(model: Any, path: Path) -> tuple[int, tuple[int, int, int] | None]:
    """The batch that the graph takes, 0 for any, and its (c, h, w), where they are fixed."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    if len(inputs) != 1:
        raise CheckpointError(f"{path}: takes {len(inputs)} inputs; should take one batch of images")
    sizes = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim]
    if len(sizes) != 4:
        raise CheckpointError(f"{path}: takes an input of {len(sizes)} dimensions; should be (n, c, h, w)")
    return sizes[0], (sizes[1], sizes[2], sizes[3]) if math.prod(sizes[1:]) > 0 else None


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converters print and warn of on the way."""
    logging.getLogger("onnxslim").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        yield


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
