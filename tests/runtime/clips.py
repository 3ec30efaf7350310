"""Small videos made by ffmpeg, and what is in a video, as ffmpeg tells it."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tests import graphs
from tests.runtime.fakes import FakeUpscaler
from upfrost import Upscaler
from upfrost.arrays import Bytes
from upfrost.status import Status
from upfrost.video.ffmpeg import find_ffmpeg, parse_frame, parse_time_base, run_ffmpeg
from upfrost.video.upscale import VideoOptions, VideoRecord, upscale_video

# The one that is tested, and the one that makes clips and looks at results.
FFMPEG = find_ffmpeg()
MAKER = imageio_ffmpeg.get_ffmpeg_exe()
# Tags that make any clip HDR.
HDR = (
    "setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc=smpte2084"
)
GRAPH = graphs.plain_network(seed=5, channels=4, layers=1)
LUMA = graphs.luma_network(seed=5, channels=4, layers=1)


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run the maker; what it wrote to stdout."""
    result = run_ffmpeg(MAKER, ["-y", *map(str, arguments)])
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def make_clip(
    path: Path,
    *output: str | Path,
    size: str = "64x36",
    seconds: float = 1,
    rate: int = 24,
    filters: str = "null",
    inputs: tuple[str | Path, ...] = (),
) -> Path:
    """A test picture that moves, every frame unlike the last, with 4:2:0 H.264."""
    source = f"testsrc2=s={size}:r={rate}:d={seconds},{filters}"
    ffmpeg(
        *("-f", "lavfi", "-i", source, *inputs),
        *("-pix_fmt", "yuv420p", "-c:v", "libx264", "-crf", "10", *output, path),
    )
    return path


def upscale(
    source: Path,
    target: Path,
    options: VideoOptions | None = None,
    upscaler: FakeUpscaler | Upscaler | None = None,
) -> VideoRecord:
    """Upscale by repeating pixels, in this process."""
    record = VideoRecord(str(source), str(target))
    upscale_video(
        source,
        target,
        upscaler or FakeUpscaler(GRAPH),  # type: ignore[arg-type]
        options or VideoOptions(),
        Status(io.StringIO()),
        record,
    )
    return record


def frames(path: Path, size: tuple[int, int], *options: str) -> list[Bytes]:
    """All frames as RGB (H, W, 3); `size` is width and height."""
    width, height = size
    raw = ffmpeg(
        *("-i", str(path), "-map", "0:v:0", *options, "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-"),
    )
    return list(np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3))


def times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds by the file's own clock."""
    log = run_ffmpeg(
        MAKER,
        [
            *("-copyts", "-i", str(path), "-map", "0:v:0"),
            *("-vf", "showinfo=checksum=0", "-fps_mode", "passthrough"),
            *("-f", "null", "-"),
        ],
    ).stderr.decode()
    lines = log.splitlines()
    base = next(config[0] for line in lines if (config := parse_time_base(line)))
    found_frames = [found for line in lines if (found := parse_frame(line))]
    return [(frame.pts or 0) * base for frame in found_frames]


def packets(path: Path, stream: str) -> str:
    """Times and checksums of a stream's packets, without the file's header."""
    listed = ffmpeg(
        *("-copyts", "-i", path, "-map", f"0:{stream}", "-c", "copy"),
        *("-f", "framecrc", "-"),
    ).decode()
    return "\n".join(line for line in listed.splitlines() if not line.startswith("#"))


def header(path: Path) -> str:
    """What ffmpeg says of a file."""
    return run_ffmpeg(MAKER, ["-i", str(path)]).stderr.decode()


needs_vmaf = pytest.mark.skipif(
    b" libvmaf " not in run_ffmpeg(FFMPEG, ["-filters"]).stdout,
    reason="needs an ffmpeg with libvmaf, as imageio-ffmpeg's is",
)
