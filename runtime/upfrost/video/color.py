"""Colours of video: from a stream's own matrix and range to RGB, and back again.

Tags are called what ffmpeg calls them; the numbers behind them are those of ITU-T
H.273.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from upfrost.text import printable
from upfrost.video.ffmpeg import Colors, VideoError, VideoInfo

# By swscale's names; other matrices are not linear in the signal, or have no filter.
_MATRICES = {
    "bt709": "bt709",
    "smpte170m": "smpte170m",
    "bt470bg": "bt470",
    "bt2020nc": "bt2020",
    "fcc": "fcc",
    "smpte240m": "smpte240m",
}
_FLAGS = "flags=bicubic+full_chroma_int+full_chroma_inp"
# What the network sees is rounded exactly. For the encoder that takes half as long
# again, for one step of 255 in each twelfth sample of chroma.
_EXACT_FLAGS = _FLAGS + "+accurate_rnd"
# Hable's curve keeps highlights apart; desat=0, since the curve works on each channel.
_TONE_MAP = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,"
    "tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=limited,format=yuv444p"
)
_RGB = re.compile(r"gbr|rgb|bgr|pal8|monow|monob|0rgb|0bgr|argb|abgr|x2rgb|x2bgr|bayer")
# Planar formats end in their depth, packed ones of RGB in their bits for a pixel.
_DEEP = re.compile(
    r"(gray|ya|(yuva?|gbra?)\w*p|gbra?pf|rgba?f|grayf|yaf|xyz|bayer_\w+)"
    r"(9|10|12|14|16|32)(msb)?(le|be)?$"
    r"|(48|64|96|128)(le|be)?$|^(p[024]1|y2|xv|v30|x2|nv20)"
)
_ALPHA = re.compile(r"yuva|rgba|bgra|argb|abgr|gbrap|vuya|ayuv|uyva|^ya")
# By chroma's resolution, what is not called by it; 4:4:0 and 4:1:1 have no encoders.
_CHROMA = {
    "yuv444p": re.compile(r"44[40]|nv24|nv42|p41|xv|v30|vuy|ayuv|uyva|^vyu"),
    "yuv422p": re.compile(r"422|411|nv16|nv20|p21|y21"),
}


@dataclass(frozen=True)
class Conversion:
    """How a stream becomes RGB, and what the result is encoded as."""

    to_rgb: str  # filters
    colors: Colors  # of the result; matrix and range are always said
    pixel_format: str  # of the result, if it is not lossless RGB
    notes: tuple[str, ...]

    def from_rgb(self, pixel_format: str) -> str:
        """Filters from RGB to what is encoded, and its tags."""
        known = self.colors
        primaries, transfer = known.primaries, known.transfer
        if pixel_format == "gbrp":
            convert, matrix, reach = "format=gbrp", "gbr", "pc"
        else:
            matrix, reach = str(known.matrix), str(known.range)
            convert = (
                f"scale=in_range=pc:out_range={reach}"
                f":out_color_matrix={_MATRICES[matrix]}:{_FLAGS},format={pixel_format}"
            )
        return (
            f"{convert},setparams=range={reach}:colorspace={matrix}"
            f":color_primaries={primaries or 'unknown'}"
            f":color_trc={transfer or 'unknown'}"
        )


def conversion(
    info: VideoInfo, *, deinterlace: str = "auto", tone_map: bool = False
) -> Conversion:
    """How to convert that stream.

    `deinterlace` is auto, always or never. Raises `VideoError` for HDR without
    `tone_map` and for matrices that have no filter.
    """
    name, colors = printable(info.path), info.colors
    notes: list[str] = []
    filters: list[str] = []
    if deinterlace == "always" or (deinterlace == "auto" and info.interlaced):
        every = "all" if deinterlace == "always" else "interlaced"
        filters.append(f"bwdif=mode=send_frame:deint={every}")
        notes.append("interlaced: one picture is made of each pair of fields (bwdif)")
    elif info.interlaced:
        notes.append("interlaced, and upscaled as if it were not")
    if info.is_hdr:
        if not tone_map:
            refuse_hdr(info)
        filters.append(_TONE_MAP)
        notes.append("HDR mapped to BT.709")
        colors = Colors("tv", "bt709", "bt709", "bt709")
    elif _DEEP.search(info.pixel_format):
        notes.append(f"{info.pixel_format}: more than 8 bits a channel reduced to 8")
    # VP8 and VP9 carry it beside their frames, where decoders do not look.
    if _ALPHA.search(info.pixel_format) or info.video.tags.get("alpha_mode") == "1":
        notes.append("transparency is left out")
    is_rgb = bool(_RGB.match(info.pixel_format)) or colors.matrix == "gbr"
    scale = f"scale=w={info.width}:h={info.height}:out_range=pc:{_EXACT_FLAGS}"
    if is_rgb:
        colors = Colors("tv", "bt709", colors.primaries, colors.transfer)
    else:
        colors = _complete(info, colors, notes)
        if colors.matrix not in _MATRICES:
            raise VideoError(
                f"{name}: colours by the matrix {colors.matrix}, which cannot be "
                "converted; convert it to BT.709 first"
            )
        reach, matrix = colors.range, _MATRICES[colors.matrix]
        scale += f":in_range={reach}:in_color_matrix={matrix}"
    # A fixed time base, whatever the filters before it make of it.
    # By way of planes: the same values as straight to rgb24, in a third of the time.
    filters += [scale, "format=gbrp,format=rgb24", f"settb={info.time_base}"]
    return Conversion(
        to_rgb=",".join(filters),
        colors=colors,
        pixel_format=_pixel_format(info.pixel_format),
        notes=tuple(notes),
    )


def refuse_hdr(info: VideoInfo, advice: str = "map it to BT.709 first") -> None:
    """Raise `VideoError` for HDR, with the advice that whoever asks can give."""
    if info.is_hdr:
        raise VideoError(
            f"{printable(info.path)}: HDR ({info.colors.transfer}), and the networks "
            f"know 8-bit pictures only; {advice}"
        )


def _complete(info: VideoInfo, colors: Colors, notes: list[str]) -> Colors:
    """Tags with what players assume where there are none.

    The matrix must be said in the result: players guess it from the size, which is
    another one after upscaling.
    """
    matrix = colors.matrix
    if matrix is None:
        large = info.width >= 1280 or info.height > 576
        matrix = "bt709" if large else "smpte170m"
        called = "BT.709" if large else "BT.601"
        notes.append(f"no colour matrix is named: {called} assumed, as for its size")
    full = info.pixel_format.startswith("yuvj")
    return Colors(
        colors.range or ("pc" if full else "tv"),
        matrix,
        colors.primaries,
        colors.transfer,
    )


def _pixel_format(source: str) -> str:
    """The 8-bit format with no less chroma than the source; 4:2:0 for RGB."""
    if not _RGB.match(source):
        for name, of_source in _CHROMA.items():
            if of_source.search(source):
                return name
    return "yuv420p"
