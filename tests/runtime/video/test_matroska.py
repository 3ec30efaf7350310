"""Matroska streams: what is written is read, by ffmpeg and by ourselves."""

from __future__ import annotations

import contextlib
import io
import random
from fractions import Fraction
from pathlib import Path

import pytest

from tests.runtime.clips import ffmpeg, make_clip, times
from upfrost.video.formats import CODECS, encoder_arguments
from upfrost.video.matroska import (
    MatroskaError,
    frame_header,
    raw_video_header,
    read_packets,
    read_stream,
    stream_header,
)


def test_ffmpeg_reads_raw_frames_at_exact_times(tmp_path: Path) -> None:
    path = tmp_path / "raw.mkv"
    moments = [Fraction(n * n, 90000) for n in (0, 1, 300, 90001)]
    raw = raw_video_header(6, 4, Fraction(16, 15), Fraction(25))
    for number, moment in enumerate(moments):
        raw += frame_header(moment, 72) + bytes([number] * 72)
    path.write_bytes(raw)
    exact = times(path)
    assert [round(time * 90000) for time in exact] == [t * 90000 for t in moments]
    pixels = ffmpeg(
        "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-",
    )  # fmt: skip
    assert pixels == b"".join(bytes([number] * 72) for number in range(4))


def test_packets_survive_being_streamed_again(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mkv", "-bf", "2", "-g", "12")
    tracks, packets = read_packets(source)
    data = source.read_bytes()
    assert [packet.keyframe for packet in packets].count(True) == 2
    stamps = [packet.timestamp for packet in packets]
    assert sorted(stamps) != stamps, "no B-frames to test with"
    again = stream_header(tracks)
    for number, packet in enumerate(packets):
        again += frame_header(
            Fraction(packet.timestamp, 1000),
            packet.size,
            keyframe=packet.keyframe,
            duration=Fraction(1, 24) if number == len(packets) - 1 else None,
        )
        again += data[packet.offset : packet.offset + packet.size]
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(again)
    assert times(copy) == times(source)
    decoded = ["-map", "0:v", "-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    assert ffmpeg("-i", copy, *decoded) == ffmpeg("-i", source, *decoded)


def test_a_file_cut_anywhere_is_refused_or_read_to_a_packets_end(
    tmp_path: Path,
) -> None:
    source = make_clip(tmp_path / "source.mkv", seconds=0.2, size="32x32")
    data = source.read_bytes()
    whole = read_packets(source)[1]
    cut = tmp_path / "cut.mkv"
    seed = 11
    for length in random.Random(seed).sample(range(len(data)), 300):
        cut.write_bytes(data[:length])
        with contextlib.suppress(MatroskaError):
            found = read_packets(cut)[1]
            assert found == whole[: len(found)], (seed, length)


def test_a_frame_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="before the stream's beginning"):
        frame_header(Fraction(-1), 3)


def test_a_stream_through_a_pipe_has_the_packets_of_its_file(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "source.mkv", "-bf", "2", "-g", "12")
    tracks, packets = read_packets(source)
    data = source.read_bytes()
    whole = [tracks, *(data[p.offset : p.offset + p.size] for p in packets)]
    piped = ffmpeg("-i", source, "-c", "copy", "-f", "matroska", "pipe:1")
    found = list(read_stream(io.BytesIO(piped)))
    # The rest of the Tracks element depends on the output, and a number is random.
    assert found[0][:4] == tracks[:4]
    assert found[1:] == whole[1:]
    half = read_stream(io.BytesIO(piped[: len(piped) // 2]))
    with pytest.raises(MatroskaError, match="cut short"):
        list(half)


def test_headers_of_h265_do_not_name_the_processor(tmp_path: Path) -> None:
    """Segments of several machines are one stream only where headers are the same."""
    target = tmp_path / "out.mkv"
    arguments = encoder_arguments(CODECS["h265"], None, "ultrafast")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.2", *arguments, target)
    tracks, _ = read_packets(target)
    assert b"cpuid" not in tracks
