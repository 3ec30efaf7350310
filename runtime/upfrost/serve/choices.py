"""Which model for what: the choices that the page offers, and results' formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["picture", "video"]


@dataclass(frozen=True)
class Choice:
    """A bundled model, and what it is for, in words for those who know no models."""

    model: str
    kind: Kind
    label: str
    about: str


# The first of a kind is the default.
CHOICES = (
    Choice("realtime-x2", "picture", "Twice the size, fast", "for most pictures"),
    Choice(
        "cascade-x2",
        "picture",
        "Twice the size, finest",
        "for photographs that are worth the wait",
    ),
    Choice("realtime-x4", "picture", "Four times the size, fast", "for small pictures"),
    Choice(
        "cascade-x4",
        "picture",
        "Four times the size, finest",
        "for small photographs that are worth the wait",
    ),
    Choice("photo-x2", "picture", "Twice the size, cleaned", "for noisy photographs"),
    Choice(
        "photo-x4",
        "picture",
        "Four times the size, cleaned",
        "for photographs with noise, or small JPEGs out of the web",
    ),
    Choice(
        "cascade-x4-gan",
        "picture",
        "Four times the size, crisp",
        "invents part of the texture: not for evidence",
    ),
    Choice(
        "live-x2-m",
        "video",
        "Compressed video",
        "for what telephones, discs and the net have: it knows what encoders leave",
    ),
    Choice("live-x2-s", "video", "Compressed video, fast", "with less detail"),
    Choice("live-x2-l", "video", "Compressed video, finest", "over twice as slow"),
    Choice("live-x2-m-clean", "video", "Clean video", "for what was hardly compressed"),
    Choice("live-x3-s", "video", "Three times the size, fast", "720p as 2160p"),
)

# What results may be, by the names of the HTTP interface. Browsers show all but TIFF.
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
VIDEO_SUFFIXES = {"mp4": ".mp4", "mkv": ".mkv", "webm": ".webm"}
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".bmp": "image/bmp",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
}


def default_choice(kind: Kind) -> Choice:
    return next(choice for choice in CHOICES if choice.kind == kind)
