from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustcli.attacks.norms import Linf
from robustcli.config import DataSpec, EvalSpec
from robustcli.data.images import Images
from robustcli.data.load import load
from robustcli.errors import CheckpointError, DataError
from robustcli.measure.evaluate import evaluate
from robustcli.measure.record import Record
from robustcli.measure.session import check_fit, data_warnings, images_for, open_session
from robustcli.models import checkpoint
from robustcli.models.sources import open_target
from robustcli.models.target import Target

Paths = tuple[Path, Path]
SPEC = EvalSpec(attacks=("fgsm", "pgd:steps=3", "deepfool:iters=3"), eps=("0.05", "0.1"))


def rows_of(paths: Any, **changes: Any) -> list[Record]:
    return [result.record for result in evaluate(open_session(paths, SPEC.model_copy(update=changes)))]


def test_flags_do_not_depend_on_the_batch_size(checkpoints: Paths) -> None:
    runs = [rows_of(checkpoints[:1], batch_size=size) for size in (1, 37, 256)]
    flags = [[(row.robust, row.by_iter, row.clean_correct) for row in rows] for rows in runs]
    assert flags[0] == flags[1] == flags[2]


def test_flags_do_not_depend_on_how_many_samples_there_are(checkpoints: Paths) -> None:
    few, all_of_them = rows_of(checkpoints[:1], limit=9), rows_of(checkpoints[:1])
    assert [row.robust for row in few] == [row.robust[:9] for row in all_of_them]


def test_the_seed_moves_the_random_start(checkpoints: Paths) -> None:
    distances = []
    for seed in (0, 1):
        spec = EvalSpec(attacks=("pgd:steps=1",), eps=("0.1",), seed=seed)
        (result,) = evaluate(open_session(checkpoints[:1], spec))
        distances.append(result.outcome.distance)
    assert not torch.equal(*distances)


def test_rows_come_checkpoint_by_checkpoint_in_the_order_of_the_attacks(checkpoints: Paths) -> None:
    rows = rows_of(checkpoints[::-1])
    one = [("fgsm", "0.05"), ("fgsm", "0.1"), ("pgd", "0.05"), ("pgd", "0.1"), ("deepfool", None)]
    assert [(row.attack["name"], row.budget) for row in rows] == one * 2
    assert [Path(row.subject.checkpoint).name for row in rows] == ["b.pt"] * 5 + ["a.pt"] * 5
    for row in rows:
        assert row.correct <= row.clean_correct <= row.n == 61
        assert row.by_iter == () or row.by_iter[-1] == row.correct


def test_forwards_and_backwards_of_the_rows_add_up_to_the_run(checkpoints: Paths) -> None:
    session = open_session(checkpoints[:1], SPEC)
    seen: list[int] = []
    session.items[0].target.module.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    rows = [result.record for result in evaluate(session)]
    assert sum(row.forwards for row in rows) == sum(seen)
    assert all(0 < row.backwards < row.forwards for row in rows)
    assert all(row.seconds > 0 for row in rows)


def test_progress_reaches_the_total_and_never_passes_it(checkpoints: Paths) -> None:
    session, done = open_session(checkpoints, SPEC), [0]
    for _ in evaluate(session, on_progress=lambda _, planned, *parts: done.append(done[-1] + sum(parts))):
        pass
    assert done[-1] == pytest.approx(session.total)
    assert session.total == 2 * 5 * 61
    assert max(done) <= session.total + 1e-6
    assert session.rows == 10


def test_images_are_kept_only_when_they_are_asked_for(checkpoints: Paths) -> None:
    session = open_session(checkpoints[:1], SPEC)
    assert all(result.outcome.x_adv is None for result in evaluate(session))
    images = [result.outcome.x_adv for result in evaluate(session, keep_images=True)]
    assert all(x_adv is not None for x_adv in images)
    moved = Linf().distance(images[0], session.items[0].images.batch(slice(None)))  # type: ignore[arg-type]
    assert float(moved.max()) == pytest.approx(0.05, abs=1e-6)


def test_images_are_loaded_once_for_all_checkpoints(checkpoints: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[DataSpec] = []

    def counted(spec: DataSpec, index: Path | None = None) -> Images:
        loads.append(spec)
        return load(spec, index)

    monkeypatch.setattr("robustcli.measure.session.load", counted)
    open_session(checkpoints, SPEC)
    assert len(loads) == 1


# --- What does not fit


def test_test_images_that_were_trained_on_are_refused(checkpoints: Paths) -> None:
    target = open_target(checkpoints[0])
    trained_on = load(images_for(target, EvalSpec(split="train")))
    check_fit(target, trained_on, "train")
    with pytest.raises(DataError, match=r"was trained on 240 of the 240 test images of bars"):
        check_fit(target, trained_on, "test")


def test_equal_ids_of_another_source_are_no_overlap(checkpoints: Paths) -> None:
    target = open_target(checkpoints[0])
    held_out = load(images_for(target, EvalSpec()))
    assert set(held_out.ids.tolist()) <= set(range(240))
    check_fit(target, held_out, "test")


def repeating(checkpoints: Paths, test: int, train: int) -> tuple[Target, Images]:
    """A checkpoint, and test images of which the first `train` of `test` are training images under other ids."""
    target = open_target(checkpoints[0])
    trained_on, held_out = (load(images_for(target, EvalSpec(split=split))) for split in ("train", "test"))
    images = held_out.take(torch.arange(test) % len(held_out))
    x = torch.cat([trained_on.x[5 : 5 + train], images.x[train:]])
    return target, replace(images, x=x, ids=torch.arange(test))


@pytest.mark.parametrize(("test", "train"), [(1, 1), (9, 2), (20, 3), (20, 20), (100, 4), (399, 4), (400, 5)])
def test_test_images_that_are_training_images_by_content_are_refused(checkpoints: Paths, test: int, train: int) -> None:
    target, images = repeating(checkpoints, test, train)
    words = rf"a\.pt: was trained on {train} of the {test} test images of bars, pixel for pixel; it holds them in both"
    with pytest.raises(DataError, match=words) as caught:
        check_fit(target, images, "test")
    assert caught.value.exit_code == 3
    check_fit(target, images, "train")
    assert target.origin is not None
    older = replace(target, origin=replace(target.origin, hashes=None))
    check_fit(older, images, "test")


@pytest.mark.parametrize(("test", "train"), [(20, 0), (9, 1), (20, 2), (100, 3), (399, 3), (400, 4)])
def test_a_few_images_that_lie_in_both_parts_are_told(checkpoints: Paths, test: int, train: int) -> None:
    target, images = repeating(checkpoints, test, train)
    check_fit(target, images, "test")
    told = f"{checkpoints[0]}: was trained on {train} of the {test} test images, pixel for pixel; so few pass"
    assert data_warnings(target, images, "test") == ([told] if train else [])
    assert data_warnings(target, images, "train") == []


def test_a_data_set_that_has_changed_since_the_training_is_told(checkpoints: Paths, tmp_path: Path) -> None:
    told = f"bars: is not the data that {checkpoints[0]} was trained on, or it has changed since"
    with np.load(checkpoints[0].parent / "bars.npz") as arrays:
        np.savez(tmp_path / "bars.npz", **(dict(arrays) | {"y_train": np.roll(arrays["y_train"], 1)}))
    changed = open_session(checkpoints[:1], SPEC.model_copy(update={"dataset": str(tmp_path / "bars.npz")}))
    assert told in changed.warnings()
    assert told not in open_session(checkpoints[:1], SPEC).warnings()
    (tmp_path / "bars.npz").rename(tmp_path / "other.npz")  # another data set, by its name
    other = open_session(checkpoints[:1], SPEC.model_copy(update={"dataset": str(tmp_path / "other.npz")}))
    assert other.warnings() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(61, 1, 9, 9, dtype=torch.uint8)}, r"shape \(1, 8, 8\); bars has \(1, 9, 9\)"),
        ({"x": torch.zeros(61, 3, 8, 8, dtype=torch.uint8)}, r"shape \(1, 8, 8\); bars has \(3, 8, 8\)"),
        ({"classes": ("0", "1")}, "3 classes of bars; bars has 2 others"),
        ({"classes": ("cat", "dog", "cow")}, "3 classes of bars; bars has 3 others"),
    ],
)
def test_images_of_another_kind_are_refused(checkpoints: Paths, change: dict[str, Any], words: str) -> None:
    target = open_target(checkpoints[0])
    images = replace(load(images_for(target, EvalSpec())), **change)
    with pytest.raises(CheckpointError, match=words):
        check_fit(target, images, "test")


@pytest.mark.parametrize(("trained_on", "allowed"), [("mnist", False), ("mnist-sample", True)])
def test_only_a_model_of_the_sample_may_fall_back_on_it(checkpoints: Paths, trained_on: str, allowed: bool) -> None:
    target = open_target(checkpoints[0])
    assert target.origin is not None
    origin = replace(target.origin, name=trained_on)
    assert images_for(replace(target, origin=origin), EvalSpec(dataset="mnist")).allow_sample == allowed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {}}, "its model: 'name' is missing"),
        ({"spec": {"dataset": "mnist", "method": {}}}, "lacks 'name'"),
        (
            {"spec": {"method": {"name": "vanilla"}, "dataset": 5}},
            "its spec: dataset=5: input should be a valid string",
        ),
    ],
)
def test_a_checkpoint_that_says_too_little_is_refused(
    checkpoints: Paths, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "odd.pt"
    checkpoint.save(path, replace(checkpoint.load(checkpoints[0]), **changes))
    with pytest.raises(CheckpointError) as caught:
        open_target(path)
    assert str(caught.value) == f"{path}: is unusable: {reason}"
    assert caught.value.exit_code == 3


# --- What a session says of itself


def test_a_warning_that_holds_for_all_checkpoints_comes_once(checkpoints: Paths) -> None:
    (line,) = open_session(checkpoints, EvalSpec(attacks=("fgsm",), norm="l2", eps="0.3")).warnings()
    assert line.startswith("fgsm: eps=0.3 is an Linf-sized budget for L2; on 64 pixel values the ball of Linf 0.3")


def test_the_resolved_spec_names_what_runs_on_what(checkpoints: Paths) -> None:
    resolved = open_session(checkpoints, EvalSpec(limit=5, steps=3, iters=2, device="cpu")).resolved()
    assert (resolved["limit"], resolved["steps"], resolved["device"]) == (5, 3, "cpu")
    assert [run["checkpoint"] for run in resolved["runs"]] == [str(path) for path in checkpoints]
    for run in resolved["runs"]:
        assert (run["dataset"], run["n"]) == ("bars", 5)
        fgsm, pgd, deepfool = run["attacks"]
        assert (fgsm["eps"], pgd["eps"], pgd["steps"]) == (["0.1", "0.3"], ["0.1", "0.3"], 3)
        assert (deepfool["iters"], "eps" in deepfool) == (2, False)


def test_models_are_measured_in_eval_mode_without_a_warning(checkpoints: Paths) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(rows_of(checkpoints[:1], limit=4)) == 5
