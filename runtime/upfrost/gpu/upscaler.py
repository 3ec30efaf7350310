"""`Upscaler`: model + device + plan + tiles; NumPy picture in, NumPy picture out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
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
from upfrost.gpu.frame import Frame, FrameFormat
from upfrost.gpu.plan import Plan, compile_graph, make_plan
from upfrost.gpu.tiles import (
    TileGrid,
    Tiling,
    align,
    frame_tiling,
    largest_side,
    smallest_side,
    tile_grid,
)
from upfrost.gpu.tuning import tuned_family
from upfrost.gpu.watchdog import SECONDS_A_CALL, Watch
from upfrost.network.graph import Graph, Window, alignment
from upfrost.network.modelfile import find_model, read_model

Progress = Callable[[int, int], None]
# Height, width, side of a tile, and the format of frames.
_Asked = tuple[int, int, int | None, FrameFormat | None]

_log = logging.getLogger("upfrost")

PLANS_KEPT = 4
HEAP_SHARE = 4  # the budget is a fourth of the heap, if none is given,
MOST_MEMORY = 256 << 20  # and no more than this, with which tiles cost next to nothing
# Of the rows of tiles that a streamed picture holds in host memory.
BAND_BYTES = 96 << 20


class Upscaler:
    """Upscales pictures with one model on one device.

    >>> with Upscaler("realtime-x2") as upscale:
    ...     large = upscale(small)  # uint8 (H, W, 3) → uint8 (2H, 2W, 3)

    `model` is a bundled model's name, a ``.upf`` file or a `Graph`. `device` is a
    number or part of a name as `upfrost devices` lists them; without it the best one is
    taken. `precision` is that of values and weights on the device: ``auto`` takes fp16
    on a GPU and fp32 on a CPU. `tile` bounds the side of a tile in pixels, `memory` the
    device's bytes; without them a share of the device's memory is used.

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
        self.precision: Precision = (
            self.device.precision if precision == "auto" else precision
        )
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
        self._loaded: dict[tuple[int, int, FrameFormat | None], LoadedPlan] = {}
        # Of the last picture: a video's frames are all alike, and finding out which
        # tiles fit takes milliseconds.
        self.grid_of: tuple[_Asked, TileGrid] | None = None

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

    def frame(self, frame: Frame, progress: Progress | None = None) -> Frame:
        """Upscale a frame's luma by a network of one channel; chroma is enlarged.

        Chroma goes by Catmull-Rom's cubic and keeps its siting, samples keep their
        range. Raises `ValueError` for a network of RGB, otherwise as calling.
        """
        if self.graph.channels != 1:
            raise ValueError(
                f"{self.graph.name} takes RGB; frames of luma and chroma need a "
                "network of one channel"
            )
        kind, scale = frame.format, self.graph.scale
        result = Frame.empty(kind, frame.height * scale, frame.width * scale)
        aligned = _align_frame(frame, self.graph)
        loaded, grid = self._load(aligned.height, aligned.width, kind)
        for done, tile in enumerate(grid, 1):
            parts = [
                plane[_part(tile.rows, y), _part(tile.columns, x)]
                for plane, (y, x) in zip(aligned.planes, kind.ratios, strict=True)
            ]
            with self._watch(SECONDS_A_CALL * len(loaded.plan.dispatches)):
                outputs = loaded.run_planes(
                    [part.reshape(len(part), -1) for part in parts]
                )
            for plane, output, (y, x) in zip(
                result.planes, outputs, kind.ratios, strict=True
            ):
                target = plane[
                    _part(tile.kept_rows, y, scale), _part(tile.kept_columns, x, scale)
                ]
                top = (tile.kept_rows.start - tile.rows.start) // y * scale
                left = (tile.kept_columns.start - tile.columns.start) // x * scale
                pixels = output.reshape(len(output), -1, *plane.shape[2:])
                height, width = target.shape[:2]
                target[...] = pixels[top : top + height, left : left + width]
            if progress is not None:
                progress(done, len(grid))
        return result

    def tiles(
        self,
        height: int,
        width: int,
        side: int | None = None,
        kind: FrameFormat | None = None,
    ) -> TileGrid:
        """The tiles of a picture of that size, their sides at most `side`.

        Without a side, the largest that the budget allows; of a frame with its format
        `kind`. Raises `OutOfDeviceMemoryError` when not even the smallest tile fits.
        """
        tiling = frame_tiling(self.tiling, kind.chroma if kind else None)

        def fits(tile_height: int, tile_width: int) -> bool:
            plan = self._plan(tile_height, tile_width, kind)
            return (
                plan.bytes <= self._memory
                and plan.longest_dispatch <= DISPATCH_SECONDS
                and max(plan.buffer_bytes) <= self.device.max_buffer_bytes
            )

        smallest = smallest_side(tiling)
        row_bytes = width * self.graph.scale**2 * self.graph.channels
        chosen = side or min(
            largest_side(fits, height, width, smallest),
            max(smallest, BAND_BYTES // row_bytes),
        )
        grid = tile_grid(tiling, height, width, chosen)
        needed = self._plan(grid.height, grid.width, kind).bytes
        if tiling.needs_whole_picture and needed > self._memory:
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
        return self._plan(grid.height, grid.width, None)

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

    def _plan(self, height: int, width: int, kind: FrameFormat | None) -> Plan:
        """The plan for tiles of that size, of a picture or of a frame."""
        if kind is None:
            return make_plan(self._program, height, width)
        program = replace(self._program, samples=kind.samples)
        return make_plan(program, height, width, kind.chroma)

    def _load(
        self, height: int, width: int, kind: FrameFormat | None = None
    ) -> tuple[LoadedPlan, TileGrid]:
        """A loaded plan and the tiles that it is for.

        Where the device's memory does not suffice, tiles of half the side are tried.
        """
        side = self._tile
        while True:
            asked = height, width, side, kind
            if self.grid_of is None or self.grid_of[0] != asked:
                self.grid_of = asked, self.tiles(height, width, side, kind)
            grid = self.grid_of[1]
            try:
                return self._loaded_plan(grid, kind), grid
            except OutOfDeviceMemoryError as error:
                self._loaded.clear()
                longest = max(grid.height, grid.width)
                chroma = kind.chroma if kind else None
                smallest = smallest_side(frame_tiling(self.tiling, chroma))
                side = max(longest // 2, smallest)
                if side >= longest:
                    raise
                self._tile = side
                _log.warning("%s; going on with tiles of %d pixels", error, side)

    def _loaded_plan(self, grid: TileGrid, kind: FrameFormat | None) -> LoadedPlan:
        """The plan for tiles of that size, kept from an earlier picture or new.

        Making pipelines takes a while, and pictures of a batch come in few sizes. Those
        used longest ago give their memory back, so that all keep to the budget.
        """
        size = grid.height, grid.width, kind
        loaded = self._loaded.pop(size, None)
        if loaded is None:
            plan = self._plan(grid.height, grid.width, kind)
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


def _part(window: Window, ratio: int, scale: int = 1) -> slice:
    """The window of luma in a plane that has a sample for each `ratio` of it.

    The last one's luma need not all be there.
    """
    return slice(window.start * scale // ratio, -(-window.stop * scale // ratio))


def _align_frame(frame: Frame, graph: Graph) -> Frame:
    """`frame`, its last row and column repeated until strides fit."""
    step = alignment(graph)
    height, width = (-(-extent // step) * step for extent in frame.planes[0].shape)
    if (height, width) == frame.planes[0].shape:
        return frame
    planes = []
    shapes = frame.format.shapes(height, width)
    for plane, shape in zip(frame.planes, shapes, strict=True):
        more = [(0, new - old) for new, old in zip(shape, plane.shape, strict=True)]
        planes.append(np.pad(plane, more, mode="edge"))
    return Frame(frame.format, tuple(planes))
