"""The plain network: 3x3 convolutions, trained with branches that fold into one.

Training form: every 3x3 convolution is a sum of parallel linear branches (a 3x3, a
wide 3x3 squeezed by a 1x1, the identity, fixed edge filters behind a 1x1), as in
ECBSR (Zhang et al., "Edge-oriented Convolution Block for Real-time Super Resolution
on Mobile Devices", 2021) and SESR (Bhardwaj et al., "Collapsible Linear Blocks for
Super-Efficient Super Resolution", 2022). The branches are summed as kernels, not as
activations, in every step: convolution is linear, so the result is the same, and a
step costs what the folded network costs. No branch has a bias before its last linear
map, since zero padding would then make the fold inexact at the picture's edges.

Inference form: `Plain`, from `PlainTraining.folded()`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EDGE_FILTERS = (
    ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),  # Sobel, horizontal
    ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),  # Sobel, vertical
    ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),  # Laplacian
)


@dataclass(frozen=True)
class PlainSettings:
    """What the plain network is made of."""

    scale: int = 2
    # Narrow and deep beats wide and shallow at equal MACs; 16 = four quads of channels,
    # small enough for a Mali core's registers.
    channels: int = 16
    # Convolutions between the first and the last one.
    depth: int = 9
    # "prelu" (one slope a channel) or "relu"
    activation: str = "prelu"
    # Channels of the wide branch, as a multiple of the output channels; 0 leaves the
    # branch out. Costs nothing at inference and little in training.
    expand: int = 4
    # Identity and edge-filter branches.
    identity: bool = True
    edges: bool = True

    def __post_init__(self) -> None:
        if self.activation not in ("relu", "prelu"):
            raise ValueError(
                f"activation must be relu or prelu, not {self.activation!r}"
            )
        if self.scale not in (2, 3, 4) or self.channels < 1 or self.depth < 0:
            raise ValueError(
                f"scale must be 2, 3 or 4, channels at least 1, depth at least 0: {self}"
            )


class FoldedConv3x3(nn.Module):
    """Parallel linear branches, applied as the one 3x3 convolution that they sum to."""

    edge_filters: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expand: int = 4,
        identity: bool = True,
        edges: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.has_identity = identity and inputs == outputs
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.direct = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        nn.init.kaiming_normal_(self.direct)
        # The identity already carries the signal, so the rest starts small.
        start = gain * (0.3 if self.has_identity else 1.0)
        with torch.no_grad():
            self.direct.mul_(start)
        self.wide: nn.Parameter | None = None
        self.squeeze: nn.Parameter | None = None
        if expand:
            hidden = expand * outputs
            self.wide = nn.Parameter(torch.empty(hidden, inputs, 3, 3))
            self.squeeze = nn.Parameter(torch.empty(outputs, hidden))
            nn.init.normal_(self.wide, std=(2.0 / (9 * inputs)) ** 0.5)
            nn.init.normal_(self.squeeze, std=start * (1.0 / hidden) ** 0.5)
        self.edge_mix: nn.Parameter | None = None
        self.edge_scale: nn.Parameter | None = None
        if edges:
            self.register_buffer("edge_filters", torch.tensor(EDGE_FILTERS) / 8.0)
            self.edge_mix = nn.Parameter(
                torch.randn(len(EDGE_FILTERS), outputs, inputs) * inputs**-0.5
            )
            self.edge_scale = nn.Parameter(
                torch.full((len(EDGE_FILTERS), outputs), 0.1 * start)
            )

    def kernel(self) -> Tensor:
        """The folded kernel, (outputs, inputs, 3, 3)."""
        kernel: Tensor = self.direct
        if self.wide is not None and self.squeeze is not None:
            kernel = kernel + torch.einsum("oe,eihw->oihw", self.squeeze, self.wide)
        if self.edge_mix is not None and self.edge_scale is not None:
            kernel = kernel + torch.einsum(
                "bo,boi,bhw->oihw", self.edge_scale, self.edge_mix, self.edge_filters
            )
        if self.has_identity:
            eye = torch.eye(self.outputs, dtype=kernel.dtype, device=kernel.device)
            kernel = kernel + F.pad(eye[:, :, None, None], (1, 1, 1, 1))
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias, padding=1)

    def folded(self) -> nn.Conv2d:
        """A plain convolution of the same outputs."""
        conv = nn.Conv2d(self.inputs, self.outputs, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(self.kernel())
            conv.bias = nn.Parameter(self.bias.detach().clone())
        return conv


def _activation(settings: PlainSettings) -> nn.Module:
    if settings.activation == "relu":
        return nn.ReLU()
    return nn.PReLU(settings.channels, init=0.1)


class PlainTraining(nn.Module):
    """The training form. (B, 3, H, W) in [0, 1] → (B, 3, sH, sW), not clamped."""

    def __init__(self, settings: PlainSettings) -> None:
        super().__init__()
        self.settings = s = settings
        branches = (s.expand, s.identity, s.edges)
        layers: list[nn.Module] = [
            FoldedConv3x3(3, s.channels, *branches),
            _activation(s),
        ]
        for _ in range(s.depth):
            layers.append(FoldedConv3x3(s.channels, s.channels, *branches))
            layers.append(_activation(s))
        # A small last layer makes the untrained network nearly the bilinear skip.
        layers.append(FoldedConv3x3(s.channels, 3 * s.scale**2, *branches, gain=0.03))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return _with_skip(x, self.body(x), self.settings.scale)

    def folded(self) -> "Plain":
        """The inference form, whose outputs differ from these by float rounding."""
        plain = Plain(self.settings)
        for i, layer in enumerate(self.body):
            if isinstance(layer, FoldedConv3x3):
                plain.body[i] = layer.folded()
            else:
                plain.body[i].load_state_dict(layer.state_dict())
        return plain.eval()


class Plain(nn.Module):
    """The inference form. (B, 3, H, W) in [0, 1] → (B, 3, sH, sW) in [0, 1]."""

    def __init__(self, settings: PlainSettings) -> None:
        super().__init__()
        self.settings = s = settings
        layers: list[nn.Module] = [nn.Conv2d(3, s.channels, 3, padding=1)]
        layers.append(_activation(s))
        for _ in range(s.depth):
            layers.append(nn.Conv2d(s.channels, s.channels, 3, padding=1))
            layers.append(_activation(s))
        layers.append(nn.Conv2d(s.channels, 3 * s.scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return _with_skip(x, self.body(x), self.settings.scale).clamp(0.0, 1.0)


def _with_skip(x: Tensor, residual: Tensor, scale: int) -> Tensor:
    skip = F.interpolate(
        x, scale_factor=float(scale), mode="bilinear", align_corners=False
    )
    return skip + F.pixel_shuffle(residual.to(x.dtype), scale)
