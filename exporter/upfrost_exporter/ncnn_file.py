"""Read ncnn's files: layers from a text `.param`, weights from its `.bin`.

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure.
Layers are listed in order, weights follow each other in the order of the layers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from upfrost.network.graph import MAX_NODES
from upfrost_exporter.builder import ExportError

Floats = npt.NDArray[np.float32]
_MAGIC = "7767517"
_BINARY_MAGIC = struct.pack("<I", int(_MAGIC))
_HALF, _FLOAT, _INT8 = 0x01306B47, 0x0002C056, 0x000D4B38


Parameter = float | tuple[float, ...] | str


@dataclass(frozen=True)
class Layer:
    """One line of the `.param` file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Mapping[int, Parameter]
    place: str

    def integer(self, key: int, default: int) -> int:
        found = self.number(key, default)
        if found != int(found):
            raise self.refuse(f"parameter {key} is {found}, no integer", "")
        return int(found)

    def number(self, key: int, default: float) -> float:
        found = self.parameters.get(key, default)
        if isinstance(found, tuple | str):
            kind = "text" if isinstance(found, str) else "a list"
            raise self.refuse(f"parameter {key} is {kind}, no number", "")
        return found

    def numbers(self, key: int) -> tuple[float, ...]:
        found = self.parameters.get(key, ())
        if isinstance(found, str):
            raise self.refuse(f"parameter {key} is text, no list of numbers", "")
        return found if isinstance(found, tuple) else (found,)

    def text(self, key: int) -> str:
        """A text, "" where it is missing."""
        found = self.parameters.get(key, "")
        if not isinstance(found, str):
            raise self.refuse(f"parameter {key} is no text", "")
        return found

    def refuse(self, reason: str, advice: str) -> ExportError:
        what_to_do = f"; {advice}" if advice else ""
        return ExportError(
            f"cannot import {self.kind} {self.name!r} ({self.place}): "
            f"{reason}{what_to_do}"
        )


class Weights:
    """The `.bin` file, read from front to back."""

    def __init__(self, data: bytes, path: Path) -> None:
        self._data = memoryview(data)
        self._path = path
        self._at = 0

    def tagged(self, count: int, layer: Layer) -> Floats:
        """Numbers after a tag that says how they are stored."""
        (tag,) = struct.unpack("<I", self._take(4, layer))
        if tag == _HALF:
            # Padded to whole words.
            data = self._take((2 * count + 3) // 4 * 4, layer)
            return np.frombuffer(data, "<f2", count).astype(np.float32)
        if tag in (0, _FLOAT):
            return self.plain(count, layer)
        if tag == _INT8:
            raise layer.refuse("its weights are int8", "use the fp32 or fp16 model")
        # Any other tag: a table of 256 numbers, then a byte for each weight.
        table = np.frombuffer(self._take(1024, layer), "<f4").astype(np.float32)
        places = np.frombuffer(self._take((count + 3) // 4 * 4, layer), np.uint8, count)
        return table[places]

    def plain(self, count: int, layer: Layer) -> Floats:
        """Numbers stored as float32, without a tag."""
        return np.frombuffer(self._take(4 * count, layer), "<f4").astype(np.float32)

    def end(self) -> None:
        if rest := len(self._data) - self._at:
            raise ExportError(
                f"{self._path}: {rest} bytes are left over: it belongs to another "
                ".param file"
            )

    def _take(self, count: int, layer: Layer) -> memoryview:
        if not 0 <= count <= len(self._data) - self._at:
            raise ExportError(
                f"{self._path}: ends in the weights of {layer.kind} {layer.name!r}: it "
                "is cut short, or belongs to another .param file"
            )
        self._at += count
        return self._data[self._at - count : self._at]


def read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise ExportError(f"{path}: larger than {limit} bytes")
    return data


def parse(data: bytes, path: Path) -> list[Layer]:
    if data.startswith(_BINARY_MAGIC):
        raise ExportError(
            f"{path}: a binary .param.bin, whose layers and blobs have lost their "
            "names: give the text .param that ncnn2mem made it from"
        )
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        lines = []
    if not lines or lines[0].strip() != _MAGIC:
        raise ExportError(
            f"{path}: not an ncnn text .param file: its first line must be {_MAGIC}"
        )
    rows = [(number, line.split()) for number, line in enumerate(lines, 1)]
    rows = [(number, words) for number, words in rows[1:] if words]
    try:
        count, _ = (int(word) for word in rows[0][1])
    except (IndexError, ValueError):
        raise ExportError(f"{path}: line 2 must be two counts") from None
    if len(rows) - 1 != count:
        raise ExportError(
            f"{path}: line 2 says {count} layers, the file has {len(rows) - 1}"
        )
    if count > 16 * MAX_NODES:
        raise ExportError(f"{path}: {count} layers are too many")
    if any(words[0] == "pnnx.Input" for _, words in rows[1:]):
        raise ExportError(
            f"{path}: this is pnnx's own .param: give the .ncnn.param beside it"
        )
    layers, known = [], set[str]()
    for number, words in rows[1:]:
        try:
            layer = _parse_layer(words, number)
        except (ValueError, IndexError, OverflowError):
            raise ExportError(f"{path}: line {number} is malformed") from None
        for blob in layer.outputs:
            if blob in known:
                raise ExportError(f"{path}: line {number} gives {blob!r} once more")
            known.add(blob)
        layers.append(layer)
    return layers


def _parse_layer(words: list[str], number: int) -> Layer:
    kind, name, *rest = words
    ends = int(rest[0]), int(rest[1])
    if min(ends) < 0 or len(rest) < 2 + sum(ends):
        raise ValueError(number)
    first = 2 + ends[0]
    parameters: dict[int, Parameter] = {}
    for word in rest[first + ends[1] :]:
        key_text, _, text = word.partition("=")
        key = int(key_text)
        if key <= -23300:
            length, *values = text.split(",")
            if int(length) != len(values):
                raise ValueError(number)
            parameters[-23300 - key] = tuple(_finite(value) for value in values)
        elif text.startswith('"'):
            parameters[key] = text.strip('"')
        else:
            parameters[key] = _finite(text)
    return Layer(
        kind=kind,
        name=name,
        inputs=tuple(rest[2:first]),
        outputs=tuple(rest[first : first + ends[1]]),
        parameters=parameters,
        place=f"line {number}",
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
