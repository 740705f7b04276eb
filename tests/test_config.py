import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass

from robustcli.config import (
    DataSpec,
    EvalSpec,
    ModelSpec,
    TrainSpec,
    default_budgets,
    parse_yaml,
    read_yaml,
    shown,
    to_yaml,
    validated,
)
from robustcli.errors import ConfigError
from robustcli.fields import NonNegative

numbers = st.floats(0, 1e6)
data_specs = st.builds(
    DataSpec, dataset=st.text().filter(str.strip), limit=st.none() | st.integers(1), allow_sample=st.booleans()
)
train_specs = st.builds(
    TrainSpec,
    method=st.sampled_from(["vanilla", {"name": "batchout", "eta": [0.1, "U[0,0.1]"]}]),
    epochs=st.integers(1, 99),
    lr=st.floats(1e-9, 10),
    momentum=st.floats(0, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
eval_specs = st.builds(
    EvalSpec,
    attacks=st.lists(st.sampled_from(["fgsm", "pgd:eps=8/255"]), max_size=3),
    eps=st.lists(st.sampled_from(["8/255", "0.1", "1e-3"]), max_size=3),
    steps=st.none() | st.integers(1),
    seed=st.integers(0, 2**32 - 1),
)
model_specs = st.builds(
    ModelSpec,
    name=st.text(),
    channels=st.integers(1, 3),
    height=st.integers(4, 64),
    width=st.integers(4, 64),
    classes=st.integers(2, 1000),
    mean=st.none() | st.tuples(numbers),
)


@given(data_specs | train_specs | eval_specs | model_specs)
def test_every_spec_reads_back_from_its_yaml(spec):
    read = type(spec)(**parse_yaml(to_yaml(spec)))
    assert read == spec
    assert read.as_dict() == spec.as_dict()


def test_budgets_keep_their_text_through_a_spec():
    assert EvalSpec(eps="0.10,8/255").as_dict()["eps"] == ["0.10", "8/255"]
    assert [str(eps) for eps in EvalSpec(eps=[0.1, "8/255"]).eps] == ["0.1", "8/255"]


@dataclass(frozen=True)
class Options:
    """A pydantic dataclass that was not told to be strict."""

    needed: int
    width: NonNegative = 1.0


@pytest.mark.parametrize(
    ("build", "values", "message"),
    [
        (TrainSpec, {"epoch": 1}, r"here: key 'epoch' is unknown \(allowed: augment, .*\); did you mean 'epochs'\?"),
        (TrainSpec, {"epochs": 0}, "here: epochs=0: input should be greater than 0"),
        (TrainSpec, {"epochs": True}, "here: epochs=True: should not be true or false"),
        (TrainSpec, {"lr": "fast"}, "here: lr=fast: should be a finite number such as 0.3 or 8/255"),
        (TrainSpec, {"lr": math.nan}, "here: lr=nan: input should be a finite number"),
        (TrainSpec, {"validation": 1}, "here: validation=1: input should be less than 1"),
        (TrainSpec, {"optimizer": "sdg"}, "here: optimizer=sdg: input should be 'adam' or 'sgd'"),
        (EvalSpec, {"eps": ["0.1", "abc"]}, "here: eps=0.1,abc: should be a finite number such as 0.3 or 8/255"),
        (EvalSpec, {"eps": "-1"}, "here: eps=-1: should be a number of at least 0"),
        (EvalSpec, {"seed": 2**32}, "here: seed=4294967296: input should be less than 4294967296"),
        (ModelSpec, {"name": "x"}, "here: 'channels' is missing"),
        (Options, {}, "here: 'needed' is missing"),
        (Options, {"needed": 1, "widht": 2}, r"here: key 'widht' is unknown \(allowed: needed, width\); did you mean"),
        (Options, {"needed": 1, "width": -2}, "here: width=-2: input should be greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_key_and_what_is_allowed(build, values, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        validated(build, values, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- a\n- b\n", "should hold keys and values"),
        (b"", "should hold keys and values"),
        (b"!!python/object/apply:os.getcwd []", "not valid YAML: the tag .* is not allowed"),
        (b"a: &x [1]\nb: *x", "anchors and aliases"),
        (b"&a [*a]", "anchors and aliases"),
        (b"<<: {a: 1}\n<<: {b: 1}", "key '<<' should be a name; merging is not allowed"),
        (b"[" * 90_000, "is nested too deeply"),
        (b"a: " + b"{a: " * 5000, "is nested too deeply"),
        (b"- " * 40_000, "is nested too deeply"),
        (b"lr: 1\nepochs: 2\nlr: 3", r"key 'lr' is given twice \(line 3\)"),
        (b"method: {name: pgd, eps: 0.1, eps: 0.2}", "key 'eps' is given twice"),
        (b"1: x", "key '1' should be a name; put it in quotes"),
        (b"on: x", "key 'on' should be a name"),
        (b"? [a]\n: 1", "key 'a list or mapping' should be a name"),
        (b"a: 1\n\tb: 2", "not valid YAML"),
        (b"a: 2020-13-45", "is a date; should be in quotes"),
        (b"a: 1\n---\nb: 2", "several documents"),
        (b"a: !!binary aGk=", "the tag .*binary is not allowed"),
        (b"a: " + b"9" * 5000, "not valid YAML"),
        (b'a: "\\UFFFFFFFF"', "too large"),
        (b"a: \x1b[2J", "not valid YAML"),
        ("a: 1".encode("utf-16"), "is not UTF-8 text"),
        (b"# " + b"x" * 100_000, "has more than 100000 bytes"),
    ],
)
def test_a_bad_yaml_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "spec.yaml").write_bytes("\ufefflr: 1e-3".encode())
    assert read_yaml(tmp_path / "spec.yaml") == {"lr": "1e-3"}


def test_what_is_no_file_is_named_and_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "absent.yaml", "No such file"),
        (tmp_path / "pipe", "is a pipe, a socket or a device"),
        (Path("/dev/zero"), "is a pipe, a socket or a device"),
    ):
        with pytest.raises(ConfigError, match=f"--config {path}: {reason}"):
            read_yaml(path)


@pytest.mark.parametrize(
    "value", ["x" * 10_000, [["y"] * 1000] * 1000, 10**5000, {"a": "z" * 10_000}], ids=["text", "list", "int", "dict"]
)
def test_a_value_in_an_error_is_cut(value):
    assert 0 < len(shown(value)) <= 200


@pytest.mark.parametrize(
    ("shape", "budgets"),
    [((1, 28, 28), ["0.1", "0.3"]), ((3, 32, 32), ["2/255", "8/255"]), ((3, 28, 28), ["2/255", "8/255"])],
)
def test_the_budgets_of_the_field_go_by_the_shape(shape, budgets):
    assert [str(eps) for eps in default_budgets(shape)] == budgets
