"""An upscaler without a device, and the command `upfrost` with it.

``python fakes.py ARGUMENTS`` is ``upfrost ARGUMENTS`` on this upscaler. The environment
says how it behaves: FAKE_TILES and FAKE_SECONDS, how many tiles a picture has and how
long each takes; FAKE_FAULT, what goes wrong with a picture whose first value is 13:
lost, memory, less (memory suffices for smaller tiles), bug, folder (OUT is removed),
slow (many tiles), stuck (a call that no signal ends). FAKE_CPU makes the device a CPU,
FAKE_STREAM any picture too large for memory.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import numpy as np

from upfrost.arrays import Bytes
from upfrost.cli import arguments
from upfrost.cli import main as cli
from upfrost.gpu.device import DeviceInfo, DeviceLostError, OutOfDeviceMemoryError
from upfrost.gpu.frame import Frame
from upfrost.gpu.tiles import tiling
from upfrost.image import streams
from upfrost.network.graph import Graph

UNLUCKY = 13
T = TypeVar("T")


def device_info(kind: Literal["integrated", "cpu"] = "integrated") -> DeviceInfo:
    return DeviceInfo(
        index=0,
        name="Pretender",
        driver="none",
        driver_version="1.2.3",
        api_version="1.1.0",
        kind=kind,
        heap_bytes=1 << 30,
        max_buffer_bytes=1 << 27,
        max_workgroup=256,
        max_grid=(65535, 65535, 65535),
        max_shared_bytes=1 << 15,
    )


@dataclass(frozen=True)
class FakePlan:
    width: int
    height: int
    bytes: int


@dataclass(frozen=True)
class Promise(Generic[T]):
    """What is computed when it is asked for."""

    result: Callable[[], T]


class FakeUpscaler:
    """Repeats every pixel."""

    overhead = 1.25
    seam: int | None = None

    def __init__(
        self,
        graph: Graph,
        kind: Literal["integrated", "cpu"] = "integrated",
        output: str | None = None,
    ) -> None:
        self.graph = graph
        self.precision = "fp16"
        self.device = device_info(kind)
        self.tiling = tiling(graph)
        self.tuned_kernels: dict[str, str] = {}
        self._output = output
        self.loaded_plan = FakePlan(64, 48, 12345)

    def start(self, picture: Bytes) -> Promise[Bytes]:
        return Promise(partial(self, picture))

    def start_frame(self, frame: Frame) -> Promise[Frame]:
        return Promise(partial(self.frame, frame))

    def frame(
        self, frame: Frame, progress: Callable[[int, int], None] | None = None
    ) -> Frame:
        """Every sample repeated, of every plane."""
        scale = self.graph.scale
        size = frame.height * scale, frame.width * scale
        large = Frame.empty(frame.format.enlarged, *size)
        for plane, source in zip(large.planes, frame.planes, strict=True):
            repeated = source.repeat(scale, axis=0).repeat(scale, axis=1)
            plane[...] = repeated[: plane.shape[0], : plane.shape[1]]
        self._work(int(frame.planes[0][0, 0]), progress)
        return large

    def __call__(
        self, picture: Bytes, progress: Callable[[int, int], None] | None = None
    ) -> Bytes:
        assert picture.shape[2] in (3, self.graph.channels)
        self._work(int(picture[0, 0, 0]), progress)
        scale = self.graph.scale
        return picture.repeat(scale, axis=0).repeat(scale, axis=1)

    def stream(
        self,
        height: int,
        width: int,
        read: Callable[[int, int], Bytes],
        write: Callable[[Bytes], None],
        progress: Callable[[int, int], None] | None = None,
        *,
        channels: int | None = None,
    ) -> None:
        """Bands of 40 rows, read with 3 rows above and below, as a halo would be."""
        tops = range(0, height, 40)
        for done, top in enumerate(tops, start=1):
            bottom = min(top + 40, height)
            first = max(top - 3, 0)
            rows = read(first, min(bottom + 3, height))
            assert rows.shape[1:] == (width, channels)
            write(self(rows[top - first : bottom - first]))
            if progress is not None:
                progress(done, len(tops))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def _work(self, first: int, progress: Callable[[int, int], None] | None) -> None:
        """What the environment says of a picture whose first value this is."""
        tiles = int(os.environ.get("FAKE_TILES", "1"))
        seconds = float(os.environ.get("FAKE_SECONDS", "0"))
        if first == UNLUCKY:
            fault = os.environ.get("FAKE_FAULT")
            if fault == "slow":
                tiles, seconds = 10_000, 0.1
            self._fail(fault)
        for done in range(1, tiles + 1):
            time.sleep(seconds)
            if progress is not None:
                progress(done, tiles)

    def _fail(self, fault: str | None) -> None:
        if fault == "lost":
            raise DeviceLostError("the device did not compute")
        if fault == "memory":
            raise OutOfDeviceMemoryError("the smallest tile does not fit")
        if fault == "less":
            logging.getLogger("upfrost.gpu.upscaler").warning("going on with less")
        if fault == "bug":
            raise RuntimeError("this\nis a bug")
        if fault == "folder" and self._output is not None:
            shutil.rmtree(self._output)
        if fault == "stuck":
            print("stuck", file=sys.stderr, flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", (1 << 31) - 1)


def picture(height: int = 6, width: int = 9, first: int = 200) -> Bytes:
    """Any picture: `first` is its first value."""
    rgb = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rgb[0, 0, 0] = first
    return rgb


def open_fake(graph: Graph, options: argparse.Namespace) -> FakeUpscaler:
    """Takes the place of `arguments.open_upscaler`."""
    kind: Literal["integrated", "cpu"] = (
        "cpu" if os.environ.get("FAKE_CPU") else "integrated"
    )
    return FakeUpscaler(graph, kind, options.output)


if __name__ == "__main__":
    arguments.open_upscaler = open_fake  # type: ignore[assignment]
    if os.environ.get("FAKE_STREAM"):
        streams.STREAM_ABOVE = 0
    sys.exit(cli.main())
