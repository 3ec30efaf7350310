"""ncnn's expressions: sizes that are computed from those of values.

Their syntax: docs/developer-guide/expression.md of https://github.com/Tencent/ncnn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

# A value's extents by their letters: w, h, d, c, and n, which is always 1.
Extents = Mapping[str, int]

_MOST = 1000  # characters
_DEEPEST = 32
_TOKENS = re.compile(r"\d[whdcn]|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|//|[-+*/]|[a-z]+|[(),]")
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., float]]] = {
    "+": (2, lambda a, b: a + b),
    "-": (2, lambda a, b: a - b),
    "*": (2, lambda a, b: a * b),
    "/": (2, lambda a, b: a / b),
    "//": (2, lambda a, b: a // b),
    "max": (2, max),
    "min": (2, min),
    "fmod": (2, math.fmod),
    "remainder": (2, lambda a, b: a % b),
    "neg": (1, lambda a: -a),
    "abs": (1, abs),
    "square": (1, lambda a: a * a),
    "sqrt": (1, math.sqrt),
    "trunc": (1, math.trunc),
    "ceil": (1, math.ceil),
    "floor": (1, math.floor),
    "round": (1, round),
}


def evaluate(text: str, values: Sequence[Extents]) -> list[int]:
    """The numbers that `text` lists, cut to integers.

    Raises `ValueError` for what is no expression, or has unknown functions.
    """
    tokens = _TOKENS.findall(text)
    if len(text) > _MOST or "".join(tokens) != text:
        raise ValueError(f"{text[:40]!r} is no expression")
    left = iter([*tokens, ""])
    try:
        numbers, end = _list(left, values, _DEEPEST)
        if end:
            raise ValueError(f"{text[:40]!r} has a bracket too many")
        return [int(number) for number in numbers]
    except (ArithmeticError, LookupError, StopIteration, TypeError) as error:
        raise ValueError(f"{text[:40]!r} cannot be computed: {error}") from None


def _list(
    left: Iterator[str], values: Sequence[Extents], deepest: int
) -> tuple[list[float], str]:
    """Numbers between commas, and the token that ends them: a bracket or nothing."""
    numbers: list[float] = []
    while True:
        token = next(left)
        if re.fullmatch(r"\d[whdcn]", token):
            numbers.append(values[int(token[0])][token[1]])
        elif re.fullmatch(r"-?\d.*", token):
            numbers.append(float(token))
        else:
            count, function = _FUNCTIONS[token]
            if next(left) != "(" or not deepest:
                raise ValueError(f"{token!r} is not followed by what it takes")
            given, end = _list(left, values, deepest - 1)
            if len(given) != count or end != ")":
                raise ValueError(f"{token!r} takes {count} numbers")
            numbers.append(function(*given))
        token = next(left)
        if token != ",":
            return numbers, token
