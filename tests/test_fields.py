import copy
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustcli.fields import Eps, format_eta, parse_eta, parse_number, split_list

numbers = st.floats(0, 1e6)
BAD_FRACTIONS = ["8/", "/255", "8/0", "8//255", "1/2/3"]
BAD_NUMBERS = ["", " ", "nan", "inf", "-inf", "abc", "1e", "0x1", "1_000", "1,5", *BAD_FRACTIONS]
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


BAD_ETAS = ["-1", "U[1,0]", "U[0]", "U[0,1,2]", "U[-1,1]", "U[0,nan]", "N[0,1]", [], [0, 1, 2], None, True]


@pytest.mark.parametrize("text", BAD_NUMBERS + TOO_LARGE + BAD_ETAS)
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
