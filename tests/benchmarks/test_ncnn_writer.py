"""Graphs written for ncnn give ncnn the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.ncnn_writer import write_ncnn

from tests import graphs
from upfrost.network import reference
from upfrost.network.graph import Graph
from upfrost.network.modelfile import bundled_models, read_model
from upfrost_exporter.ncnn_frontend import read_ncnn


def check(graph: Graph, folder: Path) -> None:
    """`read_ncnn` itself compares its graph with ncnn on the CPU."""
    pytest.importorskip("ncnn", reason="the package ncnn is not installed")
    param = folder / "network.param"
    write_ncnn(graph, param)
    back = read_ncnn(param, channels=graph.channels, value_range=graph.value_range)
    seed = 5
    shape = (graph.channels, 24, 36)
    picture = np.random.default_rng(seed).random(shape, np.float32)
    expected = reference.run(graph, picture)
    # The same operations in the same order: no rounding of its own.
    np.testing.assert_array_equal(reference.run(back, picture), expected)


@pytest.mark.parametrize("model", sorted(bundled_models()))
def test_bundled_models(model: str, tmp_path: Path) -> None:
    check(read_model(bundled_models()[model]), tmp_path)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_operation(seed: int, tmp_path: Path) -> None:
    check(graphs.every_operation(seed), tmp_path)


def test_values_with_several_readers_are_split(tmp_path: Path) -> None:
    param = tmp_path / "network.param"
    write_ncnn(graphs.plain_network(seed=0), param)
    lines = param.read_text().splitlines()
    assert lines[2:4] == [
        "Input input 0 1 input",
        "Split input_split 1 2 input input_0 input_1",
    ]
    layers, blobs = map(int, lines[1].split())
    assert layers == len(lines) - 2
    assert blobs == sum(int(line.split()[3]) for line in lines[2:])


def test_an_operation_without_a_layer_is_refused(tmp_path: Path) -> None:
    graph = graphs.imported_operations(seed=0)
    with pytest.raises(ValueError, match=r"no ncnn layer for pad"):
        write_ncnn(graph, tmp_path / "network.param")
