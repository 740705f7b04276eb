"""`robustcli replay`: adversarials that were kept, judged again on their own model and on others."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustcli.cli.request import STORE
from robustcli.models.sources import open_target

from .conftest import Call, write_checkpoint, write_images
from .test_nasty_names import NASTY, assert_harmless

QUIET = ("--limit", "40", "--checks", "off")
FGSM = ("--attack", "fgsm", "--eps", "0.05", *QUIET)
VANILLA, BATCHOUT = "checkpoints/vanilla.pt", "checkpoints/batchout.pt"
NET = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()
def small():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).eval()
"""


def replays(ended: Any) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)["replays"]
    return found


@pytest.fixture
def saved(call: Call, models: Path) -> dict[str, Any]:
    """What FGSM made on vanilla.pt, in adv.npz and adv.pt; its document."""
    for file in ("adv.npz", "adv.pt"):
        ended = call("attack", VANILLA, *FGSM, "--no-store", "--save", file, "--format", "json")
    return ended.document


@pytest.fixture
def stored(call: Call, models: Path) -> dict[str, Any]:
    """A store with FGSM at two budgets and DeepFool on vanilla.pt; the document."""
    both = ("--attack", "fgsm", "--attack", "deepfool:iters=3", "--eps", "0.1,0.2", *QUIET)
    return call("evaluate", VANILLA, *both, "--format", "json").document


@pytest.mark.parametrize("file", ["adv.npz", "adv.pt"])
def test_on_their_own_model_all_hold(call: Call, saved: dict[str, Any], file: str) -> None:
    (found,) = replays(call("replay", file, VANILLA, "--format", "json"))
    (row,) = saved["rows"]
    assert found["kept"] == found["fooling"] == row["clean_correct"] - row["correct"] > 0
    assert (found["n"], found["originals"], found["checkpoint"]) == (40, 40, VANILLA)
    assert found["no_longer"] == found["changed"] == found["outside_box"] == []
    assert found["wrong_before"] == [
        i for i, y, pred in zip(row["ids"], row["y"], row["pred"], strict=True) if y != pred
    ]
    assert found["largest_distance"]["linf"] == pytest.approx(0.05)
    assert found["outside_ball"] is found["same_model"] is found["budget"] is None


@pytest.mark.parametrize("batch", ["3", "auto", "1000"])
def test_on_another_model_it_says_which_no_longer_fool(call: Call, saved: dict[str, Any], batch: str) -> None:
    (found,) = replays(
        call("replay", "adv.npz", BATCHOUT, "--batch-size", batch, "--device", "cpu", "--format", "json")
    )
    model = open_target(BATCHOUT).module.eval()
    with np.load("adv.npz") as arrays, torch.no_grad():
        y, ids = arrays["y"], arrays["ids"]
        now = model(torch.from_numpy(arrays["x_adv"])).argmax(1).numpy()
        kept = (arrays["pred"] == y) & (arrays["pred_after"] != y)
        changed = ids[now != arrays["pred_after"]].tolist()
    assert found["no_longer"] == ids[kept & (now == y)].tolist()
    assert found["changed"] == changed
    assert (found["kept"], found["fooling"]) == (kept.sum(), (kept & (now != y)).sum())
    table = call("replay", "adv.npz", BATCHOUT, "--batch-size", batch).out
    assert f"{len(found['no_longer'])} no longer fool: " in table
    assert all(len(line) <= 120 for line in table.splitlines())


def test_rows_of_a_store_are_judged_on_the_model_that_they_name(call: Call, stored: dict[str, Any]) -> None:
    found = replays(call("replay", "--format", "json"))
    assert [(one["attack"], one["budget"]) for one in found] == [
        *(("fgsm", f"Linf {eps}") for eps in ("0.1", "0.2")),
        ("deepfool:iters=3", "L2"),
    ]
    for one, row in zip(found, stored["rows"], strict=True):
        assert one["kept"] == one["fooling"] == one["originals"] == min(16, row["clean_correct"] - row["correct"]) > 0
        assert one["no_longer"] == one["changed"] == one["outside_box"] == one["wrong_before"] == []
        assert one["outside_ball"] == (None if row["eps"] is None else [])
        assert (one["same_model"], one["missing"]) == (True, None)
        assert one["made_on"]["checkpoint_sha256"] == one["checkpoint_sha256"]
        far = [distance for distance in row["distance"] if distance]
        assert one["largest_distance"][row["norm"]] <= max(far) + 1e-6


def test_rows_are_chosen_by_id_and_may_meet_another_model(call: Call, stored: dict[str, Any]) -> None:
    ended = call("replay", 3, BATCHOUT, "--store", STORE)
    assert ended.code == 0
    assert "row 3: made on checkpoints/vanilla.pt (" in ended.out
    assert "another model (" in ended.out
    assert "row 2" not in ended.out
    (found,) = replays(call("replay", BATCHOUT, 3, "--store", STORE, "--format", "json"))
    assert (found["same_model"], found["checkpoint"], found["kept"]) == (False, BATCHOUT, 16)


def test_a_model_that_was_trained_anew_since_is_another_one(call: Call, stored: dict[str, Any]) -> None:
    shutil.copy(BATCHOUT, VANILLA)
    assert {one["same_model"] for one in replays(call("replay", "--format", "json"))} == {False}
    Path(VANILLA).unlink()
    ended = call("replay")
    assert (ended.code, ended.out) == (3, "")
    assert ended.error.endswith("; another MODEL may be named")


def test_images_that_were_altered_are_told(call: Call, stored: dict[str, Any], saved: dict[str, Any]) -> None:
    with sqlite3.connect(STORE) as connection:
        (sample, packed), *_ = connection.execute("SELECT sample, pixels FROM adversarials WHERE series = 2").fetchall()
        pixels = np.frombuffer(zlib.decompress(packed), "<f4") * 0 + np.float32(1.5)
        change = "UPDATE adversarials SET pixels = ? WHERE series = 2 AND sample = ?"
        connection.execute(change, (zlib.compress(pixels.tobytes()), sample))
    found, *others = replays(call("replay", "--format", "json"))
    assert found["outside_box"] == found["outside_ball"] == [sample]
    assert all(not one["outside_box"] for one in others)
    ended = call("replay", 2)
    assert f"row 2: 1 have pixels outside [0, 1]: {sample}" in ended.out
    assert f"row 2: 1 lie outside the ball: {sample}" in ended.out
    with np.load("adv.npz") as arrays:
        np.savez("clean.npz", **{**arrays, "x_adv": arrays["x"]})
    (found,) = replays(call("replay", "clean.npz", VANILLA, "--format", "json"))
    assert found["fooling"] == found["largest_distance"]["linf"] == 0
    assert len(found["no_longer"]) == found["kept"] > 0


@pytest.mark.parametrize("gone", [True, False])
def test_without_its_data_set_nothing_is_said_of_the_ball(
    call: Call, models: Path, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(Path("own.npz"))
    assert call("evaluate", VANILLA, *FGSM, "--dataset", "own.npz").code == 0
    with sqlite3.connect(STORE) as connection:  # as one of schema 1 has none
        connection.execute("DELETE FROM originals")
    if gone:
        Path("own.npz").rename("other.npz")
    else:
        draw = np.random.default_rng(5)
        write_images(Path("own.npz"), x_test=draw.integers(0, 255, (60, 8, 8)).astype(np.uint8))
    (found,) = replays(call("replay", "--format", "json"))
    assert (found["originals"], found["outside_ball"], found["wrong_before"]) == (0, None, None)
    assert found["kept"] == found["fooling"] > 0
    assert ("own.npz: no such file" if gone else "originals are not in") in found["missing"]
    assert "incomplete" in call("replay").out
    if gone:
        (found,) = replays(call("replay", "--dataset", "other.npz", "--format", "json"))
        assert (found["originals"], found["outside_ball"], found["missing"]) == (found["kept"], [], None)
        ended = call("replay", "--dataset", "none.npz")
        assert (ended.code, "none.npz: no such file" in ended.error) == (3, True)


def test_a_network_from_elsewhere_is_fitted_as_in_the_run(call: Call, models: Path, images: Path) -> None:
    Path("net.py").write_text(NET)
    where = ("net.py:make", "--dataset", images, "--normalize", "half-grey")
    ended = call("attack", *where, *FGSM, "--save", "adv.npz", "--format", "json")
    assert ended.code == 0, ended.err
    (row,) = ended.document["rows"]
    broken = row["clean_correct"] - row["correct"]
    assert broken > 0
    (found,) = replays(call("replay", "adv.npz", "net.py:make", "--normalize", "half-grey", "--format", "json"))
    assert (found["kept"], found["fooling"], found["changed"]) == (broken, broken, [])
    (found,) = replays(call("replay", "--store", STORE, *where, "--format", "json"))
    assert (found["same_model"], found["changed"], found["outside_ball"]) == (True, [], [])


def test_a_program_runs_only_where_it_is_named(call: Call, models: Path, images: Path) -> None:
    Path("net.py").write_text(NET)
    torch.manual_seed(1)
    torch.save({"1.weight": torch.randn(3, 64), "1.bias": torch.randn(3)}, "weights.pt")
    program, where = "net.py:make@weights.pt", ("--dataset", images)
    for normalize in ("half-grey", "mnist"):
        assert call("evaluate", program, *where, "--normalize", normalize, *FGSM, "--store", "s.db").code == 0
    told = f"{program}: is a program, which runs only where it is named; its rows are judged by `robustcli replay "
    for ids in ((), (2,)):
        ended = call("replay", "--store", "s.db", *ids)
        assert (ended.code, ended.out) == (2, "")
        assert f"{told}--store s.db {'2' if ids else '2 4'} {program}`" in ended.error
    named = ("--weights", "weights.pt", "net.py:make")
    for names in (("2", "4", program), (program,), named):
        for found in replays(call("replay", "--store", "s.db", *names, "--format", "json")):
            assert (found["same_model"], found["changed"], found["outside_ball"]) == (True, [], [])
    (found,) = replays(call("replay", "--store", "s.db", 2, program, "--normalize", "mnist", "--format", "json"))
    assert found["same_model"] is False
    assert call("evaluate", VANILLA, *FGSM, "--store", "s.db").code == 0
    ended = call("replay", "--store", "s.db", "--format", "json")
    assert [one["source"] for one in replays(ended)] == ["row 6"]
    assert f"warning: {told}--store s.db 2 4 {program}`" in ended.err


def test_what_was_decided_for_a_model_is_told_once(call: Call, models: Path, images: Path) -> None:
    Path("net.py").write_text(NET)
    both = ("--attack", "fgsm", "--eps", "0.05,0.1", *QUIET)
    assert call("evaluate", "net.py:make", "--dataset", images, *both).code == 0
    assert call("attack", "net.py:make", "--dataset", images, *FGSM, "--save", "adv.npz").code == 0
    for names in (("net.py:make",), ("adv.npz", "net.py:make")):
        ended = call("replay", *names)
        assert ended.code == 0
        assert ended.err.count("net.py:make: normalisation: ") == 1


def test_what_goes_before_a_network_is_refused_for_a_checkpoint(
    call: Call, stored: dict[str, Any], saved: dict[str, Any], images: Path
) -> None:
    told = "goes before a network from elsewhere; a checkpoint has its own first layers"
    for names in (("adv.npz", VANILLA), (VANILLA,), ()):
        for flag in (("--normalize", "mnist"), ("--resize", "32"), ("--crop", "8")):
            ended = call("replay", *names, *flag)
            assert (ended.code, ended.out) == (2, "")
            assert f"{' '.join(flag)}: {told}" in ended.error
    Path("net.py").write_text(NET)
    where = ("--dataset", images, "--normalize", "mnist", "--store", "both.db")
    assert call("compare", VANILLA, "net.py:make", *FGSM, *where).code == 0
    assert {one["checkpoint"] for one in replays(call("replay", "--store", "both.db", "--format", "json"))} == {VANILLA}


def test_a_name_is_a_file_or_a_model(call: Call, stored: dict[str, Any], saved: dict[str, Any]) -> None:
    Path("2").mkdir()  # and an id is an id
    shutil.copy(STORE, "s.db")
    for names, sources in {
        ("adv.pt", VANILLA): ["adv.pt"],
        ("adv.npz", VANILLA): ["adv.npz"],
        (VANILLA,): ["row 2", "row 3", "row 4"],
        ("--store", "s.db", BATCHOUT): ["row 2", "row 3", "row 4"],
        ("2", BATCHOUT): ["row 2"],
        (BATCHOUT, "2"): ["row 2"],
        ("3", "2", "3"): ["row 3", "row 2"],
    }.items():
        assert [one["source"] for one in replays(call("replay", *names, "--format", "json"))] == sources
    ended = call("replay", "zoo:mnist-pgd")
    assert (ended.code, "zoo:mnist-pgd: made for images of shape (1, 28, 28)" in ended.error) == (3, True)


@pytest.mark.parametrize("kept", ["all", "some"])
def test_originals_come_from_the_store(call: Call, models: Path, kept: str) -> None:
    write_images(Path("own.npz"))
    assert call("evaluate", VANILLA, *FGSM, "--dataset", "own.npz").code == 0
    (before,) = replays(call("replay", "--format", "json"))
    with sqlite3.connect(STORE) as connection:
        if kept == "some":
            connection.execute("DELETE FROM originals WHERE sample % 2")
            connection.execute("UPDATE originals SET pixels = x'00' WHERE sample % 3 = 1")
    if kept == "some":
        assert replays(call("replay", "--format", "json")) == [before]
    Path("own.npz").unlink()
    (found,) = replays(call("replay", "--format", "json"))
    if kept == "all":
        assert (found, found["outside_ball"], found["originals"]) == (before, [], before["n"])
    else:
        assert 0 < found["originals"] < before["n"]
        assert "own.npz: no such file" in found["missing"]


def test_a_data_set_of_the_user_that_does_not_fit(call: Call, stored: dict[str, Any]) -> None:
    write_images(Path("four.npz"), x_test=np.zeros((60, 9, 9), np.uint8), x_train=np.zeros((240, 9, 9), np.uint8))
    ended = call("replay", 2, "--dataset", "four.npz")
    assert (ended.code, ended.out) == (3, "")
    assert "made for images of shape (1, 8, 8)" in ended.error
    assert "another MODEL" not in ended.error


def _lies(path: Path) -> None:
    """An .npz whose `x_adv` claims a terabyte."""
    with np.load("adv.npz") as arrays:
        np.savez(path, **{name: array for name, array in arrays.items() if name != "x_adv"})
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 32, 1, 8, 8)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_adv.npy", head.getvalue())


def _changed(**changes: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load("adv.npz") as arrays:
            np.savez(path, **{name: changes.get(name, lambda same: same)(array) for name, array in arrays.items()})

    return write


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "r.json": (
        lambda path: path.write_text('{"schema": 1, "rows": []}'),
        "is a result, which holds no images: attack --save",
    ),
    "no.npz": (lambda path: None, "no.npz: no such file"),
    "folder": (lambda path: path.mkdir(), "folder: is a folder; images in PNG are not judged again; attack"),
    "text.npz": (lambda path: path.write_text("no zip"), "text.npz: cannot be read as an .npz file"),
    "cut.npz": (lambda path: path.write_bytes(Path("adv.npz").read_bytes()[:900]), "cut.npz: cannot be read"),
    "lies.npz": (_lies, "array 'x_adv' cannot be read: its header says"),
    "object.npz": (_changed(x=lambda x: x.astype(object)), "Object arrays hold pickles, which are never opened"),
    "text_y.npz": (_changed(y=lambda y: y.astype(str)), "its array 'y' (40,) of <U"),
    "few.npz": (_changed(ids=lambda ids: ids[:3]), "its array 'ids' (3,) of int64 is not what attack --save writes"),
    "flat.npz": (_changed(x_adv=lambda x: x.reshape(40, -1)), "its array"),
    "nan.npz": (_changed(x_adv=lambda x: x * np.nan), "its array 'x_adv' (40, 1, 8, 8) of float32"),
    "negative.npz": (_changed(y=lambda y: y - 5), "its array 'y' (40,) of int64"),
    "huge.npz": (_changed(y=lambda y: y + 2**60), "labels count from 0"),
    "none.npz": (lambda path: np.savez(path, a=np.zeros(3)), "array 'x' is missing (the file holds a)"),
    "checkpoint.pt": (lambda path: shutil.copy(BATCHOUT, path), "array 'x' is missing"),
    "pickle.pt": (lambda path: torch.save({"x": Path("a")}, path), "is refused: it holds a pickled object"),
    "text.pt": (lambda path: path.write_text("no zip"), "text.pt: cannot be read as a file that torch.save wrote"),
    "s.db": (lambda path: shutil.copy(STORE, path), "s.db: is a store; write replay --store s.db"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_does_not_do_is_one_line(call: Call, saved: dict[str, Any], name: str) -> None:
    if name == "s.db":
        call("evaluate", VANILLA, *FGSM)
    write, told = BAD[name]
    write(Path(name))
    ended = call("replay", name, VANILLA)
    assert (ended.code, ended.out) == (3, ""), ended.err
    assert told in ended.error
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["adv.npz"], 2, "replay adv.npz: a file names no model; write replay adv.npz MODEL"),
        (["r.json"], 3, "is a result, which holds no images"),
        (["adv.npz", VANILLA, BATCHOUT], 2, "replay: takes one model, and"),
        (["adv.pt"], 2, "replay adv.pt: a file names no model; write replay adv.pt MODEL"),
        (["adv.npz", VANILLA, "--store", "s.db"], 2, "replay adv.npz: takes a file or --store, not both"),
        (["adv.pt", VANILLA, "--store", "s.db"], 2, "replay adv.pt: takes a file or --store, not both"),
        (["none.pt", VANILLA], 3, "none.pt: no such file"),
        (["zoo:mnist-pgd", VANILLA], 2, "are named; a file of adversarials is an .npz or .pt that is there"),
        (["s.db"], 3, "s.db: is a store; write replay --store s.db"),
        (["adv.npz", "none.pt"], 3, "none.pt: no such checkpoint"),
        (["adv.npz", "digits.pt"], 3, "digits.pt: made for images of shape (1, 28, 28)"),
        (["adv.npz", "net.py:small"], 3, "the labels go up to 2, and the model's 2 outputs stand for 0 to 1"),
        (["adv.npz", VANILLA, "--batch-size", "0"], 2, "--batch-size 0"),
        (["adv.npz", VANILLA, "--device", "tpu"], 2, "--device 'tpu' is unknown"),
        (["adv.npz", VANILLA, "--format", "csv"], 2, "--format 'csv' is unknown (allowed: json, table)"),
        (["--store", "s.db", 77], 2, "s.db has no row 77"),
        (["--store", "s.db", 1], 3, "--store s.db: row 1 keeps no images of broken samples"),
        (["--store", "s.db", 2, "digits.pt"], 3, "digits.pt: made for images of shape (1, 28, 28)"),
        (["--store", "no.db"], 3, "--store no.db: is not there"),
        (["--store", "empty.db"], 3, "--store empty.db: keeps no images of broken samples"),
        ([], 3, "--store results/robustcli.db: is not there"),
    ],
)
def test_a_call_that_does_not_do_is_one_line(
    call: Call, saved: dict[str, Any], arguments: list[object], code: int, told: str
) -> None:
    assert call("evaluate", VANILLA, *FGSM, "--store", "s.db").code == 0
    assert call("evaluate", VANILLA, "--attack", "noise:eps=0", *QUIET, "--store", "empty.db").code in (0, 2)
    Path("r.json").write_text("{}")
    Path("net.py").write_text(NET)
    write_checkpoint(Path("digits.pt"))
    ended = call("replay", *arguments)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert told in ended.error


def test_names_are_harmless(call: Call, saved: dict[str, Any]) -> None:
    model, file = f"{NASTY}.pt".replace("/", ""), f"{NASTY}.npz".replace("/", "")
    shutil.copy(VANILLA, model)
    shutil.copy("adv.npz", file)
    assert call("evaluate", f"./{model}", *FGSM, "--store", "s.db").code == 0
    for arguments in ((f"./{file}", f"./{model}"), ("--store", "s.db"), ("--store", "s.db", BATCHOUT), (file,)):
        for style in ("table", "json"):
            ended = call("replay", *arguments, "--format", style)
            assert ended.code == (2 if arguments == (file,) else 0), ended.err
            assert_harmless(ended.out + ended.err)
