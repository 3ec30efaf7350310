"""What results are encoded as, and the files that hold them. No more than data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Codec:
    """An encoder of ffmpeg's, and what makes it good at a default quality."""

    name: str
    encoder: str
    crf: int | None
    options: tuple[str, ...] = ()
    lossless_rgb: bool = False


CODECS = {
    codec.name: codec
    for codec in (
        Codec("h264", "libx264", 18),
        Codec("h265", "libx265", 20, ("-x265-params", "log-level=error")),
        Codec("av1", "libsvtav1", 28),
        Codec("vp9", "libvpx-vp9", 28, ("-b:v", "0", "-row-mt", "1")),
        Codec("ffv1", "ffv1", None, ("-level", "3", "-g", "1"), lossless_rgb=True),
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
    codec: Codec, crf: int | None, preset: str | None
) -> tuple[str, ...]:
    """ffmpeg's arguments for that codec."""
    quality = codec.crf if crf is None else crf
    return (
        *("-c:v", codec.encoder),
        *(("-crf", str(quality)) if quality is not None else ()),
        *(("-preset", preset) if preset is not None else ()),
        *codec.options,
    )
