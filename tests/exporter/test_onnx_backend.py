"""ONNX Runtime gives for an exported file what the reference gives for the graph."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tests.exporter.networks import Cascade, Normalised, Plain, Rearranging
from tests.graphs import (
    Builder,
    every_operation,
    imported_operations,
    plain_network,
    random_network,
)
from upfrost.network import reference
from upfrost.network.graph import INPUT, OPERATIONS, Graph, Node, Relu, Unary, alignment
from upfrost.network.modelfile import bundled_models, find_model, read_model
from upfrost_exporter import onnx_backend, trace_module
from upfrost_exporter.builder import ExportError
from upfrost_exporter.onnx_backend import to_onnx, write_onnx
from upfrost_exporter.onnx_frontend import read_onnx

# Of the largest value: ONNX Runtime's rounding over some layers in float32.
TOLERANCE = 2e-5


def run_onnx(model: bytes, picture: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    (result,) = session.run(None, {INPUT: picture[None]})
    picture_out: np.ndarray = result[0]
    return picture_out


def assert_same_result(graph: Graph, seed: int, sizes: list[tuple[int, int]]) -> None:
    model = to_onnx(graph).SerializeToString()
    step = alignment(graph)
    random = np.random.default_rng(seed)
    for height, width in sizes:
        shape = (graph.channels, height * step, width * step)
        picture = graph.value_range * random.random(shape, np.float32)
        expected = reference.run(graph, picture)
        found = run_onnx(model, picture)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("seed", [0, 1], ids=lambda seed: f"seed{seed}")
def test_every_operation(seed: int, dtype: type[np.floating]) -> None:
    assert_same_result(every_operation(seed, dtype), seed, [(1, 1), (3, 8), (9, 5)])


@pytest.mark.parametrize("seed", [0, 1], ids=lambda seed: f"seed{seed}")
def test_operations_of_imported_networks(seed: int) -> None:
    assert_same_result(imported_operations(seed), seed, [(4, 5), (9, 6)])


@pytest.mark.parametrize("function", get_args(get_type_hints(Unary)["function"]))
def test_functions_of_each_number(function: str) -> None:
    build = Builder(0)
    graph = build.graph(build.add(Unary, INPUT, function=function), scale=1)
    assert_same_result(graph, 0, [(7, 9)])
    build = Builder(0)
    value = build.add(Unary, build.conv(INPUT, 3, 3), function=function)
    if function not in ("sqrt", "rsqrt", "reciprocal"):
        assert_same_result(build.graph(value, scale=1), 0, [(7, 9)])


@pytest.mark.parametrize("seed", range(20), ids=lambda seed: f"seed{seed}")
def test_random_networks(seed: int) -> None:
    # Sizes at which no resize has to round: there the two agree by definition.
    assert_same_result(random_network(seed), seed, [(4, 6), (12, 2)])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_network_of_any_size(channels: int) -> None:
    graph = plain_network(0, scale=3, picture_channels=channels)
    assert_same_result(graph, 0, [(1, 1), (7, 1), (23, 17)])


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_a_bundled_model_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    graph = read_model(find_model(name))
    assert_same_result(graph, 0, [(17, 23)])
    path = tmp_path / "net.onnx"
    write_onnx(graph, path)
    back = read_onnx(path)  # which compares it with ONNX Runtime, to 1e-4
    assert (back.name, back.scale, back.metadata["licence"]) == (
        graph.name,
        graph.scale,
        graph.metadata["licence"],
    )


@pytest.mark.parametrize("network", [Plain, Cascade, Normalised, Rearranging])
def test_a_network_from_pytorch_goes_out(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    graph = trace_module(network(), name="net", scale=2)
    assert_same_result(graph, 0, [(17, 12)])


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 7])
def test_resizing(factor: int, mode: str) -> None:
    build = Builder(0)
    graph = build.graph(build.resize(INPUT, mode, factor), scale=factor)
    assert_same_result(graph, factor, [(1, 1), (5, 11), (16, 3)])


def test_names_that_clash_in_onnx_are_told_apart() -> None:
    build = Builder(0)
    value = build.conv(INPUT, 3, 3)
    value = build.add(Relu, value, name=f"{value}.weight")
    graph = build.graph(build.add(Relu, value, name="output"), scale=1)
    assert_same_result(graph, 0, [(4, 4)])


def test_half_precision_weights_stay_small(tmp_path: Path) -> None:
    sizes = []
    for dtype in (np.float32, np.float16):
        path = tmp_path / "net.onnx"
        write_onnx(plain_network(0, channels=32, dtype=dtype), path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


def test_the_model_says_what_it_is() -> None:
    graph = every_operation(0)
    model = to_onnx(graph)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["upfrost.scale"] == "2"
    assert properties["upfrost.value_range"] == "1.0"
    assert json.loads(properties["upfrost.metadata"]) == graph.metadata
    assert "upfrost.colour" not in properties
    (output,) = model.graph.output
    sides = [dimension.dim_param for dimension in output.type.tensor_type.shape.dim]
    assert sides[2:] == ["2*height", "2*width"]
    assert onnx.load_from_string(model.SerializeToString()) == model


def test_every_operation_can_be_written() -> None:
    known = set(onnx_backend._translate.registry)
    assert [name for name, cls in OPERATIONS.items() if cls not in known] == []


def test_an_unknown_operation_is_refused() -> None:
    class Unknown(Node):
        op = "unknown"

    writer = onnx_backend._Writer(plain_network(0))
    with pytest.raises(ExportError, match="'x' of 'plain': no ONNX form of unk"):
        onnx_backend._translate(Unknown(name="x", inputs=()), writer)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("mine")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ExportError, match=r"net\.onnx: cannot be written: No space"):
        write_onnx(plain_network(0), path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
