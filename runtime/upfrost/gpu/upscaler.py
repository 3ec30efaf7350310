"""`Upscaler`: model + device + plan + tiles; NumPy picture in, NumPy picture out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from upfrost.arrays import Bytes
from upfrost.gpu.device import (
    Device,
    DeviceInfo,
    LoadedPlan,
    OutOfDeviceMemoryError,
    choose_device,
)
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import DISPATCH_SECONDS
from upfrost.gpu.plan import Plan, compile_graph, make_plan
from upfrost.gpu.tiles import (
    MOST_MEMORY,
    TileGrid,
    Tiling,
    align,
    largest_side,
    smallest_side,
    tile_grid,
)
from upfrost.gpu.tuning import tuned_family
from upfrost.gpu.watchdog import SECONDS_A_CALL, Watch
from upfrost.network.graph import Graph
from upfrost.network.modelfile import find_model, read_model

Progress = Callable[[int, int], None]

_log = logging.getLogger("upfrost")

PLANS_KEPT = 4
# The budget is a fourth of the heap and at most MOST_MEMORY, if none is given.
HEAP_SHARE = 4
# Of the rows of tiles that a streamed picture holds in host memory.
BAND_BYTES = 96 << 20


class Upscaler:
    """Upscales pictures with one model on one device.

    >>> with Upscaler("realtime-x2") as upscale:
    ...     large = upscale(small)  # uint8 (H, W, 3) → uint8 (2H, 2W, 3)

    `model` is a bundled model's name, a ``.upf`` file or a `Graph`. `device` is a
    number or part of a name as `upfrost devices` lists them; without it the best one is
    taken. `precision` is that of values and weights on the device: ``auto`` takes fp16
    on a GPU, and fp32 on a CPU and for a model whose metadata ask for it. `tile` bounds
    the side of a tile in pixels, `memory` the device's bytes; without them a share of
    the device's memory is used.

    `watch` is called with the seconds that a GPU's work on a tile may take at the very
    most; the work is done in the context that it gives (see `watchdog`).

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
        watch: Watch = nullcontext,
    ) -> None:
        self.graph = (
            model if isinstance(model, Graph) else read_model(find_model(model))
        )
        self.device: DeviceInfo = choose_device(device)
        if precision == "auto":
            asked = self.graph.metadata.get("precision")
            precision = "fp32" if asked == "fp32" else self.device.precision
        self.precision: Precision = precision
        family = tuned_family(self.device, self.precision)
        self._program = compile_graph(self.graph, family, self.precision)
        self._tile = tile
        # A CPU may be as slow as it is; it does not hang.
        self._watch: Watch = watch if self.device.is_gpu else nullcontext
        self._memory = (
            memory
            if memory is not None
            else min(self.device.heap_bytes // HEAP_SHARE, MOST_MEMORY)
        )
        self._device = Device(self.device)
        self._loaded: dict[tuple[int, int], LoadedPlan] = {}
        # Of the last picture: a video's frames are all alike, and finding out which
        # tiles fit takes milliseconds.
        self.grid_of: tuple[tuple[int, int, int | None], TileGrid] | None = None

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
        aligned = align(picture, self.graph)
        scale = self.graph.scale
        result = np.empty((height * scale, width * scale, channels), np.uint8)
        filled = 0

        def write(rows: Bytes) -> None:
            nonlocal filled
            part = result[filled : filled + len(rows)]
            part[...] = rows[: len(part), : width * scale]
            filled += len(part)

        self.stream(
            aligned.shape[0],
            aligned.shape[1],
            lambda start, stop: aligned[start:stop],
            write,
            progress,
        )
        return result

    def stream(
        self,
        height: int,
        width: int,
        read: Callable[[int, int], Bytes],
        write: Callable[[Bytes], None],
        progress: Progress | None = None,
    ) -> None:
        """Upscale a picture that need not be in memory as a whole.

        `height` and `width` are multiples of the graph's `alignment`. `read(start,
        stop)` gives rows of the picture, uint8 (stop - start, width, C); starts and
        stops never go back, though windows overlap by the network's halo. `write` takes
        the next rows of the result, uint8 (n, s · width, C), valid until it returns.
        Errors are those of calling.
        """
        scale, channels = self.graph.scale, self.graph.channels
        loaded, grid = self._load(height, width)
        columns = grid.windows[1]
        done = 0
        for rows, kept_rows in grid.windows[0]:
            band = read(rows.start, rows.stop)
            kept = slice(
                (kept_rows.start - rows.start) * scale,
                (kept_rows.stop - rows.start) * scale,
            )
            result = np.empty(
                (kept.stop - kept.start, width * scale, channels), np.uint8
            )
            for window, kept_columns in columns:
                with self._watch(SECONDS_A_CALL * len(loaded.plan.dispatches)):
                    output = loaded.run(band[:, window.start : window.stop])
                first = (kept_columns.start - window.start) * scale
                last = (kept_columns.stop - window.start) * scale
                result[:, kept_columns.start * scale : kept_columns.stop * scale] = (
                    output[kept, first:last]
                )
                done += 1
                if progress is not None:
                    progress(done, len(grid))
            write(result)

    def tiles(self, height: int, width: int, side: int | None = None) -> TileGrid:
        """The tiles of a picture of that size, their sides at most `side`.

        Without a side, the largest that the budget allows. Raises
        `OutOfDeviceMemoryError` when not even the smallest tile fits.
        """

        def fits(tile_height: int, tile_width: int) -> bool:
            plan = make_plan(self._program, tile_height, tile_width)
            return (
                plan.bytes <= self._memory
                and plan.longest_dispatch <= DISPATCH_SECONDS
                and max(plan.buffer_bytes) <= self.device.max_buffer_bytes
            )

        smallest = smallest_side(self.tiling)
        row_bytes = width * self.graph.scale**2 * self.graph.channels
        chosen = side or min(
            largest_side(fits, height, width, smallest),
            max(smallest, BAND_BYTES // row_bytes),
        )
        grid = tile_grid(self.tiling, height, width, chosen)
        needed = self.plan(grid).bytes
        if self.tiling.needs_whole_picture and needed > self._memory:
            raise OutOfDeviceMemoryError(
                f"{self.graph.name} looks at the whole picture, so it works without "
                f"tiles: {width}×{height} pixels need {needed / 2**20:.1f} MiB, the "
                f"budget is {self._memory / 2**20:.1f} MiB; use a smaller picture or "
                "another model"
            )
        if side is None and needed > self._memory:
            raise OutOfDeviceMemoryError(
                f"the smallest tile of {self.graph.name} needs "
                f"{needed / 2**20:.1f} MiB, the budget is "
                f"{self._memory / 2**20:.1f} MiB"
            )
        return grid

    @property
    def tiling(self) -> Tiling:
        """What parts of a picture have to be like, for the bits of the whole."""
        return self._program.tiling

    def plan(self, grid: TileGrid) -> Plan:
        """The calls and buffers of one of its tiles."""
        return make_plan(self._program, grid.height, grid.width)

    @property
    def loaded_plan(self) -> Plan | None:
        """The plan of the last picture's tiles, None before the first picture."""
        return next((kept.plan for kept in reversed(self._loaded.values())), None)

    def close(self) -> None:
        """Give the device's memory back."""
        self._loaded.clear()
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

    def _load(self, height: int, width: int) -> tuple[LoadedPlan, TileGrid]:
        """A loaded plan and the tiles that it is for.

        Where the device's memory does not suffice, tiles of half the side are tried.
        """
        side = self._tile
        while True:
            asked = height, width, side
            if self.grid_of is None or self.grid_of[0] != asked:
                self.grid_of = asked, self.tiles(height, width, side)
            grid = self.grid_of[1]
            try:
                return self._loaded_plan(grid), grid
            except OutOfDeviceMemoryError as error:
                self._loaded.clear()
                longest = max(grid.height, grid.width)
                smallest = smallest_side(self.tiling)
                side = max(longest // 2, smallest)
                if side >= longest:
                    raise
                self._tile = side
                _log.warning("%s; going on with tiles of %d pixels", error, side)

    def _loaded_plan(self, grid: TileGrid) -> LoadedPlan:
        """The plan for tiles of that size, kept from an earlier picture or new.

        Making pipelines takes a while, and pictures of a batch come in few sizes. Those
        used longest ago give their memory back, so that all keep to the budget.
        """
        size = grid.height, grid.width
        loaded = self._loaded.pop(size, None)
        if loaded is None:
            plan = self.plan(grid)
            while self._loaded and (
                len(self._loaded) >= PLANS_KEPT
                # The weights are the same for all of them.
                or plan.bytes
                + sum(sum(kept.plan.buffer_bytes) for kept in self._loaded.values())
                > self._memory
            ):
                del self._loaded[next(iter(self._loaded))]
            loaded = self._device.load(plan)
        self._loaded[size] = loaded
        return loaded
