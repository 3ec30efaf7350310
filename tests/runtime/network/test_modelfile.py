"""The weight file carries any network bit for bit, and nothing malformed gets in."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
import random
import re
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import (
    Builder,
    assert_same_graph,
    every_operation,
    imported_operations,
    luma_network,
    plain_network,
    random_network,
)
from tests.runtime.network.hostile import (
    PARTS,
    REFUSED,
    VALID,
    assemble,
    bytes_of,
    complaint,
    small_graph,
    take_apart,
    with_checksum,
    write,
)
from upfrost.network import modelfile, strictjson
from upfrost.network.graph import INPUT, OPERATIONS, Clamp, Graph, Node, Relu, Tensor
from upfrost.network.modelfile import (
    HEADER,
    ModelFileError,
    bundled_models,
    find_model,
    read_model,
    write_model,
)

ROOT = Path(__file__).parents[3]
EXAMPLES: dict[str, Callable[[], Graph]] = {
    "small": small_graph,
    "plain fp32": lambda: plain_network(1),
    "plain fp16": lambda: plain_network(2, scale=4, dtype=np.float16),
    "grey": lambda: plain_network(3, picture_channels=1),
    "luma": lambda: luma_network(3),
    "every operation": lambda: every_operation(4),
    "every operation fp16": lambda: every_operation(5, np.float16),
    "imported operations": lambda: imported_operations(6),
    "no tensors": lambda: _without_tensors(),
    **{f"random {seed}": partial(random_network, seed) for seed in range(8)},
}


def _without_tensors() -> Graph:
    build = Builder(0)
    return build.graph(build.resize(INPUT, "bicubic", 2), scale=2)


def one_layer(tensor: npt.NDArray[Any], **fields: Any) -> Graph:
    """A 1×1 convolution of a grey picture by whatever weights, one output channel."""
    build = Builder(0)
    value = build.conv(INPUT, 1, tensor.size, kernel=1, bias=False)
    build.tensors[f"{value}.weight"] = tensor.reshape(-1, 1, 1, 1)
    value = build.conv(value, tensor.size, 1, kernel=1)
    return build.graph(value, scale=1, channels=1, **fields)


# What goes in comes out.


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_network_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    graph = EXAMPLES[name]()
    write_model(tmp_path / "a.upf", graph)
    assert_same_graph(read_model(tmp_path / "a.upf"), graph)
    write_model(tmp_path / "b.upf", read_model(tmp_path / "a.upf"))
    assert (tmp_path / "b.upf").read_bytes() == (tmp_path / "a.upf").read_bytes()


def test_only_a_network_for_luma_has_the_key_for_it(tmp_path: Path) -> None:
    """Readers that do not know the key refuse those networks, and read all others."""
    for name in ("luma", "grey"):
        write_model(tmp_path / f"{name}.upf", EXAMPLES[name]())
    luma, grey = (
        take_apart((tmp_path / f"{name}.upf").read_bytes()).document
        for name in ("luma", "grey")
    )
    assert luma["colour"] == "luma"
    assert luma.keys() - grey.keys() == {"colour"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_weights_keep_every_bit(dtype: type[np.floating[Any]], tmp_path: Path) -> None:
    """Signed zeros, subnormal and extreme numbers included."""
    limits = np.finfo(dtype)
    small = [0.0, -0.0, limits.tiny, limits.smallest_subnormal]
    graph = one_layer(np.array([*small, limits.max, limits.min], dtype))
    write_model(tmp_path / "a.upf", graph)
    assert_same_graph(read_model(tmp_path / "a.upf"), graph)


def test_weights_in_any_memory_order_are_written_alike(tmp_path: Path) -> None:
    graph = every_operation(0)
    write_model(tmp_path / "a.upf", graph)
    turned: dict[str, Tensor] = {
        name: tensor.copy(order="F") for name, tensor in graph.tensors.items()
    }
    assert any(not tensor.flags.c_contiguous for tensor in turned.values())
    write_model(tmp_path / "b.upf", dataclasses.replace(graph, tensors=turned))
    assert (tmp_path / "a.upf").read_bytes() == (tmp_path / "b.upf").read_bytes()


def test_one_network_gives_one_file(tmp_path: Path) -> None:
    """Whatever order its tensors and metadata come in, and int or float."""
    graph = every_operation(0)
    last = graph.nodes[-1]
    assert isinstance(last, Clamp)
    other = dataclasses.replace(
        graph,
        tensors=dict(reversed(list(graph.tensors.items()))),
        metadata=types.MappingProxyType(dict(reversed(list(graph.metadata.items())))),
        value_range=1,
        nodes=(*graph.nodes[:-1], dataclasses.replace(last, low=0, high=1)),
    )
    write_model(tmp_path / "a.upf", graph)
    write_model(tmp_path / "b.upf", other)
    assert (tmp_path / "a.upf").read_bytes() == (tmp_path / "b.upf").read_bytes()


def test_tensors_cannot_be_written_to(tmp_path: Path) -> None:
    write_model(tmp_path / "a.upf", small_graph())
    for tensor in read_model(tmp_path / "a.upf").tensors.values():
        with pytest.raises(ValueError, match="read-only"):
            tensor[...] = 0


def test_metadata_come_back(tmp_path: Path) -> None:
    metadata: dict[str, object] = {
        "licence": "CC-BY-4.0",
        "attribution": "Zoë Ångström, 山田\nand others 😀",
        "training_data": ["a", "b"],
        "quality": {"Set5": {"psnr_y": 36.87, "pictures": 5, "good": True}},
        "nothing": None,
    }
    graph = dataclasses.replace(small_graph(), metadata=metadata)
    write_model(tmp_path / "a.upf", graph)
    assert read_model(tmp_path / "a.upf").metadata == metadata


def test_json_may_be_written_in_any_style(tmp_path: Path) -> None:
    """Readers must not ask for the canonical form."""
    document = dict(reversed(list(PARTS.document.items()))) | {"value_range": 1}
    text = json.dumps(document, indent=4, ensure_ascii=True).encode()
    (tmp_path / "a.upf").write_bytes(assemble(text, PARTS.payload))
    found = read_model(tmp_path / "a.upf")
    assert_same_graph(found, small_graph())
    assert type(found.value_range) is float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invented(Node):
    """An operation that the module under test has never seen."""

    op = "invented"

    count: int
    share: float
    always: bool
    label: str
    mode: Literal["a", "b", 3]
    many: tuple[float, ...]
    pair: tuple[int, bool]
    maybe: tuple[int, int] | None = None
    perhaps: float | None = None


def test_a_new_operation_needs_no_change_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Invented(
        name="new",
        inputs=(INPUT,),
        count=-3,
        share=0.1,
        always=False,
        label="x",
        mode=3,
        many=(1.0, 2.5, -0.0),
        pair=(1, True),
        perhaps=2.0,
    )
    graph = Graph("g", 1, 3, (node,), "new", {})
    with pytest.raises(ModelFileError, match="unknown operation 'invented'"):
        write_model(tmp_path / "a.upf", graph)
    operations = {**OPERATIONS, "invented": Invented}
    monkeypatch.setattr(modelfile, "OPERATIONS", operations)
    write_model(tmp_path / "a.upf", graph)
    assert_same_graph(read_model(tmp_path / "a.upf"), graph)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match='unknown operation "invented"'):
        read_model(tmp_path / "a.upf")


# What must not get in.


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    write(tmp_path / "hostile.upf", make())
    assert complaint(tmp_path / "hostile.upf", reason) is None


@pytest.mark.parametrize("flags", [[], ["-O"]])
def test_all_are_refused_in_bounded_memory(flags: list[str]) -> None:
    """In a process of its own: with and without ``assert``; a hang ends in a minute."""
    paths = [str(ROOT), str(Path(modelfile.__file__).parents[2])]
    result = subprocess.run(
        [sys.executable, *flags, "-m", "tests.runtime.network.hostile"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=60 + len(REFUSED),  # "within a second" for each, as a guard
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(REFUSED)} files, 0 wrong" in result.stdout
    assert f"optimised: {bool(flags)}" in result.stdout


@pytest.mark.parametrize("repaired", [False, True])
def test_truncation_at_every_byte_is_refused(repaired: bool, tmp_path: Path) -> None:
    path = tmp_path / "cut.upf"
    for length in range(len(VALID)):
        cut = VALID[:length]
        path.write_bytes(with_checksum(cut) if repaired and length > 48 else cut)
        with pytest.raises(ModelFileError):
            read_model(path)


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_change_of_any_byte_is_refused(mask: int, tmp_path: Path) -> None:
    path = tmp_path / "flipped.upf"
    for position in range(len(VALID)):
        data = bytearray(VALID)
        data[position] ^= mask
        path.write_bytes(data)
        with pytest.raises(ModelFileError):
            read_model(path)


def test_the_file_that_the_tests_damage_is_right(tmp_path: Path) -> None:
    (tmp_path / "a.upf").write_bytes(with_checksum(PARTS.file()))
    assert_same_graph(read_model(tmp_path / "a.upf"), small_graph())
    assert len(VALID) < 4096


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    expected = {
        tmp_path / "missing": "file: cannot be read: No such file or directory",
        tmp_path / "folder": "file: cannot be read: Is a directory",
        tmp_path / "pipe": "file: is not a regular file",
        tmp_path / "loop": "file: cannot be read: Too many levels of symbolic links",
        Path("/dev/zero"): "file: is not a regular file",
        Path("/dev/null"): "file: is not a regular file",
    }
    for path, reason in expected.items():
        assert complaint(path, reason) is None
    with pytest.raises(ModelFileError, match="null byte"):
        read_model("a\0b")
    with pytest.raises(ModelFileError, match=r"^'two\\nlines': file: cannot be read"):
        read_model("two\nlines")


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.upf"
    path.write_bytes(VALID)
    os.truncate(path, modelfile.MAX_FILE + 1)
    assert complaint(path, f"size: {modelfile.MAX_FILE + 1} bytes; at most") is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: os.truncate(path, 500), "file: became shorter"),
        (lambda path: path.write_bytes(another_file()), "file: changed while"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_refused(
    damage: Callable[[Path], object],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "changing.upf"
    path.write_bytes(VALID)
    check = modelfile._check_payload

    def check_and_damage(*arguments: Any) -> None:
        check(*arguments)
        damage(path)

    monkeypatch.setattr(modelfile, "_check_payload", check_and_damage)
    assert complaint(path, reason) is None


def another_file() -> bytes:
    """As long as `VALID`, right but for other weights."""
    payload = PARTS.payload[4:8] + PARTS.payload[:4] + PARTS.payload[8:]
    text = VALID[HEADER.size : HEADER.size + HEADER.unpack_from(VALID)[2]]
    return assemble(text, payload)


# What must not get out.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metadata": {"a": object()}}, "metadata.a: expected a value that JSON has"),
        ({"metadata": {"a": {1: 2}}}, "metadata.a: expected a string, found 1"),
        ({"metadata": {"a": float("nan")}}, "metadata.a: nan is not finite"),
        ({"metadata": {"a": np.float32(1)}}, "metadata.a: expected a value that JSON"),
        ({"metadata": {"a": "\x1b"}}, "metadata.a: holds the character U+001B"),
        ({"metadata": {"a": "\ud800"}}, "metadata.a: holds the character U+D800"),
        ({"metadata": {"a": "x" * 70_000}}, "metadata: 70008 bytes of JSON"),
        ({"metadata": {"a": [[[[[[[]]]]]]]}}, "is nested too deep"),
        ({"metadata": {"a": 1 << 60}}, "metadata.a: 1152921504606846976 is beyond"),
        ({"metadata": []}, "metadata: expected an object"),
        ({"scale": np.int64(1)}, "scale: expected an integer, found a int64"),
        ({"scale": True}, "scale: expected an integer, found true"),
    ],
)
def test_a_graph_that_cannot_be_read_is_not_written(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    build = Builder(0)
    graph = build.graph(build.add(Relu, INPUT), scale=1)
    path = tmp_path / "a.upf"
    with pytest.raises(ValueError, match=re.escape(reason)):
        write_model(path, dataclasses.replace(graph, **change))
    assert list(tmp_path.iterdir()) == []


def test_a_network_beyond_the_formats_limits_is_not_written(tmp_path: Path) -> None:
    build, value = Builder(0), INPUT
    for _ in range(4000):
        value = build.conv(value, 1, 1, kernel=1)
    graph = build.graph(value, scale=1, channels=1)
    with pytest.raises(ModelFileError, match=r"JSON length|holds more than"):
        write_model(tmp_path / "a.upf", graph)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()]
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    call: str,
    failure: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.upf"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises((ModelFileError, KeyboardInterrupt)) as caught:
        write_model(path, small_graph())
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(failure, OSError):
        expected = f"{path}: file: cannot be written: No space left on device"
        assert str(caught.value) == expected


def test_a_file_is_replaced_and_has_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.upf"
    path.write_bytes(b"old")
    write_model(path, small_graph())
    assert path.read_bytes() == VALID
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.upf").symlink_to("real.upf")
    write_model(tmp_path / "link.upf", small_graph())
    assert (tmp_path / "link.upf").is_symlink()
    assert (tmp_path / "real.upf").read_bytes() == VALID


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.upf"
    with pytest.raises(ModelFileError, match=re.escape(f"{path}: file: cannot be wr")):
        write_model(path, small_graph())


# Finding a model.


def test_a_model_is_found_by_name_or_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = {"realtime-x2": tmp_path / "r.upf", "cascade-x2": tmp_path / "c.upf"}
    monkeypatch.setattr(modelfile, "bundled_models", lambda: bundled)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "realtime-x2").touch()
    (tmp_path / "own.upf").touch()
    assert find_model("realtime-x2") == tmp_path / "r.upf"
    assert find_model("./realtime-x2") == Path("realtime-x2")
    assert find_model("own.upf") == Path("own.upf")
    assert find_model(tmp_path / "own.upf") == tmp_path / "own.upf"
    with pytest.raises(ModelFileError) as caught:
        find_model("realtime-2x")
    assert str(caught.value) == (
        "realtime-2x: model: neither a bundled model nor a file; did you mean "
        "'realtime-x2'? Bundled models: realtime-x2, cascade-x2"
    )
    for name in ("", ".", "a\0b", "x" * 5000, "no/such.upf"):
        with pytest.raises(ModelFileError, match="nor a file"):
            find_model(name)


def test_bundled_models_are_in_order_of_name() -> None:
    assert list(bundled_models()) == sorted(bundled_models())


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_is_right(name: str, tmp_path: Path) -> None:
    path = bundled_models()[name]
    graph = read_model(path)
    assert graph.name == name
    assert {"licence", "training_data", "quality"} <= set(graph.metadata)
    write_model(tmp_path / "again.upf", graph)
    assert (tmp_path / "again.upf").read_bytes() == path.read_bytes()


# The specification.


def specification() -> str:
    return (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


def test_the_specification_lists_every_operation_and_attribute() -> None:
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in specification().splitlines()
        if line.startswith("| `")
    ]
    described = {(row[0], row[1]) for row in rows}
    for op, operation in OPERATIONS.items():
        low, high = operation.min_inputs, operation.max_inputs
        count = f"{low} to {high}" if low != high else str(low)
        assert (op, count) in described
        for field in dataclasses.fields(operation):
            if field.name not in ("name", "inputs"):
                assert (op, field.name) in described
    attributes = {
        (op, field.name)
        for op, operation in OPERATIONS.items()
        for field in dataclasses.fields(operation)
    }
    for first, second in described:
        if first in OPERATIONS and not second[0].isdigit():
            assert (first, second) in attributes


def test_the_specifications_example_is_a_network(tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", specification(), re.DOTALL)
    (tmp_path / "a.upf").write_bytes(assemble(text.encode(), bytes(728)))
    graph = read_model(tmp_path / "a.upf")
    assert graph.scale == 2
    assert [node.op for node in graph.nodes] == [
        "conv2d",
        "pixel_shuffle",
        "resize",
        "add",
    ]


def test_the_specification_has_the_codes_limits() -> None:
    text = specification()
    for limit in (
        modelfile.MAX_JSON,
        modelfile.MAX_FILE,
        modelfile.MAX_METADATA,
        modelfile.MAX_DIMENSION,
        strictjson.MAX_VALUES,
    ):
        assert f"{limit:,}" in text
    assert f"more than {strictjson.MAX_DEPTH} deep" in text
    assert f"at most {strictjson.MAX_NUMBER_LENGTH} characters" in text
    assert f"longer than {strictjson.MAX_STRING} characters" in text
    assert strictjson.MAX_INTEGER == 2**53
    assert " ".join(f"{byte:02X}" for byte in modelfile.MAGIC) in text
    assert f"version {modelfile.VERSION}" in text.splitlines()[0]
    assert HEADER.size == 48


# Fuzzing.

CASES = int(os.environ.get("UPFROST_FUZZ_CASES", "1000"))
SOURCES = [
    VALID,
    bytes_of(plain_network(0, channels=4, layers=1, dtype=np.float16)),
    bytes_of(every_operation(0)),
    bytes_of(_without_tensors()),
]
HOSTILE_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 63, 64, 65, 4096, 65536, 2**31, 2**32, 2**53),
    *(2**63, 2**64, -(2**63), 0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, float("nan")),
    *(float("inf"), "", "input", "conv2d", "relu", "concat", "fp16", "fp32", "..", "/"),
    *("a" * 128, "a" * 129, "\0", "\ud800", "é", [], {}, [[]], [1], [1, 1], [0] * 4),
    *({"op": "relu", "name": "z", "inputs": ["input"]}, ["input"] * 64),
]


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Overwrite, insert, remove, repeat or cut at random places."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed) + 1)
        length = rng.choice([1, 1, 1, 2, 4, 8, 64, 500])
        noise = rng.choice([rng.randbytes(length), bytes(length), b"\xff" * length])
        match rng.randrange(5):
            case 0:
                changed[start : start + length] = noise
            case 1:
                changed[start:start] = noise
            case 2:
                del changed[start : start + length]
            case 3:
                changed[start:start] = changed[start : start + length]
            case 4 if rng.random() < 0.3:
                del changed[start:]
    return bytes(changed)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside of a JSON value."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = [(value, key) for key in value]
    elif isinstance(value, list):
        items = [(value, index) for index in range(len(value))]
    return items + [
        place for container, key in items for place in places(container[key])
    ]


def change_json(rng: random.Random, data: bytes) -> bytes:
    """Replace, remove, repeat, nudge or exchange random values of the JSON."""
    parts = take_apart(data)
    document = copy.deepcopy(parts.document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        container, key = rng.choice(places(document))
        alike = [place for place in places(document) if place[1] == key]
        other, other_key = rng.choice(rng.choice([places(document), alike]))
        match rng.randrange(5):
            case 0:
                container[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
            case 1:
                del container[key]
            case 2:
                container[key] = copy.deepcopy(other[other_key])
            case 3 if isinstance(container, list):
                container.insert(key, copy.deepcopy(container[key]))
            case 3:
                container[str(other_key)] = copy.deepcopy(container[key])
            case 4 if isinstance(container[key], int | float):
                container[key] += rng.choice([-64, -1, 1, 64])
        if not places(document):
            break
    payload = parts.payload
    if rng.random() < 0.2:
        payload = payload[: rng.randrange(len(payload) + 1)]
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    return assemble(text.encode(errors="surrogatepass"), payload)


def change_text(rng: random.Random, data: bytes) -> bytes:
    """Change bytes of the JSON's text, lengths and checksum being right."""
    parts = take_apart(data)
    text = json.dumps(parts.document).encode()
    return assemble(change_bytes(rng, text), parts.payload)


CHANGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes": change_bytes,
    "bytes, checksum right": lambda rng, data: with_checksum(change_bytes(rng, data)),
    "text of the JSON": change_text,
    "values of the JSON": change_json,
}


def test_whatever_comes_in_is_refused_or_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fuzz target: changed files give a `ModelFileError` of one line, or a network.

    A network that comes out is one that is written and read again the same. Set
    UPFROST_FUZZ_CASES for more cases; they are the same in each run.
    """
    path = tmp_path / "fuzzed.upf"
    counts: Counter[str] = Counter()

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        source=st.sampled_from(SOURCES),
        kind=st.sampled_from(sorted(CHANGES)),
        seed=st.integers(0, 2**64 - 1),
    )
    def fuzz(source: bytes, kind: str, seed: int) -> None:
        data = CHANGES[kind](random.Random(seed), source)
        path.write_bytes(data)
        message = None
        try:
            graph = read_model(path)
        except ModelFileError as error:
            message = str(error)
        if message is not None:
            counts[f"{kind}: refused"] += 1
            assert "\n" not in message
            assert message.startswith(f"{path}: ")
            assert len(message) < len(str(path)) + 400
            return
        counts[f"{kind}: read"] += 1
        assert kind != "bytes" or data == source
        write_model(tmp_path / "again.upf", graph)
        assert_same_graph(read_model(tmp_path / "again.upf"), graph)

    fuzz()
    with capsys.disabled():
        print(f"\nmodel file fuzzing: {counts.total()} cases")
        for kind, count in sorted(counts.items()):
            print(f"  {kind}: {count}")
    assert counts.total() >= CASES
    # Both ends must be met, or the changes are too coarse to test anything.
    assert counts["values of the JSON: read"] > CASES // 200
    assert counts["values of the JSON: refused"] > CASES // 20
