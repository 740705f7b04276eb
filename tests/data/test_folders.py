from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustcli.config import DataSpec, Fit
from robustcli.data import decoding
from robustcli.data import folders as imagefiles
from robustcli.data.load import load
from robustcli.errors import DataError

from .conftest import draw, failure, load_path, write_images


def folder_of(path: Path, *files: bytes | Image.Image, suffix: str = "png", **options: object) -> Path:
    """Class folders a and b with these test images in a, and one image of noise in each."""
    for name in ("a", "b"):
        (path / "test" / name).mkdir(parents=True)
        Image.fromarray(draw(8, 8) ^ ord(name)).save(path / "test" / name / "z.png")
    for i, file in enumerate(files):
        target = path / "test" / "a" / f"{i}.{suffix}"
        target.write_bytes(file) if isinstance(file, bytes) else file.save(target, **options)
    return path


def broken(path: Path) -> str:
    """Why the one image that is left out is."""
    (line, *_) = load_path(path).notices
    assert line.startswith(f"{path}: 1 of 3 images cannot be read and are left out: test/a/0.")
    return line.partition("(")[2].removesuffix(")")


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
    for level, name in ((0, "a"), (100, "b")):
        write_images(tmp_path / name, 11, level=level)
    assert load_path(tmp_path).x[:, 0, 0, 0].tolist() == [4, 104, 9, 109]
    assert load_path(tmp_path).notices == ()
    assert load_path(tmp_path, split="train").x[::2, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10]


def test_a_large_folder_is_decoded_when_it_is_indexed_and_has_the_same_images(tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_images(tmp_path / name, 10)
    small = load_path(tmp_path)
    monkeypatch.setattr(imagefiles, "IN_MEMORY", 0)
    large = load_path(tmp_path)
    assert isinstance(large.x, imagefiles.Files)
    assert (large.fingerprint, large.shape, len(large)) == (small.fingerprint, small.shape, len(small))
    assert large.hashes.tolist() == small.hashes.tolist()
    order = torch.tensor([2, 0, 3])
    assert torch.equal(large.batch(order), small.batch(order))
    assert torch.equal(large.take(order).take(slice(1, None)).x[:], small.x[order][1:])
    assert torch.equal(large.in_memory().x, small.x)


def test_a_damaged_file_of_a_large_folder_is_refused_when_it_is_read(tmp_path, monkeypatch):
    for name in ("a", "b"):
        write_images(tmp_path / name, 10)
    cut = tmp_path / "b" / "09.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    monkeypatch.setattr(imagefiles, "IN_MEMORY", 0)
    images = load_path(tmp_path)
    with pytest.raises(DataError, match=r"09\.png: cannot be read as an image"):
        images.batch(slice(None))


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


def test_a_limit_reads_no_more_than_it_needs(tmp_path):
    for level, name in ((0, "a"), (100, "b")):
        write_images(tmp_path / "test" / name, 2, level=level)
    last = tmp_path / "test" / "b" / "01.png"
    last.write_bytes(last.read_bytes()[:-30])  # only its pixels are damaged
    assert load_path(tmp_path, limit=3).notices == ()
    assert (
        load_path(tmp_path)
        .notices[0]
        .startswith(f"{tmp_path}: 1 of 4 images cannot be read and are left out: test/b/01")
    )


def test_an_image_of_another_size_is_named(tmp_path):
    write_images(tmp_path / "test" / "a", 2)
    write_images(tmp_path / "test" / "b", 2, size=(9, 8))
    odd, first = tmp_path / "test" / "b" / "00.png", tmp_path / "test" / "a" / "00.png"
    assert failure(tmp_path).startswith(f"{odd}: has 9x8 pixels, but {first} has 8x8 pixels: ")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "holds 0 class folders; at least 2 are needed"),
        ({"a": 5}, "holds 1 class folders"),
        ({"a": 5, "b": 0}, "/b: this class folder holds no image"),
        ({"a": 5, "b": 4}, "/b: every fifth image of a class is a test image, and this one has fewer than 5"),
        ({"train/a": 1, "train/b": 1}, "/test: holds 0 class folders"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "val/c": 1}, "class folder 'b' is in only one of train and val"),
        ({"train/a": 1, "train/b": 1, "test/a": 1, "test/c": 1}, "class folder 'b' is in only one of train and test"),
    ],
)
def test_a_folder_that_lacks_something_is_named(tmp_path, counts, message):
    for name, count in counts.items():
        write_images(tmp_path / name, count)
    assert message in failure(tmp_path)


def test_val_is_the_test_split_where_there_is_no_other(tmp_path):
    for split, level in (("train", 0), ("val", 50), ("validation", 90)):
        for name in ("a", "b"):
            write_images(tmp_path / split / name, 2, level=level + 2 * (name == "b"))
    images = load_path(tmp_path)
    assert images.x[:, 0, 0, 0].tolist() == [50, 52, 51, 53]
    assert images.notices == (
        f"{tmp_path}: val/ is the test split: there are no class folders in test/",
        f"{tmp_path}: 4 of 8 files left out: 4 elsewhere (validation/a, validation/b)",
    )
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 2, level=7 + 2 * (name == "b"))
    images = load_path(tmp_path)
    assert images.x[:, 0, 0, 0].tolist() == [7, 9, 8, 10]
    assert images.notices == (f"{tmp_path}: 8 of 12 files left out: 8 elsewhere (val/a, val/b, validation/a, ...)",)


# What is left out


def test_what_is_left_out_is_counted_and_said(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 3, level=100 * (name == "b"))
    write_images(tmp_path / "test" / "a" / "more", 2)
    write_images(tmp_path / "extra", 1)
    for name in (
        "test/a/x.tga",
        "test/a/y.heic",
        "test/b/notes",
        "test/b/.DS_Store",
        "test/b/.a.png",
        "README.md",
        "loose.png",
    ):
        (tmp_path / name).touch()
    (tmp_path / "test" / ".cache").mkdir()
    images = load_path(tmp_path)
    assert len(images) == 6
    assert images.notices == (
        f"{tmp_path}: 9 of 15 files left out: 3 of another suffix (.heic, .tga, notes), "
        "2 in sub-folders (test/a/more), 2 hidden (.DS_Store, .a.png), 2 elsewhere (extra, loose.png)",
    )
    assert images.take(slice(2)).notices == images.notices


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPG", "tif", "pgm"])
def test_the_less_common_suffixes_are_read(tmp_path, suffix):
    kind = {"tif": "TIFF", "pgm": "PPM"}.get(suffix, "JPEG")
    images = load_path(folder_of(tmp_path, Image.fromarray(draw(8, 8)), suffix=suffix, format=kind))
    assert (len(images), images.notices) == (3, ())


# Files that are no images, or no files


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n",
        b"%PDF-1.4\n",
        b"\0\0\1\0\1\0\x08\x08",
        b"P9\n",
        b"text",
    ],
)
def test_only_formats_that_are_listed_are_opened(tmp_path, content):
    assert broken(folder_of(tmp_path, content)) == "it is no BMP, GIF, JPEG, PNG, PPM, TIFF or WEBP, or is damaged"


def test_an_empty_file_is_said(tmp_path):
    assert broken(folder_of(tmp_path, b"")) == "it is empty"


def test_a_file_without_end_is_not_read(tmp_path):
    with (folder_of(tmp_path) / "test/a/0.png").open("wb") as file:
        file.truncate(1 << 40)
    assert broken(tmp_path) == "it has 1099511627776 bytes; at most 134217728 (128 MiB) an image are read"


def test_pipes_and_devices_are_refused_and_links_to_nothing_left_out(tmp_path):
    odd = folder_of(tmp_path) / "test/a/0.png"
    os.mkfifo(odd)
    assert failure(tmp_path) == f"{odd}: is a pipe, a socket or a device, not a regular file"
    odd.unlink()
    odd.symlink_to("/dev/zero")
    assert failure(tmp_path) == f"{odd}: is a pipe, a socket or a device, not a regular file"
    for target, reason in (("missing", "No such file"), ("0.png", "Too many levels")):
        odd.unlink()
        odd.symlink_to(target)
        assert broken(tmp_path).startswith(reason)


def test_links_within_the_folder_are_followed_and_loops_end(tmp_path):
    write_images(tmp_path / "kept" / "more", 5)
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        for label in ("a", "b"):
            (tmp_path / name / label).symlink_to(tmp_path / "kept" / "more")
    (tmp_path / "kept" / "more" / "05.png").symlink_to(tmp_path / "kept" / "more" / "00.png")
    (tmp_path / "kept" / "more" / "again").symlink_to(tmp_path / "kept")
    assert len(load_path(tmp_path, split="train")) == 12


def test_links_that_lead_outside_are_left_out_and_nothing_there_is_read(tmp_path, monkeypatch):
    write_images(tmp_path / "secret", 5)
    path = folder_of(tmp_path / "set", COLOUR)
    (path / "test" / "a" / "dev.png").symlink_to(tmp_path / "secret" / "01.png")
    (path / "test" / "a" / "one.png").symlink_to(tmp_path / "secret" / "00.png")
    (path / "test" / "c").symlink_to(tmp_path / "secret")
    (path / "train").symlink_to(tmp_path)
    opened = []
    monkeypatch.setattr("robustcli.data.index.open_regular", lambda file: opened.append(file) or file.open("rb"))
    images = load_path(path)
    listed = "test/a/dev.png, test/a/one.png, test/c, ..."
    assert images.notices[0] == f"{path}: 5 of 8 files left out: 5 links that lead outside ({listed})"
    assert (len(images), len(opened)) == (3, 3)
    assert "(3 links that lead outside" in failure(path, split="train")


def test_names_that_are_no_utf8_are_read(tmp_path):
    for name in (b"a\xff", b"b"):
        write_images(tmp_path / os.fsdecode(name), 5)
        for file in list((tmp_path / os.fsdecode(name)).iterdir()):
            file.rename(file.with_name(os.fsdecode(b"\xe9" + file.name.encode())))
    images = load_path(tmp_path)
    assert (images.classes, len(images)) == (("a\\xff", "b"), 2)
    index = tmp_path.parent / f"{tmp_path.name}.images"
    assert (
        load(DataSpec(dataset=str(tmp_path)), index).fingerprint
        == load(DataSpec(dataset=str(tmp_path)), index).fingerprint
    )
    (tmp_path / "b" / os.fsdecode(b"\xe904.png")).write_bytes(b"")
    assert "b/\\xe904.png (it is empty)" in load_path(tmp_path).notices[0]


# Images of any kind


def bmp(width: int, height: int) -> bytes:
    made = io.BytesIO()
    Image.new("L", (8, 8)).save(made, "BMP")
    content = bytearray(made.getvalue())
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


@pytest.mark.parametrize("size", [(8000, 8000), (1_000_000, 1_000_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, size):
    assert broken(folder_of(tmp_path, bmp(*size), suffix="bmp")).endswith(" at most 32000000 an image are read")


def first(path: Path) -> np.ndarray:
    """(h, w, c) of the first image."""
    return load_path(path).x[0].permute(1, 2, 0).numpy()


COLOUR = Image.fromarray(draw(8, 8, 3))
ALPHA = Image.fromarray(draw(8, 8, high=250) + 3)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "LAB", "YCbCr"])
def test_images_in_colour_become_rgb(tmp_path, mode):
    if mode == "RGBA":
        made = Image.merge("RGBA", (*COLOUR.split(), ALPHA))
    elif mode == "LAB":
        made = Image.frombytes("LAB", (8, 8), COLOUR.convert("YCbCr").tobytes())
    else:
        made = COLOUR.convert(mode)
    assert np.array_equal(first(folder_of(tmp_path, made, suffix="tif")), np.asarray(made.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "LA", "P"])
def test_images_without_colour_become_grey(tmp_path, mode):
    grey = Image.fromarray(draw(8, 8))
    made = {"1": grey.convert("1"), "LA": Image.merge("LA", (grey, ALPHA)), "P": grey.quantize(256)}[mode]
    path = folder_of(tmp_path, made)
    assert load_path(path).shape == (1, 8, 8)
    assert np.array_equal(first(path)[:, :, 0], np.asarray(made.convert("L")))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_become_8_by_scaling(tmp_path, suffix):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8)).astype(np.uint16)
    values[0, :4] = (0, 65535, 257 * 100, 255)
    path = folder_of(tmp_path, Image.fromarray(values), suffix=suffix)
    assert np.array_equal(first(path)[:, :, 0], np.rint(values / 257))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_scale_are_refused(tmp_path, kind):
    path = folder_of(tmp_path, Image.fromarray(draw(8, 8).astype(kind)), suffix="tif")
    assert broken(path).startswith("it has pixels of mode ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_images_are_turned_as_their_exif_says(tmp_path, kind):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[4:, :4] = 255, 120  # what is on the left: bright over dark
    turned = [pixels, pixels[:, ::-1], pixels[::-1, ::-1], pixels[::-1]]
    turned += [image.transpose(1, 0, 2) for image in (pixels, pixels[::-1], pixels[::-1, ::-1], pixels[:, ::-1])]
    made = [Image.Exif() for _ in turned]
    for number, (exif, want) in enumerate(zip(made, turned, strict=True), start=1):
        exif[0x0112] = number
        path = folder_of(tmp_path / str(number), Image.fromarray(pixels), suffix=kind.lower(), exif=exif)
        assert np.abs(first(path).astype(int) - want).max() < 20, number


def test_exif_that_is_damaged_turns_nothing(tmp_path):
    path = folder_of(tmp_path, COLOUR, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(first(path), np.asarray(COLOUR))


def test_grey_images_among_others_in_colour_become_rgb(tmp_path):
    path = folder_of(tmp_path, COLOUR)  # two more are grey
    images = load_path(path)
    assert images.shape == (3, 8, 8)
    assert np.array_equal(images.x[1], np.stack([draw(8, 8) ^ ord("b")] * 3))
    assert images.notices == (f"{path}: 2 of 3 images are grey and were made RGB, as others are in colour",)
    (path / "test/a/0.png").rename(path / "test/a/zz.png")
    assert load_path(path, limit=1).shape == (3, 8, 8)  # as without a limit


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    grey = [Image.new("L", (8, 8), level) for level in (3, 200)]
    path = folder_of(tmp_path, grey[0], suffix="gif", save_all=True, append_images=grey[1:])
    assert first(path).max() == 3
    assert load_path(path).notices == (f"{path}: 1 of 3 images have more than one frame: the first is read",)


# Damage


def whole_images() -> list[tuple[str, bytes]]:
    """Images of each format, with what a header may hold."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey, frames = COLOUR.convert("L"), {"save_all": True, "append_images": [COLOUR.rotate(90)]}
    made = [(image, kind, {}) for image in (COLOUR, grey) for kind in decoding.FORMATS]
    made += [(COLOUR, kind, frames) for kind in ("GIF", "PNG", "TIFF", "WEBP")]
    made += [(COLOUR, kind, {"exif": exif}) for kind in ("JPEG", "PNG", "TIFF", "WEBP")]
    made += [(COLOUR, "TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    made += [(grey.convert("1"), "TIFF", {"compression": "group4"})]
    found = []
    for image, kind, options in made:
        content = io.BytesIO()
        image.save(content, format=kind, **options)
        found.append((kind, content.getvalue()))
    return found


def test_damaged_images_give_one_line_or_an_image(tmp_path, capfd, caplog):
    draws, samples = random.Random(0), whole_images()
    caplog.set_level(logging.CRITICAL)
    for _ in range(200):
        kind, content = draws.choice(samples)
        damaged = bytearray(content[: draws.choice([len(content), draws.randrange(1, len(content))])])
        for _ in range(draws.randrange(4)):
            at = draws.choice([len(damaged), min(64, len(damaged))])
            damaged[draws.randrange(at)] = draws.choice([0, 1, 127, 128, 255, draws.randrange(256)])
        file = tmp_path / f"a.{kind}"
        file.write_bytes(damaged)
        with contextlib.suppress(DataError):
            pixels = decoding.decode(str(file))
            assert pixels.dtype == np.uint8
            assert len(pixels) in (1, 3)
    assert capfd.readouterr() == ("", "")


# Sizes, the index, broken files


def sizes(path: Path) -> Path:
    """Test images of four sizes, a square of 40 in the middle of each, and one that is broken."""
    for name, level in (("a", 60), ("b", 200)):
        (path / "test" / name).mkdir(parents=True)
        for i, (width, height) in enumerate([(64, 32), (32, 64), (48, 48), (30, 30)]):
            Image.new("RGB", (width, height), (level, i, 0)).save(path / "test" / name / f"{i}.png")
    (path / "test" / "a" / "2.png").write_bytes(b"")
    return path


@pytest.mark.parametrize(
    "fit", [Fit(crop=(24, 20)), Fit(crop=(24, 24), resize=28, interpolation="bicubic"), Fit(crop=(9, 7), resize=(9, 7))]
)
def test_images_of_any_sizes_become_one_as_they_are_decoded(tmp_path, monkeypatch, fit):
    small = load_path(sizes(tmp_path), fit=fit)
    monkeypatch.setattr(imagefiles, "IN_MEMORY", 0)
    large = load_path(tmp_path, fit=fit)
    assert small.shape == large.shape == (3, *fit.crop)
    assert torch.equal(small.x, large.x[:])
    assert small.ids.tolist() == large.ids.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert (small.x[:, 0] == torch.where(small.y == 0, 60, 200)[:, None, None]).all(), "nothing is padded"
    assert any("images have 4 sizes: each is resized" in line for line in large.notices)
    assert not torch.isin(load_path(tmp_path, fit=Fit(crop=(24, 21))).content, large.content).any()


def test_a_fit_is_torchvisions_and_leaves_what_has_the_size_alone(tmp_path):
    from torchvision.transforms.v2 import functional

    path = tmp_path / "x.png"
    for shape in ((50, 70), (71, 40)):
        Image.fromarray(draw(*shape, 3)).save(path)
        want = functional.center_crop(functional.resize(Image.open(path), [32]), [24, 24])
        assert np.array_equal(decoding.decode(str(path), Fit(crop=(24, 24), resize=32)), functional.pil_to_tensor(want))
        kept = decoding.decode(str(path), Fit(crop=shape))
        assert np.array_equal(kept, draw(*shape, 3).transpose(2, 0, 1))


def test_images_of_one_size_are_not_fitted(tmp_path):
    path = folder_of(tmp_path, COLOUR)
    assert load_path(path, fit=Fit()).fit is None
    assert load_path(path, fit=Fit()).shape == (3, 8, 8)


def test_first_n_are_the_first_in_stored_order_with_the_ids_of_all(tmp_path):
    images = load_path(sizes(tmp_path), fit=Fit(), limit="first:4")
    assert (images.y.tolist(), images.ids.tolist()) == ([0, 0, 0, 1], [0, 2, 6, 1])
    assert load_path(tmp_path, fit=Fit(), limit=4).ids.tolist() == [0, 1, 2, 3]


def test_an_index_spares_opening_files_that_did_not_change(tmp_path, monkeypatch):
    path, index = folder_of(tmp_path / "set", COLOUR, b"broken"), tmp_path / "images"
    spec = DataSpec(dataset=str(path))
    monkeypatch.setattr(imagefiles, "IN_MEMORY", 0)
    first = load(spec, index)
    opened = []
    real = decoding.open_regular
    monkeypatch.setattr("robustcli.data.index.open_regular", lambda file: opened.append(file.name) or real(file))
    again = load(spec, index)
    assert (again.notices, again.content.tolist()) == (first.notices, first.content.tolist())
    COLOUR.rotate(90).save(path / "test/a/0.png")
    changed = load(spec, index)
    assert [name for name in opened if name.endswith(".png")] == ["0.png"]
    assert (changed.content != first.content).tolist() == [True, False, False]
    (kept,) = index.iterdir()
    for damage in (
        b"",
        b"{}",
        b'{"schema": 1, "pillow": "1", "files": {"a": [1]}}',
        kept.read_bytes().replace(b'", 8, 8', b'z", 8, 8'),
        kept.read_bytes()[:-9],
    ):
        kept.write_bytes(damage)
        assert load(spec, index).content.tolist() == changed.content.tolist()
        assert kept.read_bytes() not in (damage, b"")
    monkeypatch.setattr("robustcli.data.index.write_whole", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    kept.unlink()
    assert "cannot be kept, so that a next run reads all of them again: full" in " ".join(load(spec, index).notices)


def test_what_cannot_be_read_is_told_by_its_position(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefiles, "IN_MEMORY", 0)
    path = folder_of(tmp_path, COLOUR, COLOUR)
    cut = path / "test/a/1.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    x, broken_at = load_path(path).x.read(torch.tensor([1, 2, 0]))
    assert list(broken_at) == [1]
    assert (x[1] == 0).all()
    assert x[0].any()
    assert load_path(path).hashes.shape == (4,)
    read = load_path(path).in_memory()
    assert (read.ids.tolist(), read.content) == ([0, 1, 3], None)
    assert f"1 of 4 images cannot be read and are left out: {cut} (" in read.notices[-1]


def test_a_folder_of_broken_files_alone_is_an_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "test" / name / "0.png").touch()
    assert "2 of 2 images cannot be read and are left out: test/a/0.png (it is empty), " in failure(tmp_path)


def test_equal_files_under_two_classes_are_told(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / "test" / name, 3)
    Image.new("L", (8, 8), 9).save(tmp_path / "test" / "b" / "00.png")
    assert load_path(tmp_path).notices == (
        f"{tmp_path}: 4 of 6 images lie under more than one class, byte for byte: these contradict each other",
    )
