from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustcli.cli.train import train_spec
from robustcli.errors import ConfigError
from robustcli.models import checkpoint

from .conftest import Call

QUICK = ("--epochs", "1", "--limit", "48")


def test_the_checkpoint_is_named_after_the_run_and_numbered_when_taken(call: Call, images: Path, here: Path) -> None:
    for _ in range(3):
        assert call("train", "--dataset", images, *QUICK, "--seed", 7).code == 0
    stem = "bars-vanilla-mnist-cnn-seed7"
    assert {path.name for path in (here / "checkpoints").iterdir()} == {f"{stem}{n}.pt" for n in ("", "-2", "-3")}


@pytest.mark.parametrize(
    ("validation", "accuracy"), [("validation=0.05", r", validation accuracy \d+\.\d\d %"), ("validation=0", "")]
)
def test_stdout_is_one_line_that_names_the_checkpoint(
    call: Call, images: Path, here: Path, validation: str, accuracy: str
) -> None:
    ended = call("train", "--dataset", images, *QUICK, "--set", validation, "--output", "model.pt")
    assert re.fullmatch(rf"model\.pt: epoch 1 of 1 kept{accuracy}\n", ended.out)
    assert "epoch  1" in ended.err


def test_the_resolved_spec_is_in_the_checkpoint(call: Call, images: Path, here: Path) -> None:
    call("train", "--method", "batchout", "--layers", "c1,f1", "--eta", "0.1,U[0,0.2]", "--dataset", images, *QUICK)
    (path,) = (here / "checkpoints").iterdir()
    saved = checkpoint.load(path)
    assert saved.spec["method"] == {
        "name": "batchout",
        "eta": [0.1, "U[0,0.2]"],
        "fraction": 0.5,
        "layers": ["c1", "f1"],
        "stop_gradient": True,
    }
    assert (saved.spec["model"], saved.spec["limit"], saved.complete) == ("mnist-cnn", 48, True)


def test_force_replaces_an_existing_output(call: Call, images: Path, here: Path) -> None:
    (here / "old.pt").write_bytes(b"PK\3\4, a checkpoint that was cut off")
    assert call("train", "--dataset", images, *QUICK, "--output", "old.pt", "--force").code == 0
    assert checkpoint.load(here / "old.pt").complete


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("zoo:mine", "'zoo:' is what networks of the package begin with"),
        ("./zoo:mine", "'zoo:' is what networks of the package begin with"),
        ("", "is empty"),
        (".", "is a folder; should be a file, such as model.pt"),
        ("new/", "is a folder; should be a file, such as model.pt"),
        ("folder", "is a folder; should be a file, such as folder.pt"),
        ("x" * 300 + ".pt", "too long for a file"),
        ("file/x.pt", "cannot be written: its folder is a file"),
        ("file", "exists already; give another name, or --force to replace it"),
        ("loop.pt", "cannot be written: Too many levels"),
    ],
)
def test_an_output_that_is_no_file_is_refused_before_training(
    call: Call, images: Path, here: Path, output: str, words: str
) -> None:
    (here / "folder").mkdir()
    (here / "file").write_text("mine")
    (here / "loop.pt").symlink_to("loop.pt")
    ended = call("train", "--dataset", images, *QUICK, "--output", output)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("error: --output ")
    assert words in ended.error
    assert {path.name for path in here.iterdir()} == {"folder", "file", "loop.pt"}
    assert (here / "file").read_text() == "mine"


def test_an_output_may_be_a_link_which_stays(call: Call, images: Path, here: Path) -> None:
    (here / "link.pt").symlink_to("kept.pt")
    for force in ((), ("--force",)):
        assert call("train", "--dataset", images, *QUICK, "--output", "link.pt", *force).code == 0
    assert (here / "link.pt").readlink() == Path("kept.pt")
    assert checkpoint.load(here / "kept.pt").complete


# --- Runs at the same time


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_output_that_another_run_is_writing_is_refused(
    call: Call, images: Path, here: Path, force: tuple[str, ...]
) -> None:
    with checkpoint.claim(here / "a.pt"):
        ended = call("train", "--dataset", images, *QUICK, "--output", "a.pt", *force)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error == "error: --output a.pt: another run is writing it"
    assert "epoch" not in ended.err


def test_an_output_that_another_run_finishes_while_the_data_are_loaded_is_kept(
    call: Call, images: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustcli.training import train

    prepare = train.prepare

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        Path("a.pt").write_text("finished")
        return prepare(*args, **kwargs)

    monkeypatch.setattr(train, "prepare", overtaken)
    ended = call("train", "--dataset", images, *QUICK, "--output", "a.pt")
    assert ended.code == 2
    assert "exists already" in ended.error
    assert (here / "a.pt").read_text() == "finished"


def test_a_default_name_that_another_run_has_taken_is_not_used(call: Call, images: Path, here: Path) -> None:
    with checkpoint.claim(here / "checkpoints" / "bars-vanilla-mnist-cnn-seed0.pt"):
        assert call("train", "--dataset", images, *QUICK).code == 0
    assert [path.name for path in (here / "checkpoints").iterdir()] == ["bars-vanilla-mnist-cnn-seed0-2.pt"]


def test_a_run_is_gone_on_with_once_at_a_time(call: Call, images: Path, here: Path) -> None:
    assert call("train", "--dataset", images, *QUICK, "--output", "a.pt").code == 0
    checkpoint.save(here / "a.pt", replace(checkpoint.load(here / "a.pt"), complete=False))
    with checkpoint.claim(here / "a.pt"):
        ended = call("train", "--resume", "a.pt")
    assert (ended.code, ended.error) == (2, "error: --resume a.pt: another run is writing it")
    assert call("train", "--resume", "a.pt").code == 0
    assert checkpoint.load(here / "a.pt").complete


def test_a_large_network_is_told_before_training(
    call: Call, images: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustcli.training.train.LARGE_BYTES", 1000)
    ended = call("train", "--dataset", images, *QUICK)
    line = "warning: mnist-cnn has 0 million weights for images of 8x8, and a checkpoint 0.0 GB; both grow with"
    assert line in ended.err.partition("epoch")[0]


def test_force_keeps_the_old_file_when_the_loss_diverges(call: Call, images: Path, here: Path) -> None:
    assert call("train", "--dataset", images, *QUICK, "--output", "old.pt").code == 0
    before = checkpoint.sha256(here / "old.pt")
    diverging = ("--batch-size", 16, "--lr", "1e30")
    ended = call("train", "--dataset", images, *QUICK, *diverging, "--output", "old.pt", "--force")
    assert (ended.code, ended.out) == (3, "")
    assert re.search("(the loss|a weight) became", ended.error)
    assert "kept" not in ended.error
    assert checkpoint.sha256(here / "old.pt") == before
    assert [path.name for path in here.iterdir()] == ["old.pt"]


def test_the_sample_stands_in_for_mnist_and_whatever_is_made_of_it_says_so(call: Call, here: Path) -> None:
    ended = call("train", *QUICK)
    (path,) = (here / "checkpoints").iterdir()
    assert path.name == "mnist-sample-vanilla-mnist-cnn-seed0.pt"
    assert "the bundled 5 000 digits, not MNIST itself" in ended.err
    assert checkpoint.load(path).spec["dataset"] == "mnist-sample"
    ended = call("evaluate", "--attack", "fgsm", "--limit", 16)
    assert ended.code == 0
    assert "on mnist-sample, n = 16" in " ".join(ended.out.split())


def test_the_shown_accuracy_is_that_of_the_weights_that_are_kept(call: Call, images: Path, here: Path) -> None:
    ended = call("train", "--method", "pgd", "--set", "method.steps=2", "--dataset", images, "--epochs", 3)
    (path,) = (here / "checkpoints").iterdir()
    saved = checkpoint.load(path)
    score = max(entry["val_robust_accuracy"] for entry in saved.history)  # its fraction is 1: only this counts
    kept = [entry for entry in saved.history if entry["val_robust_accuracy"] == score][-1]
    shown = f"epoch {kept['epoch']} of 3 kept, validation accuracy {100 * kept['val_accuracy']:.2f} %"
    assert ended.out == f"checkpoints/{path.name}: {shown}\n"
    assert saved.metrics == kept


def test_catastrophic_overfitting_is_told_once(call: Call, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"val_fgsm_accuracy": 0.9, "val_pgd_accuracy": 0.1}
    monkeypatch.setattr("robustcli.training.loop.watch", lambda *_: left)
    ended = call("train", "--method", "fgsm", "--dataset", images, "--epochs", 3)
    told = " ".join(ended.err.split())
    assert told.count("warning: catastrophic overfitting (T1): FGSM leaves 90.0 %, PGD-10 10.0 %") == 1
    assert told.count("PGD-10 10.00 %") == 3


# --- Built-in defaults < YAML < flags and --set


@pytest.fixture
def config(here: Path) -> Path:
    path = here / "run.yaml"
    path.write_text("method: {name: pgd, steps: 3, eps: 8/255}\nlr: 0.5\nepochs: 4\n")
    return path


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"lr": 0.5, "epochs": 4, "batch_size": 128}),
        ({"epochs": 2}, {"lr": 0.5, "epochs": 2}),
        ({"settings": ["lr=0.1"]}, {"lr": 0.1, "epochs": 4}),
        ({"lr": "1e-2", "settings": ["epochs=9"]}, {"lr": 0.01, "epochs": 9}),
        ({"epochs": 2, "settings": ["epochs=9"]}, {"epochs": 9}),
        ({"settings": ["lr=1/4"]}, {"lr": 0.25}),
        ({"settings": ["schedule=cosine", "limit=null"]}, {"schedule": "cosine", "limit": None}),
    ],
)
def test_a_later_source_wins(config: Path, flags: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = train_spec({"config": config, **flags}).as_dict()
    assert {key: spec[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"name": "pgd", "steps": 3, "eps": "8/255"}),
        ({"eps": "0.1"}, {"name": "pgd", "steps": 3, "eps": "0.1"}),
        ({"method": "pgd"}, {"name": "pgd", "steps": 3, "eps": "8/255"}),
        ({"method": "fgsm"}, {"name": "fgsm"}),
        ({"settings": ["method=fgsm"]}, {"name": "fgsm"}),
        ({"method": "fgsm", "eps": "0.2"}, {"name": "fgsm", "eps": "0.2"}),
        ({"settings": ["method.steps=7"]}, {"name": "pgd", "steps": 7, "eps": "8/255"}),
        ({"eps": "0.1", "settings": ["method.eps=0.2"]}, {"name": "pgd", "steps": 3, "eps": 0.2}),
    ],
)
def test_another_method_does_not_inherit_options(config: Path, flags: dict[str, Any], expected: dict[str, Any]) -> None:
    assert train_spec({"config": config, **flags}).method == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"settings": ["lrr=1"]}, ["--set", "'lrr'", "did you mean 'lr'?"]),
        ({"settings": ["lr"]}, ["--set lr", "KEY=VALUE"]),
        ({"settings": ["lr=["]}, ["--set lr=[", "KEY=VALUE"]),
        ({"settings": ["lr=fast"]}, ["lr=fast", "finite number"]),
        ({"epochs": 0}, ["--epochs 0", "greater than 0"]),
        ({"epochs": 3, "settings": ["epochs=0"]}, ["--set", "epochs=0", "greater than 0"]),
        ({"lr": "nan"}, ["--lr nan", "finite number"]),
    ],
)
def test_a_wrong_value_is_told_by_where_it_came_from(flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        train_spec(flags)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_wrong_key_in_a_file_names_the_file(here: Path) -> None:
    (here / "run.yaml").write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match=r"--config run\.yaml: key 'epoch' is unknown .*did you mean 'epochs'"):
        train_spec({"config": Path("run.yaml")})
