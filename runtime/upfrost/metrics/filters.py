"""The filters that every player and browser has, by their names in tables and pages."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Filter:
    """One way to enlarge, as Pillow and as ffmpeg's scaler call it."""

    pillow: Image.Resampling
    ffmpeg: str


FILTERS = {
    "nearest": Filter(Image.Resampling.NEAREST, "neighbor"),
    "bilinear": Filter(Image.Resampling.BILINEAR, "bilinear"),
    "bicubic": Filter(Image.Resampling.BICUBIC, "bicubic"),
    "Lanczos": Filter(Image.Resampling.LANCZOS, "lanczos"),
}
# Beside a network's picture, where bicubic would look like its neighbours.
SHOWN = {name: FILTERS[name] for name in ("nearest", "bilinear", "Lanczos")}
