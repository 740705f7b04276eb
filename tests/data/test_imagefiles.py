from __future__ import annotations

import pytest
from PIL import Image

from .conftest import failure, load_path, write_images

# A folder


def test_a_folder_with_splits(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            write_images(tmp_path / split / name, count, level=100 * label)
    images = load_path(tmp_path, split="train")
    assert images.classes == ("cat", "dog")
    assert images.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert images.x[:, 0, 0, 0].tolist() == [0, 100, 1, 101, 2, 102]
    assert len(load_path(tmp_path, split="test")) == 4


def test_a_folder_without_splits_tests_on_every_fifth_image(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 11)
    assert load_path(tmp_path).x[:, 0, 0, 0].tolist() == [4, 4, 9, 9]
    assert load_path(tmp_path, split="train").x[::2, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10]


def test_a_folder_of_colour_images_keeps_its_pixels(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 5, mode="RGB", size=(9, 8))
    images = load_path(tmp_path)
    assert images.shape == (3, 8, 9)
    assert images.x[0, :, 0, 0].tolist() == [4, 0, 255]


def test_classes_take_turns_until_they_run_out(tmp_path):
    for name, count in (("a", 1), ("b", 4), ("c", 2)):
        write_images(tmp_path / "train" / name, count)
    assert load_path(tmp_path, split="train").y.tolist() == [0, 1, 2, 1, 2, 1, 1]


def test_what_is_no_image_or_hidden_is_passed_over(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 5)
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    assert load_path(tmp_path).classes == ("a", "b")


def test_a_limit_reads_no_more_than_it_needs(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 2)
    (tmp_path / "test" / "b" / "01.png").write_bytes(b"broken")
    whole = len(load_path(tmp_path, limit=3))
    assert whole == 3
    assert "b/01.png: cannot be read as an image" in failure(tmp_path)


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("RGB", (8, 8), "has 8x8 pixels of mode RGB, but"),
        ("L", (9, 8), "has 9x8 pixels of mode L, but"),
        ("RGBA", (8, 8), "has 8x8 pixels of mode RGBA; allowed modes: L (grey) and RGB"),
    ],
)
def test_an_image_unlike_the_first_is_named(tmp_path, mode, size, message):
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 2)
    odd = tmp_path / "test" / "b" / "00.png"
    Image.new(mode, size).save(odd)
    assert failure(tmp_path).startswith(f"{odd}: {message}")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds 0 class folders; at least 2 are needed"),
        ({"a": 5}, "holds 1 class folders"),
        ({"a": 5, "b": 0}, "/b: this class folder holds no image"),
        ({"a": 5, "b": 4}, "/b: every fifth image of a class is a test image, and this one has fewer than 5"),
        ({"train/a": 1, "train/b": 1}, "/test: holds 0 class folders"),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "test/c": 1}, "class folder 'b' is in only one of train and test"),
    ],
)
def test_a_folder_that_lacks_something_is_named(tmp_path, counts, message):
    for name, count in counts.items():
        write_images(tmp_path / name, count)
    assert message in failure(tmp_path)
