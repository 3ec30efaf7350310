"""A 3x3 convolution trained as a sum of linear branches that fold into one kernel.

The branches are a 3x3, a wide 3x3 squeezed by a 1x1, the identity, and fixed edge
filters behind a 1x1, after ECBSR (Zhang et al., "Edge-oriented Convolution Block for
Real-time Super Resolution on Mobile Devices", 2021) and SESR (Bhardwaj et al.,
"Collapsible Linear Blocks for Super-Efficient Super Resolution", 2022). They are
summed as kernels, not as activations, in every step: convolution is linear, so the
result is the same, and a step costs what the folded network costs. No branch has a
bias of its own: after a bias, zero padding would make the fold inexact at the edges.
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

EDGE_FILTERS = (
    ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),  # Sobel, horizontal
    ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),  # Sobel, vertical
    ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),  # Laplacian
)


def identity_kernel(outputs: int, fan_in: int) -> Tensor:
    """(outputs, fan_in, 3, 3): each output is its own input, in groups of `fan_in`."""
    kernel = torch.zeros(outputs, fan_in, 3, 3)
    kernel[range(outputs), [o % fan_in for o in range(outputs)], 1, 1] = 1.0
    return kernel


class BranchedConv3x3(nn.Module):
    """Parallel linear branches, applied as the one 3x3 convolution that they sum to.

    `expand` is the wide branch's channels as a multiple of `outputs` (0: no such
    branch), `gain` scales the untrained kernel, `identity` is left out where inputs and
    outputs differ in number.
    """

    edge_filters: Tensor
    identity: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        groups: int = 1,
        expand: int = 4,
        identity: bool = True,
        edges: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.groups = inputs, outputs, groups
        fan_in = inputs // groups
        self.has_identity = identity and inputs == outputs
        if self.has_identity:
            kernel = identity_kernel(outputs, fan_in)
            self.register_buffer("identity", kernel, persistent=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.direct = nn.Parameter(torch.empty(outputs, fan_in, 3, 3))
        # The identity already carries the signal, so the rest starts small.
        start = gain * (0.3 if self.has_identity else 1.0)
        nn.init.normal_(self.direct, std=start * (2.0 / (9 * fan_in)) ** 0.5)
        self.wide: nn.Parameter | None = None
        self.squeeze: nn.Parameter | None = None
        if expand:
            hidden = expand * outputs
            self.wide = nn.Parameter(torch.empty(hidden, fan_in, 3, 3))
            self.squeeze = nn.Parameter(torch.empty(outputs, hidden // groups))
            nn.init.normal_(self.wide, std=(2.0 / (9 * fan_in)) ** 0.5)
            nn.init.normal_(self.squeeze, std=start * (groups / hidden) ** 0.5)
        self.edge_mix: nn.Parameter | None = None
        self.edge_scale: nn.Parameter | None = None
        if edges:
            self.register_buffer("edge_filters", torch.tensor(EDGE_FILTERS) / 8.0)
            count = len(EDGE_FILTERS)
            self.edge_mix = nn.Parameter(
                torch.randn(count, outputs, fan_in) * fan_in**-0.5
            )
            self.edge_scale = nn.Parameter(torch.full((count, outputs), 0.1 * start))

    def kernel(self) -> Tensor:
        """The folded kernel, (outputs, inputs / groups, 3, 3)."""
        # Few operations, since a step of a small network waits for their starts:
        # matrix products, where an einsum would be several.
        kernel: Tensor = self.direct
        if self.wide is not None and self.squeeze is not None:
            groups = self.groups
            squeeze = self.squeeze.view(groups, -1, self.squeeze.shape[1])
            wide = self.wide.view(groups, self.squeeze.shape[1], -1)
            product = squeeze[0] @ wide[0] if groups == 1 else torch.bmm(squeeze, wide)
            kernel = kernel + product.view_as(kernel)
        if self.edge_mix is not None and self.edge_scale is not None:
            mixed = (self.edge_mix * self.edge_scale[:, :, None]).flatten(1)
            edges = mixed.t() @ self.edge_filters.flatten(1)
            kernel = kernel + edges.view_as(kernel)
        return kernel + self.identity if self.has_identity else kernel

    def forward(self, x: Tensor) -> Tensor:
        # The sum of branches is cheap and loses digits in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            kernel = self.kernel()
        return nn.functional.conv2d(x, kernel, self.bias, padding=1, groups=self.groups)

    def folded(self) -> nn.Conv2d:
        """A plain convolution of the same outputs."""
        conv = nn.Conv2d(self.inputs, self.outputs, 3, padding=1, groups=self.groups)
        conv.weight = nn.Parameter(self.kernel().detach())
        conv.bias = nn.Parameter(self.bias.detach().clone())
        return conv


def fold_branches(network: Network) -> Network:
    """A copy whose branched convolutions are plain ones; shared ones stay shared."""
    network = deepcopy(network)
    folded: dict[BranchedConv3x3, nn.Conv2d] = {}
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, BranchedConv3x3):
                if child not in folded:
                    folded[child] = child.folded()
                setattr(module, name, folded[child])
    return network


def activation(kind: str, channels: int) -> nn.Module:
    """The activation of name `kind`."""
    if kind == "relu":
        return nn.ReLU()
    if kind == "prelu":
        return nn.PReLU(channels, init=0.1)
    raise ValueError(f"activation must be relu or prelu, not {kind!r}")


# What a network's answer is added to: the picture, enlarged by that, or nothing.
SKIPS = ("bilinear", "nearest", "none")


def add_skip(
    x: Tensor,
    residual: Tensor,
    scale: int,
    skip: str = "bilinear",
    shuffle: int | None = None,
) -> Tensor:
    """(B, C, H, W) enlarged, plus (B, Cn², sH/n, sW/n), as (B, C, sH, sW).

    n is `shuffle`, or the scale; `skip` is one of `SKIPS`.
    """
    answer: Tensor = nn.functional.pixel_shuffle(residual.to(x.dtype), shuffle or scale)
    if skip == "none":
        return answer
    large = nn.functional.interpolate(
        x,
        scale_factor=float(scale),
        mode=skip,
        align_corners=False if skip == "bilinear" else None,
    )
    result: Tensor = large + answer
    return result
