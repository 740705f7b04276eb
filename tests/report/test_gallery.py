"""What a store keeps of broken samples, as images for a page: small, also where images are large."""

from __future__ import annotations

import base64
import io
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustcli.report.gallery import SHOWN, galleries
from robustcli.report.points import gather
from robustcli.report.stored import documents
from robustcli.store.browse import read
from robustcli.store.cache import Cache
from robustcli.store.database import connect
from robustcli.store.series import Chunk, Entry, Picture, Series

AT = b"12345678"
BROKEN, STANDS = Entry(False, 0.1, 3, 5, 0, 0.5, 10, 4), Entry(True, math.inf, 3, 3, 0, 0.5, 10, 4)
WRONG = Entry(False, 0.0, 5, 5, 0, 0.0, 0, 0)


def series(name: str = "fgsm", eps: str | None = "0.1", **changes: Any) -> Series:
    values: dict[str, Any] = {
        "checkpoint": "a.pt",
        "sha256": "ab",
        "model": {"name": "cnn"},
        "method": "vanilla",
        "dataset": "bars",
        "source": "bars/test",
        "attack": {"name": name} | ({} if eps is None else {"eps": eps}),
        "label": name,
        "norm": "Linf",
        "eps": eps,
        "ensemble": None,
        "seed": 0,
        "dtype": "float32",
        "eot": 1,
        "attack_schema": 1,
    }
    return Series(**(values | changes))


def picture(shape: tuple[int, ...] = (1, 8, 8), *, whole: bool = True) -> Picture:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, shape).astype(np.uint8)
    x_adv = (x / 255 + draw.uniform(-0.1, 0.1, shape)).clip(0, 1).astype("<f4")
    return Picture(shape, x_adv.tobytes(), x.tobytes() if whole else b"", (0.9, 0.4) if whole else None)


def shown(path: Path, *chunks: Chunk) -> dict[str, list[dict[str, Any]]]:
    origin = {"spec": {"runs": [{"checkpoint": "a.pt", "classes": list("abc<ef")}]}}
    with Cache(path, lambda: origin) as store:
        store.keep(chunks)
    with closing(connect(path)) as connection:
        lines = read(connection).lines
        return galleries(connection, lines, gather(documents(connection, lines)))


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_a_sample_has_images_classes_and_confidences(tmp_path: Path) -> None:
    kept = picture()
    ((title, (point,)),) = shown(tmp_path / "r.db", Chunk(series(), {(2, AT): BROKEN}, {(2, AT): kept})).items()
    assert title == "a: fgsm Linf 0.1"
    assert (point["before"], point["after"], point["distance"]) == ("< (90 %)", "f (40 %)", "Linf 0.1")
    assert np.asarray(decoded(point["original"])).tobytes() == kept.original
    x, x_adv = (np.frombuffer(kept.original, np.uint8) / 255, np.frombuffer(kept.pixels, "<f4"))
    factor = 0.5 / abs(x_adv - x).max()
    assert point["factor"] == f"{factor:.2g}"
    difference = np.asarray(decoded(point["difference"])).ravel() / 255
    assert difference == pytest.approx(0.5 + factor * (x_adv - x), abs=0.01)


def test_without_original_and_confidence_the_adversarial_alone_is_there(tmp_path: Path) -> None:
    chunk = Chunk(series(), {(2, AT): BROKEN}, {(2, AT): picture(whole=False)})
    ((point,),) = shown(tmp_path / "r.db", chunk).values()
    assert {"original", "difference"} & point.keys() == set()
    assert (point["before"], point["after"]) == ("<", "f")


def test_the_strongest_attack_with_originals_is_shown(tmp_path: Path) -> None:
    entries = {(i, AT): STANDS for i in range(4)}
    weak = Chunk(series("fgsm"), entries | {(8, AT): BROKEN}, {(8, AT): picture()})
    strong = Chunk(series("pgd"), entries | {(i, AT): BROKEN for i in (8, 9)}, {(8, AT): picture()})
    bare = Chunk(series("apgd"), {(9, AT): BROKEN}, {(9, AT): picture(whole=False)})
    assert list(shown(tmp_path / "r.db", weak, strong, bare)) == ["a: pgd Linf 0.1"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_large_images_are_shown_small(tmp_path: Path, channels: int) -> None:
    kept = {(i, AT): picture((channels, 224, 224)) for i in range(20)}
    (points,) = shown(tmp_path / "r.db", Chunk(series(), dict.fromkeys(kept, BROKEN), kept)).values()
    assert len(points) == 8
    urls = [point[kind] for point in points for kind in ("original", "adversarial", "difference")]
    assert {max(decoded(url).size) for url in urls} == {SHOWN}
    assert 5 * sum(map(len, urls)) < 1.9e6, "noise is the worst case; with Vega a page of five stays under 3 MB"


def test_rows_of_a_store_are_documents_that_can_be_read(tmp_path: Path) -> None:
    traced = {"name": "deepfool", "iters": 3}
    entries = {(1, AT): STANDS._replace(broken_at=3), (2, AT): BROKEN._replace(broken_at=1), (3, AT): WRONG}
    chunks = [Chunk(series(), entries, {}), Chunk(series("deepfool", None, attack=traced), entries, {})]
    chunks.append(Chunk(series("clean", None, attack={"name": "clean"}, norm=""), entries, {}))
    shown(tmp_path / "r.db", *chunks)
    with closing(connect(tmp_path / "r.db")) as connection:
        (document,) = documents(connection, read(connection).lines)
    fgsm, deepfool = gather([document]).rows
    assert (fgsm.record.n, fgsm.clean, fgsm.right, fgsm.word, fgsm.record.y) == (3, 2, 1, "-", (3, 3, -1))
    assert (deepfool.record.kind, deepfool.record.by_iter) == ("minimal", (2, 1, 1))
