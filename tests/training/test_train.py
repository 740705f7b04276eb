"""From a spec to one file: what is in it, when it is written, and how a run goes on from it."""

import copy
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from robustcli.config import TrainSpec
from robustcli.data import load as data
from robustcli.errors import CheckpointError, ConfigError, DataError, TrainingError
from robustcli.models import MODELS, BatchOut, checkpoint
from robustcli.models.nets import load_model
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
    with pytest.raises(DataError, match="no such file or folder"):
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
        ({"model": "cifar-cnn"}, "its state is not that of its run: 'last' has other tensors than the network: conv3"),
        ({"optimizer": "sgd"}, r"its state is .*: 'optimizer\.state\.0' should have momentum_buffer"),
        ({"weight_decay": 0.5}, r"its state is .*: 'optimizer\.param_groups\.weight_decay' is 0\.0, should be 0\.5"),
        ({"batch_size": 9}, "its state is .*: 'seen' is 22, should be 18"),
        ({"dataset": "~nosuchuser/x.npz"}, None),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(stopped, changes, message):
    rewrite(stopped, spec=checkpoint.load(stopped).spec | changes)
    expected = f"--resume .*a\\.pt: {message}" if message else "no user of that name has a home folder here"
    with pytest.raises((CheckpointError, DataError), match=expected) as caught:
        resume(stopped, device="cpu")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """A run that was stopped in its second epoch, and its checkpoint's content."""
    folder = tmp_path_factory.mktemp("later")
    y = np.arange(64) % 3
    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8)).astype(np.uint8)
    np.savez(folder / "noise.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    spec = TrainSpec(dataset=str(folder / "noise.npz"), epochs=3, batch_size=11, validation=0.25)
    train(prepare(spec, device="cpu"), folder / "a.pt", observers=stop_at(PER_EPOCH + 2))
    return folder / "a.pt", torch.load(folder / "a.pt", weights_only=True)


def state_of(content):
    return content["resume"]["optimizer"]["state"][0]


def setting(key, value):
    return lambda content: content["resume"].update({key: value})


nan = torch.full((5056,), torch.nan)
WRONG_STATES = {
    "unknown part": (setting("ema", 1), "it has the unknown part 'ema'"),
    "no part": (lambda c: c["resume"].pop("best"), "it has no 'best'"),
    "no weights": (setting("last", {}), "'last' has other tensors than the network: conv1.bias, conv1.weight, conv2.b"),
    "weights of text": (setting("last", "x"), "'last' has other tensors than the network"),
    "a weight's shape": (
        lambda c: c["resume"]["last"].update({"fc2.bias": torch.zeros(4)}),
        r"'last\.fc2\.bias' is \(4,\) float32, should be \(3,\) float32",
    ),
    "a weight's type": (
        lambda c: c["resume"]["best"].update({"fc2.bias": torch.zeros(3, dtype=torch.float64)}),
        r"'best\.fc2\.bias' is \(3,\) float64, should be \(3,\) float32",
    ),
    "a weight that is none": (
        lambda c: c["resume"]["last"].update({"fc2.bias": torch.full((3,), torch.nan)}),
        r"'last\.fc2\.bias' holds NaN",
    ),
    "best weights of text": (setting("best", "x"), "'best' has other tensors"),
    "no best weights": (setting("best", None), "after step 7 its 'best' should be there"),
    "a best epoch to come": (setting("best_epoch", 77), "'best_epoch' is 77, should be 1"),
    "no best epoch": (setting("best_epoch", 0), "'best_epoch' is 0, should be 1"),
    "the best score": (setting("best_score", 7.0), "'best_score' is 7.0, should be from -1 to 1"),
    "a score that is none": (setting("best_score", float("nan")), "'best_score' is nan"),
    "a fraction of a step": (setting("step", 2.5), "'step' is 2.5, should be from 0 to 15"),
    "a step that is a truth": (setting("step", True), "'step' is True"),
    "a step past the end": (setting("step", 16), "'step' is 16, should be from 0 to 15"),
    "the last step": (setting("step", 15), "after step 15 it should have a history of 3 epochs, not of 1"),
    "a step of another epoch": (setting("step", 3), "after step 3 it should have a history of 0 epochs, not of 1"),
    "a step of this epoch": (setting("step", 8), "'seen' is 22, should be 33"),
    "a negative step": (setting("step", -1), "'step' is -1"),
    "right of text": (setting("right", "x"), "'right' is x, should be from 0 to 22"),
    "more right than seen": (setting("right", 23), "'right' is 23, should be from 0 to 22"),
    "an infinite loss": (setting("loss_sum", float("inf")), "'loss_sum' is inf, should be a finite number"),
    "an empty history": (lambda c: c.update(history=[{}]), "'epoch' is None, should be 1"),
    "a history of another epoch": (lambda c: c["history"][0].update(epoch=2), "'epoch' is 2, should be 1"),
    "no optimiser": (setting("optimizer", None), "after step 7 its 'optimizer' should be there"),
    "an empty optimiser": (setting("optimizer", {}), "'optimizer' should have a state and param_groups"),
    "an optimiser of text": (setting("optimizer", "x"), "'optimizer' should have a state and param_groups"),
    "no groups": (lambda c: c["resume"]["optimizer"].update(param_groups=[]), "param_groups' should be 1 group"),
    "a group of text": (lambda c: c["resume"]["optimizer"].update(param_groups=["x"]), "param_groups' should be 1"),
    "parameters of a group": (
        lambda c: c["resume"]["optimizer"]["param_groups"][0].update(params=[0, 0]),
        r"param_groups\.params' is \[0, 0\], should be \[0, 1",
    ),
    "a group's number": (
        lambda c: c["resume"]["optimizer"]["param_groups"][0].update(betas=(torch.zeros(2), 0.9)),
        r"param_groups\.betas' is \(tensor",
    ),
    "no state": (lambda c: c["resume"]["optimizer"].update(state={}), "should have the state of 8 parameters"),
    "a parameter's state": (
        lambda c: c["resume"]["optimizer"]["state"].update({0: 1}),
        r"'optimizer\.state\.0' should have step, exp_avg, exp_avg_sq",
    ),
    "a state that is too small": (
        lambda c: state_of(c).update(exp_avg=torch.zeros(2), exp_avg_sq=torch.zeros(2)),
        r"'optimizer\.state\.0\.exp_avg' is \(2,\) float32, should be \(32, 1, 5, 5\) float32",
    ),
    "a state of integers": (
        lambda c: state_of(c).update(exp_avg=torch.zeros(32, 1, 5, 5, dtype=torch.int64)),
        r"exp_avg' is \(32, 1, 5, 5\) int64",
    ),
    "a state of text": (lambda c: state_of(c).update(exp_avg="x"), "exp_avg' is a str, should be"),
    "a negative square": (
        lambda c: state_of(c).update(exp_avg_sq=-torch.ones(32, 1, 5, 5)),
        "exp_avg_sq' has a negative number",
    ),
    "a state's step": (lambda c: state_of(c).update(step=torch.tensor(3.0)), r"state\.0\.step' is 3, should be 7"),
    "a state's steps": (lambda c: state_of(c).update(step=torch.zeros(9)), r"step' is \(9,\) float32, should be \(\)"),
    "no generator": (setting("rng", None), "after step 7 its 'rng' should be there"),
    "no generator's state": (setting("rng", []), "'rng' should be the states of generators"),
    "a generator of text": (setting("rng", "x"), "'rng' should be the states of generators"),
    "a short generator": (setting("rng", [torch.zeros(3, dtype=torch.uint8)]), "'rng' is no generator's state"),
    "a wrong generator": (setting("rng", [torch.zeros(5056, dtype=torch.uint8)]), "'rng' is no generator's state"),
    "a generator of numbers": (setting("rng", [nan]), "'rng' should be the states of generators"),
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_a_state_that_is_not_of_its_run_is_refused(later, tmp_path, name):
    content = copy.deepcopy(later[1])
    change, message = WRONG_STATES[name]
    change(content)
    torch.save(content, tmp_path / "r.pt")
    with pytest.raises(
        CheckpointError, match=f"^--resume .*r\\.pt: its state is not that of its run: .*{message}"
    ) as caught:
        resume(tmp_path / "r.pt", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["provenance"].update(resumed=5), "'resumed' of its provenance a list"),
        (setting("data_dir", 5), "its data_dir should be text"),
        (lambda c: c["spec"].update(method={"name": 5}), "--method '5' is unknown"),
        (lambda c: c["spec"].update(method={"name": "vanilla", 5: 5}), "spec.method: has a key that is a int"),
        (lambda c: c["spec"].update(epochs=2**400), "spec.epochs: is too large a number"),
        (lambda c: c["spec"].update(lr=torch.zeros(2)), "spec.lr: is a tensor, not a plain value"),
        (lambda c: c["data"].update(name=5), "data: name should be a str, not a int"),
        (lambda c: c["data"].update(classes=[1]), "data: classes should be names"),
    ],
)
def test_other_parts_of_a_wrong_type_are_refused(later, tmp_path, change, message):
    content = copy.deepcopy(later[1])
    change(content)
    torch.save(content, tmp_path / "r.pt")
    with pytest.raises(CheckpointError, match=message):
        resume(tmp_path / "r.pt", device="cpu")


def test_numbers_that_two_parts_of_a_file_share_are_copied_before_a_step_writes_them(later, tmp_path):
    content = copy.deepcopy(later[1])
    steps = content["resume"]["optimizer"]["state"]
    for state in steps.values():
        state["step"] = steps[0]["step"]
    torch.save(content, tmp_path / "r.pt")
    train(*_resumed(tmp_path / "r.pt"))
    found = checkpoint.load(tmp_path / "r.pt").resume["optimizer"]["state"]
    assert {float(state["step"]) for state in found.values()} == {15.0}


def test_a_run_that_was_stopped_after_its_last_epoch_is_marked_complete(later, tmp_path):
    train(*_resumed(_copied(later, tmp_path)))
    content = torch.load(tmp_path / "r.pt", weights_only=True)
    torch.save(content | {"complete": False}, tmp_path / "r.pt")
    assert train(*_resumed(tmp_path / "r.pt")).complete
    assert checkpoint.load(tmp_path / "r.pt").complete


def _copied(later, folder):
    torch.save(later[1], folder / "r.pt")
    return folder / "r.pt"


def test_a_batch_larger_than_any_number_of_images_is_the_whole_set(make, tmp_path):
    assert train(make(batch_size=2**70, epochs=1), tmp_path / "a.pt").resume["step"] == 1


def test_the_content_of_each_image_is_kept_as_a_hash_validation_included(make, tmp_path):
    prepared = make(epochs=1)
    saved = train(prepared, tmp_path / "a.pt")
    assert torch.equal(saved.train_hashes, prepared.images.hashes.sort().values)
    assert saved.train_hashes.shape == (64,)


def test_a_large_network_is_worth_a_word(make):
    assert make().size_warning() is None
    spec = TrainSpec(dataset=make().job.spec.dataset, model="cifar-cnn")
    prepared = prepare(spec, device="cpu")
    large = nn.Linear(5000, 5000)
    for optimizer, size in (("adam", "0.4"), ("sgd", "0.3")):
        job = replace(prepared.job, model=large, spec=spec.model_copy(update={"optimizer": optimizer}))
        assert replace(prepared, job=job).size_warning() == (
            f"cifar-cnn has 25 million weights for images of 8x8, and a checkpoint {size} GB; both grow with the "
            "images' area: half the side makes about a quarter"
        )


def test_a_resumed_run_finds_its_data_where_it_had_them(tmp_path, write_blobs, monkeypatch):
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
    train(prepare(spec, tmp_path / "here", device="cpu"), output, observers=stop_at(2))
    assert resume(output, device="cpu")[0].data_dir == tmp_path / "here"
    (tmp_path / "here" / "blobs.npz").rename(tmp_path / "there" / "blobs.npz")
    with pytest.raises(DataError, match="not those that the run began with"):  # the usual folder's
        resume(output, device="cpu")
    prepared, run = resume(output, data_dir=tmp_path / "there", device="cpu")
    train(prepared, output, run)
    assert checkpoint.load(output).resume["data_dir"] == str(tmp_path / "there")


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
