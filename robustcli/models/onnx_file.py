"""`FILE.onnx`: converted to torch where that can be done; else onnxruntime runs it, without gradients."""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustcli.disk import open_regular
from robustcli.errors import CheckpointError, one_line, require_extra
from robustcli.models.exported import FixedBatch
from robustcli.tensorfile import refusals

TOLERANCE = 1e-4
"""How far the logits of the converted network may be from onnxruntime's, relative to the largest."""


class OnnxNetwork(nn.Module):
    """A graph, converted to torch where that can be done and is right.

    Args:
        model: the graph, with its weights.
        batch: the one size of a batch that it takes; None where it takes any.

    Attributes:
        converted: the network in torch; None where onnxruntime answers, without gradients.
        reason: why it does.
    """

    def __init__(self, model: Any, batch: int | None = None) -> None:
        super().__init__()
        import onnxruntime

        self.batch = batch

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        content, providers = model.SerializeToString(deterministic=True), ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        self._digest = hashlib.sha256(content).hexdigest()
        self.converted: nn.Module | None = None
        self.reason = ""
        try:
            import onnxslim
            from onnx2pytorch import ConvertModel

            self.converted = ConvertModel(onnxslim.slim(model), experimental=True).eval()
        except Exception as error:
            self.reason = one_line(error)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (n, c, h, w) to logits (n, classes); without gradients where the graph was not converted."""
        logits: Tensor = self.reference(x) if self.converted is None else self.converted(x)
        return logits

    def extra_repr(self) -> str:
        """What tells one graph from another, weights in other files included; `key_of` finds it nowhere else."""
        return self._digest

    def reference(self, x: Tensor) -> Tensor:
        """What onnxruntime gives for the images, on the CPU, in float32."""
        found = self._session.run(None, {self._session.get_inputs()[0].name: x.detach().float().cpu().numpy()})
        return torch.from_numpy(np.array(found[0])).to(x.device)

    def compare(self, x: Tensor) -> None:
        """Hold the converted network against onnxruntime on images; where they disagree, it is used no more."""
        if self.converted is None:
            return
        batch = self.batch or len(x)
        repeated = x[torch.arange(math.ceil(len(x) / batch) * batch) % len(x)]
        try:
            with torch.no_grad():
                ours, theirs = (
                    torch.cat([answer(chunk) for chunk in torch.split(repeated, batch)])
                    for answer in (self.converted, self.reference)
                )
            gap = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))
        except Exception as error:
            self.reason = one_line(error)
        else:
            if gap <= TOLERANCE:
                return
            self.reason = f"its logits differ from onnxruntime's by {gap:.2g} of the largest"
        self.converted = None


def load_onnx(path: Path) -> tuple[nn.Module, tuple[int, int] | None]:
    """The network of an ONNX file, and the (h, w) that it takes, where they are fixed.

    Weights in files beside it are read from its folder alone.

    Raises:
        CheckpointError: the file is missing, damaged or no image classifier, or names data outside its folder.
        ConfigError: the extra `onnx` is not installed.
    """
    onnx = require_extra("onnx", "onnx", str(path))
    require_extra("onnxruntime", "onnx", str(path))
    logging.getLogger("onnxslim").setLevel(logging.ERROR)
    with refusals(path, "is no ONNX file that can be read: {}"), warnings.catch_warnings(action="ignore"):
        with open_regular(path) as file:
            model = onnx.load_from_string(file.read())
        _check_external(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [one for one in model.graph.input if one.name not in weights]
        if len(inputs) != 1:
            raise CheckpointError(f"{path}: takes {len(inputs)} inputs; should take one batch of images")
        sizes = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim]
        if len(sizes) != 4:
            raise CheckpointError(f"{path}: takes an input of {len(sizes)} dimensions; should be (n, c, h, w)")
        batch, _, h, w = sizes  # 0 where any is taken
        network = OnnxNetwork(model, batch or None)
    return (FixedBatch(network, batch, batch) if batch else network), (h, w) if h and w else None


def _check_external(model: Any, path: Path) -> None:
    """Refuse weights in a file outside the folder, or one that is a link to the outside."""
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                place = (folder / entry.value).resolve()
                if not place.is_relative_to(folder):
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
