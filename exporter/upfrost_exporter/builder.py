"""Collect nodes and tensors into a graph, under unique legal names.

What every front end shares. A front end walks its source in order, calls `add` and
`tensor`, and ends with `graph`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upfrost.errors import UpfrostError
from upfrost.network.graph import (
    INPUT,
    MAX_SCALE,
    Colour,
    Conv2d,
    Graph,
    GraphError,
    Node,
    Shape,
    Tensor,
    tensor_names,
)

Numbers = npt.NDArray[np.floating[Any]]

# The picture that front ends trace. Height and width differ, so that a mix-up shows;
# multiples of 16, so that networks that halve their input a few times accept it.
EXAMPLE = 48, 64
# The one that is traced where that fails: multiples of 64, for those that halve it five
# or six times.
DEEP_EXAMPLE = 64, 128


def line(error: Exception) -> str:
    """An error of a library in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


class ExportError(UpfrostError, ValueError):
    """A network that cannot be carried; says what is in the way and what to do."""


class GraphBuilder:
    """A graph in the making; `shapes` are those for the picture that is traced."""

    def __init__(
        self,
        channels: int,
        height: int = EXAMPLE[0],
        width: int = EXAMPLE[1],
    ) -> None:
        self.nodes: list[Node] = []
        self.tensors = TensorTable()
        self.shapes = {INPUT: Shape(channels, height, width)}

    def tensor(self, name: str, array: Numbers) -> str:
        """Keep `array` as float32; returns the name it is kept under."""
        return self.tensors.store(name, array)

    def add(
        self, kind: type[Node], label: str, inputs: Sequence[str], /, **attributes: Any
    ) -> str:
        """Append an operation; returns its value's name, which is `label` if free.

        Raises `GraphError` where its attributes or its inputs' shapes do not fit.
        """
        name = unique_name(label, self.shapes)
        node = kind(name=name, inputs=tuple(inputs), **attributes)
        node.check(self.tensors)
        shapes = [self.shapes[value] for value in inputs]
        self.shapes[name] = node.output_shape(shapes, self.tensors)
        self.nodes.append(node)
        return name

    def affine(self, label: str, value: str, scale: Numbers, shift: Numbers) -> str:
        """scale · x + shift with a number per channel, as a depthwise convolution.

        `passes.fold_affine` merges it into a neighbouring convolution where it can.
        """
        return self.add(
            Conv2d,
            label,
            [value],
            weight=self.tensor(f"{label}.scale", scale.reshape(-1, 1, 1, 1)),
            bias=self.tensor(f"{label}.shift", shift) if np.any(shift) else None,
            groups=len(scale),
        )

    def batch_norm(
        self,
        label: str,
        value: str,
        *,
        mean: Numbers,
        variance: Numbers,
        epsilon: float,
        weight: Numbers | None = None,
        bias: Numbers | None = None,
    ) -> str:
        """Normalisation by known statistics (arXiv:1502.03167), as `affine`."""
        scale = 1 / np.sqrt(variance + epsilon)
        if weight is not None:
            scale = scale * weight
        shift = -mean * scale
        if bias is not None:
            shift = shift + bias
        return self.affine(label, value, scale, shift)

    def graph(
        self,
        output: str,
        *,
        name: str,
        scale: int,
        value_range: float,
        metadata: Mapping[str, object],
        colour: Colour | None = None,
    ) -> Graph:
        """The finished graph. Raises `ExportError` where it would not be valid."""
        if output == INPUT:
            raise ExportError("the network returns its input unchanged")
        found, wanted = (self.shapes[each].channels for each in (output, INPUT))
        if found != wanted:
            raise ExportError(
                f"the network maps {wanted} channels to {found}: upfrost takes "
                "networks that keep them"
            )
        used = {tensor for node in self.nodes for tensor in tensor_names(node)}
        try:
            return Graph(
                name=name,
                scale=scale,
                channels=self.shapes[INPUT].channels,
                nodes=tuple(self.nodes),
                output=output,
                tensors={key: self.tensors[key] for key in self.tensors if key in used},
                value_range=value_range,
                metadata=metadata,
                colour=colour,
            )
        except GraphError as error:
            raise ExportError(f"the network makes no valid graph: {error}") from error


class TensorTable(dict[str, Tensor]):
    """Tensors by name, those of `tensors` at first."""

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(tensors or {})
        self._names = {_fingerprint(tensor): name for name, tensor in self.items()}

    def store(self, name: str, array: Numbers) -> str:
        """Keep `array` as float32; an equal one is there only once.

        Returns the name to use: `name` where it is legal and free. Raises
        `ExportError` for numbers that float32 cannot hold.
        """
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(kept).all():
            raise ExportError(f"tensor {name!r} holds a number that is not finite")
        fingerprint = _fingerprint(kept)
        if fingerprint not in self._names:
            name = unique_name(name, self)
            self._names[fingerprint] = name
            self[name] = kept
        return self._names[fingerprint]


def _fingerprint(tensor: Tensor) -> tuple[object, ...]:
    digest = hashlib.blake2b(np.ascontiguousarray(tensor).data, digest_size=16)
    return str(tensor.dtype), tensor.shape, digest.digest()


# What a file begins with that only stands for a network, and what it is.
_STAND_INS = (
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer, not the file that it stands for: get that by 'git lfs "
        "pull', or download it from the site that shows it",
    ),
    (b"<!doctype html", "a web page: download the file itself, not the page of it"),
    (b"<html", "a web page: download the file itself, not the page of it"),
)


def check_is_network(
    path: Path,
    *,
    may_be_empty: bool = False,
    is_text: bool = False,
    may_be_zip: bool = False,
) -> None:
    """Refuse what downloads leave in a network's place. Raises `ExportError`."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None
    if not head and not may_be_empty:
        raise ExportError(f"{path}: the file is empty")
    for start, reason in _STAND_INS:
        if head.lstrip().lower().startswith(start):
            raise ExportError(f"{path}: {reason}")
    if head.startswith(b"PK\x03\x04") and not may_be_zip:
        raise ExportError(f"{path}: a zip archive: unpack it, and give what is in it")
    if head and not is_text and (words := _text(head)):
        raise ExportError(
            f"{path}: a text that begins with {words!r}, as sites answer where there "
            "is no file: download the network again"
        )


def _text(head: bytes) -> str:
    """The first words of a file that begins as text does; "" of any other."""
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return ""
    is_text = all(letter.isprintable() or letter.isspace() for letter in text)
    return " ".join(text.split())[:40] if is_text else ""


def whole_scale(scale: Fraction) -> int:
    """The scale as `Graph` has it. Raises `ExportError` for another one."""
    if scale.denominator != 1 or not 1 <= scale <= MAX_SCALE:
        raise ExportError(
            f"the network's result is {float(scale):.4g} times as large as the "
            f"picture; upfrost takes whole scales from 1 to {MAX_SCALE}"
        )
    return int(scale)


def unique_name(label: str, taken: Collection[str]) -> str:
    """A legal name close to `label` that is not in `taken`."""
    legal = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)
    legal = re.sub(r"\.{2,}", ".", legal).lstrip(".-")[:120] or "value"
    name, count = legal, 1
    while name in taken:
        count += 1
        name = f"{legal}_{count}"
    return name
