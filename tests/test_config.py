import copy
import math
import pickle

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass

from robustcli.config import (
    DataSpec,
    Eps,
    EvalSpec,
    ModelSpec,
    NonNegative,
    TrainSpec,
    default_budgets,
    format_eta,
    parse_eta,
    parse_number,
    read_yaml,
    split_list,
    to_yaml,
    validated,
)
from robustcli.errors import ConfigError

numbers = st.floats(0, 1e6)
BAD_NUMBERS = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "abc",
    "8/",
    "/255",
    "8/0",
    "8//255",
    "1/2/3",
    "1e",
    "0x1",
    "1_000",
    "1,5",
]
TOO_LARGE = ["1e999", "-1e999", "1e999/3", "1e999999999/7"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.3", 0.3), ("8/255", 8 / 255), ("1e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("+2", 2.0), ("-1/4", -0.25)],
)
def test_a_number_is_read_as_it_is_written(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("text", BAD_NUMBERS + TOO_LARGE)
def test_anything_else_is_refused_at_once(text):
    with pytest.raises(ValueError, match=r"^should"):
        parse_number(text)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_a_fraction_is_the_nearest_float(numerator, denominator):
    assert parse_number(f"{numerator}/{denominator}") == numerator / denominator


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back_from_its_text(value):
    assert parse_number(repr(value)) == value


@given(st.text(max_size=12))
def test_no_text_gives_nan_infinity_or_another_error(text):
    try:
        value = parse_number(text)
    except ValueError:
        return
    assert math.isfinite(value)


@pytest.mark.parametrize("text", ["8/255", "0.30", "1e-3", "2"])
def test_a_budget_remembers_how_it_was_written(text):
    for eps in (Eps(text), Eps(Eps(text)), copy.deepcopy(Eps(text)), pickle.loads(pickle.dumps(Eps(text)))):
        assert str(eps) == f"{eps}" == text
        assert eps == parse_number(text)


@given(numbers)
def test_a_budget_counts_and_compares_like_its_float(value):
    assert Eps(value) == value
    assert Eps(value) * 2 == value * 2
    assert hash(Eps(value)) == hash(value)


@pytest.mark.parametrize(
    ("text", "eta"), [("0.1", 0.1), (0.1, 0.1), ("U[0,0.1]", (0, 0.1)), (" u[ 0 , 1/4 ] ", (0, 0.25))]
)
def test_eta_is_a_constant_or_a_range(text, eta):
    assert parse_eta(text) == eta


@pytest.mark.parametrize(
    "text",
    [
        *BAD_NUMBERS,
        *TOO_LARGE,
        "-1",
        "U[1,0]",
        "U[0]",
        "U[0,1,2]",
        "U[-1,1]",
        "U[0,nan]",
        "N[0,1]",
        [],
        [0, 1, 2],
        None,
        True,
    ],
)
def test_a_bad_eta_is_refused_with_a_hint(text):
    with pytest.raises(ValueError, match=r"should be a number of at least 0 or a range such as U\[0,0.1\]"):
        parse_eta(text)


@given(numbers | st.tuples(numbers, numbers).map(sorted).map(tuple))
def test_eta_reads_back_exactly_as_it_was_formatted(eta):
    assert parse_eta(format_eta(eta)) == eta
    assert parse_eta(str(format_eta(eta))) == eta


def test_a_range_is_written_as_people_write_it():
    assert format_eta((0.0, 0.1)) == "U[0,0.1]"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("0.1", ["0.1"]),
        ("0.1, U[0,0.1] ,2", ["0.1", "U[0,0.1]", "2"]),
        ("U[0,0.1],U[0,0.15]", ["U[0,0.1]", "U[0,0.15]"]),
        ([1, 2], [1, 2]),
        (0.1, [0.1]),
    ],
)
def test_commas_separate_except_in_brackets(value, parts):
    assert split_list(value) == parts


data_specs = st.builds(DataSpec, dataset=st.text(), limit=st.none() | st.integers(1), allow_sample=st.booleans())
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
    read = type(spec)(**yaml.safe_load(to_yaml(spec)))
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
        (TrainSpec, {"lr": "fast"}, "here: lr=fast: should be a finite number such as 0.3 or 8/255"),
        (TrainSpec, {"lr": math.nan}, "here: lr=nan: input should be a finite number"),
        (TrainSpec, {"validation": 1}, "here: validation=1: input should be less than 1"),
        (TrainSpec, {"optimizer": "sdg"}, "here: optimizer=sdg: input should be 'adam' or 'sgd'"),
        (EvalSpec, {"eps": ["0.1", "abc"]}, "here: eps=0.1,abc: should be a finite number such as 0.3 or 8/255"),
        (EvalSpec, {"eps": "-1"}, "here: eps=-1: should be a number of at least 0"),
        (TrainSpec, {"seed": 2**32}, "here: seed=4294967296: input should be less than 4294967296"),
        (EvalSpec, {"seed": 2**32}, "here: seed=4294967296: input should be less than 4294967296"),
        (EvalSpec, {"seed": -1}, "here: seed=-1: input should be greater than or equal to 0"),
        (DataSpec, {"limit": 0}, "here: limit=0: input should be greater than 0"),
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


def test_yaml_that_is_read_back_is_what_was_written(tmp_path):
    spec = TrainSpec(method={"name": "batchout", "eta": "U[0,0.1]"}, lr=0.01)
    path = tmp_path / "spec.yaml"
    path.write_text(to_yaml(spec))
    assert TrainSpec(**read_yaml(path)) == spec


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- a\n- b\n", "should hold keys and values"),
        (b"", "should hold keys and values"),
        (b"!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_yaml_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_yaml_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--config .*absent.yaml: No such file"):
        read_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("shape", "budgets"),
    [((1, 28, 28), ["0.1", "0.3"]), ((3, 32, 32), ["2/255", "8/255"]), ((3, 28, 28), ["2/255", "8/255"])],
)
def test_the_budgets_of_the_field_go_by_the_shape(shape, budgets):
    assert [str(eps) for eps in default_budgets(shape)] == budgets
