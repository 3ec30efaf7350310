"""Pixel losses that weigh luma and chroma as the eye (and Y-PSNR) does."""

import torch
from torch import Tensor

# BT.601: rows are Y, Cb, Cr from RGB in [0, 1], without the video range's scaling.
RGB_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)

LOSSES = ("l1", "l2", "charbonnier", "rmse")


def pixel_loss(
    output: Tensor, target: Tensor, kind: str = "l1", chroma: float = 0.1
) -> Tensor:
    """Mean loss between (B, 3, H, W) pictures in [0, 1], or (B, 1, H, W) of luma.

    `kind` is "l1", "l2", "charbonnier" (sqrt(d² + 1e-6)), or "rmse": the root of each
    crop's mean square, averaged over crops. That follows the mean PSNR of pictures,
    and its gradient is of L1's size, so Adam's moments stay valid when a run changes
    from one to the other. The difference is taken in YCbCr; `chroma` is the weight of
    each chroma plane, luma's being 1.
    """
    difference = output - target
    weights = torch.ones(1, dtype=output.dtype)
    if output.shape[1] == 3:
        matrix = torch.tensor(RGB_TO_YCC, dtype=output.dtype, device=output.device)
        difference = torch.einsum("kc,bchw->bkhw", matrix, difference)
        weights = torch.tensor((1.0, chroma, chroma), dtype=output.dtype)
    if kind == "l1":
        planes = difference.abs().mean(dim=(2, 3))
    elif kind == "l2":
        planes = difference.square().mean(dim=(2, 3))
    elif kind == "charbonnier":
        planes = (difference.square() + 1e-6).sqrt().mean(dim=(2, 3))
    elif kind == "rmse":
        planes = (difference.square().mean(dim=(2, 3)) + 1e-10).sqrt()
    else:
        raise ValueError(f"unknown loss {kind!r}: use one of {', '.join(LOSSES)}")
    return (planes.mean(dim=0) * weights.to(output.device)).sum()
