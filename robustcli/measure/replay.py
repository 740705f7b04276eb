"""Adversarials that were kept, judged again: on the model that they were made on, or on another one."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustcli.attacks.norms import NORMS
from robustcli.config import EvalSpec, validated
from robustcli.data.arrays import read_arrays
from robustcli.data.images import Images
from robustcli.data.load import data_folder, is_here, load
from robustcli.data.named import known_name
from robustcli.disk import open_regular
from robustcli.engine.guard import Meter, frozen
from robustcli.engine.memory import ChunkSize
from robustcli.engine.outcome import predict_samples
from robustcli.engine.samples import Samples
from robustcli.errors import CheckpointError, ConfigError, DataError
from robustcli.fields import ball_edge, parse_number
from robustcli.measure.fitting import fit_target
from robustcli.measure.journal import digests
from robustcli.measure.session import BATCH, PIXELS, check_fit, images_for
from robustcli.models.sources import open_target
from robustcli.models.target import Target
from robustcli.store.browse import Line, picture, provenances
from robustcli.store.database import StoreError, select
from robustcli.store.series import WHOLE_AND_SOUND, Digest

ARRAYS = ("x", "x_adv", "y", "pred", "pred_after", "ids")
KEPT = f"""
SELECT sample, digest, adversarials.shape, adversarials.pixels, originals.shape, originals.pixels, pred, pred_after
FROM adversarials JOIN samples USING (series, sample, digest) LEFT JOIN originals USING (sample, digest)
WHERE series = ? AND robust = 0 AND distance > 0 AND {WHOLE_AND_SOUND} ORDER BY sample, digest
"""  # noqa: S608


@dataclass(frozen=True)
class Kept:
    """Images that an attack left, as `attack --save` or a row of a store keeps them.

    Attributes:
        source: the file, or the row.
        x_adv: (n, c, h, w) float32.
        y, pred, pred_after, ids: (n,) int64: the class, what was predicted before and after, the sample's id.
        x: (m, c, h, w), the originals that are there.
        where: (m,) their positions among the n.
        line: the store's row.
        digests: what a store knows the originals by.
    """

    source: str
    x_adv: Tensor
    y: Tensor
    pred: Tensor
    pred_after: Tensor
    ids: Tensor
    x: Tensor
    where: Tensor
    line: Line | None = None
    digests: Sequence[Digest] = ()

    @property
    def lacking(self) -> int:
        """How many originals are not there."""
        return len(self.ids) - len(self.where)

    def with_originals(self, images: Images) -> Kept:
        """The same with those originals too that it lacks and that are among the images."""
        some = images.take(torch.isin(images.ids, self.ids).nonzero()[:, 0])
        places, there = {digest: i for i, digest in enumerate(digests(some))}, set(self.where.tolist())
        more = [i for i, digest in enumerate(self.digests) if digest in places and i not in there]
        if not more:
            return self
        where, order = torch.cat([self.where, torch.tensor(more)]).sort()
        x = torch.cat([self.x, some.batch(torch.tensor([places[self.digests[i]] for i in more]))])
        return replace(self, x=x[order], where=where)


def of_file(path: Path) -> Kept:
    """What `attack --save` wrote into an .npz or a .pt.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder; images in PNG are not judged again; attack --save FILE.npz keeps them exactly"
        )
    with suppress(OSError), open_regular(path) as file:
        head = file.read(16).lstrip()
        if head.startswith(b"{"):
            way = "attack --save FILE.npz keeps them, and --keep-adversarials in the store (replay --store FILE)"
            raise DataError(f"{path}: is a result, which holds no images: {way}")
        if head.startswith(b"SQLite"):
            raise DataError(f"{path}: is a store; write replay --store {path}")
    arrays = read_arrays(path, ARRAYS)
    shape = arrays["x_adv"].shape
    for name, array in arrays.items():
        wanted, kind = (shape, "f") if name.startswith("x") else (shape[:1], "iu")
        whole = len(shape) == 4 and array.size and array.shape == wanted and array.dtype.kind in kind
        if not whole or not (np.isfinite(array).all() if kind == "f" else array.min() >= 0):
            what = f"array '{name}' {array.shape} of {array.dtype}"
            raise DataError(f"{path}: its {what} is not what attack --save writes, or has values that are none")
    x, x_adv, y, pred, pred_after, ids = (
        torch.from_numpy(arrays[name].astype(np.float32 if name.startswith("x") else np.int64)) for name in ARRAYS
    )
    return Kept(str(path), x_adv, y, pred, pred_after, ids, x, torch.arange(shape[0]))


def of_row(connection: sqlite3.Connection, line: Line) -> Kept | None:
    """What a row of a store keeps; None where it keeps no image.

    Raises:
        StoreError: an image cannot be read, or has another shape than the first.
    """
    if not (rows := select(connection, KEPT, line.id)):
        return None
    ids, contents, shapes, packed, shapes_before, packed_before, pred, after = zip(*rows, strict=True)
    try:
        images = [np.frombuffer(raw, "<f4").reshape(sides) for sides, raw in map(picture, shapes, packed)]
        x_adv = torch.from_numpy(np.stack(images))
    except ValueError as error:
        raise StoreError(f"row {line.id}: an image cannot be read ({error})") from None
    before: dict[int, Any] = {}
    for i, (shape, pixels) in enumerate(zip(shapes_before, packed_before, strict=True)):
        with suppress(ValueError):  # what is not there, or cannot be read, is looked for in the data set
            sides, raw = picture(shape, pixels, 1)
            before |= {i: np.frombuffer(raw, np.uint8).reshape(sides)} if sides == x_adv.shape[1:] else {}
    x = torch.from_numpy(np.stack(list(before.values()))).float() / 255 if before else x_adv[:0]
    where = torch.tensor(list(before), dtype=torch.int64)
    y, known = torch.tensor(pred), tuple(zip(ids, contents, strict=True))  # only what was right before is broken
    return Kept(f"row {line.id}", x_adv, y, y, torch.tensor(after), torch.tensor(ids), x, where, line, known)


def spec_for(connection: sqlite3.Connection, line: Line, given: Mapping[str, Any], model: Path | None) -> EvalSpec:
    """Where a row's images are, and how its own model takes them where that judges, unless flags say otherwise."""
    same_model = line.checkpoint in (str(model or line.checkpoint), f"{model}@{given.get('weights')}")
    found = [origin["spec"] for origin in provenances(connection, line) if isinstance(origin.get("spec"), dict)]
    keys = ("dataset", "data_dir", "split", "allow_sample", *(("normalize", "resize", "crop") if same_model else ()))
    before: dict[str, Any] = {key: spec[key] for spec in found for key in keys if spec.get(key) is not None}
    if known_name(line.dataset):  # the sample may have stood in for what was named
        before["dataset"] = line.dataset
    return validated(EvalSpec, {**before, **given}, f"row {line.id}: its spec", flags=frozenset(given))


def open_model(
    text: Path, spec: EvalSpec, device: str, index: Path, kept: Kept | None = None, *, needs_images: bool = True
) -> tuple[Target, Images | None, str]:
    """A model fitted to the images of a spec, or to the originals in a file, these images, and why there are none.

    Without `needs_images`, a model that needs no fitting gets none.

    Raises:
        RobustCliError: the model cannot be opened, does not fit, or is none of ours and has no images to be fitted to.
    """
    target = open_target(text, spec.weights)
    if kept is not None and spec.dataset is None:
        images = Images((kept.x * 255).round().to(torch.uint8), kept.y, kept.ids, (), kept.source, kept.source)
    elif not needs_images and target.shape is not None:
        return target, None, ""
    else:
        try:
            wanted = images_for(target, spec)
            if known_name(wanted.dataset) and not is_here(wanted.dataset, wanted.data_dir):
                raise DataError(f"{wanted.dataset} is not in {data_folder(wanted.data_dir)} (--data-dir)")
            images = load(wanted, index)
        except (ConfigError, DataError) as error:
            if target.shape is None:
                raise
            return target, None, str(error)
    fitted = fit_target(target, images, lambda: images, spec, device)
    check_fit(fitted, images if images.classes else replace(images, classes=fitted.classes), "train")
    return fitted, images, ""


def judge(kept: Kept, target: Target, spec: EvalSpec, device: str) -> dict[str, Any]:
    """What a model sees in the images today, as JSON holds it; lists are of ids, null where the originals are unknown.

    Raises:
        CheckpointError: the model takes images of another shape.
        AttackError: it has fewer classes.
    """
    shape, line = tuple(kept.x_adv.shape[1:]), kept.line
    if target.shape != shape:
        raise CheckpointError(f"{target.name}: made for images of shape {target.shape}; {kept.source} keeps {shape}")
    module, size = target.module.to(device), spec.batch_size
    chunk = ChunkSize(size if isinstance(size, int) else max(1, min(BATCH, PIXELS // (shape[1] * shape[2]))))
    meter = Meter(module, largest=int(kept.y.max()))

    def seen(x: Tensor, where: Tensor) -> Tensor:
        samples = Samples(x, kept.y[where], kept.ids[where])
        return predict_samples(lambda x: meter(x.to(device)), samples, chunk, line.eot if line else 1)

    with frozen(module), torch.no_grad():
        now, before = seen(kept.x_adv, torch.arange(len(kept.y))), seen(kept.x, kept.where)
    adversarial, fools = (kept.pred == kept.y) & (kept.pred_after != kept.y), now != kept.y
    outside = ((kept.x_adv < 0) | (kept.x_adv > 1)).flatten(1).any(1)
    near, known = kept.x_adv[kept.where], kept.ids[kept.where]
    distances = {name: norm.distance(near, kept.x) for name, norm in NORMS.items()} if len(near) else {}
    beyond = None
    if line is not None and line.eps is not None and (far := distances.get(line.norm.lower())) is not None:
        with suppress(ValueError):  # of a store that someone has altered
            beyond = known[far > ball_edge(parse_number(line.eps))].tolist()
    return {
        "source": kept.source,
        "made_on": None if line is None else {"checkpoint": line.checkpoint, "checkpoint_sha256": line.sha256},
        "checkpoint": target.name,
        "checkpoint_sha256": target.key,
        "same_model": None if line is None else line.sha256 == target.key,
        "attack": None if line is None else line.name,
        "budget": None if line is None else line.budget,
        "n": len(kept.ids),
        "kept": int(adversarial.sum()),
        "fooling": int((adversarial & fools).sum()),
        "no_longer": kept.ids[adversarial & ~fools].tolist(),
        "changed": kept.ids[now != kept.pred_after].tolist(),
        "outside_box": kept.ids[outside].tolist(),
        "originals": len(near),
        "outside_ball": beyond,
        "wrong_before": known[before != kept.y[kept.where]].tolist() if len(near) else None,
        "largest_distance": {name: float(far.max()) for name, far in distances.items()} or None,
    }
