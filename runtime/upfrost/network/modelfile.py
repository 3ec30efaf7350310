"""Reads and writes the weight file `.upf`; refuses anything malformed.

The file's specification, with the reason for every refusal, is docs/format.md.
Nothing here knows an operation by name: how a node is written follows from the
annotations of its class in `graph.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import io
import math
import os
import stat
import struct
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from upfrost.errors import UpfrostError
from upfrost.files import new_file
from upfrost.network import strictjson
from upfrost.network.graph import (
    OPERATIONS,
    Colour,
    Graph,
    GraphError,
    Node,
    Tensor,
    tensor_names,
)
from upfrost.network.strictjson import FieldError

StrPath = str | os.PathLike[str]

MAGIC = b"\x89UPF\r\n\x1a\n"
VERSION = 1
HEADER = struct.Struct("<8sII32s")  # magic, version, length of the JSON, SHA-256
ALIGNMENT = 64
MAX_JSON = 1 << 20
MAX_FILE = 1 << 28
MAX_DIMENSION = 1 << 16
MAX_METADATA = 1 << 16
DTYPES: Mapping[str, np.dtype[Any]] = types.MappingProxyType(
    {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}
)
_CHUNK = 1 << 20


class ModelFileError(UpfrostError, ValueError):
    """A weight file that is refused; the message names file, field and reason."""


@dataclass(frozen=True, kw_only=True)
class _Document:
    """The keys of the JSON."""

    name: str
    scale: int
    channels: int
    value_range: float
    nodes: object
    output: str
    tensors: object
    metadata: object


@dataclass(frozen=True, kw_only=True)
class _ColourDocument(_Document):
    """The keys of the JSON of a network whose channel is marked."""

    colour: Colour


@dataclass(frozen=True, kw_only=True)
class _TensorEntry:
    """One line of the tensor table. `offset` counts from the first tensor's place."""

    name: str
    dtype: Literal["fp16", "fp32"]
    shape: tuple[int, ...]
    offset: int
    size: int


def read_model(path: StrPath) -> Graph:
    """The network in the weight file `path`; its tensors are read-only.

    Everything is checked before the tensors are read, in bounded memory, and the
    checksum once more on the bytes that the tensors are made of: they are read, not
    mapped, so that a file that changes later changes no network.

    Raises `ModelFileError` for a file that cannot be read or breaks a rule of
    docs/format.md.
    """
    try:
        # Opened so that a named pipe without a writer does not wait for one.
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FieldError("file", "is not a regular file")
            return _read(file, status.st_size)
    except (FieldError, OSError, ValueError) as error:
        raise _file_error(path, error, "cannot be read") from None


def write_model(path: StrPath, graph: Graph, *, overwrite: bool = True) -> None:
    """Write `graph` to the weight file `path`, whole or not at all.

    The same graph gives the same bytes. The file appears under its name when it is
    complete and on the disk; a file of that name is replaced if `overwrite` says so.

    Raises `ModelFileError` for a graph that `read_model` would refuse, naming the
    field, and when the file cannot be written.
    """
    try:
        data = _encode(graph)
        _read(io.BytesIO(data), len(data))
        with new_file(Path(path), overwrite=overwrite) as file:
            file.write(data)
    except (FieldError, OSError, ValueError) as error:
        raise _file_error(path, error, "cannot be written") from None


def bundled_models() -> dict[str, Path]:
    """The weight files that come with upfrost, by name, in order of name."""
    folder = Path(__file__).with_name("models")
    return dict(sorted((path.stem, path) for path in folder.glob("*.upf")))


def find_model(name_or_path: StrPath) -> Path:
    """The weight file of a bundled model's name, or of a path.

    A bundled name wins over a file of that name: write ``./name`` for the file.
    Raises `ModelFileError`, which lists the bundled names, when there is neither.
    """
    name = os.fspath(name_or_path)
    models = bundled_models()
    if name in models:
        return models[name]
    with contextlib.suppress(OSError, ValueError):
        if Path(name).is_file():
            return Path(name)
    close = difflib.get_close_matches(name, models, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ModelFileError(
        f"{_shown(name)}: model: neither a bundled model nor a file{hint} "
        f"Bundled models: {', '.join(models) or 'none'}"
    )


def _read(file: BinaryIO, size: int) -> Graph:
    """The network in the `size` bytes of `file`."""
    json_length, digest = _read_header(file, size)
    _check_digest(file, size, digest)

    file.seek(HEADER.size)
    text = _read_exactly(file, json_length)
    payload = _aligned(HEADER.size + json_length)
    if any(_read_exactly(file, payload - HEADER.size - json_length)):
        raise FieldError("padding", "the bytes after the JSON must be zero")
    content = strictjson.mapping(strictjson.parse(text), "JSON")
    record = _ColourDocument if "colour" in content else _Document
    document = record(**strictjson.convert_fields(content, record, "JSON"))
    table = _decode_table(document.tensors)
    needed = table[-1].offset + table[-1].size if table else 0
    if size - payload != needed:
        raise FieldError(
            "size", f"tensors take {needed} bytes, the file has {size - payload}"
        )
    # Zeros that take no memory, to check the graph before its tensors are read.
    graph = _decode_graph(
        document,
        {
            entry.name: np.broadcast_to(np.zeros((), DTYPES[entry.dtype]), entry.shape)
            for entry in table
        },
    )
    _check_payload(file, table)

    file.seek(HEADER.size)
    data = _read_exactly(file, size - HEADER.size)
    if hashlib.sha256(data).digest() != digest:
        raise FieldError("file", "changed while it was read")
    tensors = {
        entry.name: np.frombuffer(
            data,
            DTYPES[entry.dtype],
            math.prod(entry.shape),
            payload - HEADER.size + entry.offset,
        ).reshape(entry.shape)
        for entry in table
    }
    return dataclasses.replace(graph, tensors=tensors)


def _read_header(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Length of the JSON and the SHA-256 of all that follows the header."""
    start = file.read(len(MAGIC))
    if start != MAGIC[: len(start)]:
        if b"UPF" in start:
            raise FieldError("magic", "line ends were changed: copy in binary mode")
        raise FieldError("magic", "this is not an upfrost weight file")
    if size < HEADER.size:
        raise FieldError("size", f"{size} bytes; the header alone has {HEADER.size}")
    file.seek(0)
    _, version, json_length, digest = HEADER.unpack(_read_exactly(file, HEADER.size))
    if version != VERSION:
        raise FieldError(
            "version",
            f"this upfrost reads version {VERSION}, the file has {version}: "
            "use a newer upfrost, or export the network again",
        )
    if size > MAX_FILE:
        raise FieldError("size", f"{size} bytes; at most {MAX_FILE}")
    if not 2 <= json_length <= MAX_JSON:
        raise FieldError("JSON length", f"must be 2 to {MAX_JSON}, found {json_length}")
    if _aligned(HEADER.size + json_length) > size:
        raise FieldError(
            "size", f"the file ends at byte {size}, in the JSON of {json_length} bytes"
        )
    return json_length, digest


def _check_digest(file: BinaryIO, size: int, expected: bytes) -> None:
    file.seek(HEADER.size)
    digest = hashlib.sha256()
    for chunk in _chunks(file, size - HEADER.size):
        digest.update(chunk)
    if digest.digest() != expected:
        raise FieldError(
            "SHA-256", "does not match the contents: the file is damaged or incomplete"
        )


def _decode_table(value: object) -> list[_TensorEntry]:
    """The tensor table, the place and size of each entry checked."""
    table: list[_TensorEntry] = []
    names: set[str] = set()
    position = 0
    for index, item in enumerate(strictjson.array(value, "tensors")):
        where = f"tensors[{index}]"
        fields = strictjson.mapping(item, where)
        entry = _TensorEntry(**strictjson.convert_fields(fields, _TensorEntry, where))
        if entry.name in names:
            raise FieldError(f"{where}.name", f"{entry.name!r} stands twice")
        names.add(entry.name)
        if not 1 <= len(entry.shape) <= 4:
            raise FieldError(
                f"{where}.shape", f"1 to 4 dimensions, found {len(entry.shape)}"
            )
        if not all(1 <= extent <= MAX_DIMENSION for extent in entry.shape):
            raise FieldError(
                f"{where}.shape",
                f"dimensions must be 1 to {MAX_DIMENSION}, found {entry.shape}",
            )
        size = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
        if entry.size != size:
            raise FieldError(
                f"{where}.size",
                f"{entry.dtype} of shape {entry.shape} takes {size} bytes, "
                f"found {entry.size}",
            )
        if entry.offset != position:
            raise FieldError(
                f"{where}.offset",
                f"must be {position}, the first multiple of {ALIGNMENT} after the "
                f"tensor before, found {entry.offset}",
            )
        table.append(entry)
        position = _aligned(entry.offset + entry.size)
    return table


def _decode_graph(document: _Document, tensors: Mapping[str, Tensor]) -> Graph:
    nodes = strictjson.array(document.nodes, "nodes")
    try:
        return Graph(
            name=document.name,
            scale=document.scale,
            channels=document.channels,
            nodes=tuple(
                _decode_node(node, f"nodes[{index}]")
                for index, node in enumerate(nodes)
            ),
            output=document.output,
            tensors=tensors,
            value_range=document.value_range,
            metadata=_convert_metadata(document.metadata),
            colour=document.colour if isinstance(document, _ColourDocument) else None,
        )
    except GraphError as error:
        raise FieldError("graph", str(error)) from None


def _decode_node(value: object, where: str) -> Node:
    attributes = dict(strictjson.mapping(value, where))
    op = attributes.pop("op", None)
    if not isinstance(op, str) or op not in OPERATIONS:
        raise FieldError(f"{where}.op", f"unknown operation {strictjson.shown(op)}")
    operation = OPERATIONS[op]
    return operation(**strictjson.convert_fields(attributes, operation, where))


def _check_payload(file: BinaryIO, table: list[_TensorEntry]) -> None:
    """Check tensors and padding, a chunk at a time, from `file` at the first tensor.

    A file whose last weight is not a number costs no memory for those before.
    """
    position = 0
    for entry in table:
        if any(_read_exactly(file, entry.offset - position)):
            raise FieldError(
                "padding", f"the bytes before tensor {entry.name!r} must be zero"
            )
        for chunk in _chunks(file, entry.size):
            if not np.isfinite(np.frombuffer(chunk, DTYPES[entry.dtype])).all():
                raise FieldError(
                    "tensors", f"{entry.name!r} holds a value that is not finite"
                )
        position = entry.offset + entry.size


def _encode(graph: Graph) -> bytes:
    """The file's bytes: header, canonical JSON, padding, tensors in order of use."""
    table: list[dict[str, Any]] = []
    payload = bytearray()
    used = (name for node in graph.nodes for name in tensor_names(node))
    for name in dict.fromkeys(used):
        tensor = graph.tensors[name]
        dtype = "fp16" if tensor.dtype == np.float16 else "fp32"
        data = tensor.astype(DTYPES[dtype]).tobytes()
        payload += bytes(_aligned(len(payload)) - len(payload))
        table.append(
            {
                "name": name,
                "dtype": dtype,
                "shape": list(tensor.shape),
                "offset": len(payload),
                "size": len(data),
            }
        )
        payload += data
    document = {
        "name": graph.name,
        "scale": graph.scale,
        "channels": graph.channels,
        "value_range": graph.value_range,
        "nodes": [
            _encode_node(node, f"nodes[{index}]")
            for index, node in enumerate(graph.nodes)
        ],
        "output": graph.output,
        "tensors": table,
        "metadata": _convert_metadata(graph.metadata),
    }
    record: type[_Document] = _Document
    if graph.colour is not None:
        document["colour"] = graph.colour
        record = _ColourDocument
    text = strictjson.canonical(strictjson.convert_fields(document, record, "JSON"))
    padding = bytes(_aligned(HEADER.size + len(text)) - HEADER.size - len(text))
    rest = b"".join((text, padding, payload))
    digest = hashlib.sha256(rest).digest()
    return HEADER.pack(MAGIC, VERSION, len(text), digest) + rest


def _encode_node(node: Node, where: str) -> dict[str, Any]:
    if OPERATIONS.get(node.op) is not type(node):
        raise FieldError(f"{where}.op", f"unknown operation {node.op!r}")
    attributes = {
        field.name: getattr(node, field.name) for field in dataclasses.fields(node)
    }
    return {
        "op": node.op,
        **strictjson.convert_fields(attributes, type(node), where),
    }


def _convert_metadata(metadata: object) -> dict[str, Any]:
    # One level of nesting is the document's own.
    result: dict[str, Any] = strictjson.convert_free(
        strictjson.mapping(metadata, "metadata"), "metadata", strictjson.MAX_DEPTH - 1
    )
    size = len(strictjson.canonical(result))
    if size > MAX_METADATA:
        raise FieldError("metadata", f"{size} bytes of JSON; at most {MAX_METADATA}")
    return result


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise FieldError("file", "became shorter while it was read")
    return data


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of `file`, in pieces that hold whole weights."""
    for start in range(0, size, _CHUNK):
        yield _read_exactly(file, min(_CHUNK, size - start))


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _file_error(path: StrPath, error: Exception, problem: str) -> ModelFileError:
    """`error` as a `ModelFileError`; `problem` says what the system refused."""
    if isinstance(error, FieldError):
        return ModelFileError(f"{_shown(path)}: {error}")
    reason = error.strerror if isinstance(error, OSError) else None
    return ModelFileError(f"{_shown(path)}: file: {problem}: {reason or error}")


def _shown(path: StrPath) -> str:
    """`path` on one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
