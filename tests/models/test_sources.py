"""From text to a target: what a spec means, and one network in every form that it may come in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from robustcli.errors import CheckpointError, ConfigError
from robustcli.models.sources import open_target, split_source
from robustcli.models.target import key_of
from tests.models import foreign

NEEDS_ONNX = pytest.mark.skipif(find_spec("onnx") is None, reason="the extra onnx is not installed")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(foreign.PROGRAM)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.pt"
    torch.save(foreign.network().state_dict(), path)
    return path


def test_splits_at_the_last_at_whose_right_side_is_a_file_or_none(tmp_path: Path) -> None:
    file = tmp_path / "a@b.pt"
    file.touch()
    assert split_source(f"net.py:make@{file}").body == "net.py:make"
    assert split_source("tv:resnet18@none").weights == "none"
    assert split_source("odd@name.pt").body == "odd@name.pt"


@pytest.mark.parametrize("form", ["py", "any.pt2", "fixed.pt2", "script", "any.onnx", "fixed.onnx"])
def test_every_form_gives_the_same_logits(form: str, tmp_path: Path, program: Path, weights: Path) -> None:
    net, batch = foreign.network(), 4 if form.startswith("fixed") else None
    if form == "py":
        text = f"{program}:make@{weights}"
    elif form.endswith("pt2"):
        text = str(foreign.export(net, tmp_path / form, batch))
    elif form == "script":
        text = str(foreign.script(net, tmp_path / "net.pt"))
    else:
        pytest.importorskip("onnx2pytorch", reason="the extra onnx is not installed")
        text = str(foreign.export_onnx(net, tmp_path / form, batch))
    target = open_target(text)
    for n in (1, 4, 9):
        x = foreign.images(n).requires_grad_()
        logits = target.module(x)
        assert torch.allclose(logits, net(x), atol=1e-5)
        (gradient,) = torch.autograd.grad(logits.sum(), x)
        assert torch.allclose(gradient, torch.autograd.grad(net(x).sum(), x)[0], atol=1e-4)


def test_the_key_follows_weights_code_and_nothing_else(program: Path, weights: Path, tmp_path: Path) -> None:
    text = f"{program}:make@{weights}"
    key = open_target(text).key
    copy = tmp_path / "copy.pt"
    copy.write_bytes(weights.read_bytes())
    assert open_target(f"{program}:make@{copy}").key == key
    torch.save(foreign.network(2).state_dict(), weights)
    assert open_target(text).key != key
    torch.save(foreign.network().state_dict(), weights)
    program.write_text(foreign.PROGRAM.replace(".relu()", ".sigmoid()"))
    assert open_target(text).key != key


def test_random_weights_are_the_same_each_time_and_the_global_rng_stays(program: Path) -> None:
    before = torch.random.get_rng_state()
    first, second = (open_target(f"{program}:make@none") for _ in range(2))
    assert first.key == second.key
    assert first.input is not None
    assert first.input.normalize == "none"
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{program}:mak", "has no function 'mak'; did you mean 'make'?"),
        ("{program}", "name the function that builds the network"),
        ("{program}:make@absent.pt", "no file 'absent.pt', as the @ names its weights"),
        ("{folder}/absent.py:make", "no such file"),
        pytest.param("{folder}/absent.onnx", "no such file", marks=NEEDS_ONNX),
        ("{folder}/absent.pt2", "no such file"),
        ("{weights}", "as bare weights do not"),
        ("tv:resnet51", "did you mean 'resnet50'?"),
        ("zoo:mnist-vanilla@none", "has weights of its own"),
    ],
)
def test_a_mistake_is_one_line(text: str, message: str, program: Path, weights: Path, tmp_path: Path) -> None:
    given = text.format(program=program, weights=weights, folder=tmp_path)
    with pytest.raises((CheckpointError, ConfigError), match=message.replace("?", r"\?")) as caught:
        open_target(given)
    assert "\n" not in str(caught.value)


def test_weights_beside_weights_are_refused(program: Path, weights: Path) -> None:
    with pytest.raises(ConfigError, match="names its weights already"):
        open_target(f"{program}:make@{weights}", weights)
    assert open_target(f"{program}:make", weights).key == open_target(f"{program}:make@{weights}").key


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no')", r"failed: ValueError: no \(line 1\)"),
        ("def make():\n    raise KeyError('x')", r"failed: KeyError: 'x' \(line 2\)"),
        ("def make():\n    return 3", "returned a int; should be a torch.nn.Module"),
        ("import sys\nsys.exit(1)", "failed: SystemExit: 1"),
        ("def make(:", "failed: SyntaxError"),
    ],
)
def test_a_program_that_fails_is_one_line(body: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(body)
    with pytest.raises(CheckpointError, match=message):
        open_target(f"{path}:make")


def test_two_programs_with_a_module_of_one_name_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for width in (2, 3):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "parts.py").write_text(f"WIDTH = {width}\nprint('hello')\n")
        (folder / "net.py").write_text(
            "from torch import nn\nfrom parts import WIDTH\n"
            "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(WIDTH, 2))\n"
        )
        found.append(open_target(f"{folder / 'net.py'}:make"))
    widths = [module.in_features for one in found for module in one.module.modules() if isinstance(module, nn.Linear)]
    assert widths == [2, 3]
    assert capsys.readouterr().out == ""  # stdout carries results only
    (tmp_path / "2" / "parts.py").write_text("WIDTH = 2\nOTHER = 1\n")
    assert open_target(f"{tmp_path / '2' / 'net.py'}:make@none").key != found[0].key


def test_weights_of_other_types_are_made_float32_and_those_without_values_refused(tmp_path: Path) -> None:
    body = "import torch\nfrom torch import nn\n"
    kinds = {
        "half": "nn.Linear(2, 2).half()",
        "double": "nn.Linear(2, 2).double()",
        "meta": "nn.Linear(2, 2, device='meta')",
        "lazy": "nn.LazyLinear(2)",
    }
    (tmp_path / "net.py").write_text(body + "".join(f"def {name}(): return {code}\n" for name, code in kinds.items()))
    for name in ("half", "double"):
        assert open_target(f"{tmp_path / 'net.py'}:{name}").module.weight.dtype == torch.float32
    for name in ("meta", "lazy"):
        with pytest.raises(CheckpointError, match="its 'weight' has no values yet"):
            open_target(f"{tmp_path / 'net.py'}:{name}")


def test_a_default_type_of_the_program_and_data_parallel_stay_its_own(tmp_path: Path) -> None:
    body = "import torch\nfrom torch import nn\ntorch.set_default_dtype(torch.float64)\n"
    (tmp_path / "net.py").write_text(body + "def make(): return nn.DataParallel(nn.Linear(2, 2).eval())\n")
    module = open_target(f"{tmp_path / 'net.py'}:make").module
    assert torch.get_default_dtype() == torch.float32
    assert isinstance(module, nn.Linear)
    assert not module.training


def test_bare_weights_and_pickles_name_the_way_out(tmp_path: Path, weights: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="save the network's weights alone"):
        open_target(tmp_path / "whole.pt")
    for path in (weights, tmp_path / "w.safetensors"):
        path.touch()
        with pytest.raises(CheckpointError, match="they go with a network: FILE"):
            open_target(path)


def test_an_at_in_a_folder_is_no_weights(tmp_path: Path) -> None:
    folder = tmp_path / "a@b"
    folder.mkdir()
    (folder / "net.py").write_text(foreign.PROGRAM)
    assert open_target(f"{folder / 'net.py'}:make").module is not None


@pytest.mark.parametrize("change", ["attribute", "hook", "code", "tensor"])
def test_the_key_follows_what_no_weight_shows(change: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = 1.0, torch.zeros(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    class Other(Scaled):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + 1

    net, other = Scaled(), Scaled()
    assert key_of(net) == key_of(other)
    if change == "attribute":
        other.scale = 2.0
    elif change == "tensor":
        other.shift = torch.ones(2)
    elif change == "hook":
        other.register_forward_hook(lambda module, x, y: 2 * y)
    else:
        other = Other()
    assert key_of(net) != key_of(other)
