"""Exported files that somebody has prepared: nothing runs, nothing outside is read, one line each."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustcli.errors import CheckpointError
from robustcli.models.exported import FixedBatch, load_exported
from robustcli.models.sources import open_target
from tests.models import foreign
from tests.models.test_weights import Bomb

Change = Callable[[str, bytes], bytes | None]


def rewritten(path: Path, change: Change, extra: dict[str, bytes] | None = None) -> Path:
    """The archive with its parts changed; `change` gets a part's name below the root and its content."""
    source = zipfile.ZipFile(path)
    root = source.namelist()[0].partition("/")[0]
    made = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                archive.writestr(name, content)
        for name, content in (extra or {}).items():
            archive.writestr(f"{root}/{name}", content)
    return made


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def in_json(name: str, old: str, new: str) -> Change:
    def change(part: str, content: bytes) -> bytes:
        if part != name:
            return content
        text = content.decode()
        assert old in text
        return text.replace(old, new).encode()

    return change


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return foreign.export(foreign.network(), tmp_path / "net.pt2")


def test_a_pickle_in_weights_constants_or_sample_inputs_is_refused(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    payload = pickled({"x": Bomb(mark)})

    def as_weight(part: str, content: bytes) -> bytes:
        if part == "data/weights/model_weights_config.json":
            config = json.loads(content)
            config["config"]["conv.weight"]["use_pickle"] = True
            return json.dumps(config).encode()
        return payload if part == "data/weights/weight_0" else content

    def as_sample(part: str, content: bytes) -> bytes:
        return payload if part.startswith("data/sample_inputs/") else content

    constant = {
        "config": {"c": {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }

    def as_constant(part: str, content: bytes) -> bytes | None:
        return json.dumps(constant).encode() if part == "data/constants/model_constants_config.json" else content

    def as_old_pickle(part: str, content: bytes) -> bytes:  # protocol 0, which no first byte tells
        old = b"cos\nmkdir\n(S'" + str(mark).encode() + b"'\ntR."
        return old if part.startswith("data/sample_inputs/") else content

    legacy = {"data/weights/model.pt": payload}
    for made in (
        rewritten(exported, as_old_pickle),
        rewritten(exported, as_weight),
        rewritten(exported, as_sample),
        rewritten(exported, as_constant, {"data/constants/custom_obj_0": payload}),
        rewritten(exported, lambda part, content: content, legacy),
        rewritten(exported, as_constant, {"data/constants/tensor_0": payload}),
        rewritten(exported, lambda part, content: content, {"data/weights/sub/weight_1": payload}),
        rewritten(exported, lambda part, content: content, {"models/sub/x.json": b"{}"}),
    ):
        with pytest.raises(CheckpointError, match=r"is refused: it holds (a pickled object|'\S+', which no)") as caught:
            load_exported(made)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path('{mark}').touch()",
        "open('{mark}', 'w')",
        "Symbol('s0').__class__",
        "9**9**9**9",
        "exit()",
        "1<<40000000000",
        "Max(1, [x for x in (1).__class__.__base__.__subclasses__()])",
        "(1,)*600000000",
        "Max(*(1, 2))",
        f"Mod({'*'.join(f'(s{i}+s{i + 1})' for i in range(18))}, s0)",
        f"Mod(Mul({', '.join(f'Add(s{i}, s{i + 1})' for i in range(18))}), s0)",
        "Max(1, key=s0)",
    ],
)
def test_a_size_that_is_code_is_refused(text: str, exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = zipfile.ZipFile(exported)
    name = next(one for one in content.namelist() if one.endswith("models/model.json"))
    old = json.loads(content.read(name))
    sizes = json.dumps(old).split('"expr_str": ')[1:]
    assert sizes
    first = sizes[0].partition('"')[2].partition('"')[0]
    made = rewritten(exported, in_json("models/model.json", first, text.format(mark=mark)))
    with pytest.raises(CheckpointError, match="could run code"):
        load_exported(made)
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.ops.load_library", "torch.load", "#x:y", "torch.ops.aten.nothing.default"]
    + [f"torch.ops.aten.{name}.default" for name in ("from_file", "save", "_print", "warn")],
)
def test_a_graph_that_calls_anything_but_operators_is_refused(target: str, exported: Path) -> None:
    made = rewritten(exported, in_json("models/model.json", "torch.ops.aten.relu.default", target))
    with pytest.raises(CheckpointError, match="its graph calls"):
        load_exported(made)


@pytest.mark.parametrize("spec", ["in_spec", "out_spec"])
@pytest.mark.parametrize(
    "context", [{"__enum__": True, "fqn": "evil:X", "name": "x"}, [{"__enum__": True, "fqn": "evil:X", "name": "x"}]]
)
def test_a_container_that_imports_a_module_is_refused(spec: str, context: Any, exported: Path, tmp_path: Path) -> None:
    """torch imports what `__enum__` names, and ctypes loads a library by an attribute's name."""

    def change(part: str, content: bytes) -> bytes:
        if part != "models/model.json":
            return content
        graph = json.loads(content)
        for entry in graph["graph_module"]["module_call_graph"]:
            if entry.get("signature"):
                content = json.loads(entry["signature"][spec])
                content[1]["context"] = json.dumps(context)
                entry["signature"][spec] = json.dumps(content)
        return json.dumps(graph).encode()

    with pytest.raises(CheckpointError, match=f"{spec} .* could run code"):
        load_exported(rewritten(exported, change))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".ckpt"])
def test_torchscript_runs_by_its_own_names_alone(suffix: str, tmp_path: Path) -> None:
    foreign.script(foreign.network(), tmp_path / f"net{suffix}")
    with pytest.raises(CheckpointError):
        open_target(tmp_path / f"net{suffix}")


@pytest.mark.parametrize("place", ["name", "as_name", "forward_arg_names", "key", "metadata"])
def test_a_name_that_is_code_is_refused_or_left_out(place: str, exported: Path, tmp_path: Path) -> None:
    """torch makes Python source of a graph, and of its names as they are."""
    mark = tmp_path / "mark"
    code = f"z=__import__('pathlib').Path('{mark}').touch()"

    def change(part: str, content: bytes) -> bytes:
        if part != "models/model.json":
            return content
        graph = json.loads(content)
        inner = graph["graph_module"]["graph"]
        if place == "name":
            inner["inputs"].append({"as_tensor": {"name": code}})
        elif place == "as_name":
            inner["nodes"][0]["inputs"][0]["name"] = code
        elif place == "key":
            inner["tensor_values"][code] = next(iter(inner["tensor_values"].values()))
        elif place == "metadata":
            inner["nodes"][0]["metadata"]["torch_fn"] = code
        else:
            graph["graph_module"]["signature"]["forward_arg_names"] = [code]
        return json.dumps(graph).encode()

    made = rewritten(exported, change)
    if place == "metadata":
        load_exported(made)
    else:
        with pytest.raises(CheckpointError, match="could run code"):
            load_exported(made)
    assert not mark.exists()


def test_an_archive_of_another_form_is_refused(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("serialized_state_dict.pt", "other/models/model.json"):
        made = tmp_path / "made.pt2"
        made.write_bytes(exported.read_bytes())
        with zipfile.ZipFile(made, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr(name, pickled({"x": Bomb(mark)}))
        with pytest.raises(CheckpointError, match="more than one archive"):
            load_exported(made)
    assert not mark.exists()


@pytest.mark.parametrize("change", [{"sizes": [{"as_int": 40_000_000_000}]}, {"storage_offset": {"as_int": 10**12}}])
def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(change: dict[str, Any], exported: Path) -> None:
    def larger(part: str, content: bytes) -> bytes:
        if part != "data/weights/model_weights_config.json":
            return content
        config = json.loads(content)
        meta = config["config"]["conv.bias"]["tensor_meta"]
        meta |= change | ({"strides": [{"as_int": 0}]} if "sizes" in change else {})
        return json.dumps(config).encode()

    with pytest.raises(CheckpointError, match=r"conv.bias claims \[\d+\] values, and the file holds 4"):
        load_exported(rewritten(exported, larger))


def test_other_archives_are_one_line(tmp_path: Path, exported: Path) -> None:
    packed = tmp_path / "packed.pt2"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b"[" * 10_000_000)
    (tmp_path / "text.pt2").write_text("no archive")
    (tmp_path / "cut.pt2").write_bytes(exported.read_bytes()[:3000])
    for name, message in (("packed", "is compressed"), ("text", "is no .pt2 file"), ("cut", "is no .pt2 file")):
        with pytest.raises(CheckpointError, match=message) as caught:
            open_target(tmp_path / f"{name}.pt2")
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "twice.pt2", "w") as archive:
        archive.writestr("net/models/model.json", "{}")
        archive.writestr("net/MODELS/model.json", "{}")
    with pytest.raises(CheckpointError, match="two parts of one name"):
        load_exported(tmp_path / "twice.pt2")
    compiled = rewritten(exported, lambda part, content: content, {"data/aotinductor/model/x.so": b"\x7fELF"})
    with pytest.raises(CheckpointError, match="which no network needs"):
        load_exported(compiled)


def test_a_fixed_batch_is_filled_up_and_split() -> None:
    sizes: list[int] = []
    net = foreign.network()

    class Recorded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            logits: torch.Tensor = net(x)
            return logits

    fixed = FixedBatch(Recorded(), 4, 4)
    x = foreign.images(9)
    assert torch.allclose(fixed(x), net(x), atol=1e-6)
    assert sizes == [4, 4, 4]
