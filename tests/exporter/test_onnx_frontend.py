"""ONNX models arrive as graphs with ONNX Runtime's result, or are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import Tensor, nn
from torch.nn import functional

from tests.exporter.networks import Cascade, Normalised, Plain, UNet
from tests.graphs import (
    assert_same_graph,
    every_operation,
    imported_operations,
    plain_network,
    random_network,
)
from upfrost.network import reference
from upfrost.network.graph import Graph, alignment
from upfrost.network.reference import Array
from upfrost_exporter import ExportError, passes, trace_module
from upfrost_exporter.onnx_backend import to_onnx, write_onnx
from upfrost_exporter.onnx_frontend import read_onnx

Sides = list[int | str | None]
FREE: Sides = [1, 3, "height", "width"]


def model(
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    sides: Sides = FREE,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> ModelProto:
    """A model that reads x and gives the last node's output."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, sides)],
        [helper.make_tensor_value_info(nodes[-1].output[0], kind, [None] * 4)],
        [numpy_helper.from_array(a, name) for name, a in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )


def saved(made: ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save_model(made, str(path))
    return path


def node(kind: str, *inputs: str, to: str = "y", **attributes: Any) -> NodeProto:
    name = f"the_{kind}" if to == "y" else f"{kind}_to_{to}"
    return helper.make_node(kind, list(inputs), [to], name, **attributes)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


@pytest.mark.parametrize("make", [every_operation, plain_network, imported_operations])
def test_a_network_comes_back_from_onnx(
    make: Callable[[int], Graph], tmp_path: Path
) -> None:
    graph = make(0)
    path = tmp_path / "net.onnx"
    write_onnx(graph, path)
    found = read_onnx(path)
    picture = np.random.default_rng(0).random((3, 8, 12), np.float32)
    expected, result = (reference.run(each, picture) for each in (graph, found))
    assert np.abs(result - expected).max() <= 1e-6
    assert (found.name, found.scale) == (graph.name, graph.scale)
    assert {**found.metadata, **graph.metadata} == found.metadata


@pytest.mark.parametrize("seed", range(10), ids=lambda seed: f"seed{seed}")
def test_random_networks_come_back(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write_onnx(random_network(seed), path)
    read_onnx(path)  # compares with ONNX Runtime


def test_the_value_range_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    made = to_onnx(plain_network(0))
    for entry in made.metadata_props:
        if entry.key == "upfrost.value_range":
            entry.value = "255.0"
    onnx.save_model(made, str(path))
    assert read_onnx(path).value_range == 255
    assert read_onnx(path, value_range=1.0).value_range == 1


def test_a_colour_that_there_is_not_is_refused(tmp_path: Path) -> None:
    made = to_onnx(plain_network(0))
    made.metadata_props.add(key="upfrost.colour", value="red")
    with pytest.raises(ExportError, match=r"upfrost\.colour is 'red'"):
        read_onnx(saved(made, tmp_path))


def export(
    network: nn.Module,
    path: Path,
    *,
    free: bool = True,
    opset: int = 17,
    size: tuple[int, int] = (20, 28),
    **more: Any,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.rand(1, 3, *size),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {2: "h", 3: "w"}} if free else None,
            **more,
        )


class Lambda(nn.Module):
    """A function between two convolutions, that it may use layers in."""

    def __init__(
        self, function: Callable[..., Tensor], *layers: nn.Module, channels: int = 8
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.layers = function, nn.ModuleList(layers)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.first(x), *self.layers)
        result: Tensor = self.last(y)
        return result


def assert_comes_in(network: nn.Module, path: Path, **settings: Any) -> list[str]:
    """It is read, and gives PyTorch's result; returns the graph's operations."""
    export(network, path, **settings)
    graph = read_onnx(path)  # compares with ONNX Runtime
    picture = torch.rand(1, 3, 20, 28)
    with torch.no_grad():
        expected = network(picture)[0].numpy()
    found = reference.run(graph, picture[0].numpy())
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
    return [each.op for each in graph.nodes]


ANY_SIZE = pytest.mark.parametrize("free", [True, False], ids=["any-size", "one-size"])


def some_replaced(x: Tensor, layer: nn.Module) -> Tensor:
    """As PLKSR does (arXiv:2404.11848)."""
    x = x.clone()
    x[:, :4] = layer(x[:, :4])
    return x


@ANY_SIZE
def test_channels_that_are_replaced(free: bool, tmp_path: Path) -> None:
    network = Lambda(some_replaced, nn.Conv2d(4, 4, 3, padding=1))
    assert_comes_in(network, tmp_path / "net.onnx", free=free)


def test_channels_that_are_replaced_as_dynamo_writes_it(tmp_path: Path) -> None:
    made = model(
        [
            node("Conv", "x", "w", to="c"),
            node("Slice", "x", "zero", "two", "one", to="s"),
            node("Sigmoid", "s", to="a"),
            node("Transpose", "a", to="source", perm=[1, 0, 2, 3]),
            node("Transpose", "c", to="turned", perm=[1, 0, 2, 3]),
            node("ScatterND", "turned", "places", "source", to="put", reduction="none"),
            node("Transpose", "put", perm=[1, 0, 2, 3]),
        ],
        {
            "w": random(3, 3, 1, 1),
            "zero": ints(0),
            "one": ints(1),
            "two": ints(2),
            "places": ints(2, 0).reshape(2, 1),
        },
        opset=18,
    )
    read_onnx(saved(made, tmp_path))  # compares with ONNX Runtime


def test_rows_that_are_replaced_are_refused(tmp_path: Path) -> None:
    made = model(
        [node("ScatterND", "x", "places", "source")],
        {"places": ints(0, 0).reshape(1, 2), "source": random(1, 48, 64)},
    )
    with pytest.raises(ExportError, match=r"ScatterND .* puts constants in"):
        read_onnx(saved(made, tmp_path))


@pytest.mark.parametrize("sizes", [ints(3, 5), np.array(4)], ids=["sizes", "even"])
def test_parts_of_a_split_as_dynamo_writes_them(
    sizes: np.ndarray, tmp_path: Path
) -> None:
    made = model(
        [
            node("Conv", "x", "w", to="c"),
            node("SplitToSequence", "c", "sizes", to="parts", axis=1),
            node("SequenceAt", "parts", "one", to="b"),
            node("SequenceAt", "parts", "zero", to="a"),
            node("Concat", "b", "a", to="joined", axis=1),
            node("Conv", "joined", "last"),
        ],
        {
            "w": random(8, 3, 1, 1),
            "sizes": sizes,
            "zero": np.array(0),
            "one": np.array(1),
            "last": random(3, 8, 1, 1),
        },
    )
    read_onnx(saved(made, tmp_path))  # compares with ONNX Runtime


class ChannelsBehind(nn.Module):
    """Layer normalisation of channels as the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(self.first(x).permute(0, 2, 3, 1))
        result: Tensor = self.last(normed.permute(0, 3, 1, 2))
        return result


def test_layer_normalisation_before_it_was_an_operation(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export(ChannelsBehind(), path, opset=11)  # which writes means, squares and roots
    graph = read_onnx(path)
    assert [node.op for node in graph.nodes] == ["conv2d", "layer_norm", "conv2d"]


@pytest.mark.parametrize("opset", [11, 13, 20])
@pytest.mark.parametrize("free", [True, False], ids=["any-size", "one-size"])
@pytest.mark.parametrize(
    ("network", "scale"),
    [
        (lambda: Plain(5, 3, "bicubic"), 3),
        (lambda: Plain(4, 4, "nearest"), 4),
        (Cascade, 2),
        (Normalised, 2),
    ],
    ids=["bicubic", "nearest", "cascade", "normalised"],
)
def test_networks_that_pytorch_writes(
    network: Callable[[], nn.Module],
    scale: int,
    free: bool,
    opset: int,
    tmp_path: Path,
) -> None:
    torch.manual_seed(opset)
    path = tmp_path / "net.onnx"
    export(network().eval(), path, free=free, opset=opset)
    graph = read_onnx(path)
    assert (graph.scale, graph.channels) == (scale, 3)
    assert graph.metadata["source"] == "net.onnx"


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Conv", "x", "w")], {"w": random(3, 3, 1, 1)}),
        ([node("Conv", "x", "w", auto_pad="SAME_UPPER")], {"w": random(3, 3, 2, 4)}),
        ([node("Conv", "x", "w", auto_pad="SAME_LOWER")], {"w": random(3, 3, 2, 4)}),
        *(
            (
                [
                    node("Conv", "x", "w", to="c", strides=[2, 4], auto_pad=side),
                    node("ConvTranspose", "c", "w", strides=[2, 4], pads=[1, 0, 0, 0]),
                ],
                {"w": random(3, 3, 3, 4)},
            )
            for side in ("SAME_UPPER", "SAME_LOWER")
        ),
        (
            [
                node("Greater", "x", "s", to="g"),
                node("Not", "g", to="n"),
                node("Exp", "x", to="e"),
                node("Where", "n", "e", "x"),
            ],
            {"s": floats(0.4)},
        ),
        (
            [
                node("LessOrEqual", "x", "s", to="g"),
                node("Where", "g", "s", "x", to="w"),
                node("Less", "w", "t", to="l"),
                helper.make_node("Cast", ["l"], ["c"], "cast", to=TensorProto.FLOAT),
                node("Mul", "c", "w"),
            ],
            {"s": floats(0.4), "t": floats(0.7)},
        ),
        (
            [node("Where", "always", "x", "s", to="w"), node("Exp", "w")],
            {"always": np.array(True), "s": random(1)},
        ),
        ([node("Sigmoid", "x", to="s"), node("Log", "s")], {}),
        ([node("Softmax", "x", axis=1)], {}),
        (
            [node("Conv", "x", "w", group=3, pads=[2, 0, 2, 0], dilations=[2, 1])],
            {"w": random(3, 1, 3, 1)},
        ),
        ([node("Add", "s", "x")], {"s": random(3, 1, 1)}),
        ([node("Sub", "s", "x")], {"s": random(1, 3, 1, 1)}),
        ([node("Sub", "x", "s")], {"s": floats(0.5)}),
        ([node("Mul", "s", "x")], {"s": random(1)}),
        ([node("Div", "x", "s")], {"s": floats(3.0)}),
        ([node("Neg", "x", to="n"), node("Sub", "x", "n")], {}),
        ([node("PRelu", "x", "s")], {"s": random(3, 1, 1)}),
        ([node("PRelu", "x", "s")], {"s": random(1)}),
        ([node("Clip", "x", "low")], {"low": floats(0.2)}),
        ([node("Clip", "x", "", "high")], {"high": floats(0.2)}),
        ([node("Clip", "x", "low")], {"low": floats(0)}),
        (
            [node("Concat", "x", "x", to="c", axis=-3), node("Conv", "c", "w")],
            {"w": random(3, 6, 1, 1)},
        ),
        (
            [
                node("Conv", "x", "w", to="c"),
                node("DepthToSpace", "c", blocksize=2, mode="DCR"),
            ],
            {"w": random(12, 3, 1, 1)},
        ),
        (
            [node("Resize", "x", "", "scales", nearest_mode="round_prefer_ceil")],
            {"scales": floats(1, 1, 3, 3)},
        ),
        (
            [
                node("Shape", "x", to="s"),
                node("Slice", "s", "zero", "two", to="front"),
                node("Slice", "s", "two", "four", to="sides"),
                node("Mul", "sides", "factor", to="large"),
                node("Concat", "front", "large", to="sizes", axis=0),
                node("Resize", "x", "", "", "sizes", mode="linear"),
            ],
            {
                "zero": ints(0),
                "two": ints(2),
                "four": ints(4),
                "factor": ints(2, 2),
            },
        ),
        *(([node(kind, "x")], {}) for kind in ("Sigmoid", "Tanh", "Elu", "Exp")),
        *(([node(kind, "x")], {}) for kind in ("Softplus", "HardSwish", "Abs", "Sqrt")),
        ([node("HardSigmoid", "x", alpha=1 / 6, beta=0.5)], {}),
        ([node("Pow", "x", "two")], {"two": floats(2)}),
        ([node("Pow", "x", "half")], {"half": floats(0.5)}),
        ([node("Mul", "x", "x")], {}),
        ([node("Add", "x", "one", to="a"), node("Div", "x", "a")], {"one": floats(1)}),
        (
            [node("Add", "x", "one", to="a"), node("Div", "one", "a")],
            {"one": floats(1)},
        ),
        (
            [node("ConvTranspose", "x", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1])],
            {"w": random(3, 3, 4, 4), "b": random(3)},
        ),
        (
            [
                node(
                    "ConvTranspose",
                    "x",
                    "w",
                    strides=[3, 3],
                    pads=[1, 1, 0, 0],
                    output_padding=[1, 1],
                    group=3,
                )
            ],
            {"w": random(3, 1, 3, 3)},
        ),
        (
            [
                node("MaxPool", "x", to="p", kernel_shape=[2, 3], pads=[0, 1, 1, 1]),
                node(
                    "AveragePool",
                    "p",
                    kernel_shape=[3, 3],
                    pads=[1] * 4,
                    count_include_pad=1,
                ),
            ],
            {},
        ),
        (
            [
                node("GlobalAveragePool", "x", to="g"),
                node("Conv", "g", "w", to="c"),
                node("Mul", "x", "c"),
            ],
            {"w": random(3, 3, 1, 1)},
        ),
        (
            [node("ReduceMean", "x", to="m", axes=[1]), node("Sub", "x", "m")],
            {},
        ),
        (
            [
                node("ReduceMean", "x", to="m", axes=[3]),
                node("Identity", "m", to="i"),
                node("ReduceMean", "i", to="n", axes=[2]),
                node("Sub", "x", "n"),
            ],
            {},
        ),
        (
            [
                node("Pad", "x", "pads", to="p", mode="reflect"),
                node("Slice", "p", "starts", "ends", "axes"),
            ],
            {
                "pads": ints(0, 0, 3, 2, 0, 0, 1, 4),
                "starts": ints(1, 5),
                "ends": ints(-3, -1),
                "axes": ints(2, 3),
            },
        ),
        (
            [
                node("Pad", "x", "pads", to="p"),
                node("Conv", "p", "w"),
            ],
            {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "w": random(3, 3, 3, 3)},
        ),
        (
            [node("Pad", "x", "pads", mode="edge", to="p"), node("Conv", "p", "w")],
            {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1), "w": random(3, 3, 3, 3)},
        ),
        (
            [
                node("Pad", "x", "pads", "fill", to="p"),
                node("Slice", "p", "s", "e", to="c"),
                node("Conv", "c", "w"),
            ],
            {
                "pads": ints(0, 2, 1, 1, 0, 1, 1, 1),
                "fill": floats(0.5),
                "w": random(3, 3, 3, 3),
                "s": ints(0, 1),
                "e": ints(1, 4),
            },
        ),
        (
            [
                node("MaxPool", "x", to="blocks", kernel_shape=[2, 2], strides=[2, 2]),
                node("GlobalAveragePool", "x", to="mean"),
                node("Add", "blocks", "mean", to="sum"),
                node("ConvTranspose", "sum", "w", strides=[2, 2]),
            ],
            {"w": random(3, 3, 2, 2)},
        ),
        (
            [
                node("Slice", "x", "first", "end", "axes", "steps", to="a"),
                node("Slice", "x", "second", "end", "axes", "steps", to="b"),
                node("Sub", "a", "b", to="c"),
                node("ConvTranspose", "c", "w", strides=[2, 2]),
            ],
            {
                "first": ints(0, 1),
                "second": ints(1, 0),
                "end": ints(1 << 62, 1 << 62),
                "axes": ints(2, 3),
                "steps": ints(2, 2),
                "w": random(3, 3, 2, 2),
            },
        ),
        (
            [
                node("AveragePool", "x", to="a", kernel_shape=[3, 5], pads=[1, 2] * 2),
                node("Max", "low", "a", "x", to="b"),
                node("Min", "b", "high", to="c"),
                node("HardSigmoid", "c", alpha=0.3, beta=0.4),
            ],
            {"low": random(3, 1, 1), "high": floats(0.9)},
        ),
        (
            [
                node("Greater", "x", "half", to="above"),
                node("Sub", "x", "half", to="less"),
                node("Where", "above", "x", "less", to="w"),
                node("CastLike", "w", "half"),
            ],
            {"half": floats(0.5)},
        ),
        (
            [
                helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
                node("Concat", "b", "a", axis=1),
            ],
            {"sizes": ints(1, 2)},
        ),
        (
            [
                node("SpaceToDepth", "x", to="s", blocksize=2),
                node("DepthToSpace", "s", blocksize=2, mode="CRD"),
            ],
            {},
        ),
        (
            [
                helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
                node("Dropout", "c", to="d"),
                node("Relu", "d"),
            ],
            {},
        ),
    ],
)
def test_an_operation_gives_what_onnx_runtime_gives(
    nodes: list[NodeProto], constants: dict[str, np.ndarray], tmp_path: Path
) -> None:
    read_onnx(saved(model(nodes, constants), tmp_path))


def test_what_onnx_runtime_has_optimised(tmp_path: Path) -> None:
    plain = model(
        [
            node("Conv", "x", "w", to="a", pads=[1, 1, 1, 1]),
            node("LeakyRelu", "a", to="b", alpha=0.2),
            node("Conv", "b", "w", to="c", pads=[1, 1, 1, 1]),
            node("HardSigmoid", "c", to="d", alpha=0.3, beta=0.4),
            node("Conv", "d", "w", to="e", pads=[1, 1, 1, 1]),
            node("Mul", "e", "alpha", to="f"),
            node("Sigmoid", "f", to="g"),
            node("Mul", "e", "g"),
        ],
        {"w": 0.2 * random(3, 3, 3, 3), "alpha": floats(1.702)},
    )
    path = saved(plain, tmp_path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    )
    optimised = options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    kinds = {each.op_type for each in onnx.load(optimised).graph.node}
    assert kinds == {"FusedConv", "Conv", "QuickGelu"}
    read_onnx(optimised)  # compares with ONNX Runtime


def test_what_is_optimised_for_one_processor_is_refused(tmp_path: Path) -> None:
    made = model([helper.make_node("ReorderInput", ["x"], ["y"])])
    made.graph.node[0].domain = "com.microsoft.nchwc"
    made.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    with pytest.raises(ExportError, match="as it was before ONNX Runtime optimised it"):
        read_onnx(saved(made, tmp_path))


@pytest.mark.parametrize("last", [("x", "half"), ("half", "x")])
@pytest.mark.parametrize("first", [("Div", 2**0.5), ("Mul", 0.5**0.5)])
def test_gelu_in_pieces_becomes_one_operation(
    first: tuple[str, float], last: tuple[str, str], tmp_path: Path
) -> None:
    made = model(
        [
            node(first[0], "x", "root", to="a"),
            node("Erf", "a", to="b"),
            node("Add", "b", "one", to="c"),
            node("Mul", last[0], "c", to="d"),
            helper.make_node("Mul", ["d", last[1]], ["y"]),
        ],
        {"root": floats(first[1]), "one": floats(1), "half": floats(0.5)},
    )
    graph = read_onnx(saved(made, tmp_path))
    assert [each.op for each in graph.nodes] == ["unary"]


@ANY_SIZE
def test_linear_layers_on_rows_of_pixels(free: bool, tmp_path: Path) -> None:
    """As onnxsim writes those with channels as the last axis."""
    made = model(
        [
            node("Transpose", "x", to="behind", perm=[0, 2, 3, 1]),
            node("Shape", "behind", to="shape"),
            node("Reshape", "behind", "rows", to="a"),
            node("Gemm", "a", "first", "bias", to="b", transB=1, alpha=0.5, beta=2.0),
            node("Relu", "b", to="c"),
            node("Gemm", "c", "second", to="d"),
            node("Reshape", "d", "shape", to="back"),
            node("Transpose", "back", perm=[0, 3, 1, 2]),
        ],
        {
            "rows": ints(-1, 3),
            "first": random(5, 3),
            "bias": random(5),
            "second": random(5, 3),
        },
        FREE if free else [1, 3, 8, 10],
    )
    graph = read_onnx(saved(made, tmp_path))
    assert [each.op for each in graph.nodes] == ["conv2d", "relu", "conv2d"]


@ANY_SIZE
def test_windows_of_the_whole_picture(free: bool, tmp_path: Path) -> None:
    def attended(x: Tensor) -> Tensor:
        mean = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(mean + functional.adaptive_max_pool2d(x, 1))

    assert_comes_in(Lambda(attended), tmp_path / "net.onnx", free=free)


def noise_beside(x: Tensor) -> Tensor:
    return torch.cat([x, torch.full_like(x[:, :1], 0.1)], 1)


def both_stacked(x: Tensor) -> Tensor:
    """Sums and means over a new axis, in front and behind the first."""
    pair = [torch.sigmoid(x), torch.tanh(x)]
    return torch.stack(pair).sum(0) * torch.stack(pair, 1).mean(1)


def flat_mean(x: Tensor) -> Tensor:
    batch, channels = x.shape[:2]
    mean = x.view(batch, channels, -1).mean(-1).view(batch, channels, 1, 1)
    return x * mean + x.flatten(2).max(-1)[0][:, :, None, None]


def less_the_mean(x: Tensor) -> Tensor:
    return x - x.mean() * x.mean((1, 2, 3), keepdim=True)


def smallest(x: Tensor) -> Tensor:
    size = functional.normalize(x, p=1, dim=1)
    return x - x.amin(1, keepdim=True) + size * x.amin((2, 3), keepdim=True)


def with_zeros_and_ones(x: Tensor) -> Tensor:
    gate = torch.ones_like(x) - torch.sigmoid(x)
    return gate * (torch.zeros_like(x) + x) * torch.full((1, 1, *x.shape[2:]), 0.5)


def signed(x: Tensor) -> Tensor:
    return x + x * torch.sign(x - 100)


@pytest.mark.parametrize("opset", [11, 17])
@ANY_SIZE
@pytest.mark.parametrize(
    "function",
    [
        *(noise_beside, both_stacked, flat_mean, less_the_mean, smallest, signed),
        with_zeros_and_ones,
        lambda x: torch.softmax(x, 1),
    ],
    ids=lambda function: function.__name__,
)
def test_functions_as_people_write_them(
    function: Callable[[Tensor], Tensor], free: bool, opset: int, tmp_path: Path
) -> None:
    channels = 9 if function is noise_beside else 8
    network = Lambda(function, channels=channels)
    assert_comes_in(network, tmp_path / "net.onnx", free=free, opset=opset)
    if free and opset == 17:
        trace_module(network, name="net", scale=1)  # compares with PyTorch


def test_an_unbiased_variance_of_the_picture_is_refused(tmp_path: Path) -> None:
    def normed(x: Tensor, unbiased: bool) -> Tensor:
        return x / (x.std((2, 3), keepdim=True, unbiased=unbiased) + 0.1)

    path = tmp_path / "net.onnx"
    assert_comes_in(Lambda(lambda x: normed(x, unbiased=False)), path)
    network = Lambda(lambda x: normed(x, unbiased=True))
    for free in (True, False):
        export(network, path, free=free)
        with pytest.raises(ExportError, match=r"unbiased .* set correction=0"):
            read_onnx(path)
    with pytest.raises(ExportError, match=r"unbiased .* set correction=0"):
        trace_module(network, name="net", scale=1)


def test_weights_that_are_made_of_others(tmp_path: Path) -> None:
    """As networks have them that are not re-parameterised, or normalise weights."""
    made = model(
        [
            node("Conv", "wide", "narrow", to="a"),
            node("ReduceL2", "a", to="size", axes=[1, 2, 3]),
            node("Div", "a", "size", to="b"),
            node("Tile", "one", "repeats", to="tiled"),
            node("Pad", "tiled", "around", to="padded"),
            node("Add", "b", "padded", to="c"),
            node("MatMul", "c", "square", to="weight"),
            node("Conv", "x", "weight", pads=[1, 1, 1, 1]),
        ],
        {
            "wide": random(3, 3, 3, 3),
            "narrow": random(3, 3, 1, 1),
            "one": random(3, 1, 1, 1),
            "repeats": ints(1, 3, 1, 1),
            "around": ints(0, 0, 1, 1, 0, 0, 1, 1),
            "square": random(3, 3),
        },
    )
    graph = read_onnx(saved(made, tmp_path))
    assert [each.op for each in graph.nodes] == ["conv2d"]


@pytest.mark.parametrize("kind", ["Conv", "MatMul", "Tile", "Pad"])
def test_constants_that_take_long_are_refused(kind: str, tmp_path: Path) -> None:
    large = np.zeros((1, 1, 1 << 12, 1 << 12), np.float32)
    second = {"Tile": ints(1, 1, 64, 1), "Pad": ints(*[0, 0, 1 << 14, 0] * 2)}
    made = model(
        [node(kind, "large", "second", to="c"), node("Add", "x", "c")],
        {"large": large, "second": second.get(kind, large)},
    )
    with pytest.raises(ExportError, match=f"{kind} .* makes .* numbers of constants"):
        read_onnx(saved(made, tmp_path))


def test_batch_normalisation_in_a_squeeze_of_channels(tmp_path: Path) -> None:
    def weighed(x: Tensor, linear: nn.Module, norm: nn.Module) -> Tensor:
        mean = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return x * torch.sigmoid(norm(linear(mean)))[:, :, None, None]

    network = Lambda(weighed, nn.Linear(8, 8), nn.BatchNorm1d(8))
    assert_comes_in(network, tmp_path / "net.onnx")


def test_batch_normalisation_in_training_is_refused(tmp_path: Path) -> None:
    layer = helper.make_node(
        "BatchNormalization",
        ["x", "s", "s", "s", "s"],
        ["y", "mean", "variance"],
        training_mode=1,
    )
    with pytest.raises(ExportError, match=r"as in training; export .* by eval"):
        read_onnx(saved(model([layer], {"s": floats(1, 1, 1)}), tmp_path))


def test_channels_that_are_free_are_the_first_convolutions(tmp_path: Path) -> None:
    sides: Sides = ["batch", "channels", "height", "width"]
    convolution = node("Conv", "x", "w")
    made = model([convolution], {"w": random(1, 1, 1, 1)}, sides)
    assert read_onnx(saved(made, tmp_path)).channels == 1
    made = model([node("Relu", "x")], {}, sides)
    with pytest.raises(ExportError, match="with 1 or 3 channels: fix the channels"):
        read_onnx(saved(made, tmp_path))


GELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "of-half-first": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
    "half-of-first": lambda x: 0.5 * (1 + torch.erf(x * 0.5**0.5)) * x,
    # onnxsim leaves it so, the half in the convolution behind.
    "without-half": lambda x: x * (torch.erf(x / 2**0.5) + 1),
    "of-another": lambda x: functional.gelu(2 * x - 0.5) + x,
}


@pytest.mark.parametrize("name", GELUS)
def test_gelu_in_every_spelling(name: str, tmp_path: Path) -> None:
    network = Lambda(GELUS[name])
    assert "unary" in assert_comes_in(network, tmp_path / "net.onnx")
    trace_module(network, name="net", scale=1)  # compares with PyTorch


def test_gelu_between_channels_as_the_last_axis(tmp_path: Path) -> None:
    layers = nn.LayerNorm(8), nn.Linear(8, 8)
    network = Lambda(
        lambda x, norm, linear: functional.gelu(
            linear(norm(x.permute(0, 2, 3, 1)))
        ).permute(0, 3, 1, 2),
        *layers,
    )
    assert "unary" in assert_comes_in(network, tmp_path / "net.onnx")


def test_another_error_function_is_refused(tmp_path: Path) -> None:
    made = model([node("Erf", "x", to="e"), node("Mul", "e", "x")])
    with pytest.raises(ExportError, match=r"erf at 'Erf_to_e' is no part of x · \(1"):
        read_onnx(saved(made, tmp_path))


@pytest.mark.parametrize("keep", [True, False], ids=["float-ends", "half-ends"])
@pytest.mark.parametrize("make", [plain_network, imported_operations])
def test_models_in_half_precision(
    make: Callable[[int], Graph], keep: bool, tmp_path: Path
) -> None:
    """As ONNX Runtime's own converter writes them: weights, values, perhaps ends."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = make(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(to_onnx(graph), keep_io_types=keep)
    found = read_onnx(saved(half, tmp_path))
    assert found.value_range == graph.value_range
    rounded = passes.round_tensors(graph)
    picture = graph.value_range * np.random.default_rng(0).random(
        (graph.channels, 32, 48), np.float32
    )
    expected = reference.run(rounded, picture)
    off = np.abs(reference.run(found, picture) - expected).max()
    # Numbers beside the weights, such as slopes, are rounded by the converter alone.
    assert off <= 2e-3 * max(graph.value_range, np.abs(expected).max())


CHANNELS_LAST: Sides = [1, "height", "width", 3]


def test_channels_last_as_converters_of_tensorflow_write_it(tmp_path: Path) -> None:
    """Transposed at both ends, and between them where nobody minds."""
    made = model(
        [
            node("Transpose", "x", to="first", perm=[0, 3, 1, 2]),
            node("Conv", "first", "w", to="c", pads=[1, 1, 1, 1]),
            node("Transpose", "c", to="t", perm=[0, 2, 3, 1]),
            node("Add", "t", "bias", to="sum"),
            node("PRelu", "sum", "slope", to="a"),
            node("Concat", "a", "t", to="joined", axis=3),
            node("Mul", "joined", "two", to="scaled"),
            node("Transpose", "scaled", to="back", perm=[0, 3, 1, 2]),
            node("Conv", "back", "last", to="deep"),
            node("DepthToSpace", "deep", to="large", blocksize=2, mode="DCR"),
            node("Transpose", "large", perm=[0, 2, 3, 1]),
        ],
        {
            "w": random(5, 3, 3, 3),
            "bias": random(5),
            "slope": random(1, 1, 5),
            "two": floats(2),
            "last": random(12, 10, 1, 1) / 10,
        },
        CHANNELS_LAST,
    )
    graph = read_onnx(saved(made, tmp_path))
    assert (graph.scale, graph.channels) == (2, 3)
    assert "transpose" not in {node.op for node in graph.nodes}


@pytest.mark.parametrize("fixed", [True, False], ids=["one-size", "any-size"])
@pytest.mark.parametrize("order", ["CRD", "DCR", "last"])
def test_pixel_shuffle_by_reshaping(order: str, fixed: bool, tmp_path: Path) -> None:
    """As converters write it that do not know DepthToSpace."""
    blocks, axes = {
        "CRD": ([0, 3, 2, 2], [0, 1, 4, 2, 5, 3]),
        "DCR": ([0, 2, 2, 3], [0, 3, 4, 1, 5, 2]),
        "last": ([2, 2, 3], [0, 1, 3, 2, 4, 5]),
    }[order]
    is_last = order == "last"
    sides: Sides = [1, 3, 8, 10] if fixed else FREE
    first = [] if not is_last else [node("Transpose", "c", to="d", perm=[0, 2, 3, 1])]
    shape = "d" if is_last else "c"
    rows, columns = (1, 2) if is_last else (2, 3)
    made = model(
        [
            node("Conv", "x", "w", to="c"),
            *first,
            node("Shape", shape, to="s"),
            node("Gather", "s", "rows", to="h", axis=0),
            node("Gather", "s", "columns", to="v", axis=0),
            node("Concat", *_around(is_last), to="split", axis=0),
            node("Mul", "h", "two", to="h2"),
            node("Mul", "v", "two", to="v2"),
            node("Concat", *_joined(is_last), to="joined", axis=0),
            node("Reshape", shape, "split", to="apart"),
            node("Transpose", "apart", to="turned", perm=axes),
            node("Reshape", "turned", "joined", to="large"),
            node("Transpose", "large", perm=[0, 3, 1, 2])
            if is_last
            else node("Identity", "large"),
        ],
        {
            "w": random(12, 3, 1, 1),
            "rows": ints(rows),
            "columns": ints(columns),
            "blocks": ints(*blocks),
            "one": ints(1),
            "three": ints(3),
            "two": ints(2),
        },
        sides,
    )
    graph = read_onnx(saved(made, tmp_path))
    assert graph.scale == 2
    assert [node.op for node in graph.nodes] == ["conv2d", "pixel_shuffle"]


def _around(is_last: bool) -> list[str]:
    return ["one", "h", "v", "blocks"] if is_last else ["blocks", "h", "v"]


def _joined(is_last: bool) -> list[str]:
    return ["one", "h2", "v2", "three"] if is_last else ["one", "three", "h2", "v2"]


def test_upsample_of_old_models(tmp_path: Path) -> None:
    made = model(
        [node("Upsample", "x", "scales", mode="nearest")],
        {"scales": floats(1, 1, 2, 2)},
        opset=9,
    )
    assert read_onnx(saved(made, tmp_path)).scale == 2


def test_a_resize_of_two_axes_alone(tmp_path: Path) -> None:
    scaled = [node("Resize", "x", "", "scales", mode="linear", axes=[-1, 2])]
    made = model(scaled, {"scales": floats(2, 2)}, opset=18)
    assert read_onnx(saved(made, tmp_path)).scale == 2
    sized = [
        node("Shape", "x", to="sides", start=2),
        node("Mul", "sides", "two", to="sizes"),
        node("Resize", "x", "", "", "sizes", mode="linear", axes=[2, 3]),
    ]
    made = model(sized, {"two": ints(2)}, opset=18)
    assert read_onnx(saved(made, tmp_path)).scale == 2


ATTENTION = [
    node("Relu", "x", to="r"),
    node("Softmax", "r", axis=3),
]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (model(ATTENTION), r"Softmax 'the_Softmax' \(operation 2 of 2\): .*attention"),
        (
            model([node("Relu", "x", to="r"), node("GridSample", "r", "x")]),
            r"GridSample 'the_GridSample' \(operation 2 of 2\): its mode is bilinear, "
            "its padding zeros",
        ),
        (
            model([node("GridSample", "x", "x", padding_mode="border")]),
            "its grid is not that of the pixels themselves",
        ),
        (
            model([node("MaxPool", "x", kernel_shape=[2, 2], ceil_mode=1)]),
            "MaxPool .* it rounds sizes up; export it with ceil_mode=False",
        ),
        (
            model([node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2])]),
            "MaxPool .* it is dilated; use dilation=1",
        ),
        (
            model(
                [node("AveragePool", "x", kernel_shape=[2, 2], auto_pad="SAME_UPPER")]
            ),
            "AveragePool .* it pads by itself; export with explicit pads",
        ),
        (
            model([node("ReduceL2", "x", axes=[2, 3])]),
            r"ReduceL2 .* it is over axes \[2, 3\]; reduce channels",
        ),
        (
            model(
                [node("Unsqueeze", "x", "axis", to="u"), node("Conv", "u", "w")],
                {"axis": ints(2), "w": random(3, 3, 1, 3, 3)},
            ),
            r"has the shape \(1, 3, 1, 48, 64\), .*; keep to those four axes there",
        ),
        (
            model(
                [node("Conv", "x", "w")], {"w": random(3, 1, 1, 1)}, [1, 1, "h", "w"]
            ),
            "the network maps 1 channels to 3: upfrost takes networks that keep them",
        ),
        (
            model(
                [node("Conv", "x", "w", to="c"), node("Mul", "x", "c")],
                {"w": random(3, 3, 1, 3)},
            ),
            "differ in shape: 3 channels of 64×48 and 3 channels of 62×48",
        ),
        (model([node("GlobalMaxPool", "x")]), "output is a number for each channel"),
        (model([node("GlobalAveragePool", "x")]), "upfrost takes models that give a"),
        (
            model([node("ReduceSum", "x", "axes")], {"axes": ints(3)}, opset=13),
            "output is a number for each channel, or row",
        ),
        (
            model(
                [
                    node("Transpose", "x", to="t", perm=[0, 1, 3, 2]),
                    node("Conv", "t", "w"),
                ],
                {"w": random(3, 3, 1, 1)},
            ),
            r"'the_Conv' .* input 1 has the shape \(1, 3, 64, 48\).*channels first",
        ),
        (
            model([node("Transpose", "x", perm=[0, 1, 3, 2])]),
            r"the model's output has the shape \(1, 3, 64, 48\)",
        ),
        (
            model(
                [
                    node("Reshape", "x", "s", to="r"),
                    node("Transpose", "r", to="t", perm=[0, 2, 1]),
                    node("MatMul", "t", "r"),
                ],
                {"s": ints(1, 3, -1)},
            ),
            r"MatMul 'the_MatMul' \(operation 3 of 3\): .*attention is out of scope",
        ),
        (
            # What stops a window transformer first is a change of shape.
            model(
                [
                    node("Reshape", "x", "s", to="r"),
                    node("Conv", "r", "w", to="c"),
                    node("MatMul", "c", "c", to="m"),
                    node("Softmax", "m"),
                ],
                {"s": ints(1, 48, 3, -1), "w": random(48, 48, 1, 1)},
            ),
            r"'Conv_to_c' .*has the shape .*attention is out of scope",
        ),
        *(
            (
                model([node("Transpose", "x", perm=order)]),
                r"Transpose .* changes the shape \(1, 3, 48, 64\) to \[",
            )
            for order in ([0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 9])
        ),
        *(
            (
                model([node("Reshape", "x", "s")], {"s": ints(*sides)}),
                "Reshape .* changes the shape",
            )
            for sides in ((-1, -1), (1 << 62, 1 << 62), (-5, 7), (1,) * 99, (0,) * 6)
        ),
        (
            model([node("Reshape", "x", "s")], {"s": ints(1, 5, -1)}),
            r"Reshape .* changes the shape \(1, 3, 48, 64\) to \[1, 5, -1\]",
        ),
        (model([node("Relu", "x")], sides=[1, 4, 8, 8]), r"has shape \[1, 4, 8, 8\]"),
        (model([node("Relu", "x")], sides=[2, 3, 8, 8]), "with 1 or 3 channels"),
        (model([node("Relu", "x")], sides=[1, 3, 8]), r"has shape \[1, 3, 8\]"),
        (model([node("Relu", "x")], kind=TensorProto.BFLOAT16), "is bfloat16, not"),
        (
            model([node("Conv", "x", "w")], {"w": random(3, 4, 3, 3)}),
            r"Conv 'the_Conv' .*expects 4 input channels, found 3",
        ),
        (
            model(
                [node("Conv", "x", "w", pads=[0, 1, 0, 1])], {"w": random(3, 3, 3, 3)}
            ),
            r"result is 0\.9583 times as large as the picture; upfrost takes whole",
        ),
        (
            model([node("Conv", "x", "w")], {"w": random(3, 3, 1, 1) * np.nan}),
            "holds a number that is not finite",
        ),
        (
            model(
                [node("Resize", "x", "", "s", mode="linear")],
                {"s": floats(1, 1, 2, 3)},
            ),
            "result is 2 times as high and 3 times as wide",
        ),
        (
            model(
                [
                    node(
                        "Resize",
                        "x",
                        "",
                        "s",
                        mode="linear",
                        coordinate_transformation_mode="align_corners",
                    )
                ],
                {"s": floats(1, 1, 2, 2)},
            ),
            "export it with align_corners=False",
        ),
        (
            model(
                [node("Resize", "x", "s", mode="linear")],
                {"s": floats(1, 1, 2, 2)},
                opset=10,
            ),
            "mode linear with coordinates asymmetric, .* with opset_version=11",
        ),
        (
            model(
                [
                    node(
                        "Resize",
                        "x",
                        "",
                        "",
                        "s",
                        axes=[2, 3],
                        keep_aspect_ratio_policy="not_larger",
                    )
                ],
                {"s": ints(96, 128)},
                opset=18,
            ),
            "Resize .* keeps the aspect ratio; give it scales",
        ),
        (
            model(
                [node("ConstantOfShape", "s", to="c"), node("Add", "x", "c")],
                {"s": ints(1 << 40, 1 << 40)},
            ),
            "ConstantOfShape .* makes .* numbers",
        ),
        (
            model(
                [node("Expand", "v", "s", to="c"), node("Add", "x", "c")],
                {"v": random(1), "s": ints(1 << 31, 1 << 31)},
            ),
            "Expand .* makes .* numbers",
        ),
        (
            model(
                [node("Tile", "v", "s", to="c"), node("Add", "x", "c")],
                {"v": random(1), "s": ints(1 << 40)},
            ),
            "Tile .* makes 1099511627776 numbers",
        ),
        (model([node("Identity", "x")]), "returns its input unchanged"),
        (
            model(
                [
                    node("Slice", "x", "s", "e", "a", to="c"),
                    node("Concat", "c", "x", axis=2),
                ],
                {"s": ints(-1), "e": ints(99), "a": ints(2)},
            ),
            "Concat .* its padding is circular; use reflect or replicate",
        ),
        (
            model([node("Concat", "x", "x", axis=2)]),
            "Concat .* joins along axis 2; join channels",
        ),
        (
            model([node("Add", "x", "b", to="a"), node("Relu", "a", to="b")]),
            "not a valid ONNX model: Nodes in a graph must be topologically sorted",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused(
    made: ModelProto, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message) as error:
        read_onnx(saved(made, tmp_path))
    assert "\n" not in str(error.value)


def test_a_result_that_depends_on_the_size_is_refused(tmp_path: Path) -> None:
    made = model([node("Resize", "x", "", "", "sizes")], {"sizes": ints(1, 3, 96, 128)})
    with pytest.raises(ExportError, match=r"the source gives an array of shape"):
        read_onnx(saved(made, tmp_path))


def test_a_choice_by_size_beyond_the_compared_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Shape", "x", to="shape"),
        node("Gather", "shape", "two", to="height"),
        node("Less", "height", "most", to="small"),
        node("Neg", "x", to="turned"),
        node("Relu", "x", to="bright"),
        node("Where", "small", "bright", "turned"),
    ]
    scalars = {"two": np.array(2), "most": np.array(80)}
    with pytest.raises(ExportError, match=r"1920×1088 the network does otherwise at"):
        read_onnx(saved(model(nodes, scalars), tmp_path))


@pytest.mark.parametrize("depth", [4, 5, 6])
def test_networks_may_halve_the_picture_six_times(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    torch.manual_seed(0)
    export(UNet(depth), path, size=(64, 128))
    assert alignment(read_onnx(path)) == 2**depth  # compares with ONNX Runtime


def test_a_model_of_two_pictures_is_refused_with_their_names(tmp_path: Path) -> None:
    made = model([node("Add", "x", "sigma")])
    made.graph.input.append(made.graph.input[0])
    made.graph.input[1].name = "sigma"
    with pytest.raises(
        ExportError, match=r"2 inputs and 1 outputs \('x', 'sigma', 'y'"
    ):
        read_onnx(saved(made, tmp_path))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    whole = to_onnx(plain_network(0)).SerializeToString()
    path = tmp_path / "net.onnx"
    random_bytes = np.random.default_rng(0).bytes(500)
    for data in (b"", b"hello", random_bytes, *(whole[:n] for n in range(1, 400, 13))):
        path.write_bytes(data)
        with pytest.raises(ExportError) as error:
            read_onnx(path)
        assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"none\.onnx: cannot be read"):
        read_onnx(tmp_path / "none.onnx")


def test_weights_outside_the_models_folder_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(random(3, 3, 1, 1).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    made = model([node("Conv", "x", "w")], {"w": random(3, 3, 1, 1)})
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret.bin")
    path = folder / "net.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        read_onnx(path)


def test_a_network_is_named_as_its_file_but_one_of_upfrosts_own(
    tmp_path: Path,
) -> None:
    model = to_onnx(plain_network(0))
    path = tmp_path / "4x_model.onnx"
    onnx.save_model(model, str(path))
    assert read_onnx(path).name == "plain"
    model.producer_name, model.graph.name = "pytorch", "main_graph"
    onnx.save_model(model, str(path))
    assert read_onnx(path).name == "4x_model"


def test_reading_twice_gives_the_same_graph(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write_onnx(every_operation(2), path)
    assert_same_graph(read_onnx(path), read_onnx(path))


def test_a_model_for_one_large_size_is_compared_at_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = to_onnx(plain_network(0))
    for value, scale in ((made.graph.input[0], 1), (made.graph.output[0], 2)):
        _, _, rows, columns = value.type.tensor_type.shape.dim
        rows.dim_value, columns.dim_value = 720 * scale, 1280 * scale
    seen: list[tuple[int, ...]] = []
    evaluate = reference.evaluate

    def spy(graph: Graph, picture: Array) -> dict[str, Array]:
        seen.append(picture.shape)
        return evaluate(graph, picture)

    monkeypatch.setattr(reference, "evaluate", spy)
    assert read_onnx(saved(made, tmp_path)).scale == 2
    assert max(max(shape) for shape in seen) < 100


def test_a_model_for_a_square_picture(tmp_path: Path) -> None:
    made = to_onnx(plain_network(0))
    for value, scale in ((made.graph.input[0], 1), (made.graph.output[0], 2)):
        _, _, rows, columns = value.type.tensor_type.shape.dim
        rows.dim_value = columns.dim_value = 32 * scale
    assert read_onnx(saved(made, tmp_path)).scale == 2


def test_a_name_that_is_no_text_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    path = saved(model([node("Relu", "x")]), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"the_Relu", b"the_\xffelu"))
    graph = read_onnx(path)
    assert [each.name for each in graph.nodes] == ["the__elu"]


@pytest.mark.parametrize("kind", ["Conv", "MaxPool"])
def test_pads_of_another_number_are_refused(kind: str, tmp_path: Path) -> None:
    inputs = ["x", "w"] if kind == "Conv" else ["x"]
    made = model(
        [node(kind, *inputs, kernel_shape=[3, 3], pads=[1, 1])],
        {"w": random(3, 3, 3, 3)},
    )
    with pytest.raises(ExportError, match=rf"import {kind} .* it is malformed"):
        read_onnx(saved(made, tmp_path))


def test_a_model_that_works_at_one_large_size_alone_is_refused(tmp_path: Path) -> None:
    sizes = ints(1, 3, 8, 2 * 65536)
    nodes = [node("Resize", "x", "", "", "sizes", mode="nearest")]
    nodes[0].attribute.extend(
        [
            helper.make_attribute("coordinate_transformation_mode", "asymmetric"),
            helper.make_attribute("nearest_mode", "floor"),
        ]
    )
    nodes += [node("Conv", "y", "w", to="wide", pads=[1, 1, 1, 1])]
    nodes += [node("Relu", "wide", to="bent"), node("Conv", "bent", "v", to="z")]
    constants = {
        "sizes": sizes,
        "w": random(256, 3, 3, 3),
        "v": random(3, 256, 1, 1),
    }
    path = saved(model(nodes, constants, [1, 3, 4, 65536]), tmp_path)
    with pytest.raises(ExportError, match=r"65536×4 pixels alone, which is too much"):
        read_onnx(path)


def quantised(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 numbers, and a scale for each place along `axis`."""
    other = tuple(each for each in range(array.ndim) if each != axis)
    scale = np.abs(array).max(axis=other) / 127
    sides = [-1 if each == axis else 1 for each in range(array.ndim)]
    return (array / scale.reshape(sides)).round().astype(np.int8), scale


def test_a_quantised_model_is_read_as_the_float_one(tmp_path: Path) -> None:
    first, second = random(8, 3, 3, 3), random(3, 8, 1, 1)
    weights, scales = quantised(first, 0)
    nodes = [
        node("QuantizeLinear", "x", "step", "middle", to="xq"),
        node("DequantizeLinear", "xq", "step", "middle", to="xd"),
        node("DequantizeLinear", "w", "scales", "zeros", to="wd", axis=0),
        node("Conv", "xd", "wd", to="a", pads=[1, 1, 1, 1]),
        # ReLU is left to the least integer.
        node("QuantizeLinear", "a", "step", "least", to="aq"),
        node("DequantizeLinear", "aq", "step", "least", to="ad"),
        node("Conv", "ad", "v", to="y"),
    ]
    constants: dict[str, np.ndarray] = {
        "step": np.array(0.02, np.float32),
        "middle": np.array(3, np.int8),
        "least": np.array(-128, np.int8),
        "w": weights,
        "scales": scales.astype(np.float32),
        "zeros": np.zeros(8, np.int8),
        "v": second,
    }
    graph = read_onnx(saved(model(nodes, constants), tmp_path))
    assert [each.op for each in graph.nodes] == ["conv2d", "relu", "conv2d"]
    steps = scales.reshape(-1, 1, 1, 1)
    assert np.abs(graph.tensors["wd"] - first).max() <= steps.max() / 2 + 1e-6
    assert "int8, read as the float network" in str(graph.metadata["quantised"])


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    """What quantisation looks at to choose its scales."""

    def __init__(self) -> None:
        self._left = iter([{"x": random(1, 3, 24, 32) % 1} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


class _Quantisable(nn.Module):
    """What ONNX Runtime's tools have quantised operations for."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.first(x))
        z = functional.leaky_relu(self.second(y), 0.1)
        gate = torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(z, 1)))
        z = functional.avg_pool2d(z * gate + y, 2)
        z = functional.interpolate(z, scale_factor=2, mode="nearest")
        return functional.pixel_shuffle(self.last(torch.cat([z, y], 1)), 2)


@pytest.mark.parametrize(
    "form", ["QDQ", "QOperator", "QOperator by channels", "dynamic"]
)
def test_what_onnx_runtime_quantises_is_near_its_float_network(
    form: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    paths = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    export(_Quantisable().eval(), paths[0])
    if form == "dynamic":
        quantize_dynamic(*paths, weight_type=QuantType.QUInt8)
    else:
        by_channel = form.endswith("channels")
        quantize_static(
            *paths,
            _Pictures(),
            quant_format=QuantFormat[form.split()[0]],
            activation_type=QuantType.QInt8 if by_channel else QuantType.QUInt8,
            per_channel=by_channel,
            reduce_range=True,  # old processors' sums of 8 bits overflow
        )
    exact, found = (read_onnx(path) for path in paths)
    assert "quantised" not in exact.metadata
    assert "int8, read as the float network" in str(found.metadata["quantised"])
    picture = random(3, 22, 26) % 1
    wanted, result = (reference.run(graph, picture) for graph in (exact, found))
    # Rounded weights alone: 7 bits for the largest of each layer.
    assert np.abs(result - wanted).max() <= 0.05 * np.abs(wanted).max()
    session = onnxruntime.InferenceSession(paths[1], providers=["CPUExecutionProvider"])
    rounded = session.run(None, {"x": picture[None]})[0][0]
    # Rounded values, too.
    assert np.abs(result - rounded).mean() <= 0.05 * np.abs(wanted).max()


def test_linear_layers_that_are_quantised(tmp_path: Path) -> None:
    zero, step = np.array(3, np.uint8), np.array(0.02, np.float32)
    weight = np.random.default_rng(0).integers(0, 256, (3, 3), np.uint8)
    nodes = [
        node("GlobalAveragePool", "x", to="g"),
        node("QuantizeLinear", "g", "step", "zero", to="q"),
        node("Flatten", "q", to="f"),
        helper.make_node(
            "QGemm",
            ["f", "step", "zero", "w", "step", "zero", "b"],
            ["l"],
            domain="com.microsoft",
            transB=1,
        ),
        node("Reshape", "l", "sides", to="s"),
        node("Mul", "x", "s"),
    ]
    constants: dict[str, np.ndarray] = {
        "step": step,
        "zero": zero,
        "w": weight,
        "b": np.array([100, -200, 300], np.int32),
        "sides": ints(1, 3, 1, 1),
    }
    made = model(nodes, constants)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph = read_onnx(saved(made, tmp_path))
    picture = random(3, 8, 8) % 1
    matrix = (weight.astype(np.float64) - 3) * 0.02
    linear = matrix @ picture.mean((1, 2)) + constants["b"] * 0.02**2
    expected = picture * linear[:, None, None]
    assert np.abs(reference.run(graph, picture) - expected).max() <= 1e-5


def test_quantised_operations_that_are_not_known_are_refused(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x", "step", to="xq"),
        helper.make_node(
            "QLinearWhere",
            ["c", "xq", "step", "", "xq", "step", "", "step", ""],
            ["q"],
            domain="com.microsoft",
        ),
        node("DequantizeLinear", "q", "step"),
    ]
    constants: dict[str, np.ndarray] = {
        "step": np.array(0.02, np.float32),
        "c": np.array(True),
    }
    made = model(nodes, constants)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ExportError, match=r"QLinearWhere .*use the float model"):
        read_onnx(saved(made, tmp_path))
