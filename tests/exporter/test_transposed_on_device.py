"""Transposed convolutions, from PyTorch, ONNX and ncnn to the device.

What the source's own runtime makes of a picture is what the kernels have to make of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from tests.exporter import test_ncnn_frontend as ncnn_models
from tests.exporter import test_onnx_frontend as onnx_models
from upfrost.gpu.device import Device
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, MALI, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network.graph import Graph
from upfrost_exporter import trace_module
from upfrost_exporter.ncnn_frontend import read_ncnn
from upfrost_exporter.onnx_frontend import read_onnx

Array = npt.NDArray[np.float32]
# Kernel, stride, padding.
KINDS = {"k2s2": (2, 2, 0), "k4s2": (4, 2, 1), "k3s1": (3, 1, 1)}
INNER, OUTER = 6, 7
# Of the largest number. fp32: ncnn sums in its own order, partly by Winograd. fp16:
# three layers of 11 bits each.
TOLERANCE: dict[Precision, float] = {"fp32": 2e-4, "fp16": 1e-2}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return KINDS[request.param]


def random(*shape: int) -> Array:
    """Weights that keep the variance of what goes through them."""
    generator = np.random.default_rng(math.prod(shape))
    deviation = 1 / math.sqrt(math.prod(shape[1:]) or 1)
    return (generator.standard_normal(shape) * deviation).astype(np.float32)


def from_torch(
    kind: tuple[int, int, int], _folder: Path
) -> tuple[Graph, Callable[[Array], Array]]:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, INNER, 3, padding=1),
        nn.ConvTranspose2d(INNER, OUTER, *kind),
        nn.PReLU(OUTER, init=0.1),
        nn.Conv2d(OUTER, 3, 1),
    ).eval()

    def run(picture: Array) -> Array:
        with torch.no_grad():
            result: Array = module(torch.from_numpy(picture)[None])[0].numpy()
        return result

    return trace_module(module, name="net", scale=kind[1]), run


def from_onnx(
    kind: tuple[int, int, int], folder: Path
) -> tuple[Graph, Callable[[Array], Array]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    kernel, stride, padding = kind
    node = onnx_models.node
    transposed = node(
        "ConvTranspose",
        *("a", "up", "up_bias"),
        to="b",
        strides=[stride] * 2,
        pads=[padding] * 4,
    )
    made = onnx_models.model(
        [
            node("Conv", "x", "first", to="a", pads=[1] * 4),
            transposed,
            node("Conv", "b", "last"),
        ],
        {
            "first": random(INNER, 3, 3, 3),
            "up": random(INNER, OUTER, kernel, kernel),
            "up_bias": random(OUTER),
            "last": random(3, OUTER, 1, 1),
        },
    )
    path = onnx_models.saved(made, folder)
    session = onnxruntime.InferenceSession(str(path))
    return read_onnx(path), lambda picture: session.run(None, {"x": picture[None]})[0][
        0
    ]


def from_ncnn(
    kind: tuple[int, int, int], folder: Path
) -> tuple[Graph, Callable[[Array], Array]]:
    ncnn = pytest.importorskip("ncnn")
    kernel, stride, padding = kind
    model = ncnn_models.Model()
    model.convolution("x", "a", (3, INNER, 3), "4=1")
    count = INNER * OUTER * kernel**2
    model.add(
        f"Deconvolution up 1 1 a b 0={OUTER} 1={kernel} 3={stride} 4={padding} 5=1 "
        f"6={count}"
    )
    model.tagged(count, 0.2)
    model.plain(OUTER)
    model.convolution("b", "y", (OUTER, 3, 1))
    path = model.save(folder)
    net = ncnn.Net()
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))

    def run(picture: Array) -> Array:
        extractor = net.create_extractor()
        extractor.input("x", ncnn.Mat(picture))
        return np.array(extractor.extract("y")[1])

    return read_ncnn(path), run


@pytest.mark.parametrize("source", [from_torch, from_onnx, from_ncnn])
@pytest.mark.parametrize("size", [(1, 1), (13, 19)], ids=str)
def test_the_device_gives_what_the_source_gives(
    device: Device,
    source: Callable[
        [tuple[int, int, int], Path], tuple[Graph, Callable[[Array], Array]]
    ],
    kind: tuple[int, int, int],
    size: tuple[int, int],
    tmp_path: Path,
) -> None:
    graph, run = source(kind, tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)
    planes /= 255
    result = 255 * run(planes)
    expected = np.clip(result, 0, 255).transpose(1, 2, 0)
    largest = max(255.0, float(np.abs(result).max()))
    for family in (MALI, CPU):
        for precision, tolerance in TOLERANCE.items():
            plan = make_plan(compile_graph(graph, family, precision), *size)
            found = device.load(plan).run(picture).astype(np.float32)
            # Half a step is the rounding's.
            worst = np.abs(found - expected).max() - 0.5
            assert worst <= tolerance * largest, (family.name, precision)


def macs(kind: tuple[int, int, int], family: Family, precision: Precision) -> float:
    """Of the transposed convolution, per pixel of its input and pair of channels."""
    graph, _ = from_torch(kind, Path())
    plan = make_plan(compile_graph(graph, family, precision), 16, 20)
    label = graph.nodes[1].name
    calls = [call for call in plan.dispatches if call.label == label]
    return sum(call.macs for call in calls) / (16 * 20 * INNER * OUTER)


def test_no_product_with_a_tap_that_is_always_zero_is_computed() -> None:
    """Each pixel of the input meets each tap once, and that is all."""
    assert macs(KINDS["k2s2"], MALI, "fp16") == 4
    assert macs(KINDS["k3s1"], MALI, "fp16") == 9
    # Two input slices of four channels hold the six.
    assert macs(KINDS["k4s2"], MALI, "fp16") == 16 * 8 / 6


def test_a_4x4_transposed_convolution_is_one_dispatch() -> None:
    graph, _ = from_torch(KINDS["k4s2"], Path())
    plan = make_plan(compile_graph(graph, MALI, "fp16"), 16, 20)
    assert [call.shader.split("_")[0].split("-")[0] for call in plan.dispatches] == [
        "conv3x3",
        "deconv4x4",
        "conv1x1",
        "pack",
    ]


@pytest.mark.parametrize("padding", [1, 3])
def test_bands_of_rows_give_the_same_bits(device: Device, padding: int) -> None:
    torch.manual_seed(padding)
    # What the transposed convolution cuts off is added before it.
    module = nn.Sequential(
        nn.Conv2d(3, INNER, 3, padding=(padding + 1) // 2),
        nn.ConvTranspose2d(INNER, OUTER, 4, 2, padding),
        nn.Conv2d(OUTER, 3, 3, padding=1),
    ).eval()
    height, width = 129, 14
    random_bytes = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    picture = random_bytes.astype(np.uint8)
    planes = torch.from_numpy(picture.transpose(2, 0, 1) / 255).float()[None]
    with torch.no_grad():
        result = 255 * module(planes)[0].numpy()
    expected = np.clip(result, 0, 255).transpose(1, 2, 0)
    graph = trace_module(module, name="net", scale=2)
    found = []
    for speed, dispatches in ((MALI.macs_per_second, 4), (1.0, 20)):
        family = replace(MALI, macs_per_second=speed)
        plan = make_plan(compile_graph(graph, family, "fp32"), height, width)
        assert len(plan.dispatches) >= dispatches
        found.append(device.load(plan).run(picture).copy())
        assert np.abs(found[-1] - expected).max() <= 0.5 + 0.01
    assert np.array_equal(found[0], found[1])
