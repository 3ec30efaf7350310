"""What a file that somebody sent is, by its first bytes; its name decides nothing."""

from __future__ import annotations

from pathlib import Path

from upfrost.errors import UpfrostError
from upfrost.image.images import FORMAT_NAMES, read_header, sniff_format
from upfrost.serve.choices import Kind
from upfrost.text import printable

# ffmpeg reads playlists as well, which name other files: only containers may come in.
_CONTAINERS = (
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    (8, b"AVI "),
    (0, b"\0\0\1\xba"),  # MPEG program stream
    (0, b"OggS"),
    (0, b"FLV\1"),
    (0, b"0&\xb2u\x8ef\xcf\x11"),  # ASF
    (0, b"\x06\x0e+4\x02\x05\x01\x01"),  # MXF
    (0, b"GIF8"),
)
# A manifest of MPEG-DASH is one wherever in its beginning these words stand.
_MANIFEST = (b"<mpd", b"dash:profile")
_PROBED = 1 << 20  # bytes that ffmpeg looks at, at most, to find out what a file is
_ANY = 1 << 62  # pixels; only a header is read
VIDEO_NAMES = "MP4, MOV, Matroska, WebM, AVI, MPEG, Ogg, FLV, WMV, MXF or GIF"


class UploadError(UpfrostError):
    """A file that cannot be upscaled; one line says why."""


def identify(path: Path, max_pixels: int) -> tuple[Kind, str, tuple[int, int] | None]:
    """What a file is: its kind, the suffix of its format, and a picture's size.

    A video's suffix is empty. Raises `UploadError`.
    """
    entry = sniff_format(path)
    if entry is not None:
        try:
            header = read_header(path, max_pixels=_ANY)
        except UpfrostError as error:
            raise UploadError(without_path(str(error), path)) from error
        width, height = header.size
        if width * height > max_pixels:
            raise UploadError(
                f"{width}×{height} pixels are more than the limit of "
                f"{max_pixels / 1e6:.0f} megapixels"
            )
        return "picture", entry.suffixes[0], header.size
    with path.open("rb") as file:
        head = file.read(_PROBED)
    if not head:
        raise UploadError("the file is empty")
    if not _is_container(head):
        raise UploadError(
            f"not a picture ({FORMAT_NAMES}) and not a video ({VIDEO_NAMES})"
        )
    lowered = head.lower()
    if all(words in lowered for words in _MANIFEST):
        raise UploadError("a playlist, not a video")
    return "video", "", None


def without_path(text: str, path: Path) -> str:
    """A message without the name that the file has here, which nobody outside knows."""
    text = text.removeprefix(f"{printable(path)}: ")
    return text.replace(f"{printable(path)}", "it").replace(str(path.parent), "…")


def _is_container(head: bytes) -> bool:
    if any(head[at : at + len(magic)] == magic for at, magic in _CONTAINERS):
        return True
    # MPEG transport streams, without and with times before packets.
    return any(
        len(head) > first + 2 * length
        and all(head[first + n * length] == 0x47 for n in range(3))
        for first, length in ((0, 188), (4, 192))
    )
