"""Strict JSON takes every value that JSON has, and refuses what readers disagree on."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upfrost.network.strictjson import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_VALUES,
    FieldError,
    canonical,
    convert,
    convert_free,
    parse,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
    | st.sampled_from(['"', "\\", '\\"', "[[[[", '"[', "]}", "\\\\", "é", "😀"])
)
KEYS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=10)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


def depth(value: Any) -> int:
    """Levels of arrays and objects in `value`."""
    if not isinstance(value, list | dict):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0)


@settings(derandomize=True, database=None, deadline=None)
@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_every_value_is_read_and_its_depth_counted(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    if depth(value) > MAX_DEPTH:
        with pytest.raises(FieldError, match=f"nested {depth(value)} deep"):
            parse(text)
        return
    assert parse(text) == value
    assert parse(canonical(value)) == value
    assert canonical(parse(canonical(value))) == canonical(value)
    assert convert_free(value, "value", MAX_DEPTH) == value


@settings(derandomize=True, database=None, deadline=None, max_examples=500)
@given(
    st.binary(max_size=40)
    | st.text('[]{}",:\\0e-.Natrul ', max_size=40).map(str.encode)
)
def test_whatever_is_no_json_is_refused(data: bytes) -> None:
    """By one exception, and wherever Python's own strict parser refuses it."""
    try:
        expected = json.loads(data.decode())
    except ValueError:
        with pytest.raises(FieldError):
            parse(data)
        return
    try:
        found = parse(data)
    except FieldError:
        return
    assert found == expected


def test_depth_and_count_may_reach_their_limits() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert depth(parse(deep)) == MAX_DEPTH
    many = canonical([0] * MAX_VALUES)
    assert parse(many) == [0] * MAX_VALUES
    for text in (b"[" + deep + b"]", canonical([0] * (MAX_VALUES + 1))):
        with pytest.raises(FieldError):
            parse(text)


@pytest.mark.parametrize(
    ("value", "expected", "result"),
    [
        (True, bool, True),
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        ("x", str, "x"),
        ("a", Literal["a", 1], "a"),
        ([1, 2], tuple[int, int], (1, 2)),
        ([1, 2, 3], tuple[float, ...], (1.0, 2.0, 3.0)),
        ([], tuple[str, ...], ()),
        (None, int | None, None),
        (4, int | None, 4),
        ([[1], [2]], tuple[tuple[int, ...], ...], ((1,), (2,))),
        ({"any": []}, object, {"any": []}),
    ],
)
def test_a_value_becomes_its_fields_type(
    value: object, expected: Any, result: object
) -> None:
    found = convert(value, expected, "field")
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, bool),
        ("true", bool),
        (True, int),
        (1.0, int),
        (True, float),
        (math.nan, float),
        (math.inf, float),
        (10**400, float),
        (MAX_INTEGER + 1, int),
        (None, int),
        (1, str),
        ("x" * 129, str),
        ("\x7f", str),
        (True, Literal["a", 1]),
        (1.0, Literal["a", 1]),
        ([1], tuple[int, int]),
        ("ab", tuple[str, ...]),
        ({"0": 1}, tuple[int, ...]),
        ([1, None], tuple[int, ...]),
        ("x", int | None),
    ],
)
def test_a_value_of_another_type_is_refused(value: object, expected: Any) -> None:
    with pytest.raises(FieldError, match=r"^field"):
        convert(value, expected, "field")


def test_an_annotation_without_a_rule_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="no rule for the type"):
        convert({}, dict[str, int], "field")
