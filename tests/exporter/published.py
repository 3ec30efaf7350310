"""What published networks are made of, written from their papers at a small size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

CHANNELS = 8


class EfficientAttention(nn.Module):
    """ECA (Wang et al. 2020, arXiv:1910.03151): a 1-D convolution over means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = functional.adaptive_avg_pool2d(x, 1)
        mixed = self.conv(means.squeeze(-1).transpose(-1, -2))
        gate: Tensor = torch.sigmoid(mixed.transpose(-1, -2).unsqueeze(-1))
        return x * gate.expand_as(x)


class SqueezeExcite(nn.Module):
    """SE (Hu et al. 2018, arXiv:1709.01507) with linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(CHANNELS, 4, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(4, CHANNELS),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        means = functional.adaptive_avg_pool2d(x, 1).view(batch, channels)
        gate: Tensor = self.layers(means).view(batch, channels, 1, 1)
        return x * gate.expand_as(x)


class PlainSqueezeExcite(SqueezeExcite):
    """The same, spelled by a mean and by indexing."""

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.layers(x.mean((2, 3)))
        return x * gate[:, :, None, None]


class BlockAttention(nn.Module):
    """CBAM (Woo et al. 2018, arXiv:1807.06521): means and maxima of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 1), nn.ReLU(), nn.Conv2d(4, CHANNELS, 1)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mix(functional.adaptive_avg_pool2d(x, 1))
        largest = self.mix(functional.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(mean + largest)
        both = [x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]]
        return x * torch.sigmoid(self.spatial(torch.cat(both, 1)))


class ContrastAttention(nn.Module):
    """CCA of IMDN (Hui et al. 2019, arXiv:1909.11856): mean and deviation, by sums."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 1), nn.ReLU(), nn.Conv2d(4, CHANNELS, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(2) * x.size(3)
        mean = x.sum(3, keepdim=True).sum(2, keepdim=True) / count
        squares = (x - mean).pow(2).sum(3, keepdim=True).sum(2, keepdim=True)
        contrast = (squares / count).pow(0.5) + x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.mix(contrast))


class SpatialAttention(nn.Module):
    """ESA of RFDN (Liu et al. 2020, arXiv:2009.11551)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, 4, 1)
        self.skip = nn.Conv2d(4, 4, 1)
        self.down = nn.Conv2d(4, 4, 3, stride=2)
        self.coarse = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        pooled = functional.max_pool2d(self.down(first), kernel_size=7, stride=3)
        size = (x.size(2), x.size(3))
        back = functional.interpolate(
            self.coarse(pooled), size, mode="bilinear", align_corners=False
        )
        return x * torch.sigmoid(self.last(back + self.skip(first)))


class Blueprint(nn.Module):
    """BSRN's convolution (Li et al. 2022, arXiv:2205.05996): linear, then depthwise.

    It is followed for pictures of one size alone, and so is what comes behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Linear(CHANNELS, CHANNELS, bias=False)
        self.depthwise = nn.Conv2d(
            CHANNELS,
            CHANNELS,
            3,
            padding=1,
            groups=CHANNELS,
            padding_mode="replicate",
        )

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.pointwise(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        result: Tensor = self.depthwise(mixed)
        return result


class Normalisations(nn.Module):
    """LayerNorm over channels as ConvNeXt, NAFNet and SwinIR spell it; the others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(CHANNELS)
        self.wide = nn.Linear(CHANNELS, 16)
        self.narrow = nn.Linear(16, CHANNELS)
        self.group = nn.GroupNorm(2, CHANNELS)
        self.instance = nn.InstanceNorm2d(CHANNELS, affine=True)
        self.weight = nn.Parameter(torch.rand(CHANNELS) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        last = self.layer(x.permute(0, 2, 3, 1))
        last = self.narrow(functional.gelu(self.wide(last)))
        x = x + last.permute(0, 3, 1, 2)
        last = x.permute(0, 2, 3, 1)
        x = x + (last - last.mean(-1, keepdim=True)).permute(0, 3, 1, 2)
        flat = self.layer(x.flatten(2).transpose(1, 2))
        x = x + flat.transpose(1, 2).view(batch, channels, height, width)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = self.weight[:, None, None] * (x - mean) / torch.sqrt(variance + 1e-6)
        x = x + x / torch.sqrt(torch.var(x, 1, keepdim=True, unbiased=False) + 1e-5)
        x = x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
        result: Tensor = self.group(x) + self.instance(x)
        return result


class Functions(nn.Module):
    """Activations with other numbers than the usual, maxima and powers."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.elu(x, 0.5) + functional.selu(x) + functional.celu(x, 0.7)
        x = x + functional.softplus(x, 2.0) + functional.softsign(x)
        x = torch.maximum(x, x * 0.5) + torch.minimum(x, -x)
        x = torch.where(x > 0.5, functional.logsigmoid(x), x * (x <= 0))
        result: Tensor = torch.max(x, x**3) - functional.hardtanh(x)
        return result


class Channels(nn.Module):
    """Channels in another order, repeated, summed and compared."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.flip(1) + x[:, [2, 1, 0, 3, 4, 5, 7, 6]]
        groups = x.view(batch, 2, channels // 2, height, width)
        x = groups.transpose(1, 2).reshape(batch, channels, height, width)
        x = x + x.repeat_interleave(2, 1)[:, 3:11]
        # ShuffleMixer's shuffle (Sun et al. 2022, arXiv:2205.15175).
        pairs = x.view(batch, channels // 2, 2, height, width).permute(2, 0, 1, 3, 4)
        x = x + torch.cat((pairs[0], pairs[1]), 1)
        return x * torch.sigmoid(x.amax(1, keepdim=True) + x.sum(1, keepdim=True))


class SoftChoice(nn.Module):
    """SKNet's choice between branches (arXiv:1903.06586), and a softmax of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(CHANNELS, 2 * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.softmax(self.gates(x.mean((2, 3))), 1)[:, :, None, None]
        first, second = gates.chunk(2, 1)
        result: Tensor = x * first + torch.relu(x) * second
        return result + torch.softmax(x, 1)


class Strides(nn.Module):
    """Strides and factors that differ between rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=(1, 2), padding=1)
        self.up = nn.ConvTranspose2d(CHANNELS, CHANNELS, (3, 4), (1, 2), padding=1)
        self.flat = nn.Conv2d(CHANNELS, CHANNELS, (4, 3), (2, 1), padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half, flat = torch.relu(self.down(x)), torch.relu(self.flat(x))
        up = [
            functional.interpolate(flat, scale_factor=(2, 1), mode=mode)
            for mode in ("bilinear", "nearest")
        ]
        result: Tensor = x + self.up(half) + up[0] - up[1]
        return result


class LearnedSampling(nn.Module):
    """DySample (Liu et al. 2023, arXiv:2308.15085): pixels from computed places."""

    def __init__(self) -> None:
        super().__init__()
        self.groups, self.scale = 2, 2
        self.head = nn.Conv2d(3, 16, 3, padding=1)
        moves = 2 * self.groups * self.scale**2
        self.offset = nn.Conv2d(16, moves, 1)
        self.scope = nn.Conv2d(16, moves, 1, bias=False)
        self.end = nn.Conv2d(16, 3, 1)
        phase = torch.tensor([-0.25, 0.25])
        both = torch.stack(torch.meshgrid([phase, phase], indexing="ij"))
        init = both.transpose(1, 2).repeat(1, self.groups, 1).reshape(1, -1, 1, 1)
        self.register_buffer("init_pos", init)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        moves = self.offset(x) * torch.sigmoid(self.scope(x)) * 4 + self.init_pos
        batch, _, height, width = moves.shape
        rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        own = torch.stack(torch.meshgrid([columns, rows], indexing="ij"))
        own = own.transpose(1, 2).unsqueeze(1).unsqueeze(0).type(x.dtype)
        size = torch.tensor([width, height], dtype=x.dtype).view(1, 2, 1, 1, 1)
        places = own + moves.view(batch, 2, -1, height, width)
        grid = (2 * places / size - 1).reshape(batch, -1, height, width)
        grid = functional.pixel_shuffle(grid, self.scale)
        height, width = self.scale * height, self.scale * width
        grid = grid.view(batch, 2, -1, height, width).permute(0, 2, 3, 4, 1)
        found = functional.grid_sample(
            x.reshape(batch * self.groups, -1, *x.shape[2:]),
            grid.contiguous().flatten(0, 1),
            padding_mode="border",
            align_corners=False,
        )
        result: Tensor = self.end(found.view(batch, -1, height, width))
        return result


class Unshuffled(nn.Module):
    """Real-ESRGAN's ×2 network: its first layer sees blocks of 2×2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, CHANNELS, 3, padding=1)
        self.last = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(functional.pixel_unshuffle(x, 2))
        y = functional.interpolate(y, scale_factor=2, mode="nearest")
        y = functional.interpolate(y, scale_factor=2, mode="nearest")
        return functional.leaky_relu(self.last(y), 0.2)


class Shrinking(nn.Module):
    """waifu2x's upconvolutional network pads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3),
            nn.LeakyReLU(0.1),
            nn.Conv2d(CHANNELS, CHANNELS, 3),
            nn.ConvTranspose2d(CHANNELS, 3, 4, stride=2, padding=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return result


class Around(nn.Module):
    """Blocks between a convolution and a pixel shuffle, one after the other."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.tail = nn.Conv2d(CHANNELS, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.tail(self.blocks(self.head(x))), 2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "channel attention": lambda: Around(
        EfficientAttention(), SqueezeExcite(), PlainSqueezeExcite()
    ),
    "block attention": lambda: Around(BlockAttention(), ContrastAttention()),
    "spatial attention": lambda: Around(Blueprint(), SpatialAttention()),
    "normalisations": lambda: Around(Normalisations()),
    "functions": lambda: Around(Functions()),
    "channels": lambda: Around(Channels()),
    "soft choice": lambda: Around(SoftChoice()),
    "strides": lambda: Around(Strides()),
    "learned sampling": LearnedSampling,
    "unshuffled": Unshuffled,
    "shrinking": Shrinking,
}
# Whose places TorchScript's exporter and pnnx write down for pictures of one size.
OF_ONE_SIZE = ("learned sampling",)


def make(name: str, seed: int = 0) -> nn.Module:
    """A network with random weights, none of them 0, ready for evaluation."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.5, 0.2)
    return network


def write_onnx_of(
    network: nn.Module, path: Path, *, dynamo: bool, free: bool = True
) -> None:
    """An ONNX file by one of PyTorch's two exporters, for pictures of any size.

    With `free` false it is for those of the example's size.
    """
    free_side = cast(Any, Dim).DYNAMIC  # older versions of torch do not declare it
    sides = {2: free_side, 3: free_side}
    how: dict[str, Any] = (
        {"dynamic_shapes": (sides,), "opset_version": 18, "verbose": False}
        if dynamo
        else {"dynamic_axes": {"x": {2: "h", 3: "w"}}, "opset_version": 17}
    )
    if not free:
        del how["dynamic_shapes" if dynamo else "dynamic_axes"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 48, 64),),
            path,
            dynamo=dynamo,
            input_names=["x"],
            **how,
        )
