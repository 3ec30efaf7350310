"""Frames of video as they are: planes of luma and chroma, and what their samples mean.

Nothing here becomes RGB. Names of formats, ranges and sitings are those of ITU-T H.273
and of what people call them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from upfrost.errors import UsageError

Words = npt.NDArray[np.uint32]
Samples = npt.NDArray[np.uint8 | np.uint16]
Subsampling = Literal["400", "420", "422", "444"]
Range = Literal["limited", "full"]
# Those of H.273, in the order of its numbers, and three that only turned frames have.
Siting = Literal[
    "left",
    "centre",
    "top-left",
    "top",
    "bottom-left",
    "bottom",
    "right",
    "top-right",
    "bottom-right",
]

# Halves of the way from the first to the last of the luma samples that it lies among.
_PLACES: dict[Siting, tuple[int, int]] = {
    "left": (0, 1),
    "centre": (1, 1),
    "top-left": (0, 0),
    "top": (1, 0),
    "bottom-left": (0, 2),
    "bottom": (1, 2),
    "right": (2, 1),
    "top-right": (2, 0),
    "bottom-right": (2, 2),
}
# Columns and rows of luma for each of chroma.
_RATIOS: dict[Subsampling, tuple[int, int]] = {
    "400": (1, 1),
    "420": (2, 2),
    "422": (2, 1),
    "444": (1, 1),
}
# ffmpeg's words for ours, by field.
_FFMPEG_WORDS = {
    "range": {"tv": "limited", "mpeg": "limited", "pc": "full", "jpeg": "full"},
    "siting": {
        "center": "centre",
        "topleft": "top-left",
        "bottomleft": "bottom-left",
    },
}


@dataclass(frozen=True)
class SampleFormat:
    """Samples of a picture in host memory: what they look like, what they may be.

    More than 8 bits stand in 16-bit words, from bit `shift` on. Results are rounded to
    `low` … `high`.
    """

    bits: int = 8
    shift: int = 0
    low: int = 0
    high: int = 255

    @property
    def bytes(self) -> int:
        """Bytes of a sample."""
        return 1 if self.bits == 8 else 2

    @property
    def full_scale(self) -> int:
        """The sample that means what 255 means of 8 bits (docs/format.md)."""
        return 255 << self.bits - 8

    def pixel_format(self, channels: int) -> int:
        """A pixel of so many channels as shaders/bytes.glsl takes it."""
        return channels * self.bytes | self.shift << 8


@dataclass(frozen=True)
class HostPlane:
    """A plane of samples in host memory: rows of `width` samples, `stride` bytes apart.

    `offset` counts bytes from the buffer's beginning.
    """

    offset: int
    stride: int
    height: int
    width: int
    sample_bytes: int = 1

    def rows(self, words: Words) -> Samples:
        """The plane in its buffer: a view, (height, width)."""
        end = self.offset + self.stride * self.height
        rows = words.view(np.uint8)[self.offset : end].reshape(self.height, -1)
        samples = rows[:, : self.width * self.sample_bytes]
        return samples.view(np.uint16) if self.sample_bytes == 2 else samples


@dataclass(frozen=True)
class ChromaFormat:
    """How chroma lies among luma, in columns and rows of luma for each of its own.

    `components` is 2 where U and V alternate in one plane. `offset` is twice the
    distance of a sample from the first of the luma samples that it belongs to, and
    `result_offset` what it shall be when chroma is enlarged.
    """

    components: Literal[1, 2]
    ratio: tuple[int, int]
    offset: tuple[int, int]
    result_offset: tuple[int, int]


# As RGB's is.
FULL_CHROMA = ChromaFormat(
    components=1, ratio=(1, 1), offset=(0, 0), result_offset=(0, 0)
)


def turned(siting: Siting, degrees: int) -> Siting:
    """Where chroma lies in a frame that was turned clockwise by so many right angles.

    `degrees` is a multiple of 90.
    """
    across, down = _PLACES[siting]
    for _ in range(degrees // 90 % 4):
        across, down = 2 - down, across
    return next(word for word, place in _PLACES.items() if place == (across, down))


@dataclass(frozen=True)
class FrameFormat:
    """What a frame's planes are: how chroma is subsampled, what the samples mean.

    Samples of more than 8 bits stand in 16-bit words, from bit `shift` on: 6 for
    P010, whose 10 bits are the high ones. `interleaved` chroma is one plane of U and
    V in turn. `siting` says where chroma lies among 2×2 luma samples: ``left`` (as
    MPEG-2, H.264 and H.265 have it), ``centre`` (MPEG-1, JPEG), ``top-left``
    (BT.2020), or another of `Siting`; `result_siting` where it shall lie in what the
    frame becomes, None for where it lies in the frame. `matrix` is carried, not looked
    at.

    Raises `UsageError` for words and numbers that are none of these.
    """

    subsampling: Subsampling = "420"
    interleaved: bool = False
    bits: int = 8
    shift: int = 0
    range: Range = "limited"
    siting: Siting = "left"
    matrix: str | None = None
    result_siting: Siting | None = None

    def __post_init__(self) -> None:
        _check_word("subsampling", self.subsampling, get_args(Subsampling))
        _check_word("range", self.range, get_args(Range))
        _check_word("siting", self.siting, get_args(Siting))
        if self.result_siting is not None:
            _check_word("siting", self.result_siting, get_args(Siting))
        if not isinstance(self.interleaved, bool):
            raise UsageError(
                f"interleaved is True or False; found {self.interleaved!r}"
            )
        for name, number in (("bits", self.bits), ("shift", self.shift)):
            if not isinstance(number, int | np.integer) or isinstance(number, bool):
                raise UsageError(f"{name} is a whole number; found {number!r}")
        if not 8 <= self.bits <= 16 or not 0 <= self.shift <= 16 - self.bits:
            raise UsageError(
                f"samples have 8 to 16 bits within a 16-bit word, found {self.bits} "
                f"from bit {self.shift} on"
            )
        if self.bits == 8 and self.shift:
            raise UsageError("samples of 8 bits are bytes, and have no shift")

    @property
    def samples(self) -> SampleFormat:
        """The samples of every plane.

        Results of full range may have any value, those of limited range any but those
        that are synchronization's (BT.601: 0 and 255 of 8 bits): foot and headroom are
        the signal's own.
        """
        most = (1 << self.bits) - 1
        unit = 1 << self.bits - 8
        low, high = (unit, most - unit) if self.range == "limited" else (0, most)
        return SampleFormat(self.bits, self.shift, low, high)

    @property
    def chroma(self) -> ChromaFormat | None:
        """None for a frame of luma alone."""
        if self.subsampling == "400":
            return None
        across, down = _RATIOS[self.subsampling]

        def offset(siting: Siting) -> tuple[int, int]:
            x, y = _PLACES[siting]
            return x * (across - 1), y * (down - 1)

        return ChromaFormat(
            components=2 if self.interleaved else 1,
            ratio=(across, down),
            offset=offset(self.siting),
            result_offset=offset(self.result_siting or self.siting),
        )

    @property
    def enlarged(self) -> FrameFormat:
        """The format of what a frame becomes."""
        if self.result_siting is None:
            return self
        return replace(self, siting=self.result_siting, result_siting=None)

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """The type of a plane's samples."""
        return np.dtype(np.uint8) if self.bits == 8 else np.dtype(np.uint16)

    @property
    def ratios(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of luma for each of a plane's, by plane."""
        across, down = _RATIOS[self.subsampling]
        count = 0 if self.subsampling == "400" else 1 if self.interleaved else 2
        return ((1, 1), *((down, across),) * count)

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], ...]:
        """Shapes of the planes of a frame of that many rows and columns of luma.

        Chroma covers the last row and column, whatever their number.
        """
        pair = (2,) if self.interleaved else ()
        return (
            (height, width),
            *((-(-height // y), -(-width // x), *pair) for y, x in self.ratios[1:]),
        )

    def frame_bytes(self, height: int, width: int) -> int:
        """Bytes of a frame's planes, one after the other without gaps."""
        shapes = self.shapes(height, width)
        return self.dtype.itemsize * sum(map(math.prod, shapes))


def _check_word(name: str, word: object, known: tuple[str, ...]) -> None:
    """Raise `UsageError` for a word that is not known, and say which was meant."""
    if isinstance(word, str) and word in known:
        return
    text = str(word)
    meant = _FFMPEG_WORDS.get(name, {}).get(text, text.replace(":", ""))
    hint = f", which is {meant!r} here" if meant in known else ""
    raise UsageError(f"{name} is {', '.join(known)}; found {word!r}{hint}")


@dataclass(frozen=True, eq=False)
class Frame:
    """Planes of samples: Y, U and V, or Y and U with V in turn, or Y alone.

    Y is (H, W); U and V are (h, w), in one plane (h, w, 2). Raises `UsageError` for
    planes that are not the format's.
    """

    format: FrameFormat
    planes: tuple[Samples, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.format, FrameFormat):
            raise UsageError(f"format is a FrameFormat; found {self.format!r}")
        if not isinstance(self.planes, tuple | list):
            raise UsageError(
                f"planes are a tuple of arrays, found {type(self.planes).__name__}"
            )
        for plane in self.planes:
            if not isinstance(plane, np.ndarray):
                raise UsageError(f"a plane is an array, found {type(plane).__name__}")
        first = self.planes[0].shape if self.planes else ()
        found = [plane.shape for plane in self.planes]
        if len(first) != 2 or not all(first):
            raise UsageError(f"a frame's luma has rows and columns, found {found}")
        expected = self.format.shapes(first[0], first[1])
        if found != list(expected):
            raise UsageError(
                f"planes of {self.format.subsampling} for {first[1]}×{first[0]} pixels "
                f"have shapes {list(expected)}, found {found}"
            )
        for plane in self.planes:
            if plane.dtype != self.format.dtype:
                raise UsageError(
                    f"samples of {self.format.bits} bits are {self.format.dtype}, "
                    f"found {plane.dtype}"
                )

    @property
    def height(self) -> int:
        """Rows of luma."""
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        """Columns of luma."""
        return int(self.planes[0].shape[1])

    @classmethod
    def of_bytes(
        cls, kind: FrameFormat, height: int, width: int, data: npt.NDArray[np.uint8]
    ) -> Self:
        """The frame whose planes follow each other in `data`; its planes are views."""
        planes = []
        position = 0
        for shape in kind.shapes(height, width):
            size = math.prod(shape) * kind.dtype.itemsize
            plane = data[position : position + size].view(kind.dtype).reshape(shape)
            planes.append(plane)
            position += size
        return cls(kind, tuple(planes))

    @classmethod
    def empty(cls, kind: FrameFormat, height: int, width: int) -> Self:
        """A frame to be filled, its planes one after the other in memory."""
        data = np.empty(kind.frame_bytes(height, width), np.uint8)
        return cls.of_bytes(kind, height, width, data)
