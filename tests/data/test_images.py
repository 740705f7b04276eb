from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import torch

from robustcli.config import DataSpec
from robustcli.data.images import Images, overlap, repeats, split_validation
from robustcli.data.load import load

from .conftest import draw, load_path, write_images, write_npz

# The value


def test_pixels_are_floats_from_0_to_1(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz", x_test=np.full((3, 8, 8), 51, np.uint8)))
    pixels = images.batch(torch.tensor([2, 0]))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.full((2, 1, 8, 8), 0.2))


def test_take_keeps_images_labels_and_ids_together(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz"))
    taken = images.take(torch.tensor([2, 0]))
    assert taken.ids.tolist() == [2, 0]
    assert taken.y.tolist() == [0, 2]
    assert torch.equal(taken.x, images.x[[2, 0]])
    assert taken.note == images.note == ""


def test_the_fingerprint_is_of_the_content_and_not_of_the_name(tmp_path):
    one, two = (load_path(write_npz(tmp_path / f"{name}.npz")) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert len({one.fingerprint, one.take(slice(2)).fingerprint, one.take(torch.tensor([1, 0, 2])).fingerprint}) == 3


def hashed(x):
    """The hashes of images (n, c, h, w)."""
    n = len(x)
    return Images(x, torch.zeros(n, dtype=torch.int64), torch.arange(n), ("0", "1"), "a", "a").hashes.tolist()


def test_a_hash_is_of_one_images_pixels_and_shape_and_stays_what_it_is():
    x = torch.arange(5 * 3 * 4 * 6, dtype=torch.int64).remainder(251).to(torch.uint8).view(5, 3, 4, 6)
    whole = hashed(x)
    assert len(set(whole)) == 5
    assert hashed(x.flip(0)) == whole[::-1]
    assert hashed(x.to(memory_format=torch.channels_last)) == whole
    assert not set(whole) & set(hashed(x.transpose(2, 3))) | set(whole) & set(hashed(x.reshape(5, 3, 6, 4)))
    expected = hashlib.blake2b(b"(4, 6, 3)" + x[0].permute(1, 2, 0).numpy().tobytes(), digest_size=8).digest()
    assert whole[0] == int.from_bytes(expected, sys.byteorder, signed=True), "files of today must be read tomorrow"


def test_repeats_are_counted_by_content(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz", x_test=np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)))
    assert repeats(images.hashes[1:], images) == 2
    assert repeats(images.hashes + 1, images) == 0
    assert repeats(None, images) == 0


# Ids, overlap, validation


def test_a_path_keeps_its_ids_when_it_moves_and_not_when_it_changes(tmp_path):
    first, moved = (load_path(write_npz(tmp_path / f"{name}.npz"), split="train") for name in "ab")
    changed = load_path(write_npz(tmp_path / "c.npz", x_train=draw(6, 8, 8) // 2), split="train")
    assert first.source == moved.source != changed.source
    assert first.source.endswith("/train")


def test_a_folder_has_the_same_source_under_any_limit(tmp_path):
    for name in ("a", "b"):
        write_images(tmp_path / name, 6)
    sources = [load_path(tmp_path, limit=limit, split="train").source for limit in (1, None)]
    assert sources[0] == sources[1] != load_path(tmp_path).source


def test_overlap_counts_shared_ids_of_the_same_source(tmp_path):
    images = load_path(write_npz(tmp_path / "a.npz"), split="train")
    assert overlap(images.source, torch.tensor([5, 1, 77]), images) == 2
    assert overlap("mnist/train", images.ids, images) == 0


def test_the_sample_overlaps_mnists_training_set_and_not_itself():
    train, test = (load(DataSpec(dataset="mnist-sample", split=split)) for split in ("train", "test"))
    assert overlap("mnist/train", torch.arange(60000), test) == 1000
    assert overlap(train.source, train.ids, test) == 0


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.25, 250), (0.9999, 999)])
def test_validation_divides_the_images(fraction, count):
    images = load(DataSpec(dataset="mnist-sample"))
    train, validation = split_validation(images, fraction, seed=3)
    assert len(validation) == count
    assert torch.equal(torch.cat([train.ids, validation.ids]).sort().values, images.ids.sort().values)


def test_validation_depends_on_the_seed_alone_and_leaves_the_global_generator():
    images = load(DataSpec(dataset="mnist-sample"))
    with torch.random.fork_rng(devices=[]):
        parts = []
        for seed in (0, 0, 1):
            torch.manual_seed(len(parts))
            state = torch.get_rng_state()
            parts.append(split_validation(images, 0.1, seed)[1].ids)
            assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
