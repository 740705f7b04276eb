"""Adversarial images that a store keeps: the strongest attack of each model, for a page or for matplotlib."""

from __future__ import annotations

import base64
import io
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustcli.report.points import Results, Row
from robustcli.store.browse import Broken, broken, pictured, read

SAMPLES, MODELS = 8, 12
"""At most so many of a row, and rows."""

SHOWN = 112
"""Pixels of a longer side, at most: larger images are reduced, and compressed as WebP."""

SCALE = 0.5
"""The largest change of a pixel is magnified to this, around grey."""


@dataclass(frozen=True)
class Gallery:
    """A row and samples of it that the attack broke."""

    row: Row
    samples: Sequence[Broken]

    @property
    def without_original(self) -> int:
        """Of how many of them the original is not kept."""
        return sum(not one.picture.original for one in self.samples)


def galleries(connection: sqlite3.Connection, results: Results) -> list[Gallery]:
    """Of each model the strongest attack that has images, of all originals where some have them."""
    kept = pictured(connection)
    rows = {(row.record.subject.sha256, row.record.name, row.record.ball): row for row in results.rows}
    found: dict[str, tuple[tuple[bool, float], Row, list[Broken]]] = {}
    for line in read(connection).lines:
        row = rows.get((line.sha256, line.name, line.budget))
        images, originals = kept.get(line.id, (0, 0))
        if row is not None and images:
            rank = (not originals, line.correct / line.n)
            if row.model not in found or rank < found[row.model][0]:
                found[row.model] = (rank, row, broken(connection, line, SAMPLES))
    return [Gallery(row, samples) for _, row, samples in list(found.values())[:MODELS] if samples]


def arrays(sample: Broken) -> dict[str, NDArray[np.float32]]:
    """The images of a sample by name, (h, w, c) in [0, 1]: without an original, the adversarial alone."""
    kept = sample.picture
    x_adv = np.frombuffer(kept.pixels, "<f4").reshape(kept.shape).transpose(1, 2, 0).clip(0, 1)
    if not kept.original:
        return {"adversarial": x_adv}
    x = np.frombuffer(kept.original, np.uint8).reshape(kept.shape).transpose(1, 2, 0).astype("<f4") / 255
    largest = float(abs(x_adv - x).max())
    factor = SCALE / largest if largest else 1.0
    return {"original": x, "adversarial": x_adv, f"difference x {factor:.2g}": 0.5 + factor * (x_adv - x)}


def data_url(image: NDArray[np.float32]) -> str:
    """An image as PNG, a large one as a smaller WebP; of a number of channels that neither takes, the first."""
    pixels = (255 * image).round().astype(np.uint8)
    drawn = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    small = max(drawn.size) <= SHOWN
    drawn.thumbnail((SHOWN, SHOWN))
    out = io.BytesIO()
    drawn.save(out, "png", optimize=True) if small else drawn.save(out, "webp", quality=85)
    return f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(out.getvalue()).decode()}"


def said(name: str, confidence: float | None) -> str:
    """`cat (93 %)`."""
    return name if confidence is None else f"{name} ({100 * confidence:.0f} %)"
