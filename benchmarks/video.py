"""What a video costs besides the network: waiting, and memory over its length.

usage: python -m benchmarks.video [--frames N] [--size WxH] [--model MODEL]

A clip in which every frame differs is upscaled by the command `upfrost video`. Overlap:
the time from start to end over the time spent in the network, 1 when the device waits
for nothing. Memory: the proportional set size of the command and all its processes,
read twice a second; growth is that of the last fifth's median over the median of the
fifth that follows the first 500 frames.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import RESULTS, publish
from upfrost.chart import line_chart
from upfrost.ffmpeg import find_ffmpeg, run_ffmpeg

WARM_FRAMES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", default="32x18", help="of the clip")
    parser.add_argument("--model", default="realtime-x2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mkv"
        noise = f"testsrc2=s={options.size}:r=25,noise=alls=20:allf=t"
        made = run_ffmpeg(
            find_ffmpeg(),
            [
                *("-f", "lavfi", "-i", noise, "-frames:v", str(options.frames)),
                *("-pix_fmt", "yuv420p", "-c:v", "libx264", str(clip)),
            ],
        )
        if made.returncode:
            raise SystemExit("the clip could not be made")
        command = [
            *(sys.executable, "-m", "upfrost.cli", "video", str(clip)),
            *(str(folder / "out.mp4"), "--model", options.model, "--json", "--quiet"),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            began, samples = time.monotonic(), []
            while process.poll() is None:
                samples.append((time.monotonic() - began, _memory(process.pid) / 1e6))
                time.sleep(0.5)
            assert process.stdout is not None
            record = json.loads(process.stdout.read())
    spent = record["seconds"]
    whole = sum(spent[phase] for phase in ("decode", "upscale", "encode"))
    warm = samples[-1][0] * min(0.5, WARM_FRAMES / options.frames)
    # The last sample may be of processes that are ending.
    kept = [(moment, size) for moment, size in samples[:-1] if moment >= warm]
    fifth = max(1, len(kept) // 5)
    # Medians: for moments, two encoders live, the one of the last segment ending.
    early = statistics.median(size for _, size in kept[:fifth])
    late = statistics.median(size for _, size in kept[-fifth:])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "video-memory.svg").write_text(
        line_chart("Memory of all processes, MB", "seconds", {"memory": samples}) + "\n"
    )
    publish(
        "video",
        "A video: overlap and memory",
        [
            {
                "frames": record["frames"],
                "size": options.size,
                "device": record["device"],
                "frames/s": record["frames_per_second"],
                "in the network, s": round(spent["upscale"], 1),
                "waiting for frames, s": round(spent["decode"], 1),
                "waiting to encode, s": round(spent["encode"], 1),
                "time / network": round(whole / spent["upscale"], 3),
                "memory, MB": round(early),
                "growth, %": round(100 * (late / early - 1), 2),
            }
        ],
        ["Memory over time: video-memory.svg."],
    )


def _memory(process: int) -> int:
    """Bytes of a process and its descendants; shared pages are shared out."""
    total = 0
    for number in (process, *_descendants(process)):
        try:
            text = Path(f"/proc/{number}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        total += sum(
            int(line.split()[1]) * 1024
            for line in text.splitlines()
            if line.startswith("Pss:")
        )
    return total


def _descendants(process: int) -> Iterator[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [
            int(child)
            for task in tasks
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield child
        yield from _descendants(child)


if __name__ == "__main__":
    main()
