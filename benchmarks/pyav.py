"""PyAV in place of ffmpeg processes: processor time, and whether frames are the same.

usage: python -m benchmarks.pyav CLIP

Needs the package `av`, which upfrost does not. CLIP's frames as planes, in the format
that they are stored in: decoded by `upfrost.video.decode` and by PyAV, and compared by
bytes and times; then encoded by x264 with the same settings, through a pipe as
`upfrost.video.encode` does, and by PyAV. Those results are not compared: the builds of
x264 are of two versions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.idle import processor_seconds
from benchmarks.report import publish
from upfrost.arrays import Bytes
from upfrost.video.color import fourcc, luma_conversion
from upfrost.video.decode import Decoder
from upfrost.video.encode import Encoding, _Encoder, _Item
from upfrost.video.ffmpeg import VideoInfo, find_ffmpeg, probe

X264 = {"crf": "18", "preset": "veryfast"}
Frames = list[tuple[int, Bytes]]  # times and planes


def measured(action: Callable[[], Any], runs: int) -> tuple[Any, float, float]:
    """What it gives, and the least processor's and clock's seconds that it took."""
    took: list[tuple[float, float]] = []
    for _ in range(runs):
        busy, began = processor_seconds(), time.perf_counter()
        found = action()
        took.append((processor_seconds() - busy, time.perf_counter() - began))
    return found, min(t[0] for t in took), min(t[1] for t in took)


def decode_by_process(ffmpeg: str, info: VideoInfo) -> Frames:
    colors = luma_conversion(info)
    assert colors.kind is not None
    size = colors.kind.frame_bytes(info.height, info.width)
    decoder = Decoder(ffmpeg, info, colors.to_frames, None, size)
    try:
        return [(frame.pts, frame.pixels) for frame in decoder]
    finally:
        decoder.close()


def decode_by_pyav(path: Path) -> Frames:
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        return [
            (frame.pts, np.ascontiguousarray(frame.to_ndarray()).reshape(-1))
            for frame in container.decode(video=0)
        ]


def encode_by_process(
    ffmpeg: str, info: VideoInfo, frames: Frames, target: Path
) -> None:
    kind = luma_conversion(info).kind
    assert kind is not None
    encoding = Encoding(
        width=info.width,
        height=info.height,
        pixel_aspect=None,
        frame_rate=info.frame_rate,
        time_base=info.time_base,
        filters="null",
        arguments=("-c:v", "libx264", *(w for k in X264 for w in (f"-{k}", X264[k]))),
        pixel_format=info.pixel_format,
        fourcc=fourcc(kind),
        frame_bytes=frames[0][1].size,
    )
    encoder = _Encoder(ffmpeg, encoding, target)
    for pts, pixels in frames:
        encoder.write(_Item(pts, None, 0, [pixels]))
    encoder.end()
    encoder.wait()
    encoder.discard()


def encode_by_pyav(info: VideoInfo, frames: Frames, target: Path) -> None:
    with av.open(target, "w", format="matroska") as container:
        rate = info.frame_rate or Fraction(25)
        stream = container.add_stream("libx264", rate=rate, options=X264)
        stream.width, stream.height = info.width, info.height
        stream.pix_fmt = info.pixel_format
        stream.codec_context.time_base = info.time_base
        for pts, pixels in frames:
            frame = av.VideoFrame.from_ndarray(
                pixels.reshape(-1, info.width), format=info.pixel_format
            )
            frame.pts, frame.time_base = pts, info.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--runs", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    ffmpeg, clip, runs = find_ffmpeg(), arguments.clip, arguments.runs
    info = probe(ffmpeg, clip)
    given, busy, clock = measured(lambda: decode_by_process(ffmpeg, info), runs)
    other, busy_av, clock_av = measured(lambda: decode_by_pyav(clip), runs)
    same = sum(
        one[0] == two[0] and np.array_equal(one[1], two[1])
        for one, two in zip(given, other, strict=True)
    )
    rows = [_row("decode", len(given), busy, busy_av, clock, clock_av, same)]
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.mkv", Path(folder) / "theirs.mkv"
        _, busy, clock = measured(
            lambda: encode_by_process(ffmpeg, info, given, ours), runs
        )
        _, busy_av, clock_av = measured(
            lambda: encode_by_pyav(info, given, theirs), runs
        )
        rows.append(_row("encode", len(given), busy, busy_av, clock, clock_av, None))
    publish(
        "pyav",
        "PyAV in place of ffmpeg processes",
        rows,
        [
            f"{clip.name}, {info.width}×{info.height}, {info.pixel_format}; x264, "
            f"{X264}; least of {runs} runs; load average {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} processors",
            "the same: frames by their bytes and times",
            f"av {av.__version__} with {av.library_versions}",
        ],
    )


def _row(
    what: str,
    frames: int,
    busy: float,
    busy_av: float,
    clock: float,
    clock_av: float,
    same: int | None,
) -> dict[str, str | int | float | None]:
    return {
        "": what,
        "frames": frames,
        "processor ms a frame": 1e3 * busy / frames,
        "by PyAV": 1e3 * busy_av / frames,
        "ms by the clock": 1e3 * clock / frames,
        "by PyAV, clock": 1e3 * clock_av / frames,
        "the same": same,
    }


if __name__ == "__main__":
    main()
