"""The second stage: a discriminator that teaches a network to invent texture.

A U-Net discriminator with spectral normalisation, which judges every pixel (Schönfeld
et al., "A U-Net Based Discriminator for Generative Adversarial Networks", 2020; for
super-resolution in Real-ESRGAN, 2021), and the relativistic average loss of ESRGAN
(2018). In the place of a feature loss on downloaded weights, the discriminator's own
features of the result are held near those of the real picture (Larsen et al.,
"Autoencoding beyond pixels using a learned similarity metric", 2016).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True)
class AdversarySettings:
    """Weights of the second stage's losses; the pixel loss has weight 1."""

    # No adversary at 0. More invents more texture, and costs more PSNR.
    weight: float = 0.0
    features: float = 0.05
    # Channels of the discriminator's first layer.
    channels: int = 32
    lr: float = 1e-4


class Discriminator(nn.Module):
    """(B, 3, H, W), sides multiples of 4 → one score a pixel, and its features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels

        def conv(
            inputs: int, outputs: int, size: int = 3, stride: int = 1
        ) -> nn.Module:
            layer = nn.Conv2d(inputs, outputs, size, stride, padding=1)
            return spectral_norm(layer)

        self.enter = conv(3, c)
        self.down1 = conv(c, 2 * c, 4, 2)
        self.down2 = conv(2 * c, 4 * c, 4, 2)
        self.up2 = conv(4 * c, 2 * c)
        self.up1 = conv(2 * c, c)
        self.leave = nn.Sequential(
            conv(c, c), nn.LeakyReLU(0.2), nn.Conv2d(c, 1, 3, padding=1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        active = nn.functional.leaky_relu
        full = active(self.enter(x), 0.2)
        half = active(self.down1(full), 0.2)
        quarter = active(self.down2(half), 0.2)
        up = active(self.up2(_twice(quarter)), 0.2) + half
        up = active(self.up1(_twice(up)), 0.2) + full
        return self.leave(up), [full, half, quarter]


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(
        x, scale_factor=2.0, mode="bilinear", align_corners=False
    )


def _judged(scores: Tensor, others: Tensor, real: float) -> Tensor:
    """How far `scores` are from being `real` in comparison with the others' mean."""
    relative = scores.float() - others.float().mean()
    return nn.functional.binary_cross_entropy_with_logits(
        relative, torch.full_like(relative, real)
    )


class Adversary:
    """Owns the discriminator and its optimizer."""

    def __init__(self, settings: AdversarySettings, device: torch.device) -> None:
        self.settings = settings
        self.network = Discriminator(settings.channels).to(device).train()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.lr, betas=(0.9, 0.99), foreach=True
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What the network under training adds to its pixel loss."""
        self.network.requires_grad_(False)
        fake, fake_features = self.network(output)
        with torch.no_grad():
            real, real_features = self.network(target)
        adversarial = _judged(real, fake, 0.0) + _judged(fake, real, 1.0)
        distance = sum(
            (a.float() - b.float()).abs().mean()
            for a, b in zip(fake_features, real_features, strict=True)
        )
        loss: Tensor = (
            self.settings.weight * adversarial + self.settings.features * distance
        )
        return loss

    def step(self, output: Tensor, target: Tensor) -> float:
        """Teach the discriminator on one batch; `output` is not differentiated."""
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        fake, _ = self.network(output.detach())
        real, _ = self.network(target)
        loss = _judged(real, fake, 1.0) + _judged(fake, real, 0.0)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
