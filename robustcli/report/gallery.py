"""Adversarial images that a store keeps: the strongest attack of each model, as data URLs."""

from __future__ import annotations

import base64
import io
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from robustcli.report.points import Point, Results, named
from robustcli.store.browse import Broken, Line, broken, pictured
from robustcli.text import visible

SAMPLES, MODELS = 8, 12
"""At most so many of a row, and rows."""

SHOWN = 112
"""Pixels of a longer side, at most: larger images are reduced, and compressed as WebP."""


def galleries(connection: sqlite3.Connection, lines: Sequence[Line], results: Results) -> dict[str, list[Point]]:
    """By row, a point a sample; of each model of the strongest attack that has images, with originals where it can."""
    kept = pictured(connection)
    rows = {(row.record.subject.sha256, row.attack, row.record.dataset, row.seed): row for row in results.rows}
    found: dict[str, tuple[tuple[bool, float], str, list[Point]]] = {}
    for line in lines:
        key = (line.sha256, f"{line.name} {line.budget}", line.dataset)
        row = rows.get((*key, line.seed), rows.get((*key, None)))
        images, originals = kept.get(line.id, (0, 0))
        rank = (not originals, line.correct / line.n)
        if row is not None and images and (row.model not in found or rank < found[row.model][0]):
            samples = broken(connection, line, SAMPLES)
            found[row.model] = rank, row.title, [_point(one, row.classes, line.norm) for one in samples]
    return {title: points for _, title, points in list(found.values())[:MODELS] if points}


def _point(sample: Broken, classes: Any, norm: str) -> Point:
    """What the model says before and after, with its confidence where that is kept, and the images that there are."""
    kept, factor = sample.picture, 1.0
    x_adv = np.frombuffer(kept.pixels, "<f4").reshape(kept.shape).clip(0, 1)
    images = {"adversarial": x_adv}
    if kept.original:
        x = np.frombuffer(kept.original, np.uint8).reshape(kept.shape).astype("<f4") / 255
        factor = 0.5 / (float(abs(x_adv - x).max()) or 0.5)
        images = {"original": x, "adversarial": x_adv, "difference": 0.5 + factor * (x_adv - x)}
    shares = [f" ({100 * share:.0f} %)" for share in kept.confidence or ()] or ["", ""]
    before, after = (visible(named(one, classes)) for one in (sample.pred, sample.pred_after))
    return {
        "sample": sample.sample,
        "before": before + shares[0],
        "after": after + shares[1],
        "distance": f"{visible(norm)} {sample.distance:.3g}",
        "factor": f"{factor:.2g}",
        **{name: _data_url(image) for name, image in images.items()},
    }


def _data_url(image: Any) -> str:
    """An image (c, h, w) in [0, 1] as PNG, a large one as a smaller WebP; of other channels than RGB the first."""
    pixels = (255 * image).round().astype(np.uint8)
    drawn = Image.fromarray(pixels.transpose(1, 2, 0).copy() if len(pixels) == 3 else pixels[0])
    kind = "png" if max(drawn.size) <= SHOWN else "webp"
    drawn.thumbnail((SHOWN, SHOWN))
    out = io.BytesIO()
    drawn.save(out, kind)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
