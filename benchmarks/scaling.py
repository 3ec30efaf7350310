"""Time and memory over the picture's size, at a fixed budget of device memory.

usage: python -m benchmarks.scaling [--memory MB] [--model MODEL] [--runs N]
       [--megapixels N ...] [--against COMMAND]

For each size, a picture made of an example picture repeated is upscaled by the command
`upfrost upscale --memory MB` in a process of its own. The time is that of upscaling,
without reading and writing the file, as `--json` says it: the median of the runs. Host
memory is the process's peak resident size, the device's (which on lavapipe is the same
memory) included.

With --against, another version's command takes turns with this one, on the same
pictures; a ratio is the median of the turns' own. The table is of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
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


# Of this version.
COMMAND = (sys.executable, "-m", "upfrost.cli.main")


def upscale(
    source: Path, target: Path, arguments: list[str], program: Sequence[str] = COMMAND
) -> tuple[dict[str, Any], int]:
    """One run of the command: what `--json` says, and peak resident bytes."""
    reading, writing = os.pipe()
    command = [*program, "upscale", str(source)]
    command += ["-o", str(target), "--json", "--quiet", "--overwrite", *arguments]
    child = os.posix_spawnp(
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


def size_of(megapixels: float, scale: int) -> tuple[int, int]:
    """Height and width, 3:2, of a picture whose result has so many megapixels."""
    width = round((megapixels * 1e6 * 1.5) ** 0.5 / scale)
    return round(width / 1.5), width


def compare(
    megapixels: float, runs: int, scale: int, arguments: list[str], other: str
) -> Row:
    """A row of the table of two versions that take turns.

    Ends the program where their results differ.
    """
    took: dict[str, list[float]] = {"now": [], "before": []}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "small.png")
        make_picture(source, *size_of(megapixels, scale))
        results = set()
        for _ in range(runs + 1):
            for name, program in (("before", [other]), ("now", COMMAND)):
                target = Path(folder, f"{name}.png")
                said, _ = upscale(source, target, arguments, program)
                took[name].append(said["seconds"]["upscale"])
                with Image.open(target) as picture:
                    results.add(picture.tobytes())
    if len(results) > 1:
        sys.exit(f"{megapixels} megapixels: the results of the two versions differ")
    turns = list(zip(took["before"], took["now"], strict=True))[1:]
    return {
        "megapixels": megapixels,
        "before, s": min(before for before, _ in turns),
        "now, s": min(now for _, now in turns),
        "now / before": statistics.median(now / before for before, now in turns),
        "bytes": "the same",
    }


def measure(megapixels: float, runs: int, scale: int, arguments: list[str]) -> Row:
    """A row of the table for a result of that size, 3:2."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "small.png"), Path(folder, "large.png")
        make_picture(source, *size_of(megapixels, scale))
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
    parser.add_argument(
        "--against", metavar="COMMAND", help="the 'upfrost' of another version"
    )
    chosen = parser.parse_args()
    scale = read_model(find_model(chosen.model)).scale
    arguments = ["-m", chosen.model, "--memory", str(chosen.memory)]
    if chosen.against is not None:
        publish(
            "versions",
            f"{chosen.model}: this version and the one before, by turns",
            [
                compare(size, chosen.runs, scale, arguments, chosen.against)
                for size in chosen.megapixels
            ],
            [
                f"seconds are the least of {chosen.runs} turns, a ratio is the median "
                "of theirs, after one that is not counted; load average "
                f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors",
            ],
        )
        return
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
