"""Networks from elsewhere, wherever a checkpoint stands: one network in each form, and each mistake by its check."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Call
from tests.models import foreign

PROGRAM = """
import torch
from torch import nn

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]

class Net(nn.Module):
    def __init__(self, *, normalised=0, flip=False, softmax=False, outputs=3):
        super().__init__()
        self.normalised, self.flip, self.softmax = normalised, flip, softmax
        self.colours = nn.Parameter(torch.eye(3)[:outputs] * 0.7 + 0.16 if outputs <= 3 else torch.ones(outputs, 3))

    def forward(self, x):
        for _ in range(abs(self.normalised)):
            x = (x - MEAN) / STD if self.normalised > 0 else x * STD + MEAN
        x = x.mean((2, 3))
        gap = ((x.flip(1) if self.flip else x)[:, None] - self.colours).norm(dim=2)
        far = gap.min(1, keepdim=True).values > 0.35
        logits = torch.where(far, 0.01 * x.sum(1, keepdim=True) * torch.tensor([1.0, 0, 0][: gap.shape[1]]), -9 * gap)
        return logits.softmax(1) if self.softmax else logits

class Exits(Net):
    def forward(self, x):
        print("on the way")
        if len(x) > 20:
            raise SystemExit(0)
        return super().forward(x)

def exits(): return Exits().eval()
def good(): return Net().eval()
def in_train_mode(): return Net()
def softmax_inside(): return Net(softmax=True).eval()
def unnormalised_itself(): return Net(normalised=-1).eval()
def normalised_itself(): return Net(normalised=1).eval()
def blue_first(): return Net(flip=True).eval()
def two_outputs(): return Net(outputs=2).eval()
"""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours with noise, 8x8."""
    draw = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 30), ("test", 240)):
        y = np.arange(n) % 3
        x = draw.integers(-30, 31, (n, 8, 8, 3)) + (np.eye(3) * 180 + 40)[y][:, None, None]
        arrays |= {f"x_{split}": x.clip(0, 255).astype(np.uint8), f"y_{split}": y}
    path = tmp_path_factory.mktemp("colours") / "colours.npz"
    np.savez(path, classes=np.array(["red", "green", "blue"]), **arrays)
    return path


@pytest.fixture
def program(here: Path) -> str:
    (here / "net.py").write_text(PROGRAM)
    return "net.py"


FEW = ["--attack", "fgsm", "--eps", "0.05", "--limit", "60"]


def test_one_network_in_each_form_has_the_same_flags(call: Call, here: Path, colours: Path) -> None:
    (here / "net.py").write_text(foreign.PROGRAM)
    net = foreign.network()
    torch.save({"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}, here / "w.pth")
    foreign.export(net, here / "net.pt2")
    foreign.script(net, here / "script.pt")
    forms = ["net.py:make@w.pth", "net.pt2", "script.pt"]
    if pytest.importorskip("importlib.util").find_spec("onnx2pytorch"):
        foreign.export_onnx(net, here / "net.onnx")
        forms.append("net.onnx")
    options = ["--dataset", colours, "--attack", "pgd:steps=5", "--eps", "0.02", "--normalize", "none"]
    ended = call("evaluate", *forms, *options, "--format", "json")
    rows = {row["checkpoint"]: row for row in ended.document["rows"]}
    assert list(rows) == forms
    assert len({tuple(row["robust"]) for row in rows.values()}) == 1
    assert len({row["checkpoint_sha256"] for row in rows.values()}) == len(forms)
    assert rows["net.pt2"]["input"] == {"normalize": "none"}
    assert rows["net.pt2"]["model"] is None
    table = call("evaluate", forms[0], *options, "--format", "csv").out
    assert json.loads(next(csv.DictReader(io.StringIO(table)))["input"]) == {"normalize": "none"}
    beside = call("evaluate", "net.py:make", "--weights", "w.pth", *options, "--format", "json").document["rows"][0]
    assert beside["checkpoint_sha256"] == rows["net.py:make@w.pth"]["checkpoint_sha256"]


def test_a_second_call_takes_all_samples_from_the_store(call: Call, program: str, colours: Path) -> None:
    arguments = ["evaluate", f"{program}:good", "--dataset", colours, *FEW, "--format", "json"]
    assert call(*arguments).document["rows"][0]["cached"] == 0
    assert call(*arguments).document["rows"][0]["cached"] == 60
    (Path(program)).write_text(PROGRAM.replace("-9 * gap", "-8 * gap"))
    assert call(*arguments).document["rows"][0]["cached"] == 0


def test_every_command_takes_it(call: Call, program: str, colours: Path, here: Path) -> None:
    model, data = f"{program}:good", ["--dataset", colours]
    assert call("attack", model, *data, "--attack", "fgsm", "--eps", "0.05", "--save", "adv.npz").code == 0
    assert np.load(here / "adv.npz")["x_adv"].shape == (240, 3, 8, 8)
    ended = call("compare", model, f"{program}:in_train_mode", *data, *FEW)
    assert ended.code == 0
    assert model in ended.out
    assert call("doctor", model, *data, "--eps", "0.05", "--limit", "8").code in (0, 3)


@pytest.mark.parametrize(
    ("function", "normalize", "named"),
    [
        ("good", "auto", set()),
        ("good", "none", set()),
        ("in_train_mode", "none", {"P1"}),
        ("softmax_inside", "none", {"P3"}),
        ("unnormalised_itself", "none", {"P16"}),
        ("normalised_itself", "imagenet", {"P16"}),
        ("good", "imagenet", {"P16"}),
        ("blue_first", "none", {"P17"}),
    ],
)
def test_each_mistake_is_named_by_its_check(
    function: str, normalize: str, named: set[str], call: Call, program: str, colours: Path
) -> None:
    arguments = ["--dataset", colours, "--attack", "fgsm", "--eps", "0.01", "--normalize", normalize, "--no-store"]
    document = call("evaluate", f"{program}:{function}", *arguments, "--format", "json").document
    findings = document["verdict"]["checkpoints"][0]["findings"]
    own = {"P1", "P3", "P16", "P17"}
    assert {one["id"] for one in findings if one["id"] in own and one["level"] not in ("OK", "INFO")} == named


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["net.py:two_outputs"], 3, "has 2 outputs; colours has 3 classes (red, green, blue)"),
        (["net.py:god"], 3, "has no function 'god'; did you mean 'good'?"),
        (["net.py:good", "--weights", "absent.pt"], 3, "absent.pt: no such file"),
        (["net.py:good", "net.py:good@none", "--weights", "x.pt"], 2, "goes with one model, and 2 are named"),
        (["net.py:good", "--normalize", "imagenett"], 2, "did you mean 'imagenet'"),
        (["net.py:good", "--resize", "-3"], 2, "--resize -3: should be none or a number of pixels"),
        (["tv:resnet"], 3, "torchvision has no classifier of that name"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, message: str, call: Call, program: str, colours: Path
) -> None:
    ended = call("evaluate", *arguments, "--dataset", colours, *FEW)
    assert ended.code == code
    assert message in ended.error


def test_a_network_that_prints_and_ends_the_program(call: Call, program: str, colours: Path) -> None:
    options = ["--dataset", colours, "--attack", "fgsm", "--eps", "0.05", "--normalize", "none", "--format", "json"]
    ended = call("evaluate", f"{program}:exits", *options, "--limit", "20", "--checks", "off")
    assert ended.document["rows"][0]["n"] == 20
    assert "on the way" in ended.err
    assert "the model ended the program: sys.exit(0)" in call("evaluate", f"{program}:exits", *options).error


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(call: Call, program: str, colours: Path) -> None:
    ended = call("evaluate", f"{program}:in_train_mode", "--dataset", colours, *FEW)
    assert "\nwarning: the model is in train mode; it is measured in eval mode\n" in f"\n{ended.err}"
    assert "UserWarning" not in ended.err


def test_a_foreign_model_needs_to_be_told_its_images(call: Call, program: str) -> None:
    assert "--dataset" in call("evaluate", f"{program}:good", *FEW).error


def test_flags_of_the_input_do_not_go_with_a_checkpoint(call: Call, models: Path, images: Path) -> None:
    ended = call("evaluate", models / "vanilla.pt", *FEW, "--normalize", "imagenet")
    assert ended.code == 2
    assert "a checkpoint has its own first layers" in ended.error


def test_without_gradients_only_attacks_that_need_none_run(
    call: Call, here: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx2pytorch", reason="the extra onnx is not installed")

    def fail(*arguments: object, **options: object) -> None:
        raise NotImplementedError("op_type=Strange")

    monkeypatch.setattr("onnx2pytorch.ConvertModel", fail)
    foreign.export_onnx(foreign.network(), here / "net.onnx")
    data = ["--dataset", colours, "--limit", "12", "--normalize", "none"]
    refused = call("evaluate", "net.onnx", *data, "--attack", "pgd", "--eps", "0.1")
    assert refused.code == 2
    assert "net.onnx has none (op_type=Strange); allowed: square, hopskipjump, noise" in refused.error
    ended = call("evaluate", "net.onnx", *data, "--attack", "square:queries=20", "--eps", "0.1")
    assert ended.code == 0
    assert "could not be converted to torch (op_type=Strange): it has no gradients" in ended.err


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two of ImageNet's classes, by WordNet id, two images of 40x60 each."""
    root = tmp_path_factory.mktemp("photographs") / "photographs"
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("n01440764", "n03417042"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                Image.fromarray(draw.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("text", "extra", "size"),
    [
        ("tv:resnet50@none", "torchvision", {"resize": 232, "crop": [224, 224]}),
        ("timm:test_vit@none", "timm", {"resize": 168, "crop": [160, 160]}),
        ("timm:test_convnext@none", "timm", {"resize": 168, "crop": [160, 160]}),
        ("hf:./vit", "transformers", {"resize": [16, 16], "crop": [16, 16]}),
    ],
)
def test_networks_of_the_libraries_end_to_end(
    text: str, extra: str, size: dict[str, Any], call: Call, here: Path, photographs: Path
) -> None:
    library = pytest.importorskip(extra, reason=f"{extra} is not installed")
    if extra == "transformers":
        names = dict(enumerate(sorted(["n03417042", "n01440764", "n09999999"], reverse=True)))
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = library.ViTConfig(**sizes, image_size=16, patch_size=8, id2label=names)
        library.ViTForImageClassification(config).save_pretrained("vit")
        library.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained("vit")
    options = ["--dataset", photographs, "--attack", "pgd:steps=5", "--eps", "2/255", "--limit", "2"]
    ended = call("evaluate", text, *options, "--format", "json")
    assert ended.code == 0, ended.err
    (row,) = ended.document["rows"]
    assert row["n"] == 2
    assert {key: row["input"][key] for key in size} == size
    assert row["input"]["normalize"] == ("own" if extra == "transformers" else "none")
    assert "outputs are matched to the 2 classes by name" in ended.err


def test_an_equal_call_prints_the_document_of_the_one_before(
    call: Call, program: str, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("evaluate", f"{program}:good", "--dataset", colours, "--attack", "fgsm", "--eps", "0.02", "--store", "s.db")
    first = call(*line)
    looked: list[int] = []
    monkeypatch.setattr("robustcli.verdict.judge.before", lambda session: looked.append(1) or {})
    again = call(*line)
    assert (again.code, again.out, looked) == (0, first.out, [])
    Path(program).write_text(Path(program).read_text().replace("-9 * gap", "-8 * gap"))
    assert call(*line).code == 0
    assert looked == [1]
