"""What results are encoded as, and the files that hold them. No more than data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from upfrost.gpu.frame import Subsampling
    from upfrost.video.color import Conversion

_BY_CHROMA: tuple[Subsampling, ...] = ("400", "420", "422", "444")


@dataclass(frozen=True)
class Codec:
    """An encoder of ffmpeg's, and what makes it good at a default quality."""

    name: str
    encoder: str
    crf: int | None  # what it is asked for by default
    options: tuple[str, ...] = ()
    lossless_rgb: bool = False
    bits: int = 10  # of a sample, at most
    most_crf: int = 51
    subsamplings: tuple[Subsampling, ...] = _BY_CHROMA
    parameters: str | None = None  # the option that takes what else it can be told
    presets: Literal["names", "numbers"] | None = "names"
    even: bool = False  # chroma that is subsampled needs a whole number of its samples
    # Seconds of a segment. x265 and SVT-AV1 cost more to begin, and a video by
    # segments is to cost little more than by one encoder for all of it.
    segment: int = 4

    def nearest(self, subsampling: Subsampling) -> Subsampling:
        """What it takes that has no less chroma, else what has the most."""
        enough = _BY_CHROMA[_BY_CHROMA.index(subsampling) :]
        return next(
            (each for each in enough if each in self.subsamplings),
            self.subsamplings[-1],
        )


CODECS = {
    codec.name: codec
    for codec in (
        Codec("h264", "libx264", 18, parameters="-x264-params", even=True),
        Codec(
            *("h265", "libx265", 20),
            bits=12,
            parameters="-x265-params",
            even=True,
            segment=10,
        ),
        Codec(
            *("av1", "libsvtav1", 28),
            most_crf=63,
            parameters="-svtav1-params",
            presets="numbers",
            subsamplings=("420",),
            segment=10,
        ),
        Codec(
            *("vp9", "libvpx-vp9", 28, ("-b:v", "0", "-row-mt", "1")),
            bits=12,
            most_crf=63,
            presets=None,
            # Given grey it would write RGB.
            subsamplings=("420", "422", "444"),
        ),
        Codec(
            "ffv1",
            "ffv1",
            None,
            ("-level", "3", "-g", "1"),
            lossless_rgb=True,
            bits=16,
            presets=None,
        ),
    )
}


@dataclass(frozen=True)
class Container:
    """A file format, and what streams become that it cannot hold as they are."""

    name: str  # ffmpeg's
    codecs: tuple[str, ...]  # the first is the default
    audio: tuple[str, ...]
    subtitles: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def is_mp4(self) -> bool:
        """Whether it is MP4 or QuickTime, which are one family."""
        return self.name in ("mp4", "mov")


_MP4 = ("-movflags", "+faststart")
CONTAINERS = {
    ".mkv": Container("matroska", tuple(CODECS), ("flac",), ("srt",)),
    ".mp4": Container(
        *("mp4", ("h264", "h265", "av1", "vp9")), ("aac",), ("mov_text",), _MP4
    ),
    ".mov": Container("mov", ("h264", "h265"), ("aac",), ("mov_text",), _MP4),
    ".webm": Container("webm", ("vp9", "av1"), ("libopus",), ("webvtt",)),
}
CONTAINERS[".m4v"] = CONTAINERS[".mp4"]


def encoder_arguments(
    codec: Codec,
    crf: int | None,
    preset: str | None,
    colors: Conversion | None = None,
) -> tuple[str, ...]:
    """ffmpeg's arguments for that codec.

    With `colors` the encoder is told what no filter can tell it, and encoders of older
    ffmpegs do not find in the raw frames' header: siting, mastering display and light
    levels.
    """
    # Otherwise headers name the processor: those of two machines make no stream.
    told = ["log-level=error:info=0"] if codec.name == "h265" else []
    if colors is not None:
        told += _told(codec, colors)
    siting = colors.siting if colors else None
    quality = codec.crf if crf is None else crf
    return (
        *("-c:v", codec.encoder),
        *(("-crf", str(quality)) if quality is not None else ()),
        *(("-preset", preset) if preset is not None else ()),
        *codec.options,
        *(("-chroma_sample_location", siting) if siting else ()),
        *((codec.parameters, ":".join(told)) if codec.parameters and told else ()),
    )


def _told(codec: Codec, colors: Conversion) -> list[str]:
    """Siting, mastering display and light levels, by the encoder's own names."""
    told = []
    # In the order of H.273's numbers.
    sitings = ("left", "center", "topleft", "top", "bottomleft", "bottom")
    if codec.name in ("h264", "h265") and colors.siting in sitings:
        told.append(f"chromaloc={sitings.index(colors.siting)}")
    if codec.name == "av1" and colors.siting in ("left", "topleft"):
        told.append(f"chroma-sample-position={colors.siting}")
    if colors.mastering is not None:
        display, av1 = colors.mastering, codec.name == "av1"

        def point(xy: tuple[float, float]) -> str:
            x, y = (f"{v:g}" if av1 else str(round(v * 50000)) for v in xy)
            return f"({x},{y})"

        unit = 1 if av1 else 10000
        most, least = (
            f"{v * unit:.4f}".rstrip("0").rstrip(".")
            for v in (display.most, display.least)
        )
        name = {"h265": "master-display"}.get(codec.name, "mastering-display")
        told.append(
            f"{name}=G{point(display.green)}B{point(display.blue)}"
            f"R{point(display.red)}WP{point(display.white)}L({most},{least})"
        )
    if colors.light is not None:
        name = {"h264": "cll", "h265": "max-cll"}.get(codec.name, "content-light")
        told.append(f"{name}={colors.light[0]},{colors.light[1]}")
    return told
