"""Networks of torchvision, timm and transformers; none of them is downloaded here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from robustcli.errors import CheckpointError, ConfigError
from robustcli.models import hub
from robustcli.models.sources import open_target
from tests.models.test_weights import Bomb


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_torchvision_with_random_weights_says_what_it_wants() -> None:
    target = open_target("tv:resnet18@none")
    assert target.input is not None
    assert target.input.size == (224, 224)
    assert target.input.resize == 256
    assert not target.classes  # random weights know no classes


def test_a_file_of_weights_decides_the_number_of_classes(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save({"state_dict": resnet18(num_classes=7).state_dict()}, tmp_path / "w.pt")
    target = open_target(f"tv:resnet18@{tmp_path / 'w.pt'}")
    assert target.module.fc.out_features == 7
    assert target.input is not None
    assert target.input.normalize == "auto"


def test_without_a_network_one_line_names_the_file_and_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(CheckpointError, match=r"put resnet18-\w+.pth from https://\S+ into \S*torch/hub/checkpoints"):
        open_target("tv:resnet18")


def test_a_file_in_the_cache_folder_is_taken(tmp_path: Path) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    net = resnet18()
    torch.save(net.state_dict(), folder / ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    target = open_target("tv:resnet18")
    assert len(target.classes) == 1000
    assert target.classes[0] == "tench"
    assert torch.equal(target.module.fc.weight, net.fc.weight)


def test_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    target = open_target("timm:test_vit@none")
    assert isinstance(target.module, nn.Module)
    assert target.input is not None
    assert target.input.size == (160, 160)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "w.pt")
    assert open_target(f"timm:test_vit@{tmp_path / 'w.pt'}").module.num_classes == 3
    with pytest.raises(CheckpointError, match="did you mean 'test_vit"):
        open_target("timm:test_vitt")
    with pytest.raises(
        CheckpointError,
        match=r"timm:test_vit: cannot be had .*those of huggingface.co/timm/test_vit.* would be in .*@none takes",
    ):
        open_target("timm:test_vit")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    names = {0: "cat", 1: "dog", 2: "owl"}
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    torch.manual_seed(5)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_transformers_from_a_folder(folder: Path) -> None:
    target = open_target(f"hf:{folder}")
    assert target.classes == ("cat", "dog", "owl")
    assert target.input is not None
    assert target.input.normalize == "own"
    assert target.input.mean == (0.5, 0.5, 0.5)
    assert target.input.size == (16, 16)
    assert target.key == open_target(f"hf:{folder}").key != open_target(f"hf:{folder}@none").key


def test_weights_beside_a_folder_decide_the_number_of_classes(folder: Path, tmp_path: Path) -> None:
    weights = open_target(f"hf:{folder}").module.state_dict()
    wider = {"classifier.weight": torch.zeros(5, 16), "classifier.bias": torch.zeros(5)}
    torch.save({f"module.{key}": value for key, value in (weights | wider).items()}, tmp_path / "w.pt")
    target = open_target(f"hf:{folder}@{tmp_path / 'w.pt'}")
    assert target.module(torch.rand(2, 3, 16, 16)).logits.shape == (2, 5)
    assert target.input is not None
    assert target.input.normalize == "auto"


def test_code_that_comes_with_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.C"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        open_target(f"hf:{folder}")
    assert "\n" not in str(caught.value)
    (folder / "model.safetensors").unlink()
    torch.save({"x": Bomb(mark)}, folder / "pytorch_model.bin")
    config["model_type"] = "vit"
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        open_target(f"hf:{folder}")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["index", "link", "pipe"])
def test_a_folder_that_names_what_is_outside_is_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    weights, outside = folder / "model.safetensors", tmp_path / "outside.safetensors"
    weights.rename(outside)
    if kind == "index":
        parts = dict.fromkeys(open_target(f"hf:{folder}@none").module.state_dict(), "../outside.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    elif kind == "link":
        weights.symlink_to(outside)
    else:
        os.mkfifo(weights)
    with pytest.raises(CheckpointError, match="is outside its folder, missing or no plain file"):
        open_target(f"hf:{folder}")


def test_attention_code_of_the_hub_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_attn_implementation": "evil/kernel"}))
    with pytest.raises(CheckpointError, match="names code of the hub"):
        open_target(f"hf:{folder}")


@pytest.mark.parametrize("text", ["hf:./absent", "hf:nobody/nothing"])
def test_no_such_model_is_one_line(text: str) -> None:
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    with pytest.raises(CheckpointError) as caught:
        open_target(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "extra"), [("timm:x", "timm"), ("hf:x", "hf")])
def test_a_missing_extra_is_one_line_with_its_command(text: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, {"timm": "timm", "hf": "transformers"}[extra], None)
    with pytest.raises(ConfigError, match=rf"pip install 'robustcli\[{extra}\]'"):
        open_target(text)


def test_interpolations_of_each_library_have_a_name() -> None:
    assert {hub.INTERPOLATIONS[key] for key in (0, 2, 3)} == {"nearest", "bilinear", "bicubic"}
