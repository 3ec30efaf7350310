"""What a half-size H.264 stream looks like, enlarged by each model, at three rates.

usage: python -m benchmarks.streams CLIP[@SECONDS] ... [-m MODEL ...] [--frames N]

The first frames of each clip, no higher than --height, are halved by bicubic and
encoded by x264 at crf 18, 22 and 26; then each model doubles what came through. VMAF
against the frames before they were halved. Which clips no model has seen, the head of
`benchmarks.streaming` says, and where `video-x2` is, which the table has too,
docs/models.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.report import Row, publish
from benchmarks.streaming import (
    Clip,
    encode,
    enlarge_by_lanczos,
    halved,
    parse_clip,
)
from upfrost import Upscaler
from upfrost.metrics.evaluate import upscale_lossless
from upfrost.metrics.vmaf import measure_video
from upfrost.video.ffmpeg import find_ffmpeg

RATES = (18, 22, 26)
MODELS = ("live-x2-xs", "live-x2-s", "live-x2-m")


def main() -> None:
    """Measure, and publish the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=parse_clip, metavar="CLIP[@SECONDS]")
    parser.add_argument("-m", "--models", nargs="+", metavar="MODEL", default=MODELS)
    parser.add_argument("--frames", type=int, default=24, help="of each clip (24)")
    parser.add_argument(
        "--height", type=int, default=360, help="of the full size (360)"
    )
    options = parser.parse_args()
    with ExitStack() as stack:
        upscalers = [stack.enter_context(Upscaler(model)) for model in options.models]
        rows = [
            row
            for clip in options.clips
            for row in measure(clip, upscalers, options.height, options.frames)
        ]
    publish(
        "streams",
        "Half-size H.264 streams, enlarged: VMAF",
        rows,
        [f"{options.frames} frames of each clip, {options.height} rows at most."],
    )


def measure(
    clip: Clip, upscalers: list[Upscaler], height: int, frames: int
) -> Iterator[Row]:
    """A row for each rate of that clip."""
    ffmpeg = find_ffmpeg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original, half = halved(ffmpeg, clip, height, frames, folder)
        sent, shown = folder / "sent.mkv", folder / "shown.mkv"
        for crf in RATES:
            kbits = encode(ffmpeg, "x264", crf, half, sent)
            row: dict[str, str | int | float | None] = {
                "clip": clip.name,
                "crf": crf,
                "kbit/s": round(kbits),
            }
            enlarge_by_lanczos(ffmpeg, sent, original, shown)
            row["Lanczos"] = round(
                measure_video(ffmpeg, original, shown).mean("vmaf"), 1
            )
            for upscaler in upscalers:
                upscale_lossless(ffmpeg, sent, shown, upscaler)
                found = measure_video(ffmpeg, original, shown).mean("vmaf")
                row[upscaler.graph.name] = round(found, 1)
            print(row, flush=True)
            yield row


if __name__ == "__main__":
    main()
