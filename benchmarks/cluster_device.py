"""Workers whose device takes time and does nothing, for benchmarks.cluster.

usage: python -m benchmarks.cluster_device FOLDER SECONDS …

One process with a scheduler and a worker for each of the SECONDS that a frame takes on
it. What a worker returns was made before, and lies in FOLDER. The address is printed;
the process ends with its standard input.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from pathlib import Path

from tests.runtime.fakes import FakeUpscaler

from upfrost.cluster import work
from upfrost.cluster.work import CancelledError, MadeSegment, SegmentOrder, Wanted
from upfrost.network.graph import Graph

_STEP = 0.05  # seconds between two looks at whether work is still wanted
_folder = Path()
_seconds: list[float] = []
_turns: list[threading.Lock] = []


class Device(FakeUpscaler):
    """What says of itself what a device says."""

    def close(self) -> None:
        pass


def made_file(folder: Path, order: SegmentOrder) -> Path:
    return folder / f"{order.times[0]}.pickle"


def simulated_segment(token: str, order: SegmentOrder, data: bytes) -> MadeSegment:
    """A segment that was made before, after the time that the device takes for it."""
    from distributed import get_worker

    del data
    number = int(get_worker().name)
    with _turns[number]:
        end = time.monotonic() + len(order.times) * _seconds[number]
        while (left := end - time.monotonic()) > 0:
            if token in work._machine.cancelled:
                raise CancelledError("nobody waits for it any more")
            time.sleep(min(left, _STEP))
    made = pickle.loads(made_file(_folder, order).read_bytes())
    assert isinstance(made, MadeSegment)
    return made


def open_device(graph: Graph, wanted: Wanted) -> Device:
    del wanted
    return Device(graph)


def main() -> None:
    from distributed import LocalCluster

    global _folder
    _folder = Path(sys.argv[1])
    _seconds.extend(map(float, sys.argv[2:]))
    _turns.extend(threading.Lock() for _ in _seconds)
    work.open_upscaler = open_device  # type: ignore[assignment]
    with LocalCluster(
        n_workers=len(_seconds),
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        dashboard_address=None,
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    # Under its own name, by which the client's calls ask for it.
    from benchmarks.cluster_device import main as main_of_module

    main_of_module()
