"""Data sets that a user names: what is said of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .conftest import Call


def test_what_is_left_out_of_a_folder_is_said_by_every_command(call: Call, here: Path) -> None:
    for split in ("train", "val"):
        for level, name in enumerate(("a", "b")):
            (here / "set" / split / name).mkdir(parents=True)
            for i in range(4):
                Image.new("L", (8, 8), 100 * level + 10 * (split == "val") + i).save(
                    here / "set" / split / name / f"{i}.png"
                )
    (here / "set/train/a/4.heic").touch()
    (here / "set/val/b/4.avif").touch()
    train = ["train", "--dataset", "set", "--epochs", "1", "--output", "m.pt"]
    assert "set: 1 of 9 files left out: 1 of another suffix (.heic)\n" in call(*train).err
    for command in (["evaluate", "m.pt"], ["attack", "m.pt"], ["compare", "m.pt"]):
        ended = call(*command, "--attack", "fgsm", "--eps", "0.1", "--checks", "off")
        assert "set: val/ is the test split: there are no class folders in test/\n" in ended.err
        assert "set: 1 of 9 files left out: 1 of another suffix (.avif)\n" in ended.err


def test_a_mistyped_data_set_is_told_before_the_output(call: Call, here: Path) -> None:
    (here / "m.pt").touch()
    ended = call("train", "--dataset", "none.npz", "--output", "m.pt")
    assert (ended.code, "none.npz: no such file or folder" in ended.error) == (3, True)
