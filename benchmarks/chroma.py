"""Colour through the network, or luma alone with chroma enlarged by bicubic.

usage: python -m benchmarks.chroma CLIP[@SECONDS] … [-m MODEL] [--frames N]

Frames of each clip, 640×360 in 4:2:0, are made half as large and large again: as RGB
through the network, what `upfrost video` does; and luma alone, as a grey picture, while
chroma is enlarged by bicubic. VMAF, and PSNR of each plane, against the original. The
networks take three channels, so a grey picture costs them as much as a coloured one:
the last column counts their multiplications for each pixel of the result.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks.report import Row, publish
from benchmarks.streaming import Clip, parse_clip, run
from upfrost import Upscaler
from upfrost.metrics.evaluate import upscale_lossless
from upfrost.metrics.vmaf import measure_video
from upfrost.network.graph import macs_per_output_pixel
from upfrost.video.ffmpeg import find_ffmpeg, has_errors, run_ffmpeg

SIZE = (640, 360)
_TAGS = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
_EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_TO_GREY = "extractplanes=y,scale=in_range=tv:out_range=pc,format=gbrp"
# The network's grey result as luma, and the small video's chroma planes.
_JOIN = (
    "[0:v]extractplanes=g,scale=in_range=pc:out_range=tv,format=gray,setsar=1[luma];"
    f"[1:v]scale=iw*2:ih*2:{_EXACT},format=yuv420p,setsar=1,extractplanes=u+v[blue][red];"
    f"[luma][blue][red]mergeplanes=0x001020:yuv420p,{_TAGS}"
)
_BACK = (
    f"scale=in_range=pc:out_range=tv:out_color_matrix=bt709:{_EXACT},"
    f"format=yuv420p,{_TAGS}"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=parse_clip, metavar="CLIP[@SECONDS]")
    parser.add_argument("-m", "--model", default="cascade-x2")
    parser.add_argument("--frames", type=int, default=24, help="of each clip")
    options = parser.parse_args()
    with Upscaler(options.model) as upscaler:
        rows = [
            row
            for clip in options.clips
            for row in measure(find_ffmpeg(), clip, upscaler, options.frames)
        ]
    publish("chroma", "Colour or luma through the network", rows)


def measure(ffmpeg: str, clip: Clip, upscaler: Upscaler, frames: int) -> list[Row]:
    """A row for each way to enlarge that clip."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original, small, grey, large, shown = (
            folder / f"{part}.mkv"
            for part in ("original", "small", "grey", "large", "shown")
        )
        lossless = ["-c:v", "ffv1", "-an"]
        whole = f"scale={SIZE[0]}:{SIZE[1]}:flags=bicubic,format=yuv420p,{_TAGS}"
        cut = ["-vf", whole, "-frames:v", str(frames), *lossless, str(original)]
        source, seek = ["-i", str(clip.path)], ["-ss", str(float(clip.start))]
        made = run_ffmpeg(ffmpeg, ["-y", *seek, *source, *cut])
        if has_errors(made.stderr.decode(errors="replace").splitlines()):
            run(ffmpeg, *source, *seek, *cut)
        half = f"scale=iw/2:ih/2:flags=bicubic,{_TAGS}"
        run(ffmpeg, "-i", original, "-vf", half, *lossless, small)
        run(ffmpeg, "-i", small, "-vf", _TO_GREY, *lossless, grey)
        rows: list[Row] = []
        for way, given in (("RGB", small), ("luma, bicubic chroma", grey)):
            upscale_lossless(ffmpeg, given, large, upscaler)
            if given is small:
                run(ffmpeg, "-i", large, "-vf", _BACK, *lossless, shown)
            else:
                run(ffmpeg, "-i", large, "-i", small, "-lavfi", _JOIN, *lossless, shown)
            planes = _psnr(ffmpeg, shown, original)
            vmaf = measure_video(ffmpeg, original, shown).mean("vmaf")
            rows.append(
                {
                    "clip": clip.name,
                    "through the network": way,
                    "VMAF": round(vmaf, 2),
                    "PSNR Y, dB": planes["y"],
                    "PSNR U, dB": planes["u"],
                    "PSNR V, dB": planes["v"],
                    "MACs a pixel": round(macs_per_output_pixel(upscaler.graph)),
                }
            )
    return rows


def _psnr(ffmpeg: str, one: Path, other: Path) -> dict[str, float]:
    paired = "settb=1/1000,setpts=N"
    graph = f"[0:v]{paired}[a];[1:v]{paired}[b];[a][b]psnr"
    found = run_ffmpeg(
        ffmpeg, ["-i", str(one), "-i", str(other), "-lavfi", graph, "-f", "null", "-"]
    )
    text = found.stderr.decode(errors="replace")
    values = re.search(r"PSNR y:(\S+) u:(\S+) v:(\S+)", text)
    assert values, text
    return {
        plane: round(float(value), 2)
        for plane, value in zip("yuv", values.groups(), strict=True)
    }


if __name__ == "__main__":
    main()
