"""From a spec to one file: what is in it, when it is written, and how a run goes on from it."""

import copy
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustcli.config import TrainSpec
from robustcli.data import load as data
from robustcli.errors import CheckpointError, DataError, TrainingError
from robustcli.models import MODELS, BatchOut, checkpoint
from robustcli.models.nets import load_model
from robustcli.training import loop
from robustcli.training.methods import METHODS
from robustcli.training.objectives import standard
from robustcli.training.train import prepare, resume, train

from .conftest import PER_EPOCH, same, stop_at, weights, write_blobs


def differing(path, other):
    """The parts in which two checkpoints differ."""
    one, two = vars(checkpoint.load(path)), vars(checkpoint.load(other))
    return [key for key in one if key != "provenance" and not same(one[key], two[key])]


def go_on(path, **options):
    """Resume the run of a checkpoint, and train it from there."""
    prepared, run = resume(path, device="cpu")
    return train(prepared, path, run, **options)


# Going on from a file, bit for bit


def method_of_few_steps(name):
    return {"name": name} | ({"steps": 2} if name == "pgd" else {})


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        *(({"method": method_of_few_steps(name)}, (4, 6)) for name in METHODS),
        *(({"method": method_of_few_steps(name), "dtype": "bfloat16"}, (3, 11)) for name in METHODS),
        ({}, (2,)),
        ({}, (2 * PER_EPOCH,)),
        ({"optimizer": "sgd", "schedule": "onecycle", "augment": "crop-flip", "weight_decay": 1e-3}, (7,)),
        ({"optimizer": "sgd", "momentum": 0}, (7,)),
        ({"schedule": "cosine", "validation": 0}, (7,)),
        ({"model": "cifar-cnn", "method": "batchout"}, (7,)),
    ],
    ids=str,
)
def test_a_run_that_goes_on_from_its_file_ends_as_one_that_never_stopped(make, tmp_path, options, stops):
    whole, part = tmp_path / "whole.pt", tmp_path / "part.pt"
    train(make(**options), whole)
    train(make(**options), part, **stop_at(stops[0]))
    for step in stops[1:]:
        go_on(part, **stop_at(step))
    assert not checkpoint.load(part).complete
    go_on(part)
    assert differing(part, whole) == []


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from robustcli.config import TrainSpec
from robustcli.training.train import prepare, train
torch.set_num_threads(1)
dataset, output, last = sys.argv[1:]
spec = TrainSpec(dataset=dataset, epochs=3, batch_size=11, validation=0.25, method="batchout")
die = lambda step: step.step == int(last) and os.kill(os.getpid(), signal.SIGKILL)
train(prepare(spec, device="cpu"), Path(output), on_step=die)
"""


@pytest.mark.parametrize(("last", "step"), [(3, 0), (PER_EPOCH + 3, PER_EPOCH)])
def test_a_killed_run_goes_on_from_its_last_epoch_as_if_nothing_had_happened(make, blobs, tmp_path, last, step):
    part, whole = tmp_path / "killed.pt", tmp_path / "whole.pt"
    command = [sys.executable, "-c", KILLED, str(blobs), str(part), str(last)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    prepared, run = resume(part, device="cpu")
    assert run.step == step
    train(prepared, part, run)
    train(make(method="batchout"), whole)
    assert differing(part, whole) == []


# What is in the file, and when


def test_a_run_leaves_one_file_that_holds_the_whole_run(make, tmp_path):
    output = tmp_path / "runs" / "a.pt"
    prepared = make(method="batchout")
    assert isinstance(prepared.job.model.slots["c2"], BatchOut)
    returned = train(prepared, output)
    assert list(output.parent.iterdir()) == [output]
    saved = checkpoint.load(output)
    assert same(vars(returned), vars(saved))
    assert saved.complete
    assert TrainSpec(**saved.spec) == prepared.job.spec
    assert saved.spec["method"]["eta"] == [0.05, 0.1, 0.1], "resolved"
    assert saved.model["name"] == saved.spec["model"] == "mnist-cnn"
    assert (saved.data["n_train"], saved.data["n_validation"], len(saved.history)) == (48, 16, 3)
    seen = torch.cat([prepared.job.train.ids, prepared.job.validation.ids])
    assert torch.equal(saved.train_ids, seen.sort().values), "validation chooses the weights: those images count too"
    assert torch.equal(saved.train_hashes, prepared.images.hashes.sort().values)
    assert saved.metrics in saved.history
    assert all(entry["seconds"] > 0 for entry in saved.history)
    model = load_model(prepared.model_spec, saved.state_dict, "a.pt")
    assert not any(isinstance(module, BatchOut) for module in model.modules())


def test_the_file_loads_the_best_weights_and_goes_on_from_the_last(make, tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(loop, "_validate", lambda job: {"val_accuracy": next(scores)})
    prepared, after = make(), []
    train(prepared, tmp_path / "a.pt", on_epoch=lambda _: after.append(weights(prepared.job.model)))
    saved = checkpoint.load(tmp_path / "a.pt")
    assert same(saved.state_dict, after[1])
    assert same(saved.resume["last"], after[2])
    assert not same(after[1], after[2])
    assert saved.metrics == saved.history[1]
    assert (saved.metrics["epoch"], saved.metrics["val_accuracy"]) == (2, 0.9)
    assert (saved.resume["best_epoch"], saved.resume["best_score"]) == (2, 0.9)


def test_an_output_that_cannot_be_written_fails_before_the_first_step(make, tmp_path):
    (tmp_path / "file").touch()
    steps = []
    with pytest.raises(CheckpointError, match="cannot be written"):
        train(make(), tmp_path / "file" / "a.pt", on_step=steps.append)
    assert steps == []


def test_a_stopped_run_is_marked_incomplete_and_can_be_loaded(make, tmp_path):
    returned = train(make(), tmp_path / "a.pt", **stop_at(2))
    assert not returned.complete
    saved = checkpoint.load(tmp_path / "a.pt")
    assert (saved.complete, saved.history, saved.metrics, saved.resume["step"]) == (False, [], {}, 2)
    assert same(saved.state_dict, saved.resume["last"])


def test_a_file_that_was_there_stays_until_the_first_epoch_is_done_and_a_new_one_is_there_at_once(make, tmp_path):
    output, new, found = tmp_path / "a.pt", tmp_path / "b.pt", []
    output.write_text("the last run")
    train(make(epochs=2), output, on_step=lambda _: found.append(output.read_bytes() == b"the last run"))
    assert found == [True] * PER_EPOCH + [False] * PER_EPOCH
    epochs = []
    train(make(epochs=2), new, on_step=lambda _: epochs.append(len(checkpoint.load(new).history)))
    assert epochs == [0] * PER_EPOCH + [1] * PER_EPOCH


def diverging_in(epoch, prepared):
    """`prepared`, but its loss is NaN in that epoch, counted from 0."""

    def objective(model, x, y, noise):
        loss, logits = standard(model, x, y, noise)
        return loss * (torch.nan if f"epoch {epoch}" in noise.path else 1), logits

    job = replace(prepared.job, recipe=replace(prepared.job.recipe, objective=objective))
    return replace(prepared, job=job)


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_diverges_in_its_first_epoch_leaves_the_folder_as_it_was(make, tmp_path, there):
    folder = tmp_path / "runs"
    folder.mkdir()
    if there:
        (folder / "a.pt").write_text("the last run")
    with pytest.raises(TrainingError, match=r"^the loss became .* in epoch 1; try a smaller --lr than 0\.001$"):
        train(diverging_in(0, make()), folder / "a.pt")
    assert [file.read_text() for file in folder.iterdir()] == ["the last run"] * there


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_diverges_later_keeps_the_epochs_before(make, tmp_path, there):
    if there:
        (tmp_path / "a.pt").write_text("the last run")
    with pytest.raises(
        TrainingError, match=r"loss became NaN or infinite in epoch 2; .*; the epoch before is kept in .*a\.pt$"
    ):
        train(diverging_in(1, make()), tmp_path / "a.pt")
    with pytest.raises(TrainingError, match=r"in epoch 3; .*; the 2 epochs before are kept in .*b\.pt$"):
        train(diverging_in(2, make()), tmp_path / "b.pt")
    saved = checkpoint.load(tmp_path / "a.pt")
    assert (saved.complete, len(saved.history), saved.resume["step"]) == (False, 1, PER_EPOCH)
    assert all(value.isfinite().all() for value in saved.resume["last"].values())


def test_limit_is_the_first_images_before_validation_is_split_off(make):
    prepared = make(limit=20)
    assert prepared.images.ids.tolist() == list(range(20))
    assert (len(prepared.job.train), len(prepared.job.validation)) == (15, 5)


def test_without_validation_every_image_trains(make, tmp_path):
    saved = train(make(validation=0), tmp_path / "a.pt")
    assert (saved.data["n_train"], saved.data["n_validation"]) == (64, 0)
    assert saved.metrics.keys() == {"epoch", "loss", "accuracy", "seconds"}
    assert saved.metrics == saved.history[-1]


def test_a_large_network_is_worth_a_word(make, blobs):
    assert make().size_warning() is None
    prepared = make(model="cifar-cnn")
    for optimizer, size in (("adam", "0.4"), ("sgd", "0.3")):
        spec = prepared.job.spec.model_copy(update={"optimizer": optimizer})
        job = replace(prepared.job, model=nn.Linear(5000, 5000), spec=spec)
        assert replace(prepared, job=job).size_warning() == (
            f"cifar-cnn has 25 million weights for images of 8x8, and a checkpoint {size} GB; both grow with the "
            "images' area: half the side makes about a quarter"
        )


def test_every_network_trains(make, tmp_path):
    for name in MODELS:
        assert train(make(model=name, epochs=1), tmp_path / f"{name}.pt").complete


def test_the_loss_falls_on_real_digits(tmp_path):
    spec = TrainSpec(dataset="mnist-sample", limit=1000, epochs=1, batch_size=16, lr=3e-3, validation=0.2)
    losses = []
    saved = train(prepare(spec, device="cpu"), tmp_path / "a.pt", on_step=lambda step: losses.append(step.loss))
    assert losses[0] == pytest.approx(2.3, abs=0.1), "10 classes, untrained"
    assert losses[-1] < 2.0, "mean over the epoch"
    assert saved.metrics["val_accuracy"] > 0.5, "chance is 0.1"


# What cannot be resumed


@pytest.fixture
def stopped(make, tmp_path):
    train(make(), tmp_path / "a.pt", **stop_at(2))
    return tmp_path / "a.pt"


def test_other_images_than_the_run_began_with_are_refused(stopped, blobs):
    write_blobs(blobs, seed=1)
    with pytest.raises(DataError, match=r"--resume .*a\.pt: the training images are not those that the run began with"):
        resume(stopped, device="cpu")
    blobs.unlink()
    with pytest.raises(DataError, match="no such file or folder"):
        resume(stopped, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": 0.99}, "its spec: key 'ema' is unknown"),  # of a later version
        ({"method": {"name": "fgms"}}, "--method 'fgms' is unknown"),
        ({"method": {"name": 5}}, "--method '5' is unknown"),
        ({"method": {"name": "vanilla", "eta": 0.1}}, "--eta: method vanilla does not take it"),
        ({"model": "resnet"}, "--model 'resnet' is unknown"),
        ({"epochs": 0}, "its spec: epochs=0: input should be greater than 0"),
        ({"model": "cifar-cnn"}, "its state is not that of its run: 'last' has other parts than this run's: conv3"),
        ({"optimizer": "sgd"}, r"its state is .*: 'optimizer\.state\.0' has other parts than this run's: exp_avg"),
        ({"batch_size": 9}, "its state is .*: 'seen' is 22, should be 18"),
        ({"dataset": "~nosuchuser/x.npz"}, None),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(stopped, changes, message):
    saved = checkpoint.load(stopped)
    checkpoint.save(stopped, replace(saved, spec=saved.spec | changes))
    expected = f"--resume .*a\\.pt: {message}" if message else "no user of that name has a home folder here"
    with pytest.raises((CheckpointError, DataError), match=expected) as caught:
        resume(stopped, device="cpu")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What is in the checkpoint of a run that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    dataset = write_blobs(folder / "blobs.npz")
    spec = TrainSpec(dataset=str(dataset), epochs=3, batch_size=11, validation=0.25)
    train(prepare(spec, device="cpu"), folder / "a.pt", **stop_at(PER_EPOCH + 2))
    return torch.load(folder / "a.pt", weights_only=True)


def changed(content, key, value):
    """A copy of a checkpoint's content with another value at `key`, such as `resume/optimizer/state/0/step`."""
    whole = copy.deepcopy(content)
    *path, last = [int(part) if part.isdigit() else part for part in key.split("/")]
    part = whole
    for name in path:
        part = part[name]
    part[last] = value
    return whole


NAN = torch.full((5056,), torch.nan)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ema", 1, "it has the unknown part 'ema'"),
        ("last", {}, "'last' has other parts than this run's: conv1.bias, conv1.weight, conv2.b"),
        ("last", "x", "'last' has other parts than this run's"),
        ("last/fc2.bias", torch.zeros(4), r"'last\.fc2\.bias' is \(4,\) float32, should be \(3,\) float32"),
        ("best/fc2.bias", torch.zeros(3).double(), r"'best\.fc2\.bias' is \(3,\) float64, should be \(3,\) float32"),
        ("last/fc2.bias", NAN[:3], r"'last\.fc2\.bias' holds NaN"),
        ("best", "x", "'best' has other parts"),
        ("best", None, "after step 7 its 'best' should be there"),
        ("best_epoch", 77, "'best_epoch' is 77, should be 1"),
        ("best_score", 7.0, "'best_score' is 7.0, should be from -1 to 1"),
        ("best_score", float("nan"), "'best_score' is nan"),
        ("step", 2.5, "'step' is 2.5, should be from 0 to 15"),
        ("step", True, "'step' is True"),
        ("step", 16, "'step' is 16, should be from 0 to 15"),
        ("step", 15, "after step 15 it should have a history of 3 epochs, not of 1"),
        ("step", 3, "after step 3 it should have a history of 0 epochs, not of 1"),
        ("step", 8, "'seen' is 22, should be 33"),
        ("right", 23, "'right' is 23, should be from 0 to 22"),
        ("loss_sum", float("inf"), "'loss_sum' is inf, should be a finite number"),
        ("optimizer", None, "after step 7 its 'optimizer' should be there"),
        ("optimizer", "x", r"'optimizer\.state' has other parts than this run's"),
        ("optimizer/state", {}, r"'optimizer\.state' has other parts than this run's: 0, 1, 2"),
        ("optimizer/state/0", 1, r"'optimizer\.state\.0' has other parts than this run's: exp_avg, exp_avg_sq, step"),
        ("optimizer/state/0/exp_avg", torch.zeros(2), r"exp_avg' is \(2,\) float32, should be \(32, 1, 5, 5\) float32"),
        ("optimizer/state/0/exp_avg", "x", "exp_avg' is a str, should be"),
        ("optimizer/state/0/step", torch.tensor(3.0), r"'optimizer\.state\.0\.step' is 3, should be 7"),
        ("rng", [], "'rng' should be the states of generators"),
        ("rng", "x", "'rng' should be the states of generators"),
        ("rng", [torch.zeros(3, dtype=torch.uint8)], "'rng' should be the states of generators"),
        ("rng", [NAN], "'rng' should be the states of generators"),
    ],
)
def test_a_state_that_is_not_of_its_run_is_refused(content, tmp_path, key, value, message):
    torch.save(changed(content, f"resume/{key}", value), tmp_path / "r.pt")
    prefix = r"^--resume .*r\.pt: its state is not that of its run: .*"
    with pytest.raises(CheckpointError, match=prefix + message) as caught:
        resume(tmp_path / "r.pt", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("resume", None, "holds no optimiser state to go on from"),
        ("resume", {}, "its state is not that of its run: it has no 'best'"),
        ("resume/data_dir", 5, "its data_dir should be text"),
        ("provenance/resumed", 5, "'resumed' of its provenance a list"),
        ("history", [{}], "its state is .*: 'epoch' is None, should be 1"),
        ("history/0/epoch", 2, "its state is .*: 'epoch' is 2, should be 1"),
    ],
)
def test_other_parts_that_are_not_of_a_run_are_refused(content, tmp_path, key, value, message):
    torch.save(changed(content, key, value), tmp_path / "r.pt")
    with pytest.raises(CheckpointError, match=rf"^--resume .*r\.pt: .*{message}"):
        resume(tmp_path / "r.pt", device="cpu")


# Where a resumed run goes on


def test_numbers_that_two_parts_of_a_file_share_are_copied_before_a_step_writes_them(content, tmp_path):
    whole = copy.deepcopy(content)
    steps = whole["resume"]["optimizer"]["state"]
    for state in steps.values():
        state["step"] = steps[0]["step"]
    torch.save(whole, tmp_path / "r.pt")
    go_on(tmp_path / "r.pt")
    found = checkpoint.load(tmp_path / "r.pt").resume["optimizer"]["state"]
    assert {float(state["step"]) for state in found.values()} == {15.0}


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_that_is_resumed_after_its_last_epoch_stays_as_it_is_and_is_complete(make, tmp_path, complete):
    before = train(make(epochs=1), tmp_path / "a.pt")
    checkpoint.save(tmp_path / "a.pt", replace(before, complete=complete))
    after = go_on(tmp_path / "a.pt")
    assert same(vars(after) | {"provenance": {}}, vars(before) | {"provenance": {}})
    assert checkpoint.load(tmp_path / "a.pt").complete


def test_a_resumed_run_finds_its_data_where_it_had_them(tmp_path, monkeypatch):
    monkeypatch.setitem(
        data.DATASETS, "blobs", replace(data.DATASETS["mnist"], shape=(1, 8, 8), classes=("0", "1", "2"))
    )
    monkeypatch.setattr(data, "reachable", lambda host: False)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "usual"))
    for folder in ("usual", "here", "there"):
        (tmp_path / folder).mkdir()
    write_blobs(tmp_path / "here" / "blobs.npz")
    write_blobs(tmp_path / "usual" / "blobs.npz", seed=1)
    spec = TrainSpec(dataset="blobs", epochs=2, batch_size=11)
    output = tmp_path / "a.pt"
    train(prepare(spec, tmp_path / "here", device="cpu"), output, **stop_at(2))
    assert resume(output, device="cpu")[0].data_dir == tmp_path / "here"
    (tmp_path / "here" / "blobs.npz").rename(tmp_path / "there" / "blobs.npz")
    with pytest.raises(DataError, match="not those that the run began with"):  # the usual folder's
        resume(output, device="cpu")
    prepared, run = resume(output, data_dir=tmp_path / "there", device="cpu")
    train(prepared, output, run)
    assert checkpoint.load(output).resume["data_dir"] == str(tmp_path / "there")


def test_the_provenance_of_a_resumed_run_is_its_firsts_and_lists_the_others(make, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    monkeypatch.setattr(sys, "argv", ["robustcli", "train", "--epochs", "3"])
    train(make(), path, **stop_at(2))
    first = checkpoint.load(path).provenance
    assert "resumed" not in first
    for times, step in enumerate([PER_EPOCH + 1, None], start=1):
        monkeypatch.setattr(sys, "argv", ["robustcli", "train", "--resume", f"again-{times}.pt"])
        go_on(path, **stop_at(step))
    origin = checkpoint.load(path).provenance
    again = origin.pop("resumed")
    assert origin == first
    assert [entry.keys() for entry in again] == [{"command", "commit", "time"}] * 2
    assert ["again-1.pt" in again[0]["command"], "again-2.pt" in again[1]["command"]] == [True, True]
    assert checkpoint.load(path).complete


def test_a_run_on_the_fallback_says_mnist_sample_in_its_spec(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "reachable", lambda host: False)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "none"))
    prepared = prepare(TrainSpec(dataset="mnist", limit=20), device="cpu")
    assert prepared.job.spec.dataset == prepared.images.name == "mnist-sample"
    with pytest.raises(DataError, match="no network"):
        prepare(TrainSpec(dataset="mnist", limit=20), allow_sample=False, device="cpu")
