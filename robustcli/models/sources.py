"""From text to a target: a checkpoint's path, or `zoo:NAME`."""

from __future__ import annotations

from pathlib import Path

from robustcli.config import DataSpec, ModelSpec, validated
from robustcli.errors import CheckpointError, ConfigError
from robustcli.models import checkpoint
from robustcli.models.nets import load_model
from robustcli.models.target import Origin, Target


def open_target(text: str | Path) -> Target:
    """The model that a text names, and where it comes from.

    Raises:
        CheckpointError: the file is missing, unreadable or lacks something, or its weights do not fit its network.
    """
    path = Path(text)
    saved = checkpoint.load(path)
    try:
        spec = validated(ModelSpec, saved.model, "its model")
        model = load_model(spec, saved.state_dict, path)
        method = str(dict(saved.spec["method"])["name"])
        dataset = validated(DataSpec, {"dataset": saved.spec["dataset"]}, "its spec").dataset
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: is unusable: {reason}") from None
    origin = Origin(
        dataset=dataset,
        name=saved.data["name"],
        source=saved.data["source"],
        ids=saved.train_ids,
        hashes=saved.train_hashes,
        recipe=saved.spec,
        epochs=len(saved.history),
        complete=saved.complete,
    )
    return Target(
        module=model,
        name=str(path),
        key=checkpoint.sha256(path),
        shape=(spec.channels, spec.height, spec.width),
        classes=tuple(saved.data["classes"]),
        model=spec.name,
        method=method,
        architecture=saved.model,
        origin=origin,
    )
