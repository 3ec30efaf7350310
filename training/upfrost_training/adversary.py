"""The second stage: a discriminator that teaches a network to invent texture.

A U-Net discriminator with spectral normalisation, which judges every pixel (Schönfeld
et al., "A U-Net Based Discriminator for Generative Adversarial Networks", 2020; for
super-resolution in Real-ESRGAN, 2021), and the relativistic average loss of ESRGAN
(2018). In the place of a feature loss on downloaded weights, the discriminator's own
features of the result are held near those of the real picture (Larsen et al.,
"Autoencoding beyond pixels using a learned similarity metric", 2016), and its small
patches are to be distributed as the real picture's are (Elnekave and Weiss, "Generating
natural images with direct patch distributions matching", 2022).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from upfrost_training.config import AREA, AdversarySettings
from upfrost_training.losses import RGB_TO_YCC


class Discriminator(nn.Module):
    """(B, 3, H, W), sides multiples of 8 → one score a 2x2 pixels, and its features.

    It begins by moving 2x2 pixels to channels: all that it is shown stays there, at a
    fourth of the work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels

        def conv(
            inputs: int, outputs: int, size: int = 3, stride: int = 1
        ) -> nn.Module:
            layer = nn.Conv2d(inputs, outputs, size, stride, padding=1)
            return spectral_norm(layer)

        self.enter = conv(12, c)
        self.down1 = conv(c, 2 * c, 4, 2)
        self.down2 = conv(2 * c, 4 * c, 4, 2)
        self.up2 = conv(4 * c, 2 * c)
        self.up1 = conv(2 * c, c)
        self.leave = nn.Sequential(
            conv(c, c), nn.LeakyReLU(0.2), nn.Conv2d(c, 1, 3, padding=1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        active = nn.functional.leaky_relu
        full = active(self.enter(nn.functional.pixel_unshuffle(x, 2)), 0.2)
        half = active(self.down1(full), 0.2)
        quarter = active(self.down2(half), 0.2)
        up = active(self.up2(_twice(quarter)), 0.2) + half
        up = active(self.up1(_twice(up)), 0.2) + full
        return self.leave(up), [full, half, quarter]


# The patch distributions' filters: how many are drawn for a step, and their side.
FILTERS = 16
FILTER_SIDE = 5


def _luma(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 1, H, W)."""
    weights = torch.tensor(RGB_TO_YCC[0], device=pictures.device).view(1, 3, 1, 1)
    return (pictures.float() * weights).sum(dim=1, keepdim=True)


def in_colours_of(target: Tensor, output: Tensor) -> Tensor:
    """The luma of `output`, (B, 3, H, W), with the chroma of `target`.

    What judges texture sees this, so that none is invented in colour: an eye takes such
    for noise, in a photograph without colours first of all.
    """
    return target + (_luma(output) - _luma(target))


def _filtered_luma(pictures: Tensor, filters: Tensor) -> Tensor:
    """(B, 3, H, W) by filters (N, 1, K, K), K odd, on luma: (B, N, H, W)."""
    luma = _luma(pictures)
    luma = nn.functional.pad(luma, (filters.shape[2] // 2,) * 4, mode="reflect")
    return nn.functional.conv2d(luma, filters)


def patch_distance(
    output: Tensor, target: Tensor, scale: int, generator: torch.Generator
) -> Tensor:
    """How far apart the distributions of patches of (B, 3, H, W) pictures are.

    It is the sliced Wasserstein distance: random filters, drawn from `generator`,
    reduce a patch to a number each, and the sorted numbers of a square of pixels are
    compared, apart for each of the `scale`² places that a pixel can have in the small
    picture's grid. Compared together, a ladder beside an edge would do for texture:
    along an edge the small picture is the same everywhere, so all that a network
    invents there comes again with every pixel of it. Filters have a mean of 0 and a
    norm of 1 and see luma alone: differences of colour are the pixel loss's. Sides of
    at least AREA; a rest does not count.
    """
    filters = torch.randn(FILTERS, 1, FILTER_SIDE, FILTER_SIDE, generator=generator).to(
        output.device
    )
    filters = filters - filters.mean(dim=(2, 3), keepdim=True)
    filters = filters / filters.square().sum(dim=(2, 3), keepdim=True).sqrt()

    def ranked(pictures: Tensor) -> Tensor:
        values = _filtered_luma(pictures, filters)
        rows = values.unfold(2, AREA, AREA).unfold(3, AREA, AREA)
        side = AREA // scale
        apart = rows.reshape(*rows.shape[:4], side, scale, side, scale)
        places = apart.permute(0, 1, 2, 3, 5, 7, 4, 6).flatten(6)
        ordered: Tensor = places.sort().values
        return ordered

    with torch.no_grad():
        wanted = ranked(target)
    distance: Tensor = (ranked(output) - wanted).abs().mean()
    return distance


# Second derivatives along rows, columns and diagonals, of norm 1.
_DERIVATIVES = (
    ((0, 0, 0), (1, -2, 1), (0, 0, 0)),
    ((0, 1, 0), (0, -2, 0), (0, 1, 0)),
    ((1, 0, 0), (0, -2, 0), (0, 0, 1)),
    ((0, 0, 1), (0, -2, 0), (1, 0, 0)),
)


def _detail(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) to luma's second derivatives, (B, 4, H, W), without their signs."""
    filters = torch.tensor(_DERIVATIVES, dtype=torch.float32, device=pictures.device)
    return _filtered_luma(pictures, filters.unsqueeze(1)).abs()


# Mean detail of the FLAT_SIDE² pixels around one that counts as flat.
FLAT, FLAT_SIDE = 1.5 / 255, 5
SPECK = 4 / 255
# The share of a batch's pixels from which on its flat places weigh as much as any.
FLAT_SHARE = 0.1


def roughness(output: Tensor, target: Tensor) -> Tensor:
    """How much more detail (B, 3, H, W) pictures have than `target` where that is flat.

    It is the mean over the flat places, which are few in most crops: a loss that is a
    mean over all pixels hardly sees what lies there, and an eye sees it first. What is
    more than SPECK counts by its square: few specks are seen before much grain. Where
    they are fewer than FLAT_SHARE of the pixels, it is as if the rest of these were
    right: else single pixels would outweigh all other losses.
    """
    with torch.no_grad():
        wanted = _detail(target)
        around = nn.functional.avg_pool2d(
            wanted.mean(dim=1, keepdim=True), FLAT_SIDE, 1, FLAT_SIDE // 2
        )
        flat = (around < FLAT).float()
    excess = (_detail(output) - wanted).clamp(min=0.0)
    excess = torch.maximum(excess, excess.square() / SPECK).mean(dim=1, keepdim=True)
    mean: Tensor = (excess * flat).sum() / flat.sum().clamp(
        min=FLAT_SHARE * flat.numel()
    )
    return mean


def unevenness(output: Tensor, scale: int) -> Tensor:
    """How much more detail (B, 3, H, W) pictures have at some places than at others.

    Places are the `scale`² that a pixel can have in the small picture's grid, at which
    the pixel shuffle's channels lie. In real pictures they are alike, and in such as a
    network invents detail for they need not be: one then sees the grid, beside edges
    most of all. The detail at a place is the mean of luma's second derivatives over all
    pictures; what is returned is the mean of its deviations, as a share of the mean at
    all places: 0 is even, whatever the amount of detail.
    """
    detail = _detail(output)
    count, kinds, height, width = detail.shape
    apart = detail.view(count, kinds, height // scale, scale, width // scale, scale)
    places = apart.mean(dim=(0, 2, 4))
    mean = places.mean(dim=(1, 2), keepdim=True)
    deviation: Tensor = ((places - mean) / (mean + 1e-4)).abs().mean()
    return deviation


def _twice(x: Tensor) -> Tensor:
    large: Tensor = nn.functional.interpolate(
        x, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    return large


def _judged(scores: Tensor, others: Tensor, real: float) -> Tensor:
    """How far `scores` are from being `real` in comparison with the others' mean."""
    relative = scores.float() - others.float().mean()
    return nn.functional.binary_cross_entropy_with_logits(
        relative, torch.full_like(relative, real)
    )


class Adversary:
    """Owns the discriminator and its optimizer."""

    def __init__(
        self, settings: AdversarySettings, scale: int, device: torch.device
    ) -> None:
        self.settings = settings
        self.scale = scale
        self.network = Discriminator(settings.channels).to(device).train()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.lr, betas=(0.9, 0.99), foreach=True
        )
        # The number of the step: what is drawn in it depends on nothing else.
        self.count = 0

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """What the network under training adds to its pixel loss."""
        self.network.requires_grad_(False)
        fake, fake_features = self.network(in_colours_of(target, output))
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
        if self.settings.patches > 0.0:
            drawn = torch.Generator().manual_seed(self.count)
            loss = loss + self.settings.patches * patch_distance(
                output, target, self.scale, drawn
            )
        if self.settings.grid > 0.0:
            loss = loss + self.settings.grid * unevenness(output, self.scale)
        if self.settings.flat > 0.0:
            loss = loss + self.settings.flat * roughness(output, target)
        self.count += 1
        return loss

    def slow_down(self, share: float) -> None:
        """Let the discriminator learn at this share of its peak rate.

        At its full rate beside a network that hardly learns any more, it would win.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = share * self.settings.lr

    def step(self, output: Tensor, target: Tensor) -> float:
        """Teach the discriminator on one batch; `output` is not differentiated."""
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        fake, _ = self.network(in_colours_of(target, output.detach()))
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
            "count": self.count,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content."""
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.count = content["count"]
