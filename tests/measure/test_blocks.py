"""Images that memory does not hold: the same rows block by block, decoded in other processes, once each."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustcli.config import DataSpec, EvalSpec
from robustcli.data import folders, prefetch
from robustcli.data.folders import Files
from robustcli.data.load import load
from robustcli.errors import DataError
from robustcli.measure.evaluate import evaluate
from robustcli.measure.record import Record
from robustcli.measure.session import ImageSamples, Session, open_session
from robustcli.measure.transfer import Matrix
from robustcli.store.cache import Cache
from tests.processes import run_both

N, SIDE = 43, 28
SMALL = N * SIDE * SIDE // 4
"""Bytes of a block that make five of them."""

SPEC = EvalSpec(
    attacks=("fgsm", "autoattack:rounds=2,queries=5", "pgd:steps=3", "deepfool:iters=3"), eps=("0.05", "0.1")
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the bundled digits, as PNG files."""
    images, folder = load(DataSpec(dataset="mnist-sample")), tmp_path_factory.mktemp("digits")
    for i in range(N):
        place = folder / "test" / str(int(images.y[i]))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.x[i, 0].numpy()).save(place / f"{i:03}.png")
    return folder


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in files is decoded as it is asked for, in small blocks."""
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    monkeypatch.setattr(prefetch, "BLOCK", SMALL)
    monkeypatch.setattr(prefetch, "PIECE", 3)


def session_on(folder: Path, **changes: Any) -> Session:
    spec = SPEC.model_copy(update={"dataset": str(folder), **changes})
    return open_session([Path("zoo:mnist-gaussian")], spec)


def rows_of(session: Session, **options: Any) -> list[Record]:
    return [result.record for result in evaluate(session, **options)]


def flags(rows: list[Record]) -> list[Any]:
    return [(row.name, row.budget, row.ids, row.robust, row.pred, row.pred_after, row.by_iter) for row in rows]


@pytest.fixture(scope="module")
def expected(digits: Path) -> list[Any]:
    return flags(rows_of(session_on(digits)))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images are decoded, a call each."""
    calls: list[int] = []
    read = Files.read

    def count(self: Files, index: Tensor) -> Any:
        calls.append(len(index))
        return read(self, index)

    monkeypatch.setattr(Files, "read", count)
    return calls


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_and_worker_processes_change_no_flag(digits: Path, expected: list[Any], workers: int) -> None:
    session = session_on(digits, workers=workers, batch_size=16)
    assert isinstance(session.items[0].images.x, Files)
    assert flags(rows_of(session)) == expected


@pytest.mark.usefixtures("large")
def test_attacks_that_follow_each_other_decode_each_image_once(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_on(digits, attacks=("fgsm", "pgd:steps=3"), workers=0)
    calls = counted(monkeypatch)
    rows_of(session)
    assert sum(calls) == N
    assert len(calls) == 5


@pytest.mark.usefixtures("large")
def test_what_the_store_knows_is_not_decoded(
    digits: Path, expected: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache(tmp_path / "store.db") as cache:
        rows_of(session_on(digits, attacks=SPEC.attacks[:1], limit=30, workers=0), cache=cache)
        calls = counted(monkeypatch)
        rows_of(session_on(digits, attacks=SPEC.attacks[:1], workers=0), cache=cache)
        assert sum(calls) == N - 30
        assert flags(rows_of(session_on(digits, workers=0), cache=cache)) == expected
        calls.clear()
        rows = rows_of(session_on(digits, workers=0), cache=cache)
    assert flags(rows) == expected
    assert calls == []
    assert all(row.cached == N for row in rows)


@pytest.fixture
def damaged(digits: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the folder, and the 18th file of it, which is cut."""
    folder = shutil.copytree(digits, tmp_path / "photos")
    wanted = (255 * load(DataSpec(dataset=str(folder))).batch(torch.tensor([17]))[0, 0]).round().byte().numpy()
    (cut,) = [path for path in folder.rglob("*.png") if np.array_equal(np.asarray(Image.open(path)), wanted)]
    cut.write_bytes(cut.read_bytes()[:-40])
    return folder, cut


def without_18th(rows: list[Any]) -> list[Any]:
    return [
        [value[:17] + value[18:] if isinstance(value, tuple) and len(value) == N else value for value in row]
        for row in rows
    ]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("block", [SMALL, 1 << 20])
def test_a_file_that_cannot_be_decoded_is_in_no_row_and_is_named(
    damaged: tuple[Path, Path], expected: list[Any], monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(prefetch, "BLOCK", block)
    folder, cut = damaged
    session, notices, moved = session_on(folder, attacks=SPEC.attacks[1:], workers=0), list[str](), list[float]()
    rows = rows_of(
        session, on_notice=notices.append, on_progress=lambda _, __, done, spared: moved.append(done + spared)
    )
    (line,) = notices
    assert f"1 of {N} images cannot be read and are left out: {cut} (" in line
    assert sum(moved) == pytest.approx(session.total)
    assert [[*row[:5]] for row in flags(rows)] == [row[:5] for row in without_18th(expected[2:])]


PROGRAM = """
import json, sys, torch
from pathlib import Path
from robustcli.data import folders, prefetch
from robustcli.engine.ranks import Ranks
from tests.measure import test_blocks as blocks

torch.set_num_threads(1)
folders.IN_MEMORY, prefetch.BLOCK = 0, blocks.SMALL
ranks, notices = Ranks(), []
rows = blocks.rows_of(blocks.session_on(Path(sys.argv[1]), workers=0), ranks=ranks, on_notice=notices.append)
Path(sys.argv[2], f"{ranks.rank}.json").write_text(json.dumps([notices, blocks.flags(rows)]))
ranks.leave()
"""


def test_two_processes_each_read_their_part(damaged: tuple[Path, Path], expected: list[Any], tmp_path: Path) -> None:
    for ended in run_both(["-c", PROGRAM, damaged[0], tmp_path]):
        assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        notices, rows = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(notices) == 1
        assert str(damaged[1]) in notices[0]
        assert [row[:5] for row in rows] == json.loads(json.dumps([row[:5] for row in without_18th(expected)]))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("attack", SPEC.attacks[:2])
def test_kept_images_are_those_of_the_files_that_can_be_decoded(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    folder = shutil.copytree(digits, tmp_path / "photos")
    spec: dict[str, Any] = {"attacks": (attack,), "eps": SPEC.eps[:1], "workers": 0}
    cut = Path(session_on(folder, **spec).items[0].images.x.files[17])  # type: ignore[union-attr]
    cut.write_bytes(cut.read_bytes()[:-40])
    session = open_session(
        [Path("zoo:mnist-gaussian"), Path("zoo:mnist-fgsm")], SPEC.model_copy(update=spec | {"dataset": str(folder)})
    )
    matrix = Matrix(session)
    for result in evaluate(session, keep_images=True):
        list(matrix.take(result))
        assert result.record.n == N - 1
        assert tuple(result.images.ids.tolist()) == result.record.ids
        assert len(result.images.batch(slice(None))) == N - 1
    assert len(matrix.cells) == 4


def test_worker_processes_draw_nothing_and_end_well(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    files, before = load(DataSpec(dataset=str(digits))).x, torch.get_rng_state()
    assert isinstance(files, Files)
    ahead = prefetch.read_ahead(files, list(torch.split(torch.arange(N), 20)), 2)
    next(ahead)
    assert torch.equal(torch.get_rng_state(), before)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        worker.terminate()
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]  # of any other, torch raises an error wherever it is


@pytest.mark.usefixtures("large")
def test_a_folder_of_which_nothing_can_be_decoded_is_an_error(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_on(digits, workers=0)
    monkeypatch.setattr(
        Files,
        "read",
        lambda self, index: (torch.zeros(len(index), 1, 28, 28).byte(), dict.fromkeys(range(len(index)), "is cut")),
    )
    with pytest.raises(DataError, match=f"{N} of {N} images cannot be read and are left out: .* \\(is cut\\)"):
        rows_of(session)


@pytest.mark.usefixtures("large")
def test_a_stop_leaves_rows_on_the_blocks_that_are_finished(
    digits: Path, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_on(digits, attacks=("fgsm", "pgd:steps=3"), workers=0)
    read, calls = Files.read, []

    def interrupted(self: Files, index: Tensor) -> Any:
        calls.append(index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(Files, "read", interrupted)
    rows: list[Record] = []
    with pytest.raises(KeyboardInterrupt):
        rows.extend(result.record for result in evaluate(session))
    done = sum(map(len, calls[:3]))
    assert [row.n for row in rows] == [done] * 4
    wanted = {(name, eps): robust for name, eps, _, robust, *_ in expected}
    assert all(row.robust == wanted[row.name, row.budget][:done] for row in rows)


def test_what_is_expected_is_decoded_once_and_kept_for_a_moment(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "IN_MEMORY", 0)
    images = load(DataSpec(dataset=str(digits)))
    samples = ImageSamples(images, workers=2)
    parts = list(torch.split(torch.arange(N), 10))
    samples.expect(parts)
    monkeypatch.setattr(Files, "__getitem__", lambda self, index: pytest.fail("is decoded in this process"))
    wanted = images.x.read(torch.arange(N))[0].float() / 255  # type: ignore[union-attr]
    for part in [*parts[:2], parts[0], *parts[2:], parts[-1]]:
        assert torch.equal(samples[part].x, wanted[part])
        assert torch.equal(samples[part].ids, images.ids[part])
