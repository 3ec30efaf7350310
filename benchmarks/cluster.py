"""How a cluster's speed grows with its workers, and what it survives.

usage: python -m benchmarks.cluster scaling [--workers N …] [--frames N]
       python -m benchmarks.cluster client CLIP
       python -m benchmarks.cluster memory [--frames N] [--times N …]
       python -m benchmarks.cluster kills [--runs N] [--seed N] [--delay MS] [--model M]

scaling: `upscale_video` on a cluster whose devices take time and nothing else
(`benchmarks.cluster_device`): first all alike, then such that the fastest is ten times
as fast as the slowest. The client cuts, sends, receives, proves, files and writes the
result as ever; what workers return was made before. Speeds are compared with the sum of
the workers'. Bytes are those of pieces and segments, for a frame.

client: how many frames of CLIP the client cuts, files and writes in a second, with
workers that take no time: where it becomes the limit.

memory: the most memory that the client, the scheduler and three workers, each a
process, take for films that are so many times as long as one of N frames, on such
devices.

kills: `upfrost video --cluster` with three workers in processes of Dask's, which are
killed (SIGKILL) or stopped (SIGSTOP) at random moments; in some runs the client is
killed, and goes on by --resume. With --delay each is in a network namespace of its own,
that many milliseconds from the others (for root). Each result is compared with that of
one machine, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import psutil

from benchmarks import cluster_device
from benchmarks.delayed_network import DelayedNetwork
from benchmarks.report import RESULTS, Row, publish
from upfrost.cluster import video, work
from upfrost.cluster.connection import Asked, Cluster
from upfrost.cluster.pieces import cut
from upfrost.cluster.work import MadeSegment, SegmentOrder, Wanted, upscale_segment
from upfrost.network.modelfile import find_model, read_model
from upfrost.status import Status
from upfrost.video.decode import Decoder
from upfrost.video.ffmpeg import ffmpeg_version, find_ffmpeg, run_ffmpeg
from upfrost.video.formats import CONTAINERS
from upfrost.video.upscale import VideoOptions, VideoRecord, Work, plan_work

COUNTS = [1, 2, 4, 8, 16, 32]
SECONDS = 0.25  # of a device, for a frame
SPREAD = 10  # times as fast as the slowest is the fastest of mixed workers
WORK = {"equal": 60, "mixed": 100}  # seconds that all of it takes at best
OPTIONS = VideoOptions(segment=Fraction(1))
MODEL = "realtime-x2"
GOAL = 0.9
BUSY = 0.015  # seconds of a device for a frame, to have much sent in a short time


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    scaling = commands.add_parser("scaling")
    scaling.add_argument("--workers", type=int, nargs="+", default=COUNTS)
    scaling.set_defaults(run=measure_scaling)
    client = commands.add_parser("client")
    client.add_argument("clip", type=Path)
    client.set_defaults(run=measure_client)
    memory = commands.add_parser("memory")
    memory.add_argument("--frames", type=int, default=480)
    memory.add_argument("--times", type=int, nargs="+", default=[1, 10, 30])
    memory.set_defaults(run=measure_memory)
    kills = commands.add_parser("kills")
    kills.add_argument("--runs", type=int, default=10)
    kills.add_argument("--seed", type=int, default=1)
    kills.add_argument("--delay", type=float, metavar="MS")
    kills.add_argument("--model", default="live-x2-xs")
    kills.set_defaults(run=measure_kills)
    options = parser.parse_args()
    options.run(options)


# Speed


def measure_scaling(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = frames_for("equal", max(options.workers))
        clip = make_clip(folder / "clip.mp4", most)
        make_segments(clip, folder)
        for mix in WORK:
            for count in options.workers:
                if count == 1 and mix == "mixed":
                    continue
                found = run_simulated(
                    clip, folder, speeds(mix, count), frames_for(mix, count)
                )
                rows.append({"speeds": mix, "workers": count} | found)
                print(rows[-1], file=sys.stderr, flush=True)
    publish(
        "cluster",
        "A cluster's speed by its workers, whose devices take time and nothing else",
        rows,
        [
            f"Equal workers take {SECONDS:g} s for a frame; of mixed ones the fastest "
            f"takes that, the slowest {SPREAD} times as long.",
            "Frames of 320×180 become 640×360, in segments of 24; key frames are "
            "up to 250 frames apart. All segments have the first one's encoded frames.",
            f"Load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors at "
            f"the end, of other programs; this one ran at nice {os.nice(0)}.",
            "Sent and received: bytes of pieces and of segments for a frame of the "
            "result.",
        ],
    )
    draw(rows)


def speeds(mix: str, count: int) -> list[float]:
    """Seconds for a frame of each worker."""
    if mix == "equal" or count == 1:
        return [SECONDS] * count
    return [SECONDS * SPREAD ** (n / (count - 1)) for n in range(count)]


def frames_for(mix: str, count: int) -> int:
    return round(WORK[mix] * sum(1 / value for value in speeds(mix, count)))


def make_clip(path: Path, frames: int) -> Path:
    ffmpeg = find_ffmpeg()
    made = run_ffmpeg(
        ffmpeg,
        [
            *("-f", "lavfi", "-i", "testsrc2=s=320x180:r=24,noise=alls=6:allf=t"),
            *("-frames:v", f"{frames}", "-pix_fmt", "yuv420p", "-c:v", "libx264"),
            *("-crf", "23", "-preset", "veryfast", f"{path}"),
        ],
    )
    assert not made.returncode, made.stderr.decode()
    return path


def plan(clip: Path) -> Work:
    graph = read_model(find_model(MODEL))
    return plan_work(find_ffmpeg(), clip, CONTAINERS[".mkv"], graph, OPTIONS)


def orders(clip: Path, wanted: Wanted) -> Iterator[tuple[SegmentOrder, bytes]]:
    planned = plan(clip)
    for piece in cut(planned, 0, None):
        order = SegmentOrder(
            wanted, planned, piece.times, piece.origin, piece.compared_from
        )
        yield order, piece.data


def make_segments(clip: Path, folder: Path) -> None:
    """Make what the simulated workers return.

    The frames' times and sums are each segment's own, as they are checked; the encoded
    frames are the first segment's in all.
    """
    model = find_model(MODEL).read_bytes()
    wanted = Wanted(hashlib.sha256(model).hexdigest(), None, "auto", None, None, None)
    planned = plan(clip)
    decoder = Decoder(planned.ffmpeg, planned.info, planned.conversion.to_frames)
    sums = {frame.pts: zlib.crc32(frame.pixels.data) for frame in decoder}
    made: MadeSegment | None = None
    for order, data in orders(clip, wanted):
        if made is None:
            vars(work)["open_upscaler"] = cluster_device.open_device
            first = upscale_segment("", order, data)
            assert isinstance(first, MadeSegment), first
            made = first
        assert len(order.times) == len(made.segment.times), "a whole number of seconds"
        since = order.times[0] if order.compared_from is None else order.compared_from
        own = replace(
            made,
            segment=replace(
                made.segment,
                times=order.times,
                sums=tuple(sums[pts] for pts in order.times),
            ),
            lead=tuple(
                (pts, crc) for pts, crc in sums.items() if since <= pts < order.times[0]
            ),
        )
        cluster_device.made_file(folder, order).write_bytes(pickle.dumps(own))


@contextmanager
def simulated(folder: Path, seconds: Sequence[float]) -> Iterator[str]:
    """The address of a cluster with such devices."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.cluster_device", f"{folder}"),
            *(f"{value}" for value in seconds),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def upscale_simulated(
    address: str, clip: Path, folder: Path, frames: int
) -> VideoRecord:
    """Have so many of a clip's frames, whole segments, upscaled by such a cluster."""
    target = folder / "result.mkv"
    target.unlink(missing_ok=True)
    record = VideoRecord(f"{clip}", f"{target}")
    vars(video)["upscale_segment"] = cluster_device.simulated_segment
    asked = Asked(
        *(find_model(MODEL), None, "auto", None, None, None),
        *(ffmpeg_version(find_ffmpeg()), False),
    )
    with Cluster(address, asked) as cluster:
        settings = replace(OPTIONS, duration=Fraction(frames // 24))
        video.upscale_video(
            clip, target, cluster, settings, Status(io.StringIO()), record
        )
    return record


def run_simulated(
    clip: Path, folder: Path, seconds: Sequence[float], frames: int
) -> dict[str, Any]:
    with simulated(folder, seconds) as address:
        processor = psutil.Process().cpu_times()
        record = upscale_simulated(address, clip, folder, frames)
        spent = psutil.Process().cpu_times()
    assert record.frames is not None
    assert record.frames_per_second is not None
    assert record.sent_bytes is not None
    assert record.received_bytes is not None
    total = sum(1 / value for value in seconds)
    user = spent.user + spent.system + spent.children_user + spent.children_system
    user -= processor.user + processor.system
    user -= processor.children_user + processor.children_system
    return {
        "frames": record.frames,
        "sum of speeds": round(total, 2),
        "frames/s": record.frames_per_second,
        "of the sum": round(record.frames_per_second / total, 3),
        "sent": round(record.sent_bytes / record.frames),
        "received": round(record.received_bytes / record.frames),
        "client's ms/frame": round(1000 * user / record.frames, 2),
    }


def draw(rows: Sequence[Row]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4))
    for mix, mark in (("equal", "o"), ("mixed", "s")):
        mine = [row for row in rows if row["speeds"] == mix]
        axes.plot(
            [float(row["workers"] or 0) for row in mine],
            [float(row["of the sum"] or 0) for row in mine],
            f"{mark}-",
            label=f"{mix} speeds",
        )
    axes.axhline(GOAL, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        xlabel="workers",
        ylabel="frames/s, of the sum of the workers'",
        ylim=(0, 1.05),
    )
    axes.set_xticks(COUNTS, [f"{count}" for count in COUNTS])
    axes.minorticks_off()
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(RESULTS / "cluster.svg", metadata={"Date": None})


def measure_client(options: argparse.Namespace) -> None:
    """What the client does for a frame, and how long that takes it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_segments(options.clip, folder)
        planned = plan(options.clip)
        frames = sum(
            len(pickle.loads(path.read_bytes()).segment.times)
            for path in folder.glob("*.pickle")
        )
        began = time.perf_counter()
        for _ in cut(planned, 0, None):
            pass
        cutting = time.perf_counter() - began
        found = run_simulated(options.clip, folder, [1e-9] * 4, frames)
    row = {
        "clip": options.clip.stem,
        "size": f"{planned.info.width}×{planned.info.height}",
        "frames": frames,
        "cut, frames/s": round(frames / cutting, 1),
        "all, frames/s": found["frames/s"],
        **{key: found[key] for key in ("sent", "received", "client's ms/frame")},
    }
    publish(
        "cluster-client",
        "How many frames a second a client can have others upscale",
        [row],
        [
            "Workers take no time, and are on the same machine: four in one process.",
            "Cut: all pieces, one after the other, and nothing else.",
        ],
    )


# Memory


def measure_memory(options: argparse.Namespace) -> None:
    """Whether anything grows with the film."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", options.frames * max(options.times))
        make_segments(clip, folder)
        rows = [
            run_measured(clip, folder, options.frames * times)
            for times in options.times
        ]
    publish(
        "cluster-memory",
        "The most memory that the processes of a cluster take, in MB",
        rows,
        [
            f"Three workers, whose devices take {BUSY:g} s for a frame and nothing "
            "else: decoding and encoding, and a device's memory, come to theirs.",
            "The most of each process that was resident at a time, with what it has "
            "loaded; of the workers, the one with most. Each film has new processes.",
        ],
    )


def run_measured(clip: Path, folder: Path, frames: int) -> dict[str, Any]:
    machines = Machines(None, folder, "benchmarks.cluster_device", f"{folder} {BUSY:g}")
    try:
        time.sleep(10)  # workers need some seconds
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            client, record = pool.submit(
                measured_client, machines.address, clip, folder, frames
            ).result()
        workers = [machines.worker(number) for number in range(3)]
        return {
            "frames": record.frames,
            "seconds": round(record.seconds["all"]),
            "MB sent": round((record.sent_bytes or 0) / 1e6),
            "MB received": round((record.received_bytes or 0) / 1e6),
            "client": round(client / 1e6),
            "scheduler": round(most_memory(machines.scheduler.pid) / 1e6),
            "worker": round(
                max(most_memory(worker.pid) for worker in workers if worker) / 1e6
            ),
        }
    finally:
        machines.end()


def measured_client(
    address: str, clip: Path, folder: Path, frames: int
) -> tuple[int, VideoRecord]:
    record = upscale_simulated(address, clip, folder, frames)
    return most_memory(os.getpid()), record


def most_memory(process: int) -> int:
    """The most bytes of a process that were resident at a time."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# Survival

_UPFROST = (
    sys.executable,
    "-c",
    "import sys; from upfrost.cli import run; sys.exit(run())",
)


class Machines:
    """A scheduler and three workers, in processes, and in namespaces or not.

    Workers load the module `preload` first, with `simulated` in UPFROST_SIMULATED.
    """

    def __init__(
        self,
        network: DelayedNetwork | None,
        folder: Path,
        preload: str | None = None,
        simulated: str = "",
    ) -> None:
        self._network = network
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        host = network.address(0) if network else "127.0.0.1"
        port = random.Random(os.getpid()).randrange(20000, 30000)
        self.address = f"tcp://{host}:{port}"
        self._environment = os.environ | {"UPFROST_SIMULATED": simulated}
        more = ["--preload", preload] if preload else []
        self.scheduler = self._start(
            0,
            *("scheduler", "--host", host, "--port", f"{port}"),
            *("--dashboard-address", f"{host}:0", "--no-show"),
        )
        for number in range(1, 4):
            where = ["--host", network.address(number)] if network else []
            self.workers.append(
                self._start(
                    number,
                    *("worker", self.address, *where, "--no-dashboard"),
                    *("--name", f"board{number}", "--nthreads", "2"),
                    *("--local-directory", f"{folder / f'board{number}'}"),
                    *more,
                )
            )

    def inside(self, machine: int, command: Sequence[str]) -> list[str]:
        if self._network is None:
            return list(command)
        return self._network.inside(machine, command)

    def worker(self, number: int) -> psutil.Process | None:
        """The process that works, which Dask's nanny starts anew when it ends."""
        with suppress(psutil.Error):
            for child in psutil.Process(self.workers[number].pid).children(True):
                if "spawn_main" in " ".join(child.cmdline()):
                    return child
        return None

    def end(self) -> None:
        for process in self._processes:
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(True):
                    child.kill()
            process.kill()
            process.wait()

    def _start(self, machine: int, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"dask{machine}.log").open("ab") as log:
            process = subprocess.Popen(
                self.inside(machine, [sys.executable, "-m", "dask", *arguments]),
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process


def measure_kills(options: argparse.Namespace) -> None:
    chance = random.Random(options.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        network = None
        if options.delay is not None:
            network = stack.enter_context(DelayedNetwork(4, options.delay / 1000))
        clip = make_clip(folder / "clip.mp4", 480)
        small = folder / "small.mp4"
        made = run_ffmpeg(
            find_ffmpeg(), ["-i", f"{clip}", "-vf", "scale=96:54", f"{small}"]
        )
        assert not made.returncode, made.stderr.decode()
        command = ["video", f"{small}", "--segment", "0.5", "-m", options.model]
        single = folder / "single.mp4"
        subprocess.run([*_UPFROST, *command, f"{single}"], check=True)
        expected = hashlib.sha256(single.read_bytes()).hexdigest()
        for number in range(options.runs):
            row = survive(folder, network, command, chance, number, expected)
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    named = "three machines" if network else "three processes"
    delay = "" if network is None else f", {options.delay:g} ms apart"
    publish(
        "cluster-kills" + ("" if network is None else "-network"),
        f"Workers killed and stopped at random moments: {named}{delay}",
        rows,
        [
            f"A clip of 20 s, 96×54 → 192×108, by {options.model}, seed "
            f"{options.seed}. The file is compared with that of one machine.",
            "Moments are seconds after the first finished segment. A worker that is "
            "stopped stays so for 5 s or to the end.",
        ],
    )
    if any(row["equal"] != "yes" for row in rows):
        sys.exit("a result differs")


def survive(
    folder: Path,
    network: DelayedNetwork | None,
    command: Sequence[str],
    chance: random.Random,
    number: int,
    expected: str,
) -> dict[str, Any]:
    """One run in which two of three workers, or the client as well, are disturbed."""
    target = folder / f"run{number}.mp4"
    machines = Machines(network, folder)
    kill_client = number % 4 == 3
    killed, stopped = chance.sample(range(3), 2)
    events = [
        (chance.uniform(0, 15), "kill", killed),
        (chance.uniform(0, 15), "stop", stopped),
    ]
    if kill_client:
        events.append((chance.uniform(0, 15), "client", 0))
    if chance.random() < 0.5:
        events.append((max(at for at, *_ in events) + 5, "continue", stopped))
    events.sort()
    words = [*_UPFROST, *command, f"{target}", "--cluster", machines.address]
    happened: list[str] = []
    began = time.monotonic()

    def start(*more: str) -> subprocess.Popen[bytes]:
        with (folder / f"run{number}.log").open("ab") as log:
            return subprocess.Popen(
                machines.inside(0, [*words, *more]), stdout=log, stderr=log
            )

    try:
        time.sleep(6)  # workers need some seconds
        client = start()
        first = folder / f"{target.name}.upfrost" / "000000.json"
        while client.poll() is None and not first.exists():
            time.sleep(0.05)
        began = time.monotonic()
        while client.poll() is None:
            time.sleep(0.05)
            now = time.monotonic() - began
            while events and events[0][0] <= now:
                _, what, whom = events.pop(0)
                name = "the client" if what == "client" else f"board{whom + 1}"
                verb = "kill" if what == "client" else what
                happened.append(f"{verb} {name} at {now:.1f}")
                if what == "client":
                    client.kill()
                    client.wait()
                    client = start("--resume")
                elif (process := machines.worker(whom)) is not None:
                    with suppress(psutil.Error):
                        process.send_signal(
                            {
                                "kill": signal.SIGKILL,
                                "stop": signal.SIGSTOP,
                                "continue": signal.SIGCONT,
                            }[what]
                        )
        seconds = time.monotonic() - began
    finally:
        machines.end()
    found = target.read_bytes() if target.exists() else b""
    equal = hashlib.sha256(found).hexdigest() == expected
    if not equal:
        print((folder / f"run{number}.log").read_text(), file=sys.stderr)
    return {
        "run": number + 1,
        "what happened": ", ".join(happened),
        "seconds": round(seconds, 1),
        "equal": "yes" if equal else "no",
    }


if __name__ == "__main__":
    main()
