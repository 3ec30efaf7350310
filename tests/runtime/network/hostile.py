"""Weight files that the loader must refuse, each with the reason it must give.

``python [-O] -m tests.runtime.network.hostile`` tries all of them, prints what came of
each and of the memory it took, and fails when one is accepted, refused for another
reason or takes more than 50 MB.
"""

from __future__ import annotations

import copy
import hashlib
import json
import struct
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.graphs import Builder
from upfrost.network.graph import INPUT, Add, Graph, PixelShuffle
from upfrost.network.modelfile import (
    HEADER,
    MAX_FILE,
    ModelFileError,
    read_model,
    write_model,
)

MEMORY = 50_000_000
Document = dict[str, Any]
DELETED = object()


@dataclass(frozen=True)
class Parts:
    """A weight file taken apart, to be changed and put together again."""

    document: Document
    payload: bytes

    def file(self) -> bytes:
        return assemble(json.dumps(self.document).encode(), self.payload)


def small_graph() -> Graph:
    """A network of about a kilobyte: two tensors, fp16 and fp32, and a skip."""
    build = Builder(0)
    value = build.conv(INPUT, 1, 4, kernel=3)
    name = build.tensors.popitem()[0]  # the bias, to be of another type
    build.tensors[name] = build.noise((4,), 0.1).astype(np.float16)
    value = build.add(PixelShuffle, value, factor=2)
    skip = build.resize(INPUT, "bilinear", 2)
    return build.graph(build.add(Add, value, skip), 2, channels=1, name="small")


def bytes_of(graph: Graph) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.upf"
        write_model(path, graph)
        return path.read_bytes()


def take_apart(data: bytes) -> Parts:
    json_length = HEADER.unpack_from(data)[2]
    end = HEADER.size + json_length
    return Parts(json.loads(data[HEADER.size : end]), data[end + -end % 64 :])


def assemble(text: bytes, payload: bytes = b"") -> bytes:
    """A file around any JSON and payload, its lengths and checksum right."""
    rest = text + bytes(-(HEADER.size + len(text)) % 64) + payload
    return with_checksum(HEADER.pack(b"\x89UPF\r\n\x1a\n", 1, len(text), b"") + rest)


def with_checksum(data: bytes) -> bytes:
    """`data` with the checksum that it should have."""
    return data[:16] + hashlib.sha256(data[48:]).digest() + data[48:]


VALID = bytes_of(small_graph())
PARTS = take_apart(VALID)


def edited(*changes: tuple[tuple[str | int, ...], Any]) -> bytes:
    """The small file with items of its JSON replaced, added or `DELETED`."""
    document = copy.deepcopy(PARTS.document)
    for path, value in changes:
        target: Any = document
        for key in path[:-1]:
            target = target[key]
        if value is DELETED:
            del target[path[-1]]
        else:
            target[path[-1]] = value
    return Parts(document, PARTS.payload).file()


def with_text(old: str, new: str) -> bytes:
    """The small file with a piece of its JSON replaced, as text."""
    text = json.dumps(PARTS.document)
    if old not in text:
        raise LookupError(old)
    return assemble(text.replace(old, new, 1).encode(), PARTS.payload)


def header(version: int = 1, json_length: int | None = None) -> bytes:
    """The small file with another version or length of the JSON."""
    magic, _, length, digest = HEADER.unpack_from(VALID)
    found = length if json_length is None else json_length
    return HEADER.pack(magic, version, found, digest) + VALID[HEADER.size :]


def weights(values: list[float], tensor: int = 0) -> bytes:
    """The small file with the last weights of a tensor replaced."""
    entry = PARTS.document["tensors"][tensor]
    kind = {"fp32": "<f4", "fp16": "<f2"}[entry["dtype"]]
    end = entry["offset"] + entry["size"]
    data = np.array(values, kind).tobytes()
    payload = PARTS.payload[: end - len(data)] + data + PARTS.payload[end:]
    return Parts(PARTS.document, payload).file()


def filled(item: str, key: str = "nodes", size: int = 1_000_000) -> bytes:
    """A file whose array `key` holds as many of `item` as fit into a megabyte."""
    document = {**PARTS.document, key: ["@"]}
    text = json.dumps(document)
    count = (size - len(text)) // (len(item) + 1)
    return assemble(
        text.replace('"@"', ",".join([item] * count)).encode(), PARTS.payload
    )


def metadata(value: Any) -> bytes:
    return edited((("metadata",), value))


def node(key: str, value: Any, index: int = 0) -> bytes:
    return edited((("nodes", index, key), value))


def tensor(key: str, value: Any, index: int = 0) -> bytes:
    return edited((("tensors", index, key), value))


def nodes(*items: Document, output: str = "last") -> bytes:
    return assemble(
        json.dumps(
            {
                **PARTS.document,
                "scale": 1,
                "nodes": items,
                "output": output,
                "tensors": [],
            }
        ).encode()
    )


def relu(name: str, *inputs: str) -> Document:
    return {"op": "relu", "name": name, "inputs": inputs}


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def large(last: float, kernels: int = 4096, checksum: bool = True) -> Iterator[bytes]:
    """A file of 67 MB, in pieces: all weights zero but the `last`."""
    conv = {**PARTS.document["nodes"][0], "bias": None}
    size = 4096 * 64 * 64 * 4
    document = {
        **PARTS.document,
        "scale": 1,
        "nodes": [
            conv | {"name": "a", "weight": "a", "padding": [32, 32, 31, 31]},
            conv | {"name": "b", "weight": "b", "padding": [0] * 4, "inputs": ["a"]},
        ],
        "output": "b",
        "tensors": [
            {
                "name": "a",
                "dtype": "fp32",
                "shape": [4096, 1, 64, 64],
                "offset": 0,
                "size": size,
            },
            {
                "name": "b",
                "dtype": "fp32",
                "shape": [1, kernels, 1, 1],
                "offset": size,
                "size": 4 * kernels,
            },
        ],
    }
    text = json.dumps(document).encode()
    text += b" " * (-(HEADER.size + len(text)) % 64)
    zeros = bytes(1 << 20)
    pieces = [text, *[zeros] * (size // len(zeros)), bytes(4 * kernels - 4)]
    pieces.append(struct.pack("<f", last))
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    known = digest.digest() if checksum else bytes(32)
    yield HEADER.pack(b"\x89UPF\r\n\x1a\n", 1, len(text), known)
    yield from pieces


def too_large(path: Path) -> None:
    """A file with a right header and more bytes than any may have, none on the disk."""
    with path.open("wb") as file:
        file.write(VALID)
        file.truncate(MAX_FILE + 1)


Make = Callable[[], bytes | Iterator[bytes]]

# What the loader must refuse: how it is made, and what the error must say.
REFUSED: dict[str, tuple[Make, str]] = {
    # The header.
    "empty file": (lambda: b"", "size: 0 bytes"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + VALID[8:], "magic: this is not"),
    "a text": (lambda: b"hello\n", "magic: this is not"),
    "magic alone": (lambda: VALID[:8], "size: 8 bytes"),
    "header alone": (lambda: VALID[:48], "size: the file ends at byte 48"),
    "CRLF made LF": (lambda: VALID.replace(b"\r\n", b"\n"), "magic: line ends"),
    "LF made CRLF": (lambda: VALID.replace(b"\n", b"\r\n"), "magic: line ends"),
    "read as Latin-1, written as UTF-8": (
        lambda: VALID.decode("latin-1").encode(),
        "magic: line ends",
    ),
    "version 0": (lambda: header(version=0), "version: "),
    "version 2": (lambda: header(version=2), "version: this upfrost reads version 1"),
    "version of another byte order": (lambda: header(version=1 << 24), "version: "),
    "no JSON": (lambda: header(json_length=0), "JSON length: must be 2 to"),
    "JSON of 4 GiB": (lambda: header(json_length=2**32 - 1), "JSON length: must be"),
    "JSON above the cap": (
        lambda: assemble(b" " * (1 << 20) + b"{}"),
        "JSON length: must be",
    ),
    "JSON past the end": (lambda: header(json_length=100_000), "size: the file ends"),
    "JSON cut short": (
        lambda: with_checksum(header(json_length=len(VALID) // 4)),
        "padding: the bytes after",
    ),
    "wrong checksum": (lambda: VALID[:47] + b"\0" + VALID[48:], "SHA-256: "),
    "damaged weight": (lambda: VALID[:-1] + b"\0", "SHA-256: "),
    "a byte more": (lambda: VALID + b"\0", "SHA-256: "),
    # Sizes of file and payload, the checksum being right.
    "a byte more, checksum right": (
        lambda: with_checksum(VALID + b"\0"),
        "size: tensors take",
    ),
    "a byte less": (lambda: with_checksum(VALID[:-1]), "size: tensors take"),
    "no payload": (lambda: Parts(PARTS.document, b"").file(), "the file has 0"),
    "payload without tensors": (
        lambda: edited((("tensors",), [])),
        "size: tensors take 0 bytes",
    ),
    "padding after the JSON": (
        lambda: with_checksum(
            VALID[: 48 + HEADER.unpack_from(VALID)[2]]
            + b"x"
            + VALID[49 + HEADER.unpack_from(VALID)[2] :]
        ),
        "padding: the bytes after the JSON",
    ),
    "padding between tensors": (
        lambda: Parts(
            PARTS.document, PARTS.payload[:150] + b"x" + PARTS.payload[151:]
        ).file(),
        "padding: the bytes before tensor",
    ),
    # JSON.
    "not JSON": (lambda: assemble(b"hello"), "JSON: Expecting value"),
    "an array": (lambda: assemble(b"[]"), "JSON: expected an object, found an array"),
    "a number": (lambda: assemble(b"42"), "JSON: expected an object, found 42"),
    "two objects": (lambda: assemble(b"{}{}"), "JSON: Extra data"),
    "zero bytes after the object": (lambda: assemble(b"{}\0"), "JSON: Extra data"),
    "a comma too many": (lambda: with_text("}]", "},]"), "JSON: "),
    "single quotes": (lambda: with_text('"small"', "'small'"), "JSON: "),
    "byte order mark": (lambda: assemble(b"\xef\xbb\xbf{}"), "JSON: "),
    "UTF-16": (lambda: assemble("{}".encode("utf-16")), "JSON: is not UTF-8"),
    "Latin-1": (
        lambda: assemble('{"name":"é"}'.encode("latin-1")),
        "JSON: is not UTF-8 at byte 9",
    ),
    "UTF-8 that is too long": (
        lambda: assemble(b'{"\xc0\xaf":1}'),
        "JSON: is not UTF-8",
    ),
    "UTF-8 of a surrogate": (
        lambda: assemble(b'{"\xed\xa0\x80":1}'),
        "JSON: is not UTF-8",
    ),
    "a tab in a string": (lambda: with_text("small", "sm\tall"), "Invalid control"),
    "NaN": (
        lambda: with_text('"value_range": 1.0', '"value_range": NaN'),
        "NaN is not",
    ),
    "Infinity": (
        lambda: with_text('"value_range": 1.0', '"value_range": -Infinity'),
        "-Infinity is not finite",
    ),
    "1e999": (
        lambda: with_text('"value_range": 1.0', '"value_range": 1e999'),
        "1e999 is not finite",
    ),
    "a number of a thousand digits": (
        lambda: with_text('"scale": 2', '"scale": ' + "2" * 1000),
        "a number of 1000 characters",
    ),
    "a number of a million digits": (
        lambda: with_text('"scale": 2', '"scale": ' + "2" * 1_000_000),
        "a number of 1000000 characters",
    ),
    "nine levels": (lambda: metadata({"a": deep(7)}), "JSON: nested 9 deep"),
    "a thousand levels": (lambda: assemble(b"[" * 1000), "JSON: nested 1000 deep"),
    "half a million levels": (
        lambda: assemble(b"[" * 500_000 + b"]" * 500_000),
        "JSON: holds more than",
    ),
    "deep objects": (lambda: assemble(b'{"a":' * 60_000), "JSON: nested 60000 deep"),
    "depth behind escaped quotes": (
        lambda: assemble(b'{"a\\\\":"\\"","b":' + b"[" * 500 + b"]" * 500 + b"}"),
        "JSON: nested 501 deep",
    ),
    "a million quotes": (lambda: assemble(b'"' * 1_000_000), "JSON: holds more than"),
    "a megabyte of arrays": (lambda: filled("[]"), "JSON: holds more than"),
    "a megabyte of objects": (lambda: filled('{"":0}'), "JSON: holds more than"),
    "32,000 objects": (
        lambda: filled('{"":0}', size=32_000 * 7),
        "nodes[0].op: unknown operation",
    ),
    "65,000 arrays in the metadata": (
        lambda: metadata({"a": [[]] * 65_000}),
        "JSON: holds more than",
    ),
    "32,000 objects in the metadata": (
        lambda: metadata({"a": [{"": 0}] * 32_000}),
        "metadata: 224007 bytes",
    ),
    "a megabyte of emoji": (
        lambda: assemble(
            json.dumps(
                {**PARTS.document, "metadata": {"a": "😀" * 200_000}},
                ensure_ascii=False,
            ).encode(),
            PARTS.payload,
        ),
        "metadata: 800008 bytes",
    ),
    "a key that stands twice": (
        lambda: with_text('"scale": 2', '"scale": 2, "scale": 4'),
        'key "scale" stands twice',
    ),
    "an attribute that stands twice": (
        lambda: with_text('"groups": 1', '"groups": 1, "groups": 3'),
        'key "groups" stands twice',
    ),
    "60,000 keys, the last of them twice": (
        lambda: assemble(
            b"{" + b"".join(b'"%d":0,' % i for i in range(60_000)) + b'"59999":0}'
        ),
        'key "59999" stands twice',
    ),
    # Keys and their types.
    "no scale": (lambda: edited((("scale",), DELETED)), 'key "scale" is missing'),
    "an unknown key": (lambda: edited((("comment",), "")), 'unknown key "comment"'),
    "a scale that is true": (
        lambda: edited((("scale",), True)),
        "scale: expected an integer, found true",
    ),
    "a scale of 2.0": (
        lambda: edited((("scale",), 2.0)),
        "scale: expected an integer, found 2.0",
    ),
    "a scale of text": (
        lambda: edited((("scale",), "2")),
        'scale: expected an integer, found "2"',
    ),
    "a scale of null": (lambda: edited((("scale",), None)), "scale: expected"),
    "a negative scale": (lambda: edited((("scale",), -2)), "scale must be 1 to 16"),
    "a huge scale": (lambda: edited((("scale",), 2**64)), "scale: 1844674"),
    "two channels": (lambda: edited((("channels",), 2)), "channels must be 1 or 3"),
    "a colour that is not luma": (
        lambda: edited((("colour",), "rgb")),
        'colour: expected one of "luma", found "rgb"',
    ),
    "a colour of null": (
        lambda: edited((("colour",), None)),
        'colour: expected one of "luma", found null',
    ),
    "three channels of luma": (
        lambda: edited((("colour",), "luma"), (("channels",), 3)),
        "a network for luma has 1 channel, found 3",
    ),
    "a range of 2": (
        lambda: edited((("value_range",), 2)),
        "value range must be 1 or 255",
    ),
    "a range that is true": (
        lambda: edited((("value_range",), True)),
        "value_range: expected a number, found true",
    ),
    "nodes in an object": (
        lambda: edited((("nodes",), {})),
        "nodes: expected an array, found an object",
    ),
    "a node of text": (
        lambda: edited((("nodes", 0), "conv2d")),
        "nodes[0]: expected an object",
    ),
    "tensors in an object": (
        lambda: edited((("tensors",), {})),
        "tensors: expected an array",
    ),
    "a tensor of null": (
        lambda: edited((("tensors", 0), None)),
        "tensors[0]: expected an object, found null",
    ),
    # Names.
    "a path as name": (lambda: edited((("name",), "../../x")), "graph name '../../x'"),
    "an absolute path": (lambda: edited((("name",), "/etc/passwd")), "graph name"),
    "a drive": (lambda: edited((("name",), "C:x")), "graph name"),
    "a backslash": (lambda: edited((("name",), "a\\b")), "graph name"),
    "no name": (lambda: edited((("name",), "")), "graph name ''"),
    "a hidden name": (lambda: edited((("name",), ".x")), "graph name"),
    "an option as name": (lambda: edited((("name",), "-rf")), "graph name"),
    "a long name": (lambda: edited((("name",), "x" * 129)), "129 characters; at most"),
    "a name of a megabyte": (
        lambda: edited((("name",), "x" * 1_000_000)),
        "1000000 characters; at most 128",
    ),
    "a name with a zero byte": (
        lambda: edited((("name",), "x\0")),
        "holds the character U+0000",
    ),
    "a name with a line feed": (
        lambda: edited((("name",), "x\n")),
        "holds the character U+000A",
    ),
    "a name beyond ASCII": (lambda: edited((("name",), "añb")), "graph name"),
    "half a surrogate": (
        lambda: with_text('"small"', '"\\ud800"'),
        "holds the character U+D800",
    ),
    "a path as a tensor's name": (
        lambda: edited(
            (("tensors", 0, "name"), "a/b"), (("nodes", 0, "weight"), "a/b")
        ),
        "tensor name 'a/b'",
    ),
    "a path as a node's name": (
        lambda: edited((("nodes", 3, "name"), "a/b"), (("output",), "a/b")),
        "node name 'a/b'",
    ),
    "a node called input": (lambda: node("name", "input", 1), "another value has"),
    "two nodes of one name": (lambda: node("name", "conv2d_0", 1), "another value has"),
    "two tensors of one name": (
        lambda: tensor("name", "conv2d_0.weight", 1),
        "tensors[1].name: 'conv2d_0.weight' stands twice",
    ),
    # References.
    "an unknown operation": (
        lambda: node("op", "conv3d"),
        'nodes[0].op: unknown operation "conv3d"',
    ),
    "an operation of null": (lambda: node("op", None), "unknown operation null"),
    "an operation that is an array": (
        lambda: node("op", ["conv2d"]),
        "unknown operation an array",
    ),
    "an operation that is a class's attribute": (
        lambda: node("op", "__init__"),
        "unknown operation",
    ),
    "no operation": (lambda: edited((("nodes", 0, "op"), DELETED)), "operation null"),
    "an unknown input": (
        lambda: node("inputs", ["x"]),
        "input 'x' is not an earlier value",
    ),
    "a node that reads itself": (
        lambda: node("inputs", ["conv2d_0"]),
        "is not an earlier value",
    ),
    "a cycle": (
        lambda: nodes(relu("a", "last"), relu("last", "a")),
        "'last' is not an earlier value",
    ),
    "a later node": (
        lambda: nodes(relu("last", "a"), relu("a", "input")),
        "'a' is not an earlier value",
    ),
    "an input that is a number": (
        lambda: node("inputs", [0]),
        "nodes[0].inputs[0]: expected a string, found 0",
    ),
    "no input": (lambda: node("inputs", []), "takes 1 to 1 inputs, found 0"),
    "inputs that are a string": (
        lambda: node("inputs", "input"),
        "nodes[0].inputs: expected an array",
    ),
    "60,000 inputs": (
        lambda: nodes(relu("last", *["input"] * 60_000)),
        "takes 1 to 1 inputs, found 60000",
    ),
    "an unknown output": (lambda: edited((("output",), "x")), "output 'x' is not"),
    "the input as output": (
        lambda: edited((("output",), "input")),
        "output 'input' is not",
    ),
    "an unknown tensor": (lambda: node("weight", "x"), "there is no tensor 'x'"),
    "a weight that is null": (lambda: node("weight", None), "expected a string"),
    "a tensor that no node uses": (
        lambda: node("bias", None),
        "is used by no node",
    ),
    "no nodes": (lambda: nodes(), "1 to 4096 nodes, found 0"),
    "4097 nodes": (
        lambda: nodes(*(relu(f"n{i}", "input") for i in range(4097))),
        "found 4097",
    ),
    # Attributes.
    "an attribute missing": (
        lambda: edited((("nodes", 0, "groups"), DELETED)),
        'nodes[0]: key "groups" is missing',
    ),
    "an attribute too many": (
        lambda: node("transposed", False),
        'nodes[0]: unknown key "transposed"',
    ),
    "groups that are true": (
        lambda: node("groups", True),
        "nodes[0].groups: expected an integer, found true",
    ),
    "a stride of 1.0": (
        lambda: node("stride", [1.0, 1]),
        "nodes[0].stride[0]: expected an integer, found 1.0",
    ),
    "a stride of one number": (
        lambda: node("stride", [1]),
        "nodes[0].stride: expected 2 items, found 1",
    ),
    "a stride that is no array": (
        lambda: node("stride", 1),
        "nodes[0].stride: expected an array, found 1",
    ),
    "no stride": (lambda: node("stride", [0, 1]), "stride must be 1 to 64"),
    "a negative stride": (lambda: node("stride", [-1, 1]), "stride must be 1 to 64"),
    "a huge stride": (lambda: node("stride", [2**31, 1]), "stride must be 1 to 64"),
    "a stride beyond 64 bits": (lambda: node("stride", [2**64, 1]), "beyond ±2^53"),
    "negative padding": (lambda: node("padding", [-1, 1, 1, 1]), "padding must be"),
    "huge padding": (lambda: node("padding", [2**40] * 4), "padding must be 0 to 64"),
    "no groups": (lambda: node("groups", 0), "groups must be 1 to"),
    "groups that do not divide": (lambda: node("groups", 3), "do not divide into 3"),
    "an unknown mode": (
        lambda: node("mode", "area", 2),
        'nodes[2].mode: expected one of "nearest", "bilinear", "bicubic", found "area"',
    ),
    "a ratio by zero": (lambda: node("ratio", [2, 0], 2), "ratio must be 1 to 64"),
    "a ratio not in lowest terms": (lambda: node("ratio", [4, 2], 2), "lowest terms"),
    "a factor of zero": (lambda: node("factor", 0, 1), "factor must be 1 to 64"),
    "a factor that does not divide": (
        lambda: edited(
            (("scale",), 3),
            (("nodes", 1, "factor"), 3),
            (("nodes", 2, "ratio"), [3, 1]),
        ),
        "4 channels do not divide",
    ),
    "a slope as text": (
        lambda: nodes({**relu("last", "input"), "op": "leaky_relu", "slope": "0.1"}),
        'nodes[0].slope: expected a number, found "0.1"',
    ),
    # Channels and scales.
    "channels that do not fit": (
        lambda: edited((("channels",), 3)),
        "expects 1 input channels, found 3",
    ),
    "an output of other channels": (
        lambda: nodes({**relu("last", "input", "input"), "op": "concat"}),
        "is 2 channels of",
    ),
    "inputs that differ in scale": (
        lambda: node("inputs", ["conv2d_0", "resize_2"], 3),
        "inputs differ in scale",
    ),
    "another scale": (lambda: edited((("scale",), 4)), "2 times as large"),
    # The tensor table.
    "an unknown dtype": (
        lambda: tensor("dtype", "fp64"),
        'tensors[0].dtype: expected one of "fp16", "fp32", found "fp64"',
    ),
    "a dtype of NumPy": (lambda: tensor("dtype", "O"), "tensors[0].dtype: expected"),
    "another dtype": (lambda: tensor("dtype", "fp16"), "tensors[0].size: fp16 of"),
    "no dimensions": (lambda: tensor("shape", []), "1 to 4 dimensions, found 0"),
    "five dimensions": (
        lambda: tensor("shape", [4, 1, 3, 3, 1]),
        "1 to 4 dimensions, found 5",
    ),
    "60,000 dimensions": (
        lambda: tensor("shape", [1] * 60_000),
        "1 to 4 dimensions, found 60000",
    ),
    "a dimension of zero": (
        lambda: tensor("shape", [4, 0, 3, 3]),
        "dimensions must be 1 to",
    ),
    "a negative dimension": (
        lambda: tensor("shape", [-4, -1, 3, 3]),
        "dimensions must be 1 to",
    ),
    "a dimension that is true": (
        lambda: tensor("shape", [4, True, 3, 3]),
        "tensors[0].shape[1]: expected an integer, found true",
    ),
    "a product beyond 64 bits": (
        lambda: tensor("shape", [65536] * 4),
        "takes 73786976294838206464 bytes",
    ),
    "a product that overflows to the right size": (
        lambda: tensor("shape", [2**32, 2**32, 3, 12]),
        "dimensions must be 1 to",
    ),
    "another shape": (lambda: tensor("shape", [4, 1, 3, 2]), "takes 96 bytes"),
    "a huge size": (lambda: tensor("size", 2**53), "found 9007199254740992"),
    "a negative size": (lambda: tensor("size", -144), "found -144"),
    "a negative offset": (lambda: tensor("offset", -64), "must be 0"),
    "a misaligned offset": (lambda: tensor("offset", 150, 1), "must be 192"),
    "tensors that overlap": (lambda: tensor("offset", 128, 1), "must be 192"),
    "an offset that hides a gap": (lambda: tensor("offset", 256, 1), "must be 192"),
    "an offset past the end": (lambda: tensor("offset", 2**40, 1), "must be 192"),
    "tensors in another order": (
        lambda: edited((("tensors",), PARTS.document["tensors"][::-1])),
        "tensors[0].offset: must be 0",
    ),
    "a tensor without offset": (
        lambda: edited((("tensors", 0, "offset"), DELETED)),
        'key "offset" is missing',
    ),
    "5,000 tensors past the end": (
        lambda: assemble(
            json.dumps(
                {
                    **PARTS.document,
                    "tensors": [
                        {
                            "name": f"t{index}",
                            "dtype": "fp32",
                            "shape": [65536, 65536],
                            "offset": index << 34,
                            "size": 1 << 34,
                        }
                        for index in range(5000)
                    ],
                }
            ).encode()
        ),
        "size: tensors take 85899345920000 bytes",
    ),
    # Weights.
    "a weight that is NaN": (lambda: weights([float("nan")]), "not finite"),
    "an infinite weight": (lambda: weights([float("inf"), 0.0]), "not finite"),
    "an fp16 weight that is NaN": (lambda: weights([float("nan")], 1), "not finite"),
    "an infinite fp16 weight": (lambda: weights([float("-inf")], 1), "not finite"),
    # Metadata.
    "metadata that is an array": (lambda: metadata([]), "metadata: expected an object"),
    "metadata that is null": (lambda: metadata(None), "metadata: expected an object"),
    "an escape sequence": (
        lambda: metadata({"licence": "\x1b[2J"}),
        "metadata.licence: holds the character U+001B",
    ),
    "a C1 control character in a key": (
        lambda: metadata({"\x9b": 1}),
        "metadata: holds the character U+009B",
    ),
    "half a surrogate in a list": (
        lambda: metadata({"a": ["\udfff"]}),
        "metadata.a[0]: holds the character U+DFFF",
    ),
    "an integer that no double holds": (
        lambda: metadata({"a": 2**53 + 1}),
        "metadata.a: 9007199254740993 is beyond",
    ),
    "a key of a megabyte": (
        lambda: metadata({"x" * 1_000_000: 1}),
        "1000000 characters; at most 128",
    ),
    # Size: nothing may be allocated before it is known to be right.
    "67 MB, the last weight NaN": (lambda: large(float("nan")), "not finite"),
    "67 MB, damaged": (lambda: large(0.0, checksum=False), "SHA-256: "),
    "67 MB, channels that do not fit": (
        lambda: large(0.0, kernels=4095),
        "expects 4095 input channels, found 4096",
    ),
}


def write(path: Path, content: bytes | Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for piece in [content] if isinstance(content, bytes) else content:
            file.write(piece)


def complaint(path: Path, reason: str) -> str | None:
    """What is wrong with how the loader takes the file at `path`, or None."""
    try:
        read_model(path)
    except ModelFileError as error:
        message = str(error)
        if "\n" in message or len(message) > len(str(path)) + 300:
            return f"a message that is no short line: {message[:500]!r}"
        if not message.startswith(f"{path}: "):
            return f"a message that does not name the file: {message}"
        if reason not in message:
            return f"another reason: {message}"
        return None
    return "accepted"


def main() -> int:
    """Try every case; the number of those that came out wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hostile.upf"
        for name, (make, reason) in REFUSED.items():
            write(path, make())
            tracemalloc.start()
            problem = complaint(path, reason)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if problem is None and peak > MEMORY:
                problem = "too much memory"
            wrong += problem is not None
            print(f"{name}: {problem or 'refused'}, {peak / 1e6:.1f} MB")
    print(f"{len(REFUSED)} files, {wrong} wrong, optimised: {not __debug__}")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
