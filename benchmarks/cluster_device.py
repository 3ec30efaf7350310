"""Workers whose device takes time and does nothing, for benchmarks.cluster.

usage: python -m benchmarks.cluster_device FOLDER SECONDS …

One process with a scheduler and a worker for each of the SECONDS that a frame takes on
it. What a worker returns was made before, and lies in FOLDER. The address is printed;
the process ends with its standard input.

A `dask worker` that preloads this module is such a worker, too, with FOLDER and SECONDS
in UPFROST_SIMULATED.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.runtime.fakes import FakeUpscaler

from upfrost.cluster import work
from upfrost.cluster.work import CancelledError, MadeSegment, SegmentOrder, Wanted
from upfrost.network.graph import Graph

_STEP = 0.05  # seconds between two looks at whether work is still wanted
_folder = Path()
_devices: dict[str, tuple[float, threading.Lock]] = {}  # by their workers' names


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
    seconds, turn = _devices[str(get_worker().name)]
    with turn:
        end = time.monotonic() + len(order.times) * seconds
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


def simulate(folder: str, seconds: dict[str, float]) -> None:
    """Have workers of this process, by their names, take so long for a frame."""
    global _folder
    _folder = Path(folder)
    for name, value in seconds.items():
        _devices[name] = value, threading.Lock()
    # What workers open their devices by; a `Device` is no `Upscaler`.
    work.open_upscaler = open_device  # type: ignore[assignment]


def dask_setup(worker: Any) -> None:
    """What Dask calls of a module that a worker preloads."""
    folder, seconds = os.environ["UPFROST_SIMULATED"].rsplit(" ", 1)
    simulate(folder, {str(worker.name): float(seconds)})


def main() -> None:
    from distributed import LocalCluster

    seconds = list(map(float, sys.argv[2:]))
    simulate(sys.argv[1], {f"{number}": value for number, value in enumerate(seconds)})
    with LocalCluster(
        n_workers=len(seconds),
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
