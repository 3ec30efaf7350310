"""The plain network: 3x3 convolutions in a row, bilinear skip, pixel shuffle."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upfrost_training.networks.folding import (
    SKIPS,
    BranchedConv3x3,
    activation,
    add_skip,
    fold_branches,
    identity_kernel,
)

# Channels of a network's input and output, by its colour.
PLANES = {"rgb": 3, "luma": 1}


@dataclass(frozen=True)
class PlainSettings:
    """What the plain network is made of."""

    scale: int = 2
    # "rgb", or "luma": the network sees and gives Y alone, as a video's frame has it
    # (`data.frame_luma`), and chroma is enlarged without a network.
    colour: str = "rgb"
    # Narrow and deep beats wide and shallow at equal MACs; 16 = four slices,
    # small enough for a Mali core's registers.
    channels: int = 16
    # Convolutions between the first and the last one.
    depth: int = 9
    # "prelu" (one slope a channel) or "relu"
    activation: str = "prelu"
    # One of `SKIPS`.
    skip: str = "bilinear"
    # Squares of so many pixels a side become the channels of one before the first
    # layer; a picture's sides must be multiples of it.
    unshuffle: int = 1
    # Channels of the wide branch, as a multiple of the output channels; 0 leaves the
    # branch out. Costs nothing at inference and little in training.
    expand: int = 4
    # Identity and edge-filter branches.
    identity: bool = True
    edges: bool = True

    def __post_init__(self) -> None:
        if self.scale not in (2, 3, 4) or self.channels < 1 or self.depth < 0:
            raise ValueError(
                "scale must be 2, 3 or 4, channels at least 1, depth at least 0: "
                f"{self}"
            )
        if self.colour not in PLANES:
            raise ValueError(f"colour must be rgb or luma, not {self.colour!r}")
        if self.skip not in SKIPS:
            raise ValueError(
                f"skip must be one of {', '.join(SKIPS)}, not {self.skip!r}"
            )
        if self.unshuffle < 1:
            raise ValueError(f"unshuffle must be at least 1, not {self.unshuffle}")


class Plain(nn.Module):
    """(B, C, H, W) in [0, 1] → (B, C, sH, sW); clamped to [0, 1] once folded.

    C is 3, or 1 where the colour is luma.
    """

    def __init__(self, settings: PlainSettings) -> None:
        super().__init__()
        self.settings = s = settings
        planes = PLANES[s.colour]
        self.clamped = False

        def conv(inputs: int, outputs: int, gain: float = 1.0) -> nn.Module:
            return BranchedConv3x3(
                inputs,
                outputs,
                expand=s.expand,
                identity=s.identity,
                edges=s.edges,
                gain=gain,
            )

        inputs = planes * s.unshuffle**2
        layers = [conv(inputs, s.channels), activation(s.activation, s.channels)]
        for _ in range(s.depth):
            layers.append(conv(s.channels, s.channels))
            layers.append(activation(s.activation, s.channels))
        # A small last layer makes the untrained network nearly the bilinear skip.
        layers.append(conv(s.channels, inputs * s.scale**2, gain=0.03))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        s = self.settings
        seen = nn.functional.pixel_unshuffle(x, s.unshuffle) if s.unshuffle > 1 else x
        shuffle = s.scale * s.unshuffle
        result = add_skip(x, self.body(seen), s.scale, s.skip, shuffle)
        return result.clamp(0.0, 1.0) if self.clamped else result

    def folded(self) -> "Plain":
        """The inference form: its outputs are these, clamped, to float rounding."""
        network = fold_branches(self).eval()
        network.clamped = True
        return network

    def deepened(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a shallower network's inference form, as deep as this one.

        The layers that it lacks lie before its last one and change nothing: kernels of
        the identity, activations of slope 1, as in Net2Net (Chen et al., "Net2Net:
        Accelerating Learning via Knowledge Transfer", 2016); after a ReLU another one
        changes nothing, either. Weights of networks as deep as this one or deeper, of
        another width or kind are left as they are.
        """
        s = self.settings
        first = weights.get("body.0.weight")
        if first is None or len(first) != s.channels:
            return dict(weights)
        # Convolutions and activations take turns.
        last = max(int(key.split(".")[1]) for key in weights)
        own = 2 * (s.depth + 1)
        if last >= own:
            return dict(weights)
        result = {k: w for k, w in weights.items() if k.split(".")[1] != f"{last}"}
        for at in range(last, own, 2):
            result[f"body.{at}.weight"] = identity_kernel(s.channels, s.channels)
            result[f"body.{at}.bias"] = torch.zeros(s.channels)
            if s.activation == "prelu":
                result[f"body.{at + 1}.weight"] = torch.ones(s.channels)
        for name in ("weight", "bias"):
            result[f"body.{own}.{name}"] = weights[f"body.{last}.{name}"]
        return result
