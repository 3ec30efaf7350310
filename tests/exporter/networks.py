"""PyTorch networks as people write them, for the tests of the exporter."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """3×3 convolutions, PReLU, pixel shuffle and an interpolated skip."""

    def __init__(self, channels: int = 8, scale: int = 2, mode: str = "bilinear"):
        super().__init__()
        self.scale, self.mode = scale, mode
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.ModuleList(
            layer
            for _ in range(2)
            for layer in (
                nn.PReLU(channels),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
        )
        self.tail = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        for layer in self.body:
            y = layer(y)
        y = functional.pixel_shuffle(self.tail(y), self.scale)
        skip: Tensor = functional.interpolate(
            x, scale_factor=self.scale, mode=self.mode
        )
        return y + skip


class Residual(nn.Module):
    """Grouped convolutions and a sum, as in CARN-M's efficient block."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, groups=groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + x)


class CascadingBlock(nn.Module):
    """Residual blocks whose results are joined and fused (arXiv:1803.08664)."""

    def __init__(self, channels: int, groups: int, shared: bool) -> None:
        super().__init__()
        first = Residual(channels, groups)
        self.blocks = nn.ModuleList(
            [first, *(first if shared else Residual(channels, groups) for _ in "12")]
        )
        self.fuse = nn.ModuleList(
            nn.Conv2d(channels * (count + 2), channels, 1) for count in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        joined = fused = x
        for block, fuse in zip(self.blocks, self.fuse, strict=True):
            joined = torch.cat([joined, block(fused)], dim=1)
            fused = fuse(joined)
        result: Tensor = fused
        return result


class Cascade(nn.Module):
    """The cascade of cascades, mean shift before and after."""

    def __init__(
        self, channels: int = 8, groups: int = 4, shared: bool = True, scale: int = 2
    ) -> None:
        super().__init__()
        self.scale = scale
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor([0.45, 0.44, 0.4]).view(1, 3, 1, 1))
        self.entry = nn.Conv2d(3, channels, 3, 1, 1)
        self.block = CascadingBlock(channels, groups, shared)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.upsample = nn.Sequential(
            nn.Conv2d(channels, channels * scale**2, 3, 1, 1, groups=groups),
            nn.ReLU(),
            nn.PixelShuffle(scale),
        )
        self.exit = nn.Conv2d(channels, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean
        y = self.entry(x)
        y = self.fuse(torch.cat((y, self.block(y)), dim=1))
        result: Tensor = self.exit(self.upsample(y)) + self.mean
        return result


class Normalised(nn.Module):
    """Batch normalisation with statistics that are not those of a fresh layer."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2, inplace=True),
            shared,
            nn.BatchNorm2d(8, affine=False),
            nn.Dropout(0.5),
            shared,
            nn.BatchNorm2d(8),
            nn.Identity(),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -1, 1)  # type: ignore[arg-type]
                nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
                if layer.affine:
                    nn.init.uniform_(layer.weight, 0.5, 2)
                    nn.init.uniform_(layer.bias, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class Spellings(nn.Module):
    """One operation spelled in many ways, some of them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, (3, 5), padding=(1, 2), padding_mode="zeros")
        self.second = nn.Conv2d(12, 12, 4, padding="same", dilation=3, groups=3)
        self.third = nn.Conv2d(12, 12, 1, padding="valid", bias=False)
        self.down = nn.Conv2d(12, 12, 3, stride=2, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.final_scale = nn.Parameter(torch.tensor([0.7, 0.8, 0.9]).view(3, 1, 1))
        self.blend = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        a = self.first(x)
        kept = a * 1
        a += self.up(self.down(a))
        b = nn.functional.leaky_relu_(self.second(a), 0.1)
        b = b.add(kept, alpha=2).relu_()
        c = torch.clamp(self.third(b), min=-1).clip(max=1.5)
        c = functional.relu6(c - 0.1) / 2 + functional.hardtanh(-b)
        c = functional.dropout(c, 0.5, self.training).contiguous()
        y = nn.PixelShuffle(2)(c.view(c.shape))
        size = (height * 2, width * 2)
        skip = functional.interpolate(x, size=size, mode="bicubic", align_corners=False)
        y = self.final_scale * y + (1 - self.blend) * skip
        result: Tensor = (0.5 - y).clamp(0, 1)
        return result


class Reparameterised(nn.Module):
    """Weights computed in `forward`: weight normalisation and parallel branches."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, 1, 1))
        self.wide = nn.Conv2d(8, 12, 3, 1, 1)
        self.narrow = nn.Conv2d(8, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.normed(x))
        weight = self.wide.weight + functional.pad(self.narrow.weight, (1, 1, 1, 1))
        assert self.wide.bias is not None
        assert self.narrow.bias is not None
        bias = self.wide.bias + self.narrow.bias
        y = functional.conv2d(y, weight, bias, padding=1)
        return functional.pixel_shuffle(y, 2)


class Rearranging(nn.Module):
    """Pixel shuffle, its inverse and a channel shuffle, without saying so."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(12, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 48, 3, padding=1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
        y = blocks.permute(0, 1, 3, 5, 2, 4).reshape(batch, 12, height // 2, width // 2)
        y = functional.relu(self.first(y))
        groups = y.view(batch, 3, 4, height // 2, width // 2)
        y = self.second(groups.transpose(1, 2).flatten(1, 2))
        blocks = y.unflatten(1, (4, 4, 3)).permute(0, 3, 4, 1, 5, 2)
        result: Tensor = blocks.reshape(batch, 3, 2 * height, 2 * width)
        return result


class UNet(nn.Module):
    """Halves the picture `depth` times, with or without what joins each again."""

    def __init__(self, depth: int, joins: bool = True) -> None:
        super().__init__()
        self.joins = joins
        parts = range(depth)
        self.down = nn.ModuleList([nn.Conv2d(3, 3, 2, 2) for _ in parts])
        self.up = nn.ModuleList([nn.ConvTranspose2d(3, 3, 2, 2) for _ in parts])

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for layer in self.down:
            kept.append(x)
            x = layer(x)
        for layer in self.up:
            x = layer(x) + (kept.pop() if self.joins else 0)
        return x


class Operations(nn.Module):
    """What super-resolution networks are made of besides plain 3×3 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect")
        self.unpadded = nn.Conv2d(12, 12, 3)
        self.dilated = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3)
        self.large = nn.Conv2d(12, 12, (1, 7), padding=(0, 3), groups=12)
        self.norm = nn.BatchNorm2d(12)
        self.slopes = nn.PReLU(12)
        self.down = nn.Conv2d(12, 16, 4, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 12, 4, stride=2, padding=1)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.odd = nn.ConvTranspose2d(12, 12, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.first(x))
        y = y + functional.gelu(self.unpadded(functional.pad(y, (1, 1, 1, 1))))
        y = functional.hardswish(self.norm(self.dilated(y))) - functional.elu(y)
        y = self.slopes(self.large(y)) * torch.sigmoid(y)
        left, right = y.chunk(2, dim=1)
        y = torch.cat([right, torch.tanh(left)], dim=1)
        half = functional.leaky_relu(self.up(functional.relu(self.down(y))), 0.2)
        pooled = functional.max_pool2d(y, 2) + functional.avg_pool2d(half, 2)
        y = y + functional.interpolate(pooled, scale_factor=2, mode="bilinear")
        weight = functional.relu(self.squeeze(y.mean((2, 3), keepdim=True)))
        y = y * torch.sigmoid(self.excite(weight)) + y.mean(1, keepdim=True)
        y = functional.pixel_shuffle(functional.pixel_unshuffle(y, 2), 2)
        y = functional.pad(y, (3, 2, 1, 4), mode="replicate")[:, :, 1:-4, 3:-2]
        y = y + functional.interpolate(self.odd(y), scale_factor=0.5, mode="bicubic")
        return functional.pixel_shuffle(self.last(y), 2).clamp(-2, 2)
