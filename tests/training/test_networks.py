"""Folding changes a network's form, not its output; and it can be exported."""

from typing import Any

import pytest
import torch
from torch import nn

from upfrost_exporter import trace_module
from upfrost_training.networks import make_network
from upfrost_training.networks.folding import BranchedConv3x3
from upfrost_training.networks.plain import PLANES

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {"depth": 3}),
    ("plain", {"depth": 2, "scale": 4, "activation": "relu", "channels": 7}),
    ("plain", {"depth": 2, "expand": 0, "identity": False, "edges": False}),
    ("plain", {"depth": 2, "colour": "luma", "channels": 8}),
    ("plain", {"depth": 1, "colour": "luma", "channels": 8, "scale": 3}),
    ("plain", {"depth": 1, "skip": "nearest", "scale": 3}),
    ("plain", {"depth": 1, "colour": "luma", "skip": "none", "unshuffle": 2}),
    ("cascade", {"channels": 8, "blocks": 2, "units": 2}),
    ("cascade", {"channels": 12, "groups": 3, "shared": True, "scale": 4, "units": 2}),
]


def planes_of(settings: dict[str, Any]) -> int:
    """Channels of the input and the output."""
    return PLANES[settings.get("colour", "rgb")]


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Every branch and bias away from its start, where some are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("kind", "settings"), NETWORKS)
def test_folded_outputs_are_the_training_outputs(
    kind: str, settings: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    network = make_network(kind, settings)
    randomised(network, seed)
    planes = planes_of(settings)
    x = torch.rand(2, planes, 8, 10)
    with torch.no_grad():
        expected = network.double()(x.double())
        result = network.folded()(x.double())
    scale = network.settings.scale
    assert result.shape == (2, planes, 8 * scale, 10 * scale)
    # Double precision, so that only a wrong fold could exceed this.
    torch.testing.assert_close(result, expected.clamp(0.0, 1.0), rtol=0, atol=1e-10)


def test_the_fold_is_exact_where_branches_are_run_one_by_one() -> None:
    torch.manual_seed(0)
    conv = BranchedConv3x3(6, 6, groups=2)
    randomised(conv, 0).double()
    x = torch.rand(1, 6, 5, 5).double()
    functional = nn.functional
    assert conv.wide is not None and conv.squeeze is not None  # noqa: PT018
    assert conv.edge_mix is not None and conv.edge_scale is not None  # noqa: PT018
    total = x + functional.conv2d(x, conv.direct, conv.bias, padding=1, groups=2)
    wide = functional.conv2d(x, conv.wide, padding=1, groups=2)
    total = total + functional.conv2d(wide, conv.squeeze[:, :, None, None], groups=2)
    for mix, scale, edge in zip(
        conv.edge_mix, conv.edge_scale, conv.edge_filters, strict=True
    ):
        mixed = functional.conv2d(x, mix[:, :, None, None], groups=2)
        kernel = edge.expand(6, 1, 3, 3) * scale[:, None, None, None]
        total = total + functional.conv2d(mixed, kernel, padding=1, groups=6)
    torch.testing.assert_close(conv(x), total, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "settings"), [n for n in NETWORKS if n[1].get("skip") != "none"]
)
def test_an_untrained_network_is_nearly_the_bilinear_skip(
    kind: str, settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = make_network(kind, settings)
    x = torch.rand(1, planes_of(settings), 16, 16)
    skip = nn.functional.interpolate(
        x, scale_factor=float(network.settings.scale), mode="bilinear"
    )
    with torch.no_grad():
        # Random weights that were not scaled down would add 1 and more.
        assert (network(x) - skip).abs().mean() < 0.2


@pytest.mark.parametrize(("kind", "settings"), NETWORKS)
def test_the_exporter_takes_every_folded_network(
    kind: str, settings: dict[str, Any]
) -> None:
    network = make_network(kind, settings).folded()
    graph = trace_module(
        network,
        name="test",
        scale=network.settings.scale,
        channels=planes_of(settings),
    )
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    assert sum(type(n).__name__ == "Conv2d" for n in graph.nodes) >= convolutions


def test_shared_units_are_one_set_of_weights_after_folding() -> None:
    settings = {"channels": 8, "blocks": 2, "units": 3}
    own = make_network("cascade", settings).folded()
    shared = make_network("cascade", {**settings, "shared": True}).folded()
    unit = sum(
        p.numel() for p in own.get_submodule("body.stages.0.stages.0").parameters()
    )
    difference = sum(p.numel() for p in own.parameters()) - sum(
        p.numel() for p in shared.parameters()
    )
    assert difference == 2 * 2 * unit


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("plane", {}, "unknown kind"),
        ("plain", {"depht": 3}, "depht"),
        ("plain", {"scale": 5}, "scale must be"),
        ("plain", {"activation": "gelu"}, "relu or prelu"),
        ("plain", {"colour": "grey"}, "colour must be rgb or luma, not 'grey'"),
        ("cascade", {"channels": 10, "groups": 3}, "multiple of groups"),
    ],
)
def test_bad_settings_are_refused(
    kind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_network(kind, settings)
