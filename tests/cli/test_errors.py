"""Every mistake and fault: its exit code, and one line that says what, which value, and what is allowed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Call, write_checkpoint, write_images

QUICK = ("--epochs", 1, "--limit", 48)


@pytest.fixture(scope="module")
def mess(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """A folder of things that are wrong, and a good checkpoint in `checkpoints/`."""
    folder = tmp_path_factory.mktemp("mess")
    good = (trained / "vanilla.pt").read_bytes()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "good.pt").write_bytes(good)
    (folder / "cut.pt").write_bytes(good[: len(good) // 2])
    (folder / "bomb.pt").write_bytes(pickle.dumps(os.system))
    write_checkpoint(folder / "mnist.pt")
    write_checkpoint(folder / "methodless.pt", spec={"dataset": "mnist"})
    write_checkpoint(folder / "mixed.pt", complete=False, spec={"dataset": "mnist-sample"}, resume={"last": {}})
    write_checkpoint(folder / "five.pt", classes=5)
    write_images(folder / "good.npz")
    write_images(folder / "lacks.npz", y_test=None)
    for name in ("cats", "dogs"):
        (folder / "pets" / name).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "pets" / "cats" / f"{i}.png")
    return folder


COMMANDS = [
    ("trian", "command 'trian' is unknown (allowed: attack, compare, evaluate, list, train); did you mean 'train'?"),
    ("'' --help", "command '' is unknown"),
    ("--bogus", "--bogus"),
    ("train --methd fgsm", "--methd did you mean '--method'"),
    ("evaluate --att fgsm", "--att did you mean '--attack'"),
    ("evaluate --checkpoint good.pt", "--checkpoint write robustcli evaluate CHECKPOINT"),
    ("evaluate --eps", "option '--eps' requires an argument"),
    ("train --epochs many", "--epochs many integer"),
    ("evaluate --limit=1.5", "--limit 1.5 integer"),
    ("attack", "--attack"),
    ("attack a.pt b.pt --attack fgsm", "b.pt"),
    ("list", "'what'"),
    ("list modles", "'modles' did you mean 'models'"),
]
NAMES = [
    ("train --method fgms", "--method 'fgms' did you mean 'fgsm'"),
    ("train --dataset cifar", "--dataset 'cifar' did you mean 'cifar10'"),
    ("train --dataset good.npz --model mnist-cn", "--model 'mnist-cn' did you mean 'mnist-cnn'"),
    ("train --dataset good.npz --method pgd --set method.stpes=1", "--stpes: method pgd did you mean 'steps'"),
    ("train --dataset good.npz --method batchout --layers c9", "--layers 'c9' c1, c2, f1"),
    ("evaluate --attack fgms", "--attack 'fgms' did you mean 'fgsm'"),
    ("train --dataset [red]x", "'[red]x'"),
    ("evaluate --format jsn", "--format 'jsn' did you mean 'json'"),
    ("evaluate nowhere.pt --checks ful", "--checks 'ful' (allowed: full, off, quick); did you mean 'full'?"),
    ("evaluate --preset standrad", "--preset standrad: input should be 'quick', 'paper', 'standard' or 'fast'"),
    ("evaluate --split val", "--split val 'train' 'test'"),
    ("evaluate --norm l3 --attack pgd --eps 1", "--norm 'l3' l2, linf"),
    ("evaluate --device gpu", "--device 'gpu' auto, cpu, cuda"),
]
VALUES = [
    ("evaluate --attack fgsm --eps 8", "--eps 8 over 1 did you mean 8/255"),
    ("evaluate --attack fgsm:eps=8", "eps=8 over 1 did you mean 8/255"),
    ("evaluate --eps nan", "--eps nan"),
    ("evaluate --eps 1/0", "--eps 1/0 zero"),
    ("evaluate --attack pgd --norm l2", "L2 --eps 1.0"),
    ("evaluate --attack fgsm --iters 5", "--iters 5: none of the attacks leaves it open (fgsm)"),
    ("evaluate --attack deepfool --eps 0.1", "--eps 0.1: none of the attacks leaves it open (deepfool)"),
    ("evaluate nowhere.pt --attack fgms", "--attack 'fgms'"),
    ("evaluate --iters 0", "--iters 0 greater than 0"),
    ("evaluate --batch-size -1", "--batch-size -1 greater than 0"),
    ("train --seed 4294967296", "--seed 4294967296 less than 4294967296"),
    ("train --method fgsm --eps 8 --dataset good.npz", "--eps 8: is over 1 did you mean 8/255?"),
    ("train --method pgd --set method.norm=l2 --dataset good.npz", "method pgd: L2 no usual budget --eps 1.0"),
    ("train --method batchout --eta U[0.1 --dataset good.npz", "eta=U[0.1 range"),
    ("train --method batchout --eta 0.1,0.2 --dataset good.npz", "--eta 1 or 3"),
    ("train --method batchout --fraction 2 --dataset good.npz", "fraction=2 less than or equal to 1"),
    ("train --eta 0.1", "--eta: method vanilla does not take it (it takes no options)"),
    ("train --config nowhere.yaml", "--config nowhere.yaml No such file"),
    ("evaluate --json no/r.json", "--json no/r.json does not exist"),
    ("attack --attack fgsm:eps=0.1 --gallery .", "--gallery . folder"),
]
UNUSABLE = [
    ("evaluate nowhere.pt", "nowhere.pt no such checkpoint"),
    ("evaluate checkpoints/god.pt", "checkpoints/god.pt did you mean 'good.pt'"),
    ("evaluate .", "folder"),
    ("evaluate cut.pt", "cut.pt cut off"),
    ("evaluate bomb.pt", "bomb.pt"),
    ("train --resume cut.pt", "cut.pt cut off"),
    ("train --resume mixed.pt", "--resume mixed.pt: the training images are not those that the run began with"),
    ("evaluate methodless.pt", "methodless.pt: is unusable: lacks 'method'"),
    ("evaluate checkpoints/good.pt --dataset mnist-sample", "good.pt (1, 8, 8) (1, 28, 28)"),
    ("evaluate five.pt --dataset mnist-sample", "five.pt 5 classes 10"),
    ("evaluate mnist.pt --dataset mnist-sample", "mnist.pt was trained on 1000 of the 1000"),
    ("evaluate mnist.pt", "--dataset mnist no network --data-dir"),
    ("train --dataset cifar10", "--dataset cifar10 no network --data-dir cifar10.npz"),
    ("train --dataset mnist --no-sample", "--dataset mnist no network --data-dir mnist.npz"),
    ("train --dataset nowhere.npz", "nowhere.npz"),
    ("train --dataset lacks.npz", "lacks.npz 'y_test' missing"),
    ("train --dataset pets", "dogs no image"),
    ("train --dataset good.npz --epochs 1 --lr 1e30 --output nan-run.pt", "loss became --lr"),
]
CASES = [(2, *case) for case in COMMANDS + NAMES + VALUES] + [(3, *case) for case in UNUSABLE]


@pytest.mark.parametrize(("code", "line", "words"), CASES, ids=[line for _, line, _ in CASES])
def test_a_mistake_is_one_line_that_explains_it(
    call: Call, mess: Path, monkeypatch: pytest.MonkeyPatch, code: int, line: str, words: str
) -> None:
    monkeypatch.chdir(mess)
    before = sorted(mess.rglob("*"))
    ended = call(*shlex.split(line))
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert [word for word in words.split() if word not in ended.error] == [], ended.error
    assert sorted(mess.rglob("*")) == before


@pytest.mark.parametrize("line", ["evaluate", "compare", "attack --attack fgsm"])
def test_no_complete_checkpoint_says_how_to_make_one(call: Call, here: Path, line: str) -> None:
    Path("checkpoints").mkdir()
    write_checkpoint(Path("checkpoints/unfinished.pt"), complete=False)
    ended = call(*line.split())
    assert (ended.code, ended.out) == (3, "")
    assert "no complete checkpoint; train one, such as `robustcli train`" in ended.error


def test_markup_in_a_path_is_printed_as_it_is(call: Call, images: Path, here: Path) -> None:
    one, two = "d[b]/m[/b].pt", "d[b]/:x:[/b].pt"
    trained = call("train", "--dataset", images, *QUICK, "--output", one)
    assert (trained.code, trained.out.startswith(f"{one}: epoch 1")) == (0, True)
    assert f"to {one}" in trained.err
    assert call("train", "--resume", one).err == f"{one}: is complete already\n"
    Path(two).parent.mkdir()
    Path(two).write_bytes(Path(one).read_bytes())
    evaluated = call("evaluate", one, "--attack", "fgsm:eps=0.1", "--limit", 4)
    assert (evaluated.code, evaluated.out.startswith(f"{one}: vanilla mnist-cnn")) == (0, True)
    for attacks in (["fgsm:eps=0.1"], ["fgsm", "--eps", "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8"]):
        compared = call("compare", one, two, "--limit", 4, "--attack", *attacks)
        words = compared.out.split()
        assert compared.err == "", attacks
        assert (compared.code, words[0], "m[/b]" in words, ":x:[/b]" in words) == (0, "d[b]/*.pt", True, True)


# --- Faults of the machine


def fail_to_open(monkeypatch: pytest.MonkeyPatch, number: int, file: str) -> None:
    """Writing this file fails, as on a full disk or in a read-only folder."""
    real = Path.open

    def failing(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.suffix == ".tmp" and file in self.name:
            raise OSError(number, os.strerror(number))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("flag", ["--json", "--save", "--gallery"])
def test_a_file_that_fails_at_the_end_costs_neither_the_table_nor_the_other_files(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, flag: str, number: int
) -> None:
    attack = ("attack", "--attack", "fgsm:eps=0.1", "--limit", 8)
    files = {"--json": "r.json", "--save": "adv.npz", "--gallery": "g.png"}
    arguments = [*attack, *(part for pair in files.items() for part in pair)]
    assert call(*arguments).code == 0
    before = {name: Path(name).stat().st_ino for name in files.values()}
    fail_to_open(monkeypatch, number, files[flag])
    ended = call(*arguments)
    assert (ended.code, "fgsm" in ended.out) == (2, True)
    assert ended.error == f"error: {flag} {files[flag]}: {os.strerror(number)}"
    assert [name for name in before if Path(name).stat().st_ino == before[name]] == [files[flag]]


def test_a_folder_that_is_read_only_is_refused_before_the_work(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ended = call("attack", "--attack", "fgsm:eps=0.1", "--json", "r.json")
    assert (ended.code, ended.out) == (2, "")
    assert "--json r.json: its folder . is not writable" in ended.error


def test_a_checkpoint_that_cannot_be_written_is_told_before_the_first_step(
    call: Call, images: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_open(monkeypatch, errno.ENOSPC, "model.pt")
    ended = call("train", "--dataset", images, *QUICK, "--output", "model.pt")
    assert (ended.code, ended.out) == (3, "")
    assert ended.error == f"error: model.pt: cannot be written: {os.strerror(errno.ENOSPC)}"
    assert "epoch" not in ended.err
    assert list(here.iterdir()) == []


def test_a_disk_that_fills_up_later_keeps_the_last_epoch(
    call: Call, images: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustcli.models import checkpoint

    save, saves = checkpoint.save, []

    def filling_up(path: Path, state: checkpoint.Checkpoint) -> None:
        saves.append(len(state.history))
        if len(saves) == 3:
            fail_to_open(monkeypatch, errno.ENOSPC, "model.pt")
        save(path, state)

    monkeypatch.setattr("robustcli.training.train.checkpoint.save", filling_up)
    ended = call("train", "--dataset", images, "--epochs", 3, "--limit", 48, "--output", "model.pt")
    assert (ended.code, saves) == (3, [0, 1, 2])
    assert len(checkpoint.load(here / "model.pt").history) == 1


@pytest.mark.parametrize("style", ["table", "json"])
def test_a_full_disk_under_stdout_is_one_line_and_the_json_file_is_there(models: Path, style: str) -> None:
    command = [sys.executable, "-m", "robustcli", "evaluate", str(models / "vanilla.pt"), "--attack", "fgsm:eps=0.1"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--limit", "8", "--json", "r.json", "--format", style],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, f"error: output: {os.strerror(errno.ENOSPC)}\n")
    assert len(json.loads(Path("r.json").read_text())["rows"]) == 1


def test_a_json_file_may_be_a_device(call: Call, models: Path) -> None:
    assert call("evaluate", "--attack", "fgsm:eps=0.1", "--limit", 4, "--json", "/dev/null").code == 0
    assert not Path("/dev/null").is_file()
