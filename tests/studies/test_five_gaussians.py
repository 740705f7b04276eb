"""Figure 1: BatchOut itself, on five Gaussians."""

from __future__ import annotations

import torch

from robustcli.studies.batchout.five_gaussians import CLASSES, ETA, POINTS, measure_five_gaussians, toy


def test_there_are_as_many_points_of_each_class() -> None:
    example = toy()
    assert example.before.shape == example.after.shape == (CLASSES * POINTS, 2)
    assert torch.bincount(example.y).tolist() == [POINTS] * CLASSES


def test_each_point_moves_by_its_eta_of_the_way_to_a_point_of_the_figure() -> None:
    example = toy()
    assert 0 <= example.eta.min() <= example.eta.max() < ETA
    partner = example.before + (example.after - example.before) / example.eta
    nearest = (partner[:, None] - example.before).norm(dim=2).amin(1)
    assert (nearest * example.eta[:, 0]).max() < 1e-5


def test_the_directions_that_are_shown_go_to_one_point_of_each_other_class() -> None:
    example = toy()
    assert torch.equal(example.chosen, example.before[0])
    assert torch.equal(example.partners, example.before[POINTS::POINTS])
    assert len(example.partners) == CLASSES - 1


def test_the_same_seed_gives_the_same_points_and_another_seed_others() -> None:
    assert torch.equal(toy(3).after, toy(3).after)
    assert not torch.equal(toy(3).before, toy(4).before)
    assert measure_five_gaussians(3) == measure_five_gaussians(3) != measure_five_gaussians(4)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    toy()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_are_those_of_the_points() -> None:
    example, numbers = toy(5), measure_five_gaussians(5)
    moved = (example.after - example.before).norm(dim=1).mean()
    assert (numbers["seed"], numbers["points"]) == (5, 300)
    assert numbers["mean distance moved"] == round(float(moved), 3)
    spread = [example.before[example.y == label].var(0, correction=0).sum() for label in range(CLASSES)]
    assert numbers["spread of a class before"] == round(float(torch.stack(spread).mean().sqrt()), 3)


def test_augmentation_spreads_classes_and_keeps_most_points_with_their_own() -> None:
    numbers = measure_five_gaussians()
    assert numbers["spread of a class after"] > numbers["spread of a class before"]
    before, after = (numbers[f"nearest to their own class's mean {when}, %"] for when in ("before", "after"))
    assert 80 < after < before <= 100
