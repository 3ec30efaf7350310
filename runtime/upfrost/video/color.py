"""Colours of video: from a stream's own matrix and range to RGB, and back again; or
planes as they are, and the tags that say what they mean.

Tags are called what ffmpeg calls them; the numbers behind them are those of ITU-T
H.273.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from upfrost.gpu.frame import FrameFormat, Siting, Subsampling, turned
from upfrost.text import printable
from upfrost.video.ffmpeg import Colors, Mastering, VideoError, VideoInfo, probe
from upfrost.video.formats import Codec

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
# Without luma: also what is by CIE's X, Y and Z, which films are.
_RGB = re.compile(
    r"gbr|rgb|bgr|pal8|monow|monob|0rgb|0bgr|argb|abgr|x2rgb|x2bgr|bayer|xyz"
)
# Planar formats end in their depth, packed ones of RGB in their bits for a pixel.
_DEEP = re.compile(
    r"(gray|ya|(yuva?|gbra?)\w*p|gbra?pf|rgba?f|grayf|yaf|xyz|bayer_\w+)"
    r"(9|10|12|14|16|32)(msb)?(le|be)?$"
    r"|(48|64|96|128)(le|be)?$|^(p[024]1|y2|xv|v30|x2|nv20)"
)
_ALPHA = re.compile(r"yuva|rgba|bgra|argb|abgr|gbrap|vuya|ayuv|uyva|^ya")
# What is none of these is 4:2:0, or 4:1:0. 4:4:0 and 4:1:1 have no encoders, and become
# what has no less.
_SUBSAMPLINGS: dict[Subsampling, re.Pattern[str]] = {
    "400": re.compile("gray|ya[8f1]"),
    "422": re.compile(".*(422|411|nv16|nv20|p21|y21)"),
    "444": re.compile(".*(44[40]|nv24|nv42|p41|xv|v30|vuy|ayuv|uyva|vyu)"),
}
# Bits of a sample, by how names of packed formats begin that have more than 8.
_PACKED_BITS = {
    "y210": 10,
    "y212": 12,
    "y216": 16,
    "v30x": 10,
    "xv30": 10,
    "xv36": 12,
    "xv48": 16,
    "ayuv64": 16,
}
_HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
_SITINGS: dict[str, Siting] = {
    "left": "left",
    "center": "centre",
    "topleft": "top-left",
    "top": "top",
    "bottomleft": "bottom-left",
    "bottom": "bottom",
}
_FOURCCS: dict[Subsampling, bytes] = {
    "400": b"Y800",
    "420": b"I420",
    "422": b"Y42B",
    "444": b"444P",
}


@dataclass(frozen=True)
class Conversion:
    """How a stream becomes frames, and what the result is encoded as."""

    to_frames: str  # filters
    colors: Colors  # of the result; matrix and range are always said
    subsampling: Subsampling  # that the source has, or nearly
    notes: tuple[str, ...]
    kind: FrameFormat | None = None  # of frames that go as planes, not as RGB
    siting: str | None = None  # of chroma in such frames, by ffmpeg's names
    mastering: Mastering | None = None  # that holds for the result, as does the next
    light: tuple[int, int] | None = None

    @property
    def path(self) -> str:
        """Which way the frames go, for people to read."""
        if self.kind is None:
            return "RGB, 8 bits"
        sampling = ":".join(self.kind.subsampling)
        transfer = _HDR.get(self.colors.transfer or "")
        hdr = f", {transfer} as it is" if transfer else ""
        return f"luma, {sampling} of {self.kind.bits} bits{hdr}"

    def encoded_format(self, codec: Codec) -> str:
        """The nearest to the source's that the encoder takes, by ffmpeg's name."""
        bits = self.kind.bits if self.kind else 8
        return planar(codec.nearest(self.subsampling), min(bits, codec.bits))

    def from_planes(self, pixel_format: str) -> str:
        """Filters from planes to what is encoded, and its tags."""
        known = self.colors
        return (
            f"scale=in_range={known.range}:out_range={known.range}:{_FLAGS}"
            f",format={pixel_format},setparams=range={known.range}"
            f":colorspace={known.matrix}"
            f":color_primaries={known.primaries or 'unknown'}"
            f":color_trc={known.transfer or 'unknown'}"
        )

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
                f":out_color_matrix={_MATRICES[matrix]}:{_FLAGS}"
                f"{_chroma('out', pixel_format, 'left')},format={pixel_format}"
            )
        return (
            f"{convert},setparams=range={reach}:colorspace={matrix}"
            f":color_primaries={primaries or 'unknown'}"
            f":color_trc={transfer or 'unknown'}"
        )


def has_luma(info: VideoInfo) -> bool:
    """Whether the stream is luma and chroma, or luma alone.

    Newer ffmpegs say of grey pictures that their matrix is RGB's, as of all of PNG.
    """
    has_planes = not _RGB.match(info.pixel_format)
    return _is_grey(info) or (has_planes and info.colors.matrix != "gbr")


def _is_grey(info: VideoInfo) -> bool:
    return _subsampling(info.pixel_format) == "400"


def luma_conversion(
    info: VideoInfo, *, deinterlace: str = "auto", tone_map: bool = False
) -> Conversion:
    """How that stream, which has luma, becomes planes: as it is, but for their order.

    `deinterlace` is auto, always or never. Raises `VideoError` for Dolby Vision that
    shows nothing without its own data.
    """
    colors, notes = info.colors, _lost_in_frames(info)
    filters = _deinterlace(info, deinterlace, notes)
    source = info.pixel_format
    bits, mastering, light = _bits(source), info.mastering, info.light
    subsampling = _subsampling(source)
    siting, chroma = _place(info), ""
    if info.is_hdr and tone_map:
        filters.append(_TONE_MAP)
        notes.append("HDR mapped to BT.709")
        colors, bits = Colors("tv", "bt709", "bt709", "bt709"), 8
        mastering = light = None
        # It is made anew, of 4:4:4.
        siting = _tagged(info)
        chroma = _chroma("out", planar(subsampling, bits), siting)
    if _ALPHA.search(source) or info.video.tags.get("alpha_mode") == "1":
        notes.append("transparency is left out")
    if bits > 12:
        notes.append(f"{source}: reduced to 12 bits a sample")
    bits = min(bits + bits % 2, 12)
    colors = _complete(info, colors, notes)
    if info.colors.matrix not in _MATRICES:
        # Nothing is converted by it, and swscale from ffmpeg 7.1 on takes no other.
        filters.append("setparams=colorspace=unknown")
    filters += [
        f"scale=w={info.width}:h={info.height}:{_FLAGS}"
        f":in_range={colors.range}:out_range={colors.range}{chroma}",
        f"format={planar(subsampling, bits)}",
        f"settb={info.time_base}",
    ]
    return Conversion(
        to_frames=",".join(filters),
        colors=colors,
        subsampling=subsampling,
        notes=tuple(notes),
        siting=info.siting if subsampling in ("420", "422") else None,
        mastering=mastering,
        light=light,
        kind=FrameFormat(
            subsampling,
            bits=bits,
            range="full" if colors.range == "pc" else "limited",
            siting=siting,
            matrix=colors.matrix,
            result_siting=_tagged(info),
        ),
    )


def _bits(pixel_format: str) -> int:
    """Bits of a sample."""
    if pixel_format.startswith("nv"):
        return 10 if pixel_format.startswith(("nv15", "nv20")) else 8
    for name, bits in _PACKED_BITS.items():
        if pixel_format.startswith(name):
            return bits
    found = re.search(
        r"(?:^p[024]|\D)(9|10|12|14|16|32)(?:msb)?(?:le|be)?$", pixel_format
    )
    return int(found[1]) if found else 8


def fourcc(kind: FrameFormat) -> bytes:
    """What raw planes of that format are called, by ffmpeg's names for AVI."""
    if kind.bits == 8:
        return _FOURCCS[kind.subsampling]
    if kind.subsampling == "400":
        return bytes((*b"Y1", 0, kind.bits))
    shifts = {"420": 11, "422": 10, "444": 0}
    return bytes((*b"Y3", shifts[kind.subsampling], kind.bits))


def planar(subsampling: Subsampling, bits: int) -> str:
    """ffmpeg's name of a planar format."""
    name = "gray" if subsampling == "400" else f"yuv{subsampling}p"
    return name if bits == 8 else f"{name}{bits}le"


def _deinterlace(info: VideoInfo, deinterlace: str, notes: list[str]) -> list[str]:
    """The filters that make pictures of fields; what they do is noted."""
    if deinterlace == "always" or (deinterlace == "auto" and info.interlaced):
        every = "all" if deinterlace == "always" else "interlaced"
        notes.append("interlaced: one picture is made of each pair of fields (bwdif)")
        return [f"bwdif=mode=send_frame:deint={every}"]
    if info.interlaced:
        notes.append("interlaced, and upscaled as if it were not")
    return []


def conversion(
    info: VideoInfo, *, deinterlace: str = "auto", tone_map: bool = False
) -> Conversion:
    """How to convert that stream to RGB.

    `deinterlace` is auto, always or never. Raises `VideoError` for HDR without
    `tone_map`, for matrices that have no filter, and for Dolby Vision that shows
    nothing without its own data.
    """
    name, colors = printable(info.path), info.colors
    notes = _lost_in_frames(info)
    filters = _deinterlace(info, deinterlace, notes)
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
    is_rgb = not has_luma(info)
    subsampling = _subsampling(info.pixel_format)
    if is_rgb or subsampling == "400":
        # RGB has no chroma of its own, and players know 4:2:0 best.
        subsampling = "420"
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
        if not info.is_hdr:  # which is 4:4:4 by now
            scale += _chroma("in", info.pixel_format, _place(info))
    # A fixed time base, whatever the filters before it make of it.
    # By way of planes: the same values as straight to rgb24, in a third of the time.
    filters += [scale, "format=gbrp,format=rgb24", f"settb={info.time_base}"]
    return Conversion(
        to_frames=",".join(filters),
        colors=colors,
        subsampling=subsampling,
        notes=tuple(notes),
    )


def _tagged(info: VideoInfo) -> Siting:
    """Where the stream says that chroma lies, and the result's shall."""
    return _SITINGS.get(info.siting or "left", "left")


def _place(info: VideoInfo) -> Siting:
    """Where it lies in decoded frames, which are turned, and the tag is not."""
    return turned(_tagged(info), info.rotation)


def _chroma(side: str, pixel_format: str, siting: Siting) -> str:
    """Where chroma lies, for the filter `scale`, which would take it for centred.

    It counts in 256ths of the way from one luma sample to the next.
    """
    subsampling = _subsampling(pixel_format)
    chroma = FrameFormat(subsampling, siting=siting).chroma
    # 4:1:1 and 4:1:0 are at hand as the next that has no less.
    if chroma is None or subsampling == "444" or "41" in pixel_format:
        return ""
    across, down = (128 * offset for offset in chroma.offset)
    return f":{side}_h_chr_pos={across}:{side}_v_chr_pos={down}"


def _lost_in_frames(info: VideoInfo) -> list[str]:
    """Notes about what a decoder's frames have beside their samples.

    Raises `VideoError` where the frames are IPT-C2, of which those data make colours
    (Dolby Vision Profiles and Levels, profiles 5 and 10.0): players would show green
    and violet.
    """
    profile, base = info.dolby_vision or (None, None)
    if info.colors.matrix == "ipt-c2" or (profile in (5, 10) and not base):
        raise VideoError(
            f"{printable(info.path)}: Dolby Vision with colours of its own (IPT) "
            "cannot be converted; make it HDR10 or BT.709 first"
        )
    notes = []
    if profile is not None:
        notes.append(
            "Dolby Vision's own data are left out; the picture beneath is kept"
        )
    if info.has_dynamic_metadata:
        notes.append("the dynamic metadata of HDR10+ or HDR Vivid are left out")
    if info.has_captions:
        notes.append("closed captions, which are in the frames, are left out")
    return notes


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
    if matrix in (None, "gbr"):
        large = info.width >= 1280 or info.height > 576
        matrix = "bt709" if large else "smpte170m"
        called = "BT.709" if large else "BT.601"
        if not _is_grey(info):
            notes.append(
                f"no colour matrix is named: {called} assumed, as for its size"
            )
    full = info.pixel_format.startswith(("yuvj", "gray"))
    return Colors(
        colors.range or ("pc" if full else "tv"),
        matrix,
        colors.primaries,
        colors.transfer,
    )


def lost_in_result(ffmpeg: str, colors: Conversion, path: Path) -> list[str]:
    """Notes about what the result at `path` does not say, though it holds for it.

    That depends on the codec, the container and the version of ffmpeg.
    """
    # Left is what players assume where nothing is said.
    is_elsewhere = colors.siting not in (None, "left")
    is_lit = colors.mastering is not None or colors.light is not None
    if not is_elsewhere and not is_lit:
        return []
    result, notes = probe(ffmpeg, path), []
    if is_elsewhere and result.siting != colors.siting:
        notes.append(
            f"chroma lies {colors.siting}, which the result does not say: players will "
            "take it to lie left"
        )
    if is_lit and result.mastering is None and result.light is None:
        notes.append("the result does not say mastering display and light levels")
    return notes


def _subsampling(pixel_format: str) -> Subsampling:
    """That of a format with luma, or the next that has no less chroma."""
    for known, pattern in _SUBSAMPLINGS.items():
        if pattern.match(pixel_format):
            return known
    return "420"
