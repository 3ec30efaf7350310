"""The cascading network: residual units, concatenated and fused by 1x1 convolutions.

Ahn et al., "Fast, Accurate, and Lightweight Super-Resolution with Cascading Residual
Network" (CARN), 2018. Inside a block, the input and every unit's output are
concatenated and fused by a 1x1; the blocks themselves cascade in the same way. As in
CARN-M, units may have grouped convolutions and share their weights inside a block.
Unlike there, the 3x3 convolutions are trained as branches, the skip is the bilinear
picture, and the upscaling is one pixel shuffle.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upfrost_training.networks.folding import (
    BranchedConv3x3,
    activation,
    add_skip,
    fold_branches,
)


@dataclass(frozen=True)
class CascadeSettings:
    """What the cascading network is made of."""

    scale: int = 2
    channels: int = 32
    # Blocks in the network, and residual units in a block.
    blocks: int = 3
    units: int = 3
    # Groups of a unit's 3x3 convolutions; more than one adds a 1x1 that mixes groups.
    groups: int = 1
    # Whether a block's units are one set of weights used several times.
    shared: bool = False
    activation: str = "prelu"
    # Branches of the 3x3 convolutions, as in the plain network. The units have a
    # skip of their own, so there is no identity branch.
    expand: int = 2
    edges: bool = True

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4) or min(self.blocks, self.units) < 1:
            raise ValueError(
                f"scale must be 2, 3 or 4, blocks and units at least 1: {self}"
            )
        if self.groups < 1 or self.channels < 1 or self.channels % self.groups:
            raise ValueError(f"channels must be a multiple of groups: {self}")


class Unit(nn.Module):
    """Two 3x3 convolutions around an activation, added to their input."""

    def __init__(self, s: CascadeSettings) -> None:
        super().__init__()

        def conv(gain: float) -> BranchedConv3x3:
            return BranchedConv3x3(
                s.channels,
                s.channels,
                groups=s.groups,
                expand=s.expand,
                identity=False,
                edges=s.edges,
                gain=gain,
            )

        # The second starts small, so that an untrained unit is nearly its skip.
        layers = [conv(1.0), activation(s.activation, s.channels), conv(0.3)]
        if s.groups > 1:
            layers.append(activation(s.activation, s.channels))
            layers.append(nn.Conv2d(s.channels, s.channels, 1))
        self.body = nn.Sequential(*layers)
        self.last = activation(s.activation, s.channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x + self.body(x))
        return out


class Cascade(nn.Module):
    """Stages whose outputs, with the input, are concatenated and fused by 1x1s."""

    def __init__(self, stages: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.fusions = nn.ModuleList(
            _fusion(count + 2, channels) for count in range(len(stages))
        )

    def forward(self, x: Tensor) -> Tensor:
        so_far, out = x, x
        for stage, fusion in zip(self.stages, self.fusions, strict=True):
            so_far = torch.cat((so_far, stage(out)), dim=1)
            out = fusion(so_far)
        return out


def _fusion(parts: int, channels: int) -> nn.Conv2d:
    """A 1x1 that starts as the newest of its parts and a little of the others."""
    fusion = nn.Conv2d(parts * channels, channels, 1)
    with torch.no_grad():
        nn.init.normal_(fusion.weight, std=0.1 * (parts * channels) ** -0.5)
        fusion.weight[:, -channels:, 0, 0] += torch.eye(channels)
        nn.init.zeros_(fusion.bias)  # type: ignore[arg-type]
    return fusion


def _block(s: CascadeSettings) -> Cascade:
    if s.shared:
        units: list[nn.Module] = [Unit(s)] * s.units
    else:
        units = [Unit(s) for _ in range(s.units)]
    return Cascade(units, s.channels)


class CascadeNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] → (B, 3, sH, sW); clamped to [0, 1] once folded."""

    def __init__(self, settings: CascadeSettings) -> None:
        super().__init__()
        self.settings = s = settings
        self.clamped = False
        self.head = nn.Sequential(
            BranchedConv3x3(3, s.channels, expand=s.expand, edges=s.edges),
            activation(s.activation, s.channels),
        )
        self.body = Cascade([_block(s) for _ in range(s.blocks)], s.channels)
        self.tail = BranchedConv3x3(
            s.channels, 3 * s.scale**2, expand=s.expand, edges=s.edges, gain=0.03
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.tail(self.body(self.head(x)))
        result = add_skip(x, residual, self.settings.scale)
        return result.clamp(0.0, 1.0) if self.clamped else result

    def folded(self) -> "CascadeNetwork":
        """The inference form: its outputs are these, clamped, to float rounding."""
        network = fold_branches(self).eval()
        network.clamped = True
        return network

    def deepened(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a shallower network's inference form, as deep as this one.

        Units and blocks that it lacks come after its own, and the fusion after each
        gives what the last of its fusions gave: nothing of the new one, so that the
        network computes what it did and learns how much of each to take. Their other
        weights are left out: they are this network's own. Weights of networks as deep
        as this one or deeper, of another width or kind are left as they are.
        """
        result = dict(weights)
        first = weights.get("head.0.weight")
        if first is None or len(first) != self.settings.channels:
            return result
        for name, cascade in self.named_modules():
            if not isinstance(cascade, Cascade):
                continue
            for at in range(1, len(cascade.fusions)):
                own, before = (f"{name}.fusions.{n}" for n in (at, at - 1))
                if f"{own}.weight" in result or f"{before}.weight" not in result:
                    continue
                # The newest part is the last of the inputs.
                kernel = result[f"{before}.weight"]
                more = (0, 0, 0, 0, 0, len(kernel))
                result[f"{own}.weight"] = nn.functional.pad(kernel, more)
                result[f"{own}.bias"] = result[f"{before}.bias"]
        return result
