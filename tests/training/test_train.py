"""From a spec to one file: what is in it, when it is written, and how a run goes on from it."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from robustcli import checkpoint, data
from robustcli.config import TrainSpec
from robustcli.errors import CheckpointError, ConfigError, DataError, TrainingError
from robustcli.models import MODELS, BatchOut
from robustcli.models.loading import load_model
from robustcli.training import loop
from robustcli.training.methods import METHODS
from robustcli.training.objectives import standard
from robustcli.training.train import Observers, prepare, resume, train

PER_EPOCH = 5


def stop_at(step):
    last = []
    return Observers(on_step=lambda at: last.append(at.step), should_stop=lambda: last[-1] == step)


def same(one, other):
    """Bit for bit, through dicts and lists, but for the seconds."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def differing(path, other):
    """The parts in which two checkpoints differ."""
    one, two = vars(checkpoint.load(path)), vars(checkpoint.load(other))
    return [key for key in one if key != "provenance" and not same(one[key], two[key])]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stops", [(2,), (2 * PER_EPOCH,), (4, 6)])
def test_a_run_that_goes_on_from_its_file_ends_as_one_that_never_stopped(make, tmp_path, name, stops):
    whole, part = tmp_path / "whole.pt", tmp_path / "part.pt"
    method = {"name": name} | ({"steps": 2} if name == "pgd" else {})
    train(make(method=method), whole)
    train(make(method=method), part, observers=stop_at(stops[0]))
    for step in stops[1:]:
        train(*_resumed(part), observers=stop_at(step))
    assert not checkpoint.load(part).complete
    train(*_resumed(part))
    assert differing(part, whole) == []


def _resumed(path):
    prepared, run = resume(path, device="cpu")
    return prepared, path, run


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "schedule": "onecycle", "augment": "crop-flip", "weight_decay": 1e-3},
        {"optimizer": "sgd", "momentum": 0},
        {"schedule": "cosine", "validation": 0},
        {"model": "cifar-cnn", "method": "batchout"},
    ],
)
def test_every_kind_of_state_goes_on_from_the_file(make, tmp_path, options):
    train(make(**options), tmp_path / "whole.pt")
    train(make(**options), tmp_path / "part.pt", observers=stop_at(7))
    train(*_resumed(tmp_path / "part.pt"))
    assert differing(tmp_path / "part.pt", tmp_path / "whole.pt") == []


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from robustcli.config import TrainSpec
from robustcli.training.train import Observers, prepare, train
torch.set_num_threads(1)
dataset, output, last = sys.argv[1:]
spec = TrainSpec(dataset=dataset, epochs=3, batch_size=11, validation=0.25, method="batchout")
die = lambda step: step.step == int(last) and os.kill(os.getpid(), signal.SIGKILL)
train(prepare(spec, device="cpu"), Path(output), observers=Observers(on_step=die))
"""


def test_a_killed_run_goes_on_from_its_last_epoch_as_if_nothing_had_happened(make, blobs, tmp_path):
    part, whole = tmp_path / "killed.pt", tmp_path / "whole.pt"
    command = [sys.executable, "-c", KILLED, str(blobs), str(part), str(PER_EPOCH + 3)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    prepared, run = resume(part, device="cpu")
    assert run.step == PER_EPOCH
    train(prepared, part, run)
    train(make(method="batchout"), whole)
    assert differing(part, whole) == []


def test_a_run_that_dies_in_its_first_epoch_goes_on_from_its_beginning(make, tmp_path):
    def die(step):
        if step.step == 3:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(make(), tmp_path / "part.pt", observers=Observers(on_step=die))
    assert resume(tmp_path / "part.pt", device="cpu")[1].step == 0
    train(*_resumed(tmp_path / "part.pt"))
    train(make(), tmp_path / "whole.pt")
    assert differing(tmp_path / "part.pt", tmp_path / "whole.pt") == []


def test_a_run_leaves_one_file_that_holds_the_whole_run(make, tmp_path):
    output = tmp_path / "runs" / "a.pt"
    prepared = make(method="fgsm")
    returned = train(prepared, output)
    assert list(output.parent.iterdir()) == [output]
    saved = checkpoint.load(output)
    assert saved.complete
    assert TrainSpec(**saved.spec) == prepared.job.spec
    assert saved.spec["method"]["eps"] == "0.3", "resolved"
    assert saved.model["name"] == saved.spec["model"] == "mnist-cnn"
    assert (saved.data["n_train"], saved.data["n_validation"], len(saved.history)) == (48, 16, 3)
    seen = torch.cat([prepared.job.train.ids, prepared.job.validation.ids])
    assert torch.equal(saved.train_ids, seen.sort().values), "validation chooses the weights: those images count too"
    assert saved.metrics in saved.history
    assert same(vars(returned), vars(saved))


def test_the_file_loads_the_best_weights_and_goes_on_from_the_last(make, tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(loop, "_validate", lambda job: {"val_accuracy": next(scores)})
    prepared, after = make(), []
    copy = lambda _: after.append({key: value.clone() for key, value in prepared.job.model.state_dict().items()})  # noqa: E731
    train(prepared, tmp_path / "a.pt", observers=Observers(on_epoch=copy))
    saved = checkpoint.load(tmp_path / "a.pt")
    assert same(saved.state_dict, after[1])
    assert same(saved.resume["last"], after[2])
    assert saved.metrics == saved.history[1]
    assert (saved.metrics["epoch"], saved.metrics["val_accuracy"]) == (2, 0.9)
    assert (saved.resume["best_epoch"], saved.resume["best_score"]) == (2, 0.9)


@pytest.mark.parametrize("name", METHODS)
def test_the_file_of_every_method_loads_into_the_plain_network(make, tmp_path, name):
    train(make(method=name, epochs=1), tmp_path / "a.pt")
    saved = checkpoint.load(tmp_path / "a.pt")
    spec = prepare(TrainSpec(**saved.spec), device="cpu").model_spec
    model = load_model(spec, saved.state_dict, "a.pt")
    assert not any(isinstance(module, BatchOut) for module in model.modules())


def test_an_output_that_cannot_be_written_fails_before_the_first_step(make, tmp_path):
    (tmp_path / "file").touch()
    steps = []
    with pytest.raises(CheckpointError, match="cannot be written"):
        train(make(), tmp_path / "file" / "a.pt", observers=Observers(on_step=steps.append))
    assert steps == []


def test_a_stopped_run_is_marked_incomplete_and_can_be_loaded(make, tmp_path):
    returned = train(make(), tmp_path / "a.pt", observers=stop_at(2))
    assert not returned.complete
    saved = checkpoint.load(tmp_path / "a.pt")
    assert (saved.complete, saved.history, saved.metrics, saved.resume["step"]) == (False, [], {}, 2)
    assert same(saved.state_dict, saved.resume["last"])


def test_a_run_that_diverges_in_its_first_epoch_leaves_no_file(make, tmp_path):
    with pytest.raises(TrainingError):
        train(make(optimizer="sgd", lr=1e6), tmp_path / "runs" / "a.pt")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_that_diverges_in_its_first_epoch_leaves_the_file_that_was_there(make, tmp_path):
    train(make(), tmp_path / "a.pt", observers=stop_at(2))
    before = checkpoint.sha256(tmp_path / "a.pt")
    with pytest.raises(TrainingError) as caught:
        train(make(optimizer="sgd", lr=1e6), tmp_path / "a.pt")
    assert "kept" not in str(caught.value)
    assert checkpoint.sha256(tmp_path / "a.pt") == before


def test_a_file_that_was_there_stays_until_the_first_epoch_is_done(make, tmp_path):
    output, found = tmp_path / "a.pt", []
    output.write_text("the last run")
    look = Observers(on_step=lambda step: found.append(output.read_bytes() == b"the last run"))
    train(make(epochs=2), output, observers=look)
    assert found == [True] * PER_EPOCH + [False] * PER_EPOCH


def test_a_new_file_is_there_before_the_first_step(make, tmp_path):
    found = []
    look = Observers(on_step=lambda step: found.append(len(checkpoint.load(tmp_path / "a.pt").history)))
    train(make(epochs=2), tmp_path / "a.pt", observers=look)
    assert found == [0] * PER_EPOCH + [1] * PER_EPOCH


def diverging_in(epoch, prepared):
    """`prepared`, but its loss is NaN in that epoch, counted from 0."""

    def objective(model, x, y, noise):
        loss, logits = standard(model, x, y, noise)
        return loss * (torch.nan if f"epoch {epoch}" in noise.path else 1), logits

    job = replace(prepared.job, recipe=replace(prepared.job.recipe, objective=objective))
    return replace(prepared, job=job)


def test_a_resumed_run_that_diverges_keeps_its_file(make, tmp_path):
    output = tmp_path / "a.pt"
    train(make(), output, observers=stop_at(2))
    before = checkpoint.sha256(output)
    prepared, _, run = _resumed(output)
    with pytest.raises(TrainingError):
        train(diverging_in(0, prepared), output, run)
    assert checkpoint.sha256(output) == before


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


def test_a_finished_run_that_is_resumed_stays_as_it_is(make, tmp_path):
    train(make(epochs=1), tmp_path / "a.pt")
    before = checkpoint.load(tmp_path / "a.pt")
    after = train(*_resumed(tmp_path / "a.pt"))
    assert same(vars(after) | {"provenance": {}}, vars(before) | {"provenance": {}})


def test_the_seconds_of_an_epoch_are_told_with_its_numbers(make, tmp_path):
    told = []
    train(make(), tmp_path / "a.pt", observers=Observers(on_epoch=lambda history: told.append(history[-1])))
    assert told == checkpoint.load(tmp_path / "a.pt").history
    assert all(entry["seconds"] > 0 for entry in told)


def test_limit_is_the_first_images_before_validation_is_split_off(make):
    prepared = make(limit=20)
    assert prepared.images.ids.tolist() == list(range(20))
    assert (len(prepared.job.train), len(prepared.job.validation)) == (15, 5)


def test_without_validation_every_image_trains(make, tmp_path):
    saved = train(make(validation=0), tmp_path / "a.pt")
    assert (saved.data["n_train"], saved.data["n_validation"]) == (64, 0)
    assert saved.metrics.keys() == {"epoch", "loss", "accuracy", "seconds"}
    assert saved.metrics == saved.history[-1]


def test_the_methods_layers_sit_in_the_networks_slots_with_the_papers_eta(make):
    slots = make(method="batchout").job.model.slots
    assert [slots[name].eta for name in ("c1", "c2", "f1")] == [0.05, 0.1, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fgms"}, "--method 'fgms' is unknown"),
        ({"method": {"name": "batchout", "layers": "c9"}}, "--layers 'c9' is unknown"),
        ({"model": "resnet"}, "--model 'resnet' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


@pytest.fixture
def stopped(make, tmp_path):
    train(make(), tmp_path / "a.pt", observers=stop_at(2))
    return tmp_path / "a.pt"


def rewrite(path, **changes):
    checkpoint.save(path, replace(checkpoint.load(path), **changes))


def test_other_images_than_the_run_began_with_are_refused(stopped, blobs, write_blobs):
    write_blobs(blobs, seed=1)
    with pytest.raises(DataError, match=r"--resume .*a\.pt: the training images are not those that the run began with"):
        resume(stopped, device="cpu")


def test_a_data_set_that_is_gone_is_refused(stopped, blobs):
    blobs.unlink()
    with pytest.raises(DataError, match=r"no such \.npz file"):
        resume(stopped, device="cpu")


def test_a_spec_of_a_later_version_is_refused_by_its_key(stopped):
    rewrite(stopped, spec=checkpoint.load(stopped).spec | {"ema": 0.99})
    with pytest.raises(CheckpointError, match=r"--resume .*a\.pt: its spec: key 'ema' is unknown") as caught:
        resume(stopped, device="cpu")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {"name": "fgms"}}, "--method 'fgms' is unknown"),
        ({"method": {"name": "vanilla", "eta": 0.1}}, "--eta: method vanilla does not take it"),
        ({"model": "resnet"}, "--model 'resnet' is unknown"),
        ({"epochs": 0}, "its spec: epochs=0: input should be greater than 0"),
        ({"model": "cifar-cnn"}, "its state is not that of its run: Error"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(stopped, changes, message):
    rewrite(stopped, spec=checkpoint.load(stopped).spec | changes)
    with pytest.raises(CheckpointError, match=f"--resume .*a\\.pt: {message}") as caught:
        resume(stopped, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"ema": 1}, ".*'ema'"), ({"last": {}}, "Error.* Missing key"), ({}, "'last'")],
)
def test_a_state_that_does_not_fit_is_refused(stopped, changes, message):
    saved = checkpoint.load(stopped)
    rewrite(stopped, resume=saved.resume | changes if changes else {"step": 2})
    with pytest.raises(CheckpointError, match=f"--resume .*a\\.pt: its state is not that of its run: {message}"):
        resume(stopped, device="cpu")


def test_a_file_without_an_optimisers_state_is_refused(stopped):
    rewrite(stopped, resume=None)
    with pytest.raises(CheckpointError, match="holds no optimiser state to go on from"):
        resume(stopped, device="cpu")


def test_the_provenance_of_a_resumed_run_is_its_firsts_and_lists_the_others(make, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    monkeypatch.setattr(sys, "argv", ["robustcli", "train", "--epochs", "3"])
    train(make(), path, observers=stop_at(2))
    first = checkpoint.load(path).provenance
    assert "resumed" not in first
    for times, step in enumerate([PER_EPOCH + 1, None], start=1):
        monkeypatch.setattr(sys, "argv", ["robustcli", "train", "--resume", f"again-{times}.pt"])
        train(*_resumed(path), observers=stop_at(step))
    origin = checkpoint.load(path).provenance
    again = origin.pop("resumed")
    assert origin == first
    assert [entry.keys() for entry in again] == [{"command", "commit", "time"}] * 2
    assert ["again-1.pt" in again[0]["command"], "again-2.pt" in again[1]["command"]] == [True, True]
    assert checkpoint.load(path).complete


@pytest.fixture
def _no_mnist(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "reachable", lambda host: False)
    monkeypatch.setenv("ROBUSTCLI_DATA", str(tmp_path / "none"))


@pytest.mark.usefixtures("_no_mnist")
def test_a_run_on_the_fallback_says_mnist_sample_in_its_spec():
    prepared = prepare(TrainSpec(dataset="mnist", limit=20), device="cpu")
    assert prepared.job.spec.dataset == prepared.images.name == "mnist-sample"
    with pytest.raises(DataError, match="no network"):
        prepare(TrainSpec(dataset="mnist", limit=20), allow_sample=False, device="cpu")


def test_the_loss_falls_on_real_digits(tmp_path):
    spec = TrainSpec(dataset="mnist-sample", limit=1000, epochs=1, batch_size=16, lr=3e-3, validation=0.2)
    losses = []
    saved = train(
        prepare(spec, device="cpu"),
        tmp_path / "a.pt",
        observers=Observers(on_step=lambda step: losses.append(step.loss)),
    )
    assert losses[0] == pytest.approx(2.3, abs=0.1), "10 classes, untrained"
    assert losses[-1] < 2.0, "mean over the epoch"
    assert saved.metrics["val_accuracy"] > 0.5, "chance is 0.1"


def test_every_network_trains(make, tmp_path):
    for name in MODELS:
        assert train(make(model=name, epochs=1), tmp_path / f"{name}.pt").complete
