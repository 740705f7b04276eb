from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from robustcli.config import Fit
from robustcli.store.documents import data_files

from .conftest import failure, load_path


def write(path: Path, text: str | bytes, name: str = "list.csv") -> Path:
    """A list, and nine images in photos/ beside it."""
    folder = path / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(9):
        Image.new("L", (8, 8), 10 * i).save(folder / f"{i}.png")
    (path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return path / name


def levels(path: Path, **spec: object) -> list[int]:
    return [int(level) // 10 for level in load_path(path, **spec).x[:, 0, 0, 0]]


@pytest.mark.parametrize("head", ["", "path,label\n", "\ufeffPath , Label\r\n"])
def test_a_list_names_files_and_labels_from_its_folder_on(tmp_path, monkeypatch, head):
    path = write(
        tmp_path / "set", head + 'photos/3.png,dog\n"photos/0.png",cat\n\n ./photos/4.png , dog\nphotos/5.png,dog'
    )
    monkeypatch.chdir(tmp_path)
    images = load_path(path)
    assert (images.classes, images.name, images.notices) == (("cat", "dog"), "list", ())
    assert levels(path) == [0, 3, 4, 5]
    assert levels(path, limit="first:2") == [3, 0]
    assert load_path(path, limit="first:2").ids.tolist() == [1, 0]


def test_columns_by_name_tabs_and_blanks(tmp_path):
    rows = [("1", "photos/1.png"), ("0", "photos/2.png")]
    path = write(tmp_path, "label;id;path\n" + "".join(f"{label};7;{name}\n" for label, name in rows))
    assert levels(path) == [2, 1]
    for mark in "\t ":
        path = write(tmp_path, "".join(f"{name}{mark}{label}\n" for label, name in rows), "val.txt")
        assert levels(path) == [2, 1]


def test_integers_are_taken_in_their_order(tmp_path):
    path = write(tmp_path, "photos/1.png,10\nphotos/2.png,9\n")
    assert (load_path(path).classes, levels(path)) == (("9", "10"), [2, 1])
    path = write(tmp_path, "photos/1.png,1\nphotos/2.png,01\nphotos/3.png,-10\nphotos/4.png,-9\n")
    assert load_path(path).classes == ("-10", "-9", "01", "1")
    path = write(tmp_path, f"photos/1.png,2\nphotos/2.png,1{'0' * 5000}\n")  # more than Python makes an integer of
    assert levels(path) == [2, 1]


def test_a_quotation_mark_that_is_not_closed_swallows_no_lines(tmp_path):
    path = write(tmp_path, 'photos/1.png,a\n"photos/2.png,b\nphotos/3.png,b\nphotos/4.png,a\n')
    assert "cannot be read as lines of path,label: line 4: unexpected end of data" in failure(path)


def test_a_very_long_path_is_named_by_its_beginning(tmp_path):
    path = write(tmp_path, f"photos/1.png,a\nphotos/2.png,b\n{'x' * 5000},a\n")
    assert load_path(path).notices == (f"{path}: 1 of 3 lines left out: 1 missing ({'x' * 100}...)",)


def test_a_column_says_the_split(tmp_path):
    text = "path,label,split\nphotos/0.png,a,train\nphotos/1.png,b,Train\nphotos/2.png,a,val\nphotos/3.png,b,val\n"
    path = write(tmp_path, text)
    assert levels(path, split="train") == [0, 1]
    assert load_path(path).notices == (f"{path}: val is the test split: no line is of test",)
    path = write(tmp_path, text + "photos/4.png,a,test\nphotos/5.png,b,extra\n")
    assert levels(path) == [4]
    assert load_path(path).notices == (
        f"{path}: 1 of 6 lines left out: 1 of no split train, test or val (photos/5.png)",
    )
    path = write(tmp_path, "photos/0.png,a\nphotos/1.png,b\n")
    assert failure(path, split="train").startswith(f"{path}: has no column 'split', so that all are test images; ")


def test_what_leaves_the_folder_is_told_and_not_read(tmp_path, monkeypatch):
    Image.new("L", (8, 8), 77).save(tmp_path / "secret.png")
    path = write(tmp_path / "set", "")
    (path.parent / "link.png").symlink_to(tmp_path / "secret.png")
    (path.parent / "up").symlink_to(tmp_path)
    outside = [
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "up/secret.png",
        "photos/../../secret.png",
        "..",
    ]
    fine = [str(path.parent / "photos/1.png"), "up/set/photos/2.png", "photos/../photos/3.png"]
    write(path.parent, "".join(f"{name},{i % 2}\n" for i, name in enumerate(outside + fine)))
    opened = []
    monkeypatch.setattr("robustcli.data.index.open_regular", lambda file: opened.append(file.name) or file.open("rb"))
    images = load_path(path)
    assert images.notices == (
        f"{path}: 6 of 9 lines left out: 6 that lead outside its folder (.., ../secret.png, {outside[1]}, ...)",
    )
    assert sorted(opened) == ["1.png", "2.png", "3.png"]


def test_lines_that_cannot_stand_are_told_and_the_rest_is_read(tmp_path):
    rows = ["photos/0.png,a", "photos/1.png,b", "photos/none.png,a", "photos/2.png,", ",b", "photos/3.png,a"]
    rows += ["photos/3.png,b", "./photos/1.png,b", "photos,a", "photos/4.png", "list.csv,b"]
    path = write(tmp_path, "\n".join(rows))
    images = load_path(path)
    assert levels(path) == [0, 1]
    assert images.notices == (
        f"{path}: 7 of 11 lines left out: 1 missing (photos/none.png), 3 with an empty path or label (b, photos/2.png, "
        "photos/4.png), 2 named before (./photos/1.png, photos/3.png), 1 with several labels (photos/3.png)",
        f"{path}: 2 of 4 images cannot be read and are left out: photos (is a folder), list.csv (it is no BMP, GIF, "
        "JPEG, PNG, PPM, TIFF or WEBP, or is damaged)",
    )


def test_names_that_are_no_utf8_are_read_and_other_texts_are_refused(tmp_path):
    path = write(tmp_path, b"photos/\xe9.png,caf\xe9\nphotos/1.png,b\n")
    (tmp_path / "photos/0.png").rename(tmp_path / "photos" / os.fsdecode(b"\xe9.png"))
    images = load_path(path)
    assert (images.classes, len(images), images.notices) == (("b", "caf\\xe9"), 2, (f"{path}: 1 lines are no UTF-8",))
    assert failure(write(tmp_path, "a,b".encode("utf-16"))).endswith("holds bytes 0: it is no text in UTF-8")
    for text in ("", "one\n", "path,label\n"):
        assert "holds no line of path,label" in failure(write(tmp_path, text))
    assert "holds 1 test images and 1 classes; at least 2 are needed" in failure(write(tmp_path, "photos/0.png,a\n"))
    assert "cannot be read as lines of path,label" in failure(write(tmp_path, f"{'x' * 200_000},a\n"))


def test_images_of_a_list_are_fitted_and_its_files_are_what_an_answer_rests_on(tmp_path):
    path = write(tmp_path, "photos/0.png,a\nphotos/1.png,b\n")
    Image.new("L", (9, 8)).save(tmp_path / "photos/1.png")
    assert load_path(path, fit=Fit(crop=(5, 4))).shape == (1, 5, 4)
    assert data_files(str(path), tmp_path) == [path, tmp_path / "photos/0.png", tmp_path / "photos/1.png"]
