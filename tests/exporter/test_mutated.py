"""Damaged files of every kind are refused in one clear line, whatever is wrong.

Each with a gigabyte of memory and ten seconds of computing. More of them:
UPFROST_MUTATIONS=1000.
"""

from __future__ import annotations

import copy
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from benchmarks.ncnn_writer import write_ncnn
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from tests.exporter.test_ncnn_frontend import (
    Model,
    last_axis,
    learned_sampling,
    pooled_shapes,
    sizes_of_values,
)
from tests.graphs import every_operation, imported_operations, plain_network
from upfrost.network.graph import Graph
from upfrost_exporter.builder import ExportError
from upfrost_exporter.ncnn_frontend import read_ncnn
from upfrost_exporter.onnx_backend import to_onnx
from upfrost_exporter.onnx_frontend import read_onnx
from upfrost_exporter.spandrel_frontend import read_checkpoint

COUNT = int(os.environ.get("UPFROST_MUTATIONS", "15"))
INTEGERS = (0, 1, -1, 2, 3, 5, 7, 99, -99, 2**31, -(2**31), 2**62, 65536, 1 << 20)
NUMBERS = (0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-39, 0.5, 3.0)
WORDS_OF_NUMBERS = (
    "0",
    "-1",
    "3",
    "99",
    "-233",
    "65536",
    "2147483648",
    "nan",
    "1e39",
    "0.5",
    "",
)
WORDS = (*WORDS_OF_NUMBERS, '"0w,-1"', '"//(0h,0),1w"')
LONGEST = 600  # characters of a line that someone can still read


MEMORY = 1 << 30  # bytes, more than there are before
# Of computing, not on the clock; an emulator computes the same for longer.
SECONDS = 10 * int(os.environ.get("UPFROST_SLOWER", "1"))


class TooLongError(BaseException):
    """No `Exception`, which a reader might take for one of its library's."""


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MEMORY
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, handler)


def mutate_onnx(model: ModelProto, choose: random.Random) -> bytes:
    """The bytes of a model of which one to three things are changed."""
    graph = model.graph
    for _ in range(choose.choice((1, 1, 2, 3))):
        node = choose.choice(graph.node)
        attribute = choose.choice(node.attribute) if node.attribute else None
        tensor = choose.choice(graph.initializer)
        match choose.randrange(10):
            case 0 if attribute:
                _mutate_attribute(attribute, choose)
            case 1 if attribute:
                node.attribute.remove(attribute)
            case 2 if attribute:
                attribute.type = choose.randrange(15)
            case 3:
                node.op_type = choose.choice(graph.node).op_type
            case 4 if node.input:
                names = [*choose.choice(graph.node).output, "", tensor.name]
                node.input[choose.randrange(len(node.input))] = choose.choice(names)
            case 5 if node.input:
                del node.input[choose.randrange(len(node.input))]
            case 6:
                array = numpy_helper.to_array(tensor)
                kinds = (np.int64, np.float64, np.uint8, np.float16)
                changed = choose.choice(
                    (array.reshape(-1), array[None], array.astype(choose.choice(kinds)))
                )
                tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
            case 7 if tensor.dims:
                at = choose.randrange(len(tensor.dims))
                tensor.dims[at] = choose.choice(INTEGERS)
            case 8:
                sides = graph.input[0].type.tensor_type.shape.dim
                side = choose.choice(sides) if sides else None
                if side is not None:
                    side.dim_value = choose.choice(INTEGERS)
            case 9:
                node.attribute.extend(
                    copy.deepcopy(list(choose.choice(graph.node).attribute))
                )
    return flip_bytes(model.SerializeToString(), choose, share=0.2)


def _mutate_attribute(attribute: AttributeProto, choose: random.Random) -> None:
    if attribute.type == AttributeProto.INT:
        attribute.i = choose.choice(INTEGERS)
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        at = choose.randrange(len(attribute.ints))
        if choose.random() < 0.3:
            del attribute.ints[at]
        else:
            attribute.ints[at] = choose.choice(INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = choose.choice(NUMBERS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = choose.choice((b"", b"\xff", b"edge", b"linear"))


def mutate_param(text: str, choose: random.Random) -> str:
    """An ncnn `.param` of which one or two words are changed."""
    lines = [line.split() for line in text.splitlines()]
    for _ in range(choose.choice((1, 1, 2))):
        words = choose.choice(lines[2:])
        keyed = [at for at, word in enumerate(words) if "=" in word]
        match choose.randrange(5):
            case 0 if keyed:
                at = choose.choice(keyed)
                words[at] = words[at].split("=")[0] + "=" + choose.choice(WORDS)
            case 1 if keyed:
                del words[choose.choice(keyed)]
            case 2:
                words.append(f"{choose.randrange(-1, 30)}={choose.choice(WORDS)}")
            case 3:
                words[0] = choose.choice(lines[2:])[0]
            case 4:
                words[choose.randrange(2, len(words))] = choose.choice(WORDS) or "x"
    return "\n".join(map(" ".join, lines)) + "\n"


def flip_bytes(data: bytes, choose: random.Random, share: float = 1.0) -> bytes:
    if choose.random() >= share:
        return data
    damaged = bytearray(data)
    for _ in range(choose.randrange(1, 20)):
        damaged[choose.randrange(len(damaged))] = choose.randrange(256)
    return bytes(damaged[: choose.choice((None, choose.randrange(len(damaged))))])


def assert_one_line_or_right(read: Callable[[], Graph], seed: int) -> None:
    try:
        read()
    except ExportError as error:
        message = str(error).strip()
        assert "\n" not in message, f"seed {seed}"
        assert len(message) <= LONGEST, f"seed {seed}: {message}"


def quantised() -> ModelProto:
    """A network in ONNX Runtime's form QOperator."""
    whole = ["step", "zero"]
    own: Any = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *whole], ["a"]),
        helper.make_node(
            "QLinearConv", ["a", *whole, "w", *whole, *whole, "b"], ["c"], pads=[1] * 4
        ),
        helper.make_node("QLinearSigmoid", ["c", *whole, *whole], ["d"], **own),
        helper.make_node(
            "QLinearMul", ["c", *whole, "d", *whole, *whole], ["e"], **own
        ),
        helper.make_node(
            "QLinearConcat", [*whole, "e", *whole, "c", *whole], ["f"], axis=1, **own
        ),
        helper.make_node("DequantizeLinear", ["f", *whole], ["g"]),
        helper.make_node("DepthToSpace", ["g"], ["y"], blocksize=2, mode="CRD"),
    ]
    numbers = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "step": np.array(0.02, np.float32),
        "zero": np.array(100, np.uint8),
        "w": numbers.integers(0, 256, (6, 3, 3, 3), np.uint8),
        "b": numbers.integers(-99, 99, 6, np.int32),
    }
    sides: list[int | str | None] = [1, 3, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sides)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid(*each) for each in (("", 17), ("com.microsoft", 1))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def rearranged() -> ModelProto:
    """A network of what is followed through shapes, and computed from constants."""
    make = helper.make_node
    nodes = [
        make("Conv", ["w", "square"], ["merged"]),
        make("Tile", ["merged", "tiles"], ["tiled"]),
        make("Conv", ["x", "tiled"], ["a"], pads=[1] * 4),
        make("SplitToSequence", ["a", "sizes"], ["parts"], axis=1),
        make("SequenceAt", ["parts", "second"], ["b"]),
        make("Div", ["b", "root"], ["c"]),
        make("Erf", ["c"], ["d"]),
        make("Add", ["d", "one"], ["e"]),
        make("Mul", ["b", "e"], ["f"]),
        make("Transpose", ["a"], ["turned"], perm=[1, 0, 2, 3]),
        make("Transpose", ["f"], ["source"], perm=[1, 0, 2, 3]),
        make("ScatterND", ["turned", "places", "source"], ["put"]),
        make("Transpose", ["put"], ["back"], perm=[1, 0, 2, 3]),
        make("Transpose", ["back"], ["g"], perm=[0, 2, 3, 1]),
        make("Shape", ["g"], ["shape"]),
        make("Reshape", ["g", "rows"], ["h"]),
        make("Gemm", ["h", "matrix"], ["i"], transB=1),
        make("Reshape", ["i", "shape"], ["j"]),
        make("Transpose", ["j"], ["k"], perm=[0, 3, 1, 2]),
        make("Reshape", ["k", "flat"], ["l"]),
        make("ReduceMean", ["l"], ["mean"], axes=[2]),
        make("Reshape", ["mean", "plain"], ["m"]),
        make("Mul", ["k", "m"], ["n"]),
        make("Reshape", ["n", "pairs"], ["o"]),
        make("ReduceSum", ["o", "second_axis"], ["p"], keepdims=0),
        make("ReduceMin", ["p"], ["least"], axes=[1]),
        make("Sub", ["p", "least"], ["q"]),
        make("DepthToSpace", ["q"], ["y"], blocksize=2, mode="CRD"),
    ]
    numbers = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "w": numbers.standard_normal((12, 3, 3, 3), np.float32),
        "square": numbers.standard_normal((3, 3, 1, 1), np.float32),
        "tiles": np.array([2, 1, 1, 1]),
        "sizes": np.array([20, 4]),
        "second": np.array(1),
        "root": np.array(2**0.5, np.float32),
        "one": np.array(1, np.float32),
        "places": np.array([[5], [0], [9], [2]]),
        "rows": np.array([-1, 24]),
        "matrix": numbers.standard_normal((24, 24), np.float32),
        "flat": np.array([1, 24, -1]),
        "plain": np.array([1, 24, 1, 1]),
        "pairs": np.array([1, 2, 12, 48, 64]),
        "second_axis": np.array([1]),
    }
    sides: list[int | str | None] = [1, 3, 48, 64]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


ONNX: dict[str, Callable[[], ModelProto]] = {
    "every operation": lambda: to_onnx(every_operation(0)),
    "imported operations": lambda: to_onnx(imported_operations(0)),
    "plain": lambda: to_onnx(plain_network(0)),
    "quantised": quantised,
    "rearranged": rearranged,
}


@pytest.mark.parametrize("seed", range(COUNT))
@pytest.mark.parametrize("name", ONNX)
def test_onnx(name: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(mutate_onnx(ONNX[name](), random.Random(seed)))
    assert_one_line_or_right(lambda: read_onnx(path), seed)


def plain_ncnn(folder: Path) -> Path:
    path = folder / "net.param"
    write_ncnn(plain_network(0, channels=4), path)
    return path


def ncnn_of(add: Callable[[Model], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = Model()
        add(made)
        return made.save(folder)

    return write


NCNN: dict[str, Callable[[Path], Path]] = {
    "plain": plain_ncnn,
    "pooled": ncnn_of(pooled_shapes),
    "moved": ncnn_of(last_axis),
    "sizes": ncnn_of(sizes_of_values),
    "places": ncnn_of(learned_sampling),
}


@pytest.mark.parametrize("seed", range(COUNT))
@pytest.mark.parametrize("name", NCNN)
def test_ncnn(name: str, seed: int, tmp_path: Path) -> None:
    choose, path = random.Random(seed), NCNN[name](tmp_path)
    path.write_text(mutate_param(path.read_text(), choose))
    weights = path.with_suffix(".bin")
    weights.write_bytes(flip_bytes(weights.read_bytes(), choose, share=0.2))
    assert_one_line_or_right(lambda: read_ncnn(path), seed)


@pytest.mark.skipif(not find_spec("spandrel"), reason="spandrel is not installed")
@pytest.mark.parametrize("seed", range(COUNT))
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_checkpoints(suffix: str, seed: int, tmp_path: Path) -> None:
    choose, path = random.Random(seed), tmp_path / f"net.{suffix}"
    # Real-ESRGAN's compact network, of two layers.
    shapes = {"body.0": (4, 3, 3, 3), "body.2": (12, 4, 3, 3)}
    state = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    state["body.1.weight"] = torch.zeros(4)
    if choose.random() < 0.5:
        name = choose.choice(list(state))
        size = [choose.choice((0, 1, 2, 5, 9)) for _ in range(choose.randrange(5))]
        state[choose.choice((name, "x"))] = torch.zeros(size)
        share = 0.0
    else:
        share = 1.0
    if suffix == "pth":
        torch.save(state, path)
    else:
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file(state, path)
    path.write_bytes(flip_bytes(path.read_bytes(), choose, share))
    assert_one_line_or_right(lambda: read_checkpoint(path), seed)


def test_the_models_to_change_are_right(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for make in ONNX.values():
        onnx.save_model(make(), str(path))
        assert read_onnx(path).scale == 2
    for write in NCNN.values():
        read_ncnn(write(tmp_path))
