"""What one submission a tile is worth, and whether Python is free meanwhile.

usage: python -m benchmarks.submissions [--device N|NAME] [--models MODEL…] [--runs N]

The table: a picture's submissions and milliseconds with a submission for each dispatch,
each waited for, and with as few as the kernel's driver allows; both take turns in one
process, on the same buffers and pipelines, with the picture's bytes written and read.
Milliseconds are the least of all turns; a share is the median of the turns' own, which
others' work on the machine changes little. The notes: how long a process takes from its
start to its first picture with empty caches and with full ones; the longest time that
another thread of Python had to wait during a picture, beside the longest dispatch, for
which the original binding holds Python's lock; the time from SIGINT in the middle of a
submission to its exception, and, of the command, to its end: of a picture in one tile,
and of tiles whose longest dispatch takes a tenth of a second.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Row, publish
from upfrost.arrays import Bytes
from upfrost.gpu.device import Device, choose_device
from upfrost.gpu.execution import LoadedPlan
from upfrost.gpu.plan import PICTURE_IN, PICTURE_OUT, compile_graph, make_plan
from upfrost.gpu.upscaler import Upscaler
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model

SIZES = ((64, 64), (320, 180))
LARGE = (960, 540)
DISPATCH = 0.1  # seconds, of the longest one of a tile that is interrupted
FIRST = """
import sys
import numpy as np
from upfrost import Upscaler
with Upscaler(sys.argv[1], device=int(sys.argv[2])) as upscale:
    upscale(np.zeros((64, 64, upscale.graph.channels), np.uint8))
"""


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def one_by_one(loaded: LoadedPlan, picture: Bytes) -> Callable[[], float]:
    """Every dispatch as a submission that is waited for before the next.

    Gives the seconds of the longest one.
    """
    plan = loaded.plan
    each = loaded.record(plan.dispatches, [1.0] * len(plan.dispatches), 0.0)
    (given,), (result,) = (
        [plane.rows(loaded.words(number)) for plane in planes]
        for number, planes in ((PICTURE_IN, plan.given), (PICTURE_OUT, plan.result))
    )

    def run() -> float:
        given[...] = picture.reshape(given.shape)
        longest = max(seconds(sequence.eval) for sequence in each)
        result.copy()
        return longest

    return run


def row(device: Device, graph: Graph, size: tuple[int, int], runs: int) -> Row:
    width, height = size
    info = device.info
    program = compile_graph(graph, info.family, info.precision)
    loaded = device.load(make_plan(program, height, width), inspect=True)
    picture = np.zeros((height, width, graph.channels), np.uint8)
    apart = one_by_one(loaded, picture)
    ways: dict[str, list[float]] = {"apart": [], "together": []}
    for number in range(runs + 1):
        taken = {
            "apart": seconds(apart),
            "together": seconds(lambda: loaded.run(picture).copy()),
        }
        if number:  # the first one compiles
            for way, each in taken.items():
                ways[way].append(1e3 * each)
    least = {way: min(each) for way, each in ways.items()}
    return {
        "model": graph.name,
        "picture": f"{width}×{height}",
        "submissions before": len(loaded.plan.dispatches),
        "after": loaded.submissions,
        "ms before": least["apart"],
        "ms after": least["together"],
        "share": statistics.median(
            after / before
            for before, after in zip(ways["apart"], ways["together"], strict=True)
        ),
    }


def first_pictures(model: str, device: int) -> tuple[float, float]:
    """Seconds of a process that upscales one picture: with empty caches, and full.

    The least of three each.
    """
    cold, warm = zip(*(_first_pictures(model, device) for _ in range(3)), strict=True)
    return min(cold), min(warm)


def _first_pictures(model: str, device: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "MESA_SHADER_CACHE_DIR": f"{folder}/mesa",
            "UPFROST_CACHE": f"{folder}/upfrost",
        }
        command = [sys.executable, "-c", FIRST, model, str(device)]

        def process() -> None:
            subprocess.run(command, env=environment, check=True)

        return seconds(process), seconds(process)


def longest_dispatch(device: Device, graph: Graph, size: tuple[int, int]) -> float:
    """Seconds of the longest dispatch of a picture, waited for by itself."""
    width, height = size
    info = device.info
    program = compile_graph(graph, info.family, info.precision)
    loaded = device.load(make_plan(program, height, width), inspect=True)
    apart = one_by_one(loaded, np.zeros((height, width, graph.channels), np.uint8))
    apart()
    return apart()


def longest_wait(upscaler: Upscaler, picture: Bytes) -> tuple[float, float]:
    """Seconds of a picture, and the longest that another thread waited meanwhile."""
    over = threading.Event()
    gaps = [0.0]

    def turn() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last - 0.001)
            last = now

    thread = threading.Thread(target=turn)
    thread.start()
    taken = seconds(lambda: upscaler(picture))
    over.set()
    thread.join()
    return taken, max(gaps)


def interruption(upscaler: Upscaler, picture: Bytes, after: float) -> float:
    """Seconds from SIGINT, `after` the start of a picture, to its exception."""
    sent = 0.0

    def interrupt() -> None:
        nonlocal sent
        time.sleep(after)
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        upscaler(picture)
        time.sleep(10)
    except KeyboardInterrupt:
        found = time.perf_counter() - sent
    thread.join()
    return found


def to_the_prompt(model: str, device: int, picture: Bytes, *options: str) -> float:
    """Seconds from SIGINT, half-way through a picture, to the command's end.

    The least of three: Mesa's thread for its cache has the lowest priority, and ends
    late where other work is done.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "picture.png"
        # Of luma one channel, which is grey in all three.
        Image.fromarray(picture.repeat(3 // picture.shape[2], axis=2)).save(source)
        command = [
            *(sys.executable, "-m", "upfrost.cli.main", "upscale", str(source)),
            *("--model", model, "--device", str(device), "--overwrite", "--quiet"),
            *options,
        ]
        whole = seconds(lambda: subprocess.run(command, check=True))
        return min(_to_the_end(command, whole / 2) for _ in range(3))


def _to_the_end(command: list[str], after: float) -> float:
    with subprocess.Popen(command) as process:
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        found = seconds(process.wait)
    if process.returncode != 128 + signal.SIGINT:
        raise SystemExit("the command had ended before it was interrupted")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", help="a number or part of a name")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["realtime-x2", "live-x2-xs-clean"],
        metavar="MODEL",
        help="default: %(default)s; notes are of the first",
    )
    parser.add_argument("--runs", type=int, default=9, help="default: %(default)s")
    arguments = parser.parse_args()
    # A shell's background job ignores it, and so would what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    info = choose_device(arguments.device)
    graphs = [read_model(find_model(model)) for model in arguments.models]
    graph = graphs[0]
    device = Device(info)
    rows = [
        row(device, each, size, arguments.runs) for each in graphs for size in SIZES
    ]
    held = longest_dispatch(device, graph, LARGE)
    # A dispatch takes as long as its tile has pixels.
    side = round((LARGE[0] * LARGE[1] * DISPATCH / held) ** 0.5)
    held_tile = longest_dispatch(device, graph, (side, side))
    device.close()
    cold, warm = first_pictures(arguments.models[0], info.index)
    large = np.zeros((*LARGE[::-1], graph.channels), np.uint8)
    with Upscaler(graph, device=info.index) as upscaler:
        upscaler(large)
        taken, wait = longest_wait(upscaler, large)
        heard = interruption(upscaler, large, taken / 3)
    where = arguments.models[0], info.index, large
    ended = to_the_prompt(*where)
    ended_soon = to_the_prompt(*where, "--tile", str(side))
    publish(
        "submissions",
        f"Submissions of a picture, {info.precision}, on {info.name}",
        rows,
        [
            f"a process from its start to its first picture of 64×64: {cold:.2f} s "
            f"with empty caches, {warm:.2f} s with full ones; the least of three each",
            f"another thread of Python waited {1e3 * wait:.0f} ms at the longest "
            f"during a picture of {LARGE[0]}×{LARGE[1]}, which took {taken:.2f} s; the "
            f"longest of its dispatches takes {1e3 * held:.0f} ms",
            f"from SIGINT in the middle of that, one submission, to the exception: "
            f"{1e3 * heard:.0f} ms; to the end of the command: {1e3 * ended:.0f} ms; "
            f"with --tile {side}, whose longest dispatch takes "
            f"{1e3 * held_tile:.0f} ms, {1e3 * ended_soon:.0f} ms; the least of three",
            f"{arguments.runs} turns; load average {os.getloadavg()[0]:.1f} "
            f"on {os.cpu_count()} processors",
        ],
    )


if __name__ == "__main__":
    main()
