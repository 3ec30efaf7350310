"""Networks as their papers have them arrive from every source, and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.exporter.published import NETWORKS, OF_ONE_SIZE, make, write_onnx_of
from upfrost import Upscaler
from upfrost.gpu.tiles import tiling
from upfrost.network import reference
from upfrost.network.graph import Graph, alignment
from upfrost_exporter import ExportError, trace_module
from upfrost_exporter.onnx_frontend import read_onnx

# At sizes that the exporters' own check does not see.
SIZES = ((37, 21), (19, 30))
TINY = (3, 5)
# Of the largest number, as the exporters' own check allows.
TOLERANCE = 1e-4


def from_onnx(name: str, folder: Path, *, dynamo: bool = False) -> Graph:
    path = folder / "net.onnx"
    free = dynamo or name not in OF_ONE_SIZE
    write_onnx_of(make(name), path, dynamo=dynamo, free=free)
    return read_onnx(path)


def assert_equal_to_module(graph: Graph, name: str) -> None:
    module, step = make(name), alignment(graph)
    # Enhanced spatial attention pools windows that a tiny picture has not.
    sizes = SIZES if name == "spatial attention" else (*SIZES, TINY)
    for seed, size in enumerate(sizes):
        height, width = (-(-side // step) * step for side in size)
        random = np.random.default_rng(seed).random((3, height, width), np.float32)
        found = reference.run(graph, random)
        with torch.no_grad():
            given = torch.from_numpy(random)[None]
            if name == "shrinking":
                given = torch.nn.functional.pad(given, (3,) * 4, mode="replicate")
            expected = module(given)[0].numpy()
        assert found.shape == expected.shape
        off = np.abs(found - expected).max() / max(1, np.abs(expected).max())
        assert off <= TOLERANCE, f"seed {seed}, {width}×{height}: {off:.2e}"


@pytest.mark.parametrize("name", NETWORKS)
def test_from_pytorch(name: str) -> None:
    assert_equal_to_module(trace_module(make(name), name="net", scale=2), name)


@pytest.mark.parametrize("name", NETWORKS)
def test_from_onnx(name: str, tmp_path: Path) -> None:
    assert_equal_to_module(from_onnx(name, tmp_path), name)


# Those that the two exporters spell differently.
@pytest.mark.parametrize(
    "name", ["normalisations", "functions", "channels", "learned sampling"]
)
def test_from_onnx_by_dynamo(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    assert_equal_to_module(from_onnx(name, tmp_path, dynamo=True), name)


def test_a_grid_recorded_for_one_size_of_pictures_is_refused(tmp_path: Path) -> None:
    """TorchScript's exporter writes the sizes down by which places are divided."""
    path = tmp_path / "net.onnx"
    write_onnx_of(make("learned sampling"), path, dynamo=False)
    with pytest.raises(ExportError, match=r"GridSample .*recorded for pictures of ano"):
        read_onnx(path)


@pytest.mark.parametrize(
    "name", ["spatial attention", "normalisations", "learned sampling"]
)
def test_on_the_device(name: str) -> None:
    graph = trace_module(make(name), name="net", scale=2)
    assert tiling(graph).needs_whole_picture
    picture = np.random.default_rng(0).integers(0, 256, (33, 27, 3), np.uint8)
    expected = reference.upscale_bytes(graph, picture).astype(int)
    with Upscaler(graph, precision="fp32") as upscale:
        off = np.abs(upscale(picture) - expected)
    # Bytes of a result in fp32: a tie may round to the other side.
    assert off.max() <= 1
