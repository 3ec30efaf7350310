"""Imported networks, small and with random weights, through the whole Vulkan path."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from tests.exporter.networks import Operations
from upfrost.gpu.device import Device
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, MALI, Family
from upfrost.gpu.plan import compile_graph, make_plan
from upfrost.network import reference
from upfrost.network.graph import Graph
from upfrost_exporter import trace_module
from upfrost_exporter.settling import settle
from upfrost_exporter.spandrel_frontend import import_spandrel

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None,
    reason="pip install --no-deps spandrel",
)

# fp32: a few dozen layers, each off by what the order of its sums makes of it. fp16: as
# many, each rounding its result to 11 bits.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Compact": ("Compact", {"num_feat": 10, "num_conv": 2}),
    "ESRGAN": ("ESRGAN", {"num_filters": 8, "num_blocks": 1}),
    "RCAN": ("RCAN", {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}),
    "SAFMN": ("SAFMN", {"dim": 16, "n_blocks": 1}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 10}),
}


@pytest.fixture(scope="module", params=["every operation", *ARCHITECTURES])
def network(request: pytest.FixtureRequest) -> Graph:
    if request.param == "every operation":
        torch.manual_seed(0)
        return trace_module(Operations(), name="operations", scale=2)
    import_spandrel()
    module, settings = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    architecture = importlib.import_module(f"spandrel.architectures.{module}")
    made = settle(getattr(architecture, request.param)(**settings), channels=3)
    with torch.no_grad():
        side = made(torch.zeros(1, 3, 64, 64)).shape[-1]
    return trace_module(made, name=request.param, scale=side // 64)


@pytest.mark.parametrize(("family", "precision"), [(CPU, "fp32"), (MALI, "fp16")])
def test_an_imported_network_gives_the_references_numbers(
    device: Device, network: Graph, family: Family, precision: Precision
) -> None:
    """The last value before it becomes bytes, which random weights would clip."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
    unit = (picture.transpose(2, 0, 1) / 255 * network.value_range).astype(np.float32)
    program = compile_graph(network, family, precision)
    expected = reference.evaluate(network, unit)[program.tail.source]
    loaded = device.load(make_plan(program, 48, 40), inspect=True)
    loaded.run(picture)
    found = loaded.value(program.tail.source)
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst <= TOLERANCE[precision], f"off by {worst:.2e}"
