"""`Upscaler`: model + device + plan + tiles; NumPy picture in, NumPy picture out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from upfrost.device import (
    Device,
    DeviceInfo,
    LoadedPlan,
    OutOfDeviceMemoryError,
    choose_device,
)
from upfrost.graph import Graph
from upfrost.kernels import Precision
from upfrost.modelfile import find_model, read_model
from upfrost.plan import Plan, compile_graph, make_plan
from upfrost.tiles import TileGrid, align, largest_side, smallest_side, tile_grid

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

HEAP_SHARE = 4  # the budget is a fourth of the heap, if none is given


class Upscaler:
    """Upscales pictures with one model on one device.

    >>> with Upscaler("realtime-x2") as upscale:
    ...     large = upscale(small)  # uint8 (H, W, 3) → uint8 (2H, 2W, 3)

    `model` is a bundled model's name, a ``.upf`` file or a `Graph`. `device` is a
    number or part of a name as `upfrost devices` lists them; without it the best one is
    taken. `precision` is that of values and weights on the device: ``auto`` takes fp16
    on a GPU and fp32 on a CPU. `tile` bounds the side of a tile in pixels, `memory` the
    device's bytes; without them a share of the device's memory is used.

    Raises `ModelFileError`, `GraphError` or `DeviceError`.
    """

    def __init__(
        self,
        model: str | Path | Graph = "realtime-x2",
        *,
        device: int | str | None = None,
        precision: Literal["auto", "fp16", "fp32"] = "auto",
        tile: int | None = None,
        memory: int | None = None,
    ) -> None:
        self.graph = (
            model if isinstance(model, Graph) else read_model(find_model(model))
        )
        self.device: DeviceInfo = choose_device(device)
        self.precision: Precision = (
            precision
            if precision != "auto"
            else ("fp16" if self.device.is_gpu else "fp32")
        )
        self._program = compile_graph(self.graph, self.device.family, self.precision)
        self._tile = tile
        self._memory = (
            memory if memory is not None else (self.device.heap_bytes // HEAP_SHARE)
        )
        self._device = Device(self.device)
        self._loaded: LoadedPlan | None = None

    def __call__(self, picture: Bytes, progress: Progress | None = None) -> Bytes:
        """Upscale uint8 (H, W, C), C the model's channels, to uint8 (sH, sW, C).

        `progress` is called with the tiles done and the tiles in all. Raises
        `ValueError` for another type or shape, `DeviceLostError` when the device did
        not compute, and `OutOfDeviceMemoryError` when no tile fits.
        """
        channels = self.graph.channels
        if picture.dtype != np.uint8 or picture.ndim != 3 or not picture.size:
            raise ValueError(
                f"a picture is uint8 with shape (H, W, {channels}), "
                f"found {picture.dtype} {picture.shape}"
            )
        if picture.shape[2] != channels:
            raise ValueError(
                f"{self.graph.name} takes {channels} channels, found {picture.shape[2]}"
            )
        height, width, _ = picture.shape
        picture = align(picture, self.graph)
        result = self._run(picture, progress)
        scale = self.graph.scale
        return result[: height * scale, : width * scale]

    def _run(self, picture: Bytes, progress: Progress | None) -> Bytes:
        height, width, channels = picture.shape
        grid = self.tiles(height, width)
        loaded = self._load(grid)
        scale = self.graph.scale
        result = np.empty((height * scale, width * scale, channels), np.uint8)
        for done, tile in enumerate(grid, start=1):
            rows, columns = tile.rows, tile.columns
            output = loaded.run(
                picture[rows.start : rows.stop, columns.start : columns.stop]
            )
            kept_rows, kept_columns = tile.kept_rows, tile.kept_columns
            result[
                kept_rows.start * scale : kept_rows.stop * scale,
                kept_columns.start * scale : kept_columns.stop * scale,
            ] = output[
                (kept_rows.start - rows.start) * scale : (kept_rows.stop - rows.start)
                * scale,
                (kept_columns.start - columns.start) * scale : (
                    kept_columns.stop - columns.start
                )
                * scale,
            ]
            if progress is not None:
                progress(done, len(grid))
        return result

    def tiles(self, height: int, width: int) -> TileGrid:
        """The tiles of a picture of that size.

        Raises `OutOfDeviceMemoryError` when not even the smallest tile fits.
        """

        def fits(tile_height: int, tile_width: int) -> bool:
            plan = make_plan(self._program, tile_height, tile_width)
            return (
                plan.bytes <= self._memory
                and max(plan.buffer_bytes) <= self.device.max_buffer_bytes
            )

        smallest = smallest_side(self.graph)
        side = self._tile or largest_side(fits, height, width, smallest)
        grid = tile_grid(self.graph, height, width, side)
        if self._tile is None and not fits(grid.height, grid.width):
            plan = self.plan(grid)
            raise OutOfDeviceMemoryError(
                f"the smallest tile of {self.graph.name} needs "
                f"{plan.bytes / 2**20:.1f} MiB, the budget is "
                f"{self._memory / 2**20:.1f} MiB"
            )
        return grid

    def plan(self, grid: TileGrid) -> Plan:
        """The calls and buffers of one of its tiles."""
        return make_plan(self._program, grid.height, grid.width)

    def close(self) -> None:
        """Give the device's memory back."""
        self._loaded = None
        self._device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self, grid: TileGrid) -> LoadedPlan:
        loaded = self._loaded
        if loaded is None or (loaded.plan.height, loaded.plan.width) != (
            grid.height,
            grid.width,
        ):
            self._loaded = None  # gives its memory back before the next one takes some
            loaded = self._loaded = self._device.load(self.plan(grid))
        return loaded
