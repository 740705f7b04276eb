"""Every mistake and fault: its exit code, and one line that says what, which value, and what is allowed."""

from __future__ import annotations

import errno
import io
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
import torch
from PIL import Image

from .conftest import Call, write_checkpoint, write_images

QUICK = "--epochs 1 --limit 48"
SHAPE = {"channels": 1, "height": 28, "width": 28, "classes": 10}


@pytest.fixture(scope="module")
def mess(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """A folder of things that are wrong, and a good checkpoint in `checkpoints/`."""
    folder = tmp_path_factory.mktemp("mess")
    good = (trained / "vanilla.pt").read_bytes()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "good.pt").write_bytes(good)
    (folder / "cut.pt").write_bytes(good[: len(good) // 2])
    (folder / "empty.pt").touch()
    (folder / "bomb.pt").write_bytes(pickle.dumps(os.system))
    torch.save({"schema": 99}, folder / "future.pt")
    torch.save({"conv.weight": torch.zeros(3)}, folder / "bare.pt")
    write_checkpoint(folder / "nan.pt", nan=True, data={"name": "mnist-sample"}, train_ids=torch.arange(0))
    write_checkpoint(folder / "mnist.pt")
    write_checkpoint(folder / "stateless.pt", complete=False)
    write_checkpoint(folder / "nameless.pt", model={"name": "mnist-cnn"})
    write_checkpoint(folder / "resnet.pt", model={"name": "resnet", **SHAPE})
    write_checkpoint(folder / "methodless.pt", spec={"dataset": "mnist"})
    write_checkpoint(folder / "dataless.pt", spec={"method": {"name": "vanilla"}})
    write_checkpoint(folder / "later.pt", complete=False, spec={"ema": 0.99}, resume={})
    write_checkpoint(folder / "mixed.pt", complete=False, spec={"dataset": "mnist-sample"}, resume={"last": {}})
    write_checkpoint(folder / "five.pt", classes=5)
    write_checkpoint(folder / "small.pt", side=8)
    (folder / "bad.yaml").write_text("lr: [1\n")
    (folder / "list.yaml").write_text("- 1\n")
    _write_bad_images(folder)
    return folder


def _write_bad_images(folder: Path) -> None:
    write_images(folder / "good.npz")
    write_images(folder / "lacks.npz", y_test=None)
    write_images(folder / "shape.npz", x_train=np.zeros((240, 8, 8, 2), np.uint8))
    write_images(folder / "unlike.npz", x_test=np.zeros((60, 9, 9), np.uint8))
    write_images(folder / "bright.npz", x_train=np.full((240, 8, 8), 1.5))
    write_images(folder / "label.npz", y_test=np.full(60, 7))
    write_images(folder / "negative.npz", y_train=np.arange(240) % 3 - 1)
    write_images(folder / "count.npz", y_train=np.arange(200) % 3)
    write_images(folder / "object.npz", y_train=np.array([None] * 240, dtype=object))
    (folder / "text.npz").write_text("not a zip")
    for name in ("cats", "dogs"):
        (folder / "pets" / name).mkdir(parents=True)
        (folder / "single" / name).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "pets" / "cats" / f"{i}.png")
    (folder / "lonely" / "cats").mkdir(parents=True)


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
    ("train --dataset good.npz --set lrr=1", "'lrr' did you mean 'lr'"),
    ("train --dataset good.npz --method pgd --set method.stpes=1", "--stpes: method pgd did you mean 'steps'"),
    ("train --dataset good.npz --method batchout --layers c9", "--layers 'c9' c1, c2, f1"),
    ("evaluate --attack fgms", "--attack 'fgms' did you mean 'fgsm'"),
    ("evaluate --attack fgsm:epss=0.1", "'epss' did you mean 'eps'"),
    ("evaluate --attack fgsm:eps", "'eps' KEY=VALUE"),
    ("evaluate --attack pgd:steps=1,steps=2", "'steps' twice"),
    ("evaluate --attack deepfool:box=clipp", "box=clipp 'clip'"),
    ("evaluate --format jsn", "--format 'jsn' did you mean 'json'"),
    ("evaluate --split val", "--split val 'train' 'test'"),
    ("evaluate --norm l3 --attack pgd --eps 1", "--norm 'l3' l2, linf"),
    ("evaluate --device gpu", "--device 'gpu' auto, cpu, cuda"),
    ("evaluate --device meta", "--device 'meta' auto, cpu, cuda"),
]
VALUES = [
    ("evaluate --attack fgsm --eps 8", "--eps 8 over 1 did you mean 8/255"),
    ("evaluate --attack fgsm:eps=8", "eps=8 over 1 did you mean 8/255"),
    ("evaluate --attack fgsm --eps 0.1,8", "--eps 8 over 1 did you mean 8/255"),
    ("evaluate --attack fgsm --eps 300", "--eps 300 over 1"),
    ("evaluate --eps nan", "--eps nan"),
    ("evaluate --eps inf", "--eps inf"),
    ("evaluate --eps -0.1", "--eps -0.1 at least 0"),
    ("evaluate --eps 1/0", "--eps 1/0 zero"),
    ("evaluate --eps 0.1,,0.3", "--eps 0.1,,0.3"),
    ("evaluate --eps ''", "--eps"),
    ("evaluate --attack pgd --norm l2", "L2 --eps 1.0"),
    ("evaluate --attack fgsm --iters 5", "--iters 5: none of the attacks leaves it open (fgsm)"),
    ("evaluate --attack fgsm --steps 5", "--steps 5: none of the attacks leaves it open (fgsm)"),
    ("evaluate --attack deepfool --eps 0.1", "--eps 0.1: none of the attacks leaves it open (deepfool)"),
    ("attack --attack fgsm:eps=0.1 --eps 0.2", "--eps 0.2: none of the attacks leaves it open (fgsm:eps=0.1)"),
    ("compare --attack pgd:steps=2 --steps 3", "--steps 3: none of the attacks leaves it open (pgd:steps=2)"),
    ("evaluate nowhere.pt --attack fgms", "--attack 'fgms'"),
    ("evaluate --iters 0", "--iters 0 greater than 0"),
    ("evaluate --limit 0", "--limit 0 greater than 0"),
    ("evaluate --batch-size -1", "--batch-size -1 greater than 0"),
    ("evaluate --seed -1", "--seed -1 greater than or equal to 0"),
    ("evaluate --seed 4294967296", "--seed 4294967296 less than 4294967296"),
    ("train --seed 4294967296", "--seed 4294967296 less than 4294967296"),
    ("train --epochs 0", "--epochs 0 greater than 0"),
    ("train --lr nan", "--lr nan finite"),
    ("train --method fgsm --eps 8 --dataset good.npz", "--eps 8: is over 1 did you mean 8/255?"),
    ("train --method pgd --eps 8 --dataset good.npz", "--eps 8: is over 1 did you mean 8/255?"),
    ("train --method pgd --set method.norm=l2 --dataset good.npz", "method pgd: L2 no usual budget --eps 1.0"),
    ("train --method fgsm --eps -1 --dataset good.npz", "eps=-1 at least 0"),
    ("train --method batchout --eta U[0.1 --dataset good.npz", "eta=U[0.1 range"),
    ("train --method batchout --eta 0.1,0.2 --dataset good.npz", "--eta 1 or 3"),
    ("train --method batchout --fraction 2 --dataset good.npz", "fraction=2 less than or equal to 1"),
    ("train --eta 0.1", "--eta: method vanilla does not take it (it takes no options)"),
    ("train --config nowhere.yaml", "--config nowhere.yaml No such file"),
    ("train --config bad.yaml", "--config bad.yaml not valid YAML"),
    ("train --config list.yaml", "--config list.yaml keys and values"),
    ("train --config .", "--config . folder"),
    ("evaluate --json .", "--json . folder"),
    ("evaluate --json no/r.json", "--json no/r.json does not exist"),
    ("attack --attack fgsm:eps=0.1 --save no/a.npz", "--save no/a.npz does not exist"),
    ("attack --attack fgsm:eps=0.1 --gallery .", "--gallery . folder"),
]
UNUSABLE = [
    ("evaluate nowhere.pt", "nowhere.pt no such checkpoint"),
    ("evaluate checkpoints/god.pt", "checkpoints/god.pt did you mean 'good.pt'"),
    ("evaluate .", "folder"),
    ("evaluate cut.pt", "cut.pt cut off"),
    ("evaluate empty.pt", "empty.pt empty"),
    ("evaluate bomb.pt", "bomb.pt"),
    ("evaluate future.pt", "future.pt schema 99"),
    ("evaluate bare.pt", "bare.pt names no schema"),
    ("train --resume cut.pt", "cut.pt cut off"),
    ("train --resume stateless.pt", "stateless.pt no optimiser state"),
    ("train --resume later.pt", "--resume later.pt: its spec: key 'ema' unknown"),
    ("train --resume mixed.pt", "--resume mixed.pt: the training images are not those that the run began with"),
    ("evaluate nameless.pt", "nameless.pt: is unusable: its model: 'channels' is missing"),
    ("evaluate resnet.pt", "resnet.pt: is unusable: 'resnet' unknown (allowed: cifar-cnn, mnist-cnn)"),
    ("evaluate methodless.pt", "methodless.pt: is unusable: lacks 'method'"),
    ("evaluate dataless.pt", "dataless.pt: is unusable: lacks 'dataset'"),
    ("evaluate nan.pt --dataset mnist-sample --limit 8", "nan.pt NaN logits 8"),
    ("evaluate checkpoints/good.pt --dataset mnist-sample", "good.pt (1, 8, 8) (1, 28, 28)"),
    ("evaluate five.pt --dataset mnist-sample", "five.pt 5 classes 10"),
    ("evaluate small.pt --dataset good.npz", "small.pt 10 classes 3"),
    ("evaluate mnist.pt --dataset mnist-sample", "mnist.pt was trained on 1000 of the 1000"),
    ("evaluate mnist.pt", "--dataset mnist no network --data-dir"),
    ("train --dataset cifar10", "--dataset cifar10 no network --data-dir cifar10.npz"),
    ("train --dataset mnist --no-sample", "--dataset mnist no network --data-dir mnist.npz"),
    ("train --dataset nowhere.npz", "nowhere.npz"),
    ("train --dataset ./nowhere", "./nowhere"),
    ("train --dataset lacks.npz", "lacks.npz 'y_test' missing"),
    ("train --dataset shape.npz", "shape.npz 'x_train' (240, 8, 8, 2)"),
    ("train --dataset unlike.npz", "unlike.npz 'x_test' (9, 9, 1)"),
    ("train --dataset bright.npz", "bright.npz 'x_train' 1.5 [0, 1]"),
    ("train --dataset negative.npz", "negative.npz 'y_train' -1"),
    ("train --dataset count.npz", "count.npz 240 images 200 labels"),
    ("train --dataset object.npz", "object.npz 'y_train' cannot be read"),
    ("train --dataset text.npz", "text.npz cannot be read"),
    ("evaluate --dataset label.npz", "label.npz 'y_test' label 7"),
    ("train --dataset pets", "dogs no image"),
    ("train --dataset lonely", "lonely 1 class folders at least 2"),
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
def test_no_checkpoint_at_all_says_how_to_make_one(call: Call, here: Path, line: str) -> None:
    ended = call(*line.split())
    assert (ended.code, ended.out) == (3, "")
    assert "robustcli train" in ended.error


def test_a_pickled_object_is_not_executed(call: Call, here: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path("executed").touch, ()

    torch.save({"schema": 1, "spec": Bomb()}, "bomb.pt")
    assert call("evaluate", "bomb.pt").code == 3
    assert not Path("executed").exists()


def test_a_small_l2_budget_is_a_warning_and_no_error(call: Call, models: Path) -> None:
    ended = call("evaluate", "--attack", "fgsm", "--norm", "l2", "--eps", "3/255", "--limit", 4)
    assert ended.code == 0
    assert "warning: fgsm: eps=3/255 is an Linf-sized budget for L2" in ended.err


def test_line_breaks_in_a_value_do_not_break_the_line(call: Call, here: Path) -> None:
    ended = call("train", "--dataset", "two\nlines")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)


def test_square_brackets_in_a_value_are_shown_as_they_are(call: Call, here: Path) -> None:
    assert "'[red]x'" in call("train", "--dataset", "[red]x").error


def test_markup_in_a_path_is_printed_as_it_is(call: Call, images: Path, here: Path) -> None:
    one, two = "d[b]/m[/b].pt", "d[b]/:x:[/b].pt"
    trained = call("train", "--dataset", images, *QUICK.split(), "--output", one)
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


def fail_to_open(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Every file that would be written whole fails, as on a full disk or in a read-only folder."""
    real = Path.open

    def failing(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.suffix == ".tmp":
            raise OSError(number, os.strerror(number))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)


FULL, DENIED = errno.ENOSPC, errno.EACCES


def earlier(file: str) -> bytes:
    """What a flag may have written there before."""
    content = io.BytesIO()
    np.savez(content, x_adv=np.zeros(1), pred_after=np.zeros(1))
    return {".json": b'{"schema": 1}', ".npz": content.getvalue(), ".png": b"\x89PNG\r\n\x1a\n"}[Path(file).suffix]


FILES = [("--json", "r.json"), ("--save", "adv.npz"), ("--gallery", "g.png")]


@pytest.mark.parametrize("number", [FULL, DENIED])
@pytest.mark.parametrize(("flag", "file"), FILES)
def test_a_file_that_fails_at_the_end_leaves_the_table_and_the_old_file(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, flag: str, file: str, number: int
) -> None:
    Path(file).write_bytes(old := earlier(file))
    fail_to_open(monkeypatch, number)
    ended = call("attack", "--attack", "fgsm:eps=0.1", "--limit", 8, flag, file)
    assert (ended.code, "fgsm" in ended.out) == (2, True)
    assert ended.error == f"error: {flag} {file}: {os.strerror(number)}"
    assert Path(file).read_bytes() == old


@pytest.mark.parametrize(("flag", "file"), FILES)
def test_a_folder_that_is_read_only_is_refused_before_the_work(
    call: Call, models: Path, monkeypatch: pytest.MonkeyPatch, flag: str, file: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ended = call("attack", "--attack", "fgsm:eps=0.1", flag, file)
    assert (ended.code, ended.out) == (2, "")
    assert f"{flag} {file}: its folder . is not writable" in ended.error


@pytest.mark.parametrize("number", [FULL, DENIED])
def test_a_checkpoint_that_cannot_be_written_is_told_before_the_first_step(
    call: Call, images: Path, here: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail_to_open(monkeypatch, number)
    ended = call("train", "--dataset", images, *QUICK.split(), "--output", "model.pt")
    assert (ended.code, ended.out) == (3, "")
    assert ended.error == f"error: model.pt: cannot be written: {os.strerror(number)}"
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
            fail_to_open(monkeypatch, FULL)
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


def test_a_reader_that_went_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "robustcli", "list", "datasets"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
