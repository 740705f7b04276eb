"""Flip, or crop and flip: only shifts and mirrors, drawn by sample."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from robustcli.config import TrainSpec
from robustcli.noise import Noise
from robustcli.training.augment import AUGMENT, PAD, crop_and_flip, flip


def coordinates(m, height, width):
    """Images (m, 2, height, width) whose pixels hold their own row and column, counted from 1."""
    rows = torch.arange(1.0, height + 1)[:, None].expand(height, width)
    columns = torch.arange(1.0, width + 1).expand(height, width)
    return torch.stack([rows, columns]).repeat(m, 1, 1, 1)


def noise(m, seed=0):
    return Noise(seed, torch.arange(m))


@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_each_image_is_a_shift_of_at_most_4_perhaps_mirrored_and_each_of_them_occurs(size):
    x, (height, width) = coordinates(2000, *size), size
    padded, moves = F.pad(x[0], (PAD,) * 4), range(2 * PAD + 1)
    shifts = [padded[:, down : down + height, right : right + width] for down in moves for right in moves]
    expected = torch.stack([*shifts, *(shifted.flip(2) for shifted in shifts)])
    found = [(expected == image).flatten(1).all(1).nonzero().item() for image in crop_and_flip(x, noise(2000))]
    assert len(set(found)) == len(expected)
    assert 0.45 < sum(index >= len(shifts) for index in found) / 2000 < 0.55


def test_a_flip_mirrors_half_of_the_images():
    x = coordinates(2000, 4, 5)
    flipped = (flip(x, noise(2000)) != x).any(3).any(2).any(1)
    assert 0.45 < float(flipped.float().mean()) < 0.55
    expected = torch.where(flipped[:, None, None, None], x.flip(3), x)
    assert torch.equal(flip(x, noise(2000)), expected)


def test_a_flip_keeps_type_shape_and_memory_order():
    x = coordinates(6, 8, 8).half().to(memory_format=torch.channels_last)
    flipped = flip(x, noise(6))
    assert (flipped.dtype, flipped.shape) == (x.dtype, x.shape)
    assert flipped.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", AUGMENT.values(), ids=AUGMENT)
def test_the_input_is_left_as_it_is(augment):
    x = coordinates(5, 8, 8)
    augment(x, noise(5))
    assert torch.equal(x, coordinates(5, 8, 8))


def test_every_way_has_the_name_that_a_spec_takes():
    allowed = get_args(TrainSpec.model_fields["augment"].annotation)
    assert tuple(AUGMENT) == allowed
    assert torch.equal(AUGMENT["none"](coordinates(5, 8, 8), noise(5)), coordinates(5, 8, 8))


@pytest.mark.parametrize("augment", [flip, crop_and_flip])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_an_image_depends_on_the_noise_and_not_on_its_batch_or_the_global_generator(size, augment):
    x, source = coordinates(20, 8, 8), noise(20)
    before = torch.get_rng_state()
    parts = [augment(x[index], source[index]) for index in torch.arange(20).split(size)]
    assert torch.equal(torch.cat(parts), augment(x, source))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(augment(x, noise(20, seed=1)), augment(x, source))
