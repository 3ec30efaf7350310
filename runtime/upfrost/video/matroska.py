"""As much Matroska as carries one video stream: frames to ffmpeg, packets from it.

Matroska through a pipe gives every frame a timestamp of its own, to the nanosecond.
Element names and numbers are those of RFC 9559.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from upfrost.errors import UpfrostError
from upfrost.video.ffmpeg import Mastering

NANOSECONDS = 1_000_000_000

_EBML = 0x1A45DFA3
_SEGMENT = 0x18538067
_INFO = 0x1549A966
_TRACKS = 0x1654AE6B
_CLUSTER = 0x1F43B675
_TIMESTAMP = 0xE7
_SIMPLE_BLOCK = 0xA3
_BLOCK_GROUP = 0xA0
_BLOCK = 0xA1
_BLOCK_DURATION = 0x9B
_REFERENCE_BLOCK = 0xFB
_KEYFRAME = 0x80
_UNKNOWN_SIZE = b"\x01\xff\xff\xff\xff\xff\xff\xff"


class MatroskaError(UpfrostError, ValueError):
    """A file that is not what ffmpeg writes, or not all of it."""


@dataclass(frozen=True)
class Packet:
    """A compressed frame. `timestamp` is in the file's own unit, for order only."""

    timestamp: int
    keyframe: bool
    offset: int  # of its bytes in the file
    size: int


RGB24 = b"RGB\x18"  # as AVI calls it


def raw_video_header(
    width: int,
    height: int,
    pixel_aspect: Fraction | None,
    frame_rate: Fraction | None,
    fourcc: bytes = RGB24,
    colour: bytes = b"",
) -> bytes:
    """What begins a stream of raw frames, whose samples `fourcc` names.

    `colour` is a Colour element, or nothing.
    """
    aspect = pixel_aspect or Fraction(1)
    display = Fraction(width) * aspect
    video = (
        _integer(0xB0, width)
        + _integer(0xBA, height)
        + _integer(0x54B0, display.numerator)
        + _integer(0x54BA, height * display.denominator)
        + _integer(0x54B2, 3)  # display size in units of its own: a ratio
        + _element(0x2EB524, fourcc)
        + colour
    )
    track = (
        _integer(0xD7, 1)
        + _integer(0x73C5, 1)
        + _integer(0x83, 1)  # video
        + _integer(0x9C, 0)  # no lacing
        + _element(0x86, b"V_UNCOMPRESSED")
        + (_integer(0x23E383, round(NANOSECONDS / frame_rate)) if frame_rate else b"")
        + _element(0xE0, video)
    )
    return stream_header(_element(_TRACKS, _element(0xAE, track)))


def colour(mastering: Mastering | None, light: tuple[int, int] | None) -> bytes:
    """A Colour element (RFC 9559, 5.1.4.1.28.16) that says these, or nothing."""
    said = b""
    if light is not None:
        said += _integer(0x55BC, light[0]) + _integer(0x55BD, light[1])
    if mastering is not None:
        numbers = [*mastering.red, *mastering.green, *mastering.blue]
        numbers += [*mastering.white, mastering.most, mastering.least]
        said += _element(
            0x55D0, b"".join(_float(0x55D1 + i, n) for i, n in enumerate(numbers))
        )
    return _element(0x55B0, said) if said else b""


def stream_header(tracks: bytes) -> bytes:
    """What begins a stream with that Tracks element and times in nanoseconds."""
    ebml = (
        _integer(0x4286, 1)
        + _integer(0x42F7, 1)
        + _integer(0x42F2, 4)
        + _integer(0x42F3, 8)
        + _element(0x4282, b"matroska")
        + _integer(0x4287, 4)
        + _integer(0x4285, 2)
    )
    info = (
        _integer(0x2AD7B1, 1)
        + _element(0x4D80, b"upfrost")
        + _element(0x5741, b"upfrost")
    )
    return (
        _element(_EBML, ebml)
        + _SEGMENT.to_bytes(4)
        + _UNKNOWN_SIZE
        + _element(_INFO, info)
        + tracks
    )


def frame_header(
    time: Fraction,
    size: int,
    *,
    keyframe: bool = True,
    duration: Fraction | None = None,
) -> bytes:
    """What stands before a frame's `size` bytes. Times are seconds, 0 or more.

    `duration` is worth its bytes for the last frame only, which no other follows.
    """
    nanoseconds = round(time * NANOSECONDS)
    if nanoseconds < 0:
        raise ValueError(f"a frame at {float(time)} s, before the stream's beginning")
    start = _integer(_TIMESTAMP, nanoseconds)
    # Track 1, at the cluster's time, flags.
    block = b"\x81\x00\x00" + bytes([_KEYFRAME if keyframe and duration is None else 0])
    if duration is None:
        head = _head(_SIMPLE_BLOCK, len(block) + size) + block
        return _head(_CLUSTER, len(start) + len(head) + size) + start + head
    rest = _integer(_BLOCK_DURATION, round(duration * NANOSECONDS))
    if not keyframe:
        rest += _element(_REFERENCE_BLOCK, b"\xff")  # −1: an earlier frame
    head = rest + _head(_BLOCK, len(block) + size) + block
    group = _head(_BLOCK_GROUP, len(head) + size) + head
    return _head(_CLUSTER, len(start) + len(group) + size) + start + group


def read_packets(path: Path) -> tuple[bytes, list[Packet]]:
    """The Tracks element of a file with one stream, and its packets in their order.

    Raises `MatroskaError` for a file that is damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            tracks, packets = _read(file, path.stat().st_size)
    except (OSError, EOFError, ValueError) as error:
        raise MatroskaError(f"{path.name}: {str(error) or 'cut short'}") from error
    if not tracks or not packets:
        raise MatroskaError(f"{path.name}: there is no video in it")
    return tracks, packets


def read_stream(pipe: BinaryIO) -> Iterator[bytes]:
    """What comes through a pipe: the Tracks element, then each packet in its order.

    Raises `MatroskaError` for what is cut short or has no Tracks before its packets.
    """
    tracks = b""
    try:
        while first := pipe.read(1):
            number = int.from_bytes(first + _exactly(pipe, 8 - first[0].bit_length()))
            length, _ = _size(pipe)
            if number in (_SEGMENT, _CLUSTER, _BLOCK_GROUP):
                continue
            content = _exactly(pipe, length)
            if number == _TRACKS:
                tracks = _element(_TRACKS, content)
                yield tracks
            elif number in (_SIMPLE_BLOCK, _BLOCK):
                if not tracks or content[0] != 0x81 or content[3] & 0x06:
                    raise ValueError("more than one track, or lacing")
                yield content[4:]
    except (OSError, EOFError, ValueError) as error:
        raise MatroskaError(f"the stream is {str(error) or 'cut short'}") from error


def _read(file: BinaryIO, size: int) -> tuple[bytes, list[Packet]]:
    tracks, packets, timestamp = b"", [], 0
    dependent: list[int] = []  # packets in groups that refer to another frame
    for number, begin, length in _elements(file, size):
        if number == _TRACKS:
            tracks = _element(_TRACKS, _exactly(file, length))
        elif number == _TIMESTAMP:
            timestamp = int.from_bytes(_exactly(file, length))
        elif number in (_SIMPLE_BLOCK, _BLOCK):
            track, used = _size(file)
            head = _exactly(file, 3)
            if track != 1 or head[2] & 0x06:
                raise ValueError("more than one track, or lacing")
            relative = int.from_bytes(head[:2], signed=True)
            data = begin + used + 3
            packets.append(
                Packet(
                    timestamp + relative,
                    number == _BLOCK or bool(head[2] & _KEYFRAME),
                    data,
                    begin + length - data,
                )
            )
            file.seek(begin + length)
        elif number == _REFERENCE_BLOCK:
            dependent.append(len(packets) - 1)
            file.seek(begin + length)
        elif number not in (_SEGMENT, _CLUSTER, _BLOCK_GROUP):
            file.seek(begin + length)
    for index in dependent:
        packets[index] = dataclasses.replace(packets[index], keyframe=False)
    return tracks, packets


def _elements(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int]]:
    """Number, beginning of the content and length of each element, depth first."""
    while file.tell() < size:
        first = _exactly(file, 1)[0]
        width = 9 - first.bit_length()
        if width > 4:
            raise ValueError("damaged")
        number = int.from_bytes(bytes([first]) + _exactly(file, width - 1))
        length, _ = _size(file)
        begin = file.tell()
        if begin + length > size:
            raise EOFError
        yield number, begin, length


def _size(file: BinaryIO) -> tuple[int, int]:
    first = _exactly(file, 1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise ValueError("damaged")
    rest = _exactly(file, width - 1)
    value = int.from_bytes(bytes([first & ((1 << (8 - width)) - 1)]) + rest)
    return value, width


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data


def _head(number: int, length: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8) + (
        length | 1 << 56
    ).to_bytes(8)


def _element(number: int, content: bytes) -> bytes:
    return _head(number, len(content)) + content


def _float(number: int, value: float) -> bytes:
    return _element(number, struct.pack(">d", value))


def _integer(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8)))
