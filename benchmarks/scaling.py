"""Time and memory over the picture's size, at a fixed budget of device memory.

usage: python -m benchmarks.scaling [--memory MB] [--model MODEL] [--runs N]
       [--megapixels N ...]

For each size, a picture made of an example picture repeated is upscaled by the command
`upfrost upscale --memory MB` in a process of its own. The time is that of upscaling,
without reading and writing the file, as `--json` says it: the median of the runs. Host
memory is the process's peak resident size, the device's (which on lavapipe is the same
memory) included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.report import RESULTS, Row, publish
from upfrost.network.modelfile import find_model, read_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "bee.png"
MEGAPIXELS = [0.25, 0.5, 1, 2, 4, 8, 16, 32]  # of the result


def make_picture(path: Path, height: int, width: int) -> None:
    """Write a picture of that size: the example, repeated and cut."""
    example = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    times = (-(-height // example.shape[0]), -(-width // example.shape[1]), 1)
    Image.fromarray(np.tile(example, times)[:height, :width]).save(path)


def upscale(
    source: Path, target: Path, arguments: list[str]
) -> tuple[dict[str, Any], int]:
    """One run of the command: what `--json` says, and peak resident bytes."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "upfrost.cli.main", "upscale", str(source)]
    command += ["-o", str(target), "--json", "--quiet", "--overwrite", *arguments]
    child = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
    )
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(said), usage.ru_maxrss * 1024


def measure(megapixels: float, runs: int, scale: int, arguments: list[str]) -> Row:
    """A row of the table for a result of that size, 3:2."""
    width = round((megapixels * 1e6 * 1.5) ** 0.5 / scale)
    height = round(width / 1.5)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "small.png"), Path(folder, "large.png")
        make_picture(source, height, width)
        found = [upscale(source, target, arguments) for _ in range(runs + 1)][1:]
    record = found[0][0]
    output = record["output_size"][0] * record["output_size"][1] / 1e6
    seconds = [said["seconds"]["upscale"] for said, _ in found]
    return {
        "megapixels": round(output, 2),
        "tile": "×".join(map(str, record["tile_size"])),
        "tiles": record["tiles"],
        "seconds": round(statistics.median(seconds), 3),
        "s per megapixel": round(statistics.median(seconds) / output, 3),
        "device MiB": round(record["device_bytes"] / 2**20, 1),
        "host peak MiB": round(max(peak for _, peak in found) / 2**20),
    }


def draw(rows: list[Row], path: Path) -> None:
    """Time per megapixel and memory, over the size."""
    sizes = [row["megapixels"] for row in rows]
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(6, 5))
    upper.semilogx(sizes, [row["s per megapixel"] for row in rows], "o-")
    upper.set_ylabel("s per megapixel")
    upper.set_ylim(bottom=0)
    lower.semilogx(sizes, [row["device MiB"] for row in rows], "o-", label="device")
    lower.semilogx(sizes, [row["host peak MiB"] for row in rows], "s-", label="host")
    lower.set_ylabel("MiB")
    lower.set_xlabel("megapixels of the result")
    lower.set_ylim(bottom=0)
    lower.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory over size.")
    parser.add_argument("--memory", type=int, default=64, metavar="MB")
    parser.add_argument("--model", default="realtime-x2")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--megapixels", type=float, nargs="+", default=MEGAPIXELS)
    chosen = parser.parse_args()
    scale = read_model(find_model(chosen.model)).scale
    arguments = ["-m", chosen.model, "--memory", str(chosen.memory)]
    rows = [measure(size, chosen.runs, scale, arguments) for size in chosen.megapixels]
    publish(
        "scaling",
        f"{chosen.model}, device memory at most {chosen.memory} MB",
        rows,
        ["median of the runs after one that is not counted"],
    )
    draw(rows, RESULTS / "scaling.svg")


if __name__ == "__main__":
    main()
