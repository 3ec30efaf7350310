"""JSON under strict rules: parsing, canonical writing, values of annotated types.

RFC 8259 leaves open what a parser does with duplicate keys, deep nesting, huge numbers
and invalid Unicode. Here each is refused, with a `FieldError` that names the place.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import types
import typing
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

MAX_DEPTH = 8
MAX_VALUES = 1 << 16
MAX_INTEGER = 1 << 53  # what a double, and so any JSON reader, holds exactly
MAX_NUMBER_LENGTH = 32
MAX_STRING = 128


class FieldError(Exception):
    """A value that is refused; the message is "field: reason"."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")


def parse(data: bytes) -> object:
    """The value that the JSON text `data` describes."""
    _check_extent(data)
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_int=functools.partial(_parse_number, int),
            parse_float=functools.partial(_parse_number, float),
            parse_constant=functools.partial(_parse_number, float),
        )
    except UnicodeDecodeError as error:
        raise FieldError("JSON", f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise FieldError("JSON", f"{error.msg} at character {error.pos}") from None
    return value


def canonical(value: object) -> bytes:
    """The one text for `value`: keys sorted, no spaces, UTF-8, shortest numbers."""
    text = json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    )
    return text.encode()


def convert_fields(
    value: Mapping[str, object], record: type[Any], where: str
) -> dict[str, Any]:
    """`value`, which must have exactly the fields of the dataclass `record`.

    Each item comes out as exactly the type that its field is annotated with. Serves
    reading and writing: a tuple may come as a list, as it does in JSON.
    """
    expected = _field_types(record)  # type: ignore[arg-type]  # classes do hash
    for key in expected:
        if key not in value:
            raise FieldError(where, f"key {shown(key)} is missing")
    for key in value:
        if key not in expected:
            raise FieldError(where, f"unknown key {shown(key)}")
    return {
        key: convert(value[key], kind, f"{where}.{key}")
        for key, kind in expected.items()
    }


def convert(value: object, expected: Any, where: str) -> Any:
    """`value` as exactly the type `expected`, the annotation of a dataclass's field.

    Knows object (taken as it is), bool, int, float, str, Literal, tuples of these,
    and each of them or None. Raises `TypeError` for an annotation of another kind.
    """
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (types.UnionType, typing.Union) and types.NoneType in arguments:
        if value is None:
            return None
        (expected,) = (kind for kind in arguments if kind is not types.NoneType)
        return convert(value, expected, where)
    if origin is Literal:
        return _choice(value, arguments, where)
    if origin is tuple:
        items = array(value, where)
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(items)
        if len(items) != len(arguments):
            raise FieldError(
                where, f"expected {len(arguments)} items, found {len(items)}"
            )
        return tuple(
            convert(item, kind, f"{where}[{index}]")
            for index, (item, kind) in enumerate(zip(items, arguments, strict=True))
        )
    if expected is object:
        return value
    if expected in _CONVERTERS:
        return _CONVERTERS[expected](value, where)
    raise TypeError(f"{where}: no rule for the type {expected}")


def convert_free(value: object, where: str, depth: int) -> Any:
    """Any JSON value of at most `depth` levels, its parts held to the same rules."""
    if isinstance(value, str):
        # Bounded by the text that it stands in.
        return string(value, where, longest=len(value), newlines=True)
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return _CONVERTERS[kind](value, where)
    if value is None:
        return None
    if not depth:
        raise FieldError(where, "is nested too deep")
    if isinstance(value, Mapping):
        return {
            string(key, where): convert_free(item, f"{where}.{key}", depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            convert_free(item, f"{where}[{index}]", depth - 1)
            for index, item in enumerate(value)
        ]
    raise FieldError(where, f"expected a value that JSON has, found {shown(value)}")


def boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise FieldError(where, f"expected true or false, found {shown(value)}")
    return value


def integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FieldError(where, f"expected an integer, found {shown(value)}")
    if abs(value) > MAX_INTEGER:
        raise FieldError(where, f"{shown(value)} is beyond ±2^53")
    return int(value)


def number(value: object, where: str) -> float:
    """A float. An integer is taken too: not every JSON writer writes 1 as 1.0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(integer(value, where))
    if not isinstance(value, float):
        raise FieldError(where, f"expected a number, found {shown(value)}")
    if not math.isfinite(value):
        raise FieldError(where, f"{value} is not finite")
    return float(value)


def string(
    value: object, where: str, longest: int = MAX_STRING, newlines: bool = False
) -> str:
    """A string of bounded length that a terminal shows and UTF-8 can hold."""
    if not isinstance(value, str):
        raise FieldError(where, f"expected a string, found {shown(value)}")
    if len(value) > longest:
        raise FieldError(where, f"{len(value)} characters; at most {longest}")
    for character in value:
        code = ord(character)
        control = code < 0x20 or 0x7F <= code <= 0x9F
        if newlines and character == "\n":
            control = False
        if control or 0xD800 <= code <= 0xDFFF:
            raise FieldError(where, f"holds the character U+{code:04X}")
    return str(value)


def array(value: object, where: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise FieldError(where, f"expected an array, found {shown(value)}")
    return value


def mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FieldError(where, f"expected an object, found {shown(value)}")
    return value


def shown(value: object) -> str:
    """`value` for an error message: short, on one line."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "an array"
    if value is None or isinstance(value, bool | int | float | str):
        text = json.dumps(value)
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


_CONVERTERS: Mapping[type, Any] = types.MappingProxyType(
    {bool: boolean, int: integer, float: number, str: string}
)


@functools.cache
def _field_types(record: type[Any]) -> Mapping[str, Any]:
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def _choice(value: object, choices: tuple[object, ...], where: str) -> object:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    listed = ", ".join(shown(choice) for choice in choices)
    raise FieldError(where, f"expected one of {listed}, found {shown(value)}")


def _check_extent(data: bytes) -> None:
    """Bound depth and count of values before parsing.

    A parser's own bound on depth is the stack, and small values take fifty times the
    memory of their text. Sound for text that is not JSON as well: a parser stops at
    its first error, and up to there a quote ends a string here where it does there.
    """
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    too_many = FieldError("JSON", f"holds more than {MAX_VALUES} values")
    # A value brings at most two strings, itself and its key, and so four quotes.
    if unescaped.count(b'"') > 4 * MAX_VALUES:
        raise too_many
    outside = b"".join(unescaped.split(b'"')[::2])
    if sum(outside.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise too_many
    steps = (1 if mark in b"[{" else -1 for mark in outside if mark in b"[{]}")
    depth = max(itertools.accumulate(steps), default=0)
    if depth > MAX_DEPTH:
        raise FieldError("JSON", f"nested {depth} deep; at most {MAX_DEPTH}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise FieldError("JSON", f"key {shown(twice)} stands twice in one object")
    return result


def _parse_number(kind: type[int] | type[float], text: str) -> int | float:
    if len(text) > MAX_NUMBER_LENGTH:
        raise FieldError("JSON", f"a number of {len(text)} characters")
    value = kind(text)
    if not math.isfinite(value):
        raise FieldError("JSON", f"the number {text} is not finite")
    return value
