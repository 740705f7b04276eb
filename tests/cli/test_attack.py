from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustcli.models.sources import open_target

from .conftest import Call

SAVED = {"x": "float32", "x_adv": "float32", "y": "int64", "pred": "int64", "pred_after": "int64", "ids": "int64"}


def test_saved_arrays_are_of_the_promised_types_in_the_ball_and_predicted_as_they_say(call: Call, models: Path) -> None:
    ended = call("attack", models / "vanilla.pt", "--attack", "pgd:steps=5", "--eps", "0.2", "--save", "adv.npz")
    assert ended.code == 0, ended.err
    assert "images: adv.npz" in ended.err
    with np.load("adv.npz") as arrays:
        saved = dict(arrays)
    assert {name: str(array.dtype) for name, array in saved.items()} == SAVED
    assert {array.shape for name, array in saved.items() if name.startswith("x")} == {(60, 1, 8, 8)}
    assert {array.shape for name, array in saved.items() if not name.startswith("x")} == {(60,)}
    assert np.abs(saved["x_adv"] - saved["x"]).max() <= 0.2 + 1e-6
    assert saved["x_adv"].min() >= 0
    assert saved["x_adv"].max() <= 1
    model = open_target("checkpoints/vanilla.pt").module
    with torch.no_grad():
        again = {name: model(torch.from_numpy(saved[name])).argmax(1).numpy() for name in ("x", "x_adv")}
    assert np.array_equal(again["x"], saved["pred"])
    assert np.array_equal(again["x_adv"], saved["pred_after"])
    wrong = saved["pred"] != saved["y"]
    assert np.array_equal(saved["x_adv"][wrong], saved["x"][wrong])


def test_the_gallery_is_a_png(call: Call, models: Path) -> None:
    ended = call("attack", "--attack", "deepfool:iters=5", "--gallery", "g.png")
    assert (ended.code, "gallery: g.png" in ended.err) == (0, True)
    content = Path("g.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 10_000


@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_a_damaged_file_is_not_replaced(call: Call, models: Path, suffix: str) -> None:
    attack = ("attack", models / "vanilla.pt", "--attack", "fgsm", "--eps", "0.2", "--limit", "9", "--checks", "off")
    path = Path(f"adv.{suffix}")
    assert call(*attack, "--save", path).code == 0
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole.replace(b"x_adv", b"x_bad"), b"PK\3\4", whole[:-200] + bytes(200)):
        path.write_bytes(damaged)
        ended = call(*attack, "--save", path)
        assert (ended.code, "is there already and is not what --save writes" in ended.error) == (2, True)
        assert path.read_bytes() == damaged


def test_a_pt_holds_what_the_npz_holds_as_tensors_and_may_be_replaced(call: Call, models: Path) -> None:
    attack = ("attack", models / "vanilla.pt", "--attack", "fgsm", "--eps", "0.2", "--limit", "9", "--checks", "off")
    for file in ("adv.npz", "adv.pt", "adv.pt", "adv.npz"):
        assert call(*attack, "--save", file).code == 0
    saved = torch.load("adv.pt", weights_only=True)
    with np.load("adv.npz") as arrays:
        assert saved.keys() == set(arrays)
        assert all(np.array_equal(saved[name].numpy(), arrays[name]) for name in arrays)
    assert {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in saved.items()} == SAVED


@pytest.mark.parametrize(("flag", "file"), [("--save", "adv.npz"), ("--gallery", "g.png")])
@pytest.mark.parametrize("budgets", [(), ("--eps", "0.1,0.2")])
def test_images_of_several_budgets_are_refused(
    call: Call, models: Path, flag: str, file: str, budgets: tuple[str, ...]
) -> None:
    ended = call("attack", "--attack", "fgsm", *budgets, flag, file)
    assert (ended.code, ended.out) == (2, "")
    assert f"{flag}: takes the images of one budget" in ended.error
    assert not Path(file).exists()


def test_one_attack_at_several_budgets_is_a_row_each(call: Call, models: Path) -> None:
    ended = call("attack", "--attack", "fgsm", "--eps", "0.1,8/255,0.3")
    assert [budget in ended.out for budget in ("Linf 0.1", "Linf 8/255", "Linf 0.3")] == [True] * 3


# --- PNG


def test_pngs_are_8_bit_and_fool_when_they_are_read_back(call: Call, models: Path) -> None:
    ended = call("attack", models / "vanilla.pt", "--attack", "pgd:steps=5", "--eps", "0.3", "--save", "pngs")
    assert ended.code == 0, ended.err
    paths = sorted(Path("pngs").iterdir())
    (said,) = [line for line in ended.err.splitlines() if line.startswith("images: ")]
    assert said.startswith(f"images: pngs/: {len(paths)} of ")
    assert len(paths) > 0
    model = open_target(models / "vanilla.pt").module
    for path in paths:
        true = int(path.stem.split("-")[2])
        pixels = torch.from_numpy(np.array(Image.open(path)))
        assert pixels.dtype == torch.uint8
        with torch.no_grad():
            assert int(model(pixels[None, None].float() / 255).argmax(1)) != true


@pytest.mark.parametrize(
    ("save", "told"),
    [
        ("adv.png", "should be an .npz or .pt file, or a folder for PNG files"),
        ("full", "is a folder with files in it; give a new one, or an .npz or .pt file"),
        ("checkpoints/vanilla.pt", "is the checkpoint that this command reads"),
        ("checkpoints/batchout.pt", "is there already and is not what --save writes; give another name"),
        ("no/pngs", "its folder no does not exist"),
    ],
)
def test_a_place_that_does_not_do_is_told_before_anything_runs(call: Call, models: Path, save: str, told: str) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    ended = call("attack", models / "vanilla.pt", "--attack", "fgsm", "--eps", "0.3", "--save", save)
    assert (ended.code, ended.out) == (2, "")
    assert f"--save {save}: {told}" in ended.error
