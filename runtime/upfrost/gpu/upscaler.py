"""`Upscaler`: model + device + plan + tiles; NumPy picture in, NumPy picture out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, TypeVar

import numpy as np

from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.gpu import checks
from upfrost.gpu.budget import (
    HEAP_SHARE,
    MOST_MEMORY,
    Budget,
    choose_bands,
    choose_grid,
)
from upfrost.gpu.convolutions import layer_key
from upfrost.gpu.costs import board_of
from upfrost.gpu.device import (
    Device,
    DeviceInfo,
    LoadedPlan,
    OutOfDeviceMemoryError,
    choose_device,
)
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.execution import IN_FLIGHT
from upfrost.gpu.frame import ChromaFormat, Frame, FrameFormat, Samples
from upfrost.gpu.halfprecision import faster_precision
from upfrost.gpu.pending import Keep, Pending, TileQueue, Work
from upfrost.gpu.plan import (
    Plan,
    Program,
    compile_graph,
    footprint,
    for_rgb,
    make_plan,
)
from upfrost.gpu.seams import Seams
from upfrost.gpu.tiles import (
    Tile,
    TileGrid,
    Tiling,
    align,
    frame_tiling,
    smallest_side,
    tile_grid,
    with_halo,
)
from upfrost.gpu.tuning import tuned_family
from upfrost.network.graph import Conv2d, Graph, Window

Progress = Callable[[int, int], None]
# What pictures are: frames of a format, RGB for a network of one channel, or None for
# pictures of the network's own channels.
Kind = FrameFormat | Literal["RGB"] | None
# Height, width, side of a tile, the kind of pictures, and whether in bands.
_Asked = tuple[int, int, int | None, Kind, bool]

_log = logging.getLogger("upfrost")
T = TypeVar("T")

PLANS_KEPT = 4


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

    `halo` bounds the pixels that a tile has around those it gives results for. Without
    it a tile's bits are those of the whole picture; with fewer than the network looks
    at, `seam` says how much of the last picture's seams can be seen.

    Threads may share one: their calls take turns. A process that was forked after it
    was made cannot use it, and gets a `DeviceError`. It can be neither copied nor
    pickled.

    Raises `ModelFileError`, `GraphError`, `DeviceError`, and `UsageError` for arguments
    that cannot be.
    """

    def __init__(
        self,
        model: str | Path | Graph = "realtime-x2",
        *,
        device: int | str | None = None,
        precision: Literal["auto", "fp16", "fp32"] = "auto",
        tile: int | None = None,
        memory: int | None = None,
        halo: int | None = None,
    ) -> None:
        checks.check_precision(precision)
        self._tile = checks.positive("tile", tile)
        memory = checks.positive("memory", memory)
        halo = checks.positive("halo", halo)
        self.graph = checks.network_of(model)
        self.device: DeviceInfo = choose_device(checks.device_name(device))
        if precision == "auto":
            asked = self.graph.metadata.get("precision")
            precision = "fp32" if asked == "fp32" else faster_precision(self.device)
        self.precision: Precision = precision
        family = tuned_family(self.device, self.precision)
        program = compile_graph(self.graph, family, self.precision)
        self._seamless = program.tiling
        self._program = replace(program, tiling=with_halo(program.tiling, halo))
        if memory is None:
            memory = min(self.device.heap_bytes // HEAP_SHARE, MOST_MEMORY)
        self._budget = Budget(memory, self.device.max_buffer_bytes)
        self._device = Device(self.device)
        self._loaded: dict[tuple[int, int, Kind], LoadedPlan] = {}
        # Of the last picture: a video's frames are all alike, and finding out which
        # tiles fit takes milliseconds.
        self._grid: tuple[_Asked, TileGrid] | None = None
        self._queue = TileQueue()
        self._lock = threading.Lock()
        self._holder: int | None = None  # the thread that has the lock
        # The largest difference at a seam of the last picture, in levels of 255; None
        # where tiles are exact, or there was one alone.
        self.seam: int | None = None
        self._closed = False

    def __call__(self, picture: Bytes, progress: Progress | None = None) -> Bytes:
        """Upscale uint8 (H, W, C), C the model's channels, to uint8 (sH, sW, C).

        A model of one channel takes RGB, too: it computes the luma, and what colours
        differ by from it is enlarged by Catmull-Rom's cubic, on the device. A grey
        picture stays grey.

        `picture` may be whatever NumPy reads as such an array. `progress` is called
        with the tiles done and the tiles in all. Raises `UsageError` for another type
        or shape and after `close`, `DeviceLostError` when the device did not compute,
        and `OutOfDeviceMemoryError` when no tile fits.
        """
        with self._turn():
            return self._compute(self._picture_work(picture, progress))

    def start(self, picture: Bytes, progress: Progress | None = None) -> Pending[Bytes]:
        """Hand a picture to the device, to ask for its result later.

        Meanwhile others can be started: the device has two tiles at a time. `progress`
        is called by whoever then waits for a tile. Errors are those of calling, here
        or where the result is asked for.
        """
        with self._turn():
            work = self._picture_work(picture, progress)
            return self._queue.start(work, self._finish)

    def pictures(
        self, pictures: Iterable[Bytes], progress: Progress | None = None
    ) -> Iterator[Bytes]:
        """Upscale pictures as `__call__` does, one after the other.

        While the device works on one, the next is asked for and the last is handed out:
        quicker than a call for each. Errors are those of calling and of `pictures`, and
        come after the results of the pictures before them.
        """
        waiting: deque[Pending[Bytes]] = deque()
        for pending in self._started(pictures, progress):
            waiting.append(pending)
            if len(waiting) == IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _started(
        self, pictures: Iterable[Bytes], progress: Progress | None
    ) -> Iterator[Pending[Bytes]]:
        """Pictures that were started, the last one with the error that came then."""
        try:
            for picture in pictures:
                yield self.start(picture, progress)
        except Exception as error:
            failed = Pending(np.empty(0, np.uint8), 1, self._finish)
            failed.fail(error)
            yield failed

    def _picture_work(self, picture: Bytes, progress: Progress | None) -> Work[Bytes]:
        picture = checks.picture_of(picture, self.graph)
        height, width, channels = picture.shape
        aligned = align(picture, self.tiling)
        scale = self.graph.scale
        result = np.empty((height * scale, width * scale, channels), np.uint8)
        filled = 0

        def write(rows: Bytes) -> None:
            nonlocal filled
            part = result[filled : filled + len(rows)]
            part[...] = rows[: len(part), : width * scale]
            filled += len(rows)

        return self._work(
            aligned.shape[0],
            aligned.shape[1],
            lambda start, stop: aligned[start:stop],
            write,
            progress,
            channels,
            result,
        )

    @property
    def tuned_kernels(self) -> dict[str, str]:
        """What `upfrost tune` chose for this network, by the shape of convolution.

        Some of the kernels that it may choose round otherwise than others.
        """
        program = self._program
        shapes = {
            layer_key(node, program.graph.tensors[node.weight].shape)
            for node in (step.node for step in program.steps)
            if isinstance(node, Conv2d)
        }
        tuned = program.family.tuned
        return {shape: tuned[shape] for shape in sorted(shapes & tuned.keys())}

    def stream(
        self,
        height: int,
        width: int,
        read: Callable[[int, int], Bytes],
        write: Callable[[Bytes], None],
        progress: Progress | None = None,
        *,
        channels: int | None = None,
    ) -> None:
        """Upscale a picture that need not be in memory as a whole.

        `height` and `width` are multiples of the graph's `alignment`. `read(start,
        stop)` gives rows of the picture, uint8 (stop - start, width, C); starts and
        stops never go back, though windows overlap by the network's halo. `write` takes
        the next rows of the result, uint8 (n, s · width, C), valid until it returns.
        `channels` is C, without it the model's, as for calling. Errors are those of
        calling.
        """
        checks.check_size(height, width, self.graph)
        channels = checks.channels_of(channels or self.graph.channels, self.graph)
        with self._turn():
            self._compute(
                self._work(height, width, read, write, progress, channels, None)
            )

    def _work(
        self,
        height: int,
        width: int,
        read: Callable[[int, int], Bytes],
        write: Callable[[Bytes], None],
        progress: Progress | None,
        channels: int,
        result: T,
    ) -> Work[T]:
        """The tiles of `stream`, to be started in their order and kept likewise."""
        scale = self.graph.scale
        seams = None if self.tiling == self._seamless else Seams(scale)
        self.seam = None
        kind: Kind = None if channels == self.graph.channels else "RGB"
        loaded, grid = self._load(height, width, kind)
        columns = grid.windows[1]
        done = 0

        def keep(
            band: Bytes, kept_rows: slice, tile: Tile, planes: Sequence[Samples]
        ) -> None:
            nonlocal done
            output = planes[0].reshape(len(planes[0]), -1, channels)
            kept, left = tile.kept_columns, tile.columns.start
            if seams is not None:
                seams.add(tile, output.view(np.uint8))
                self.seam = seams.largest
            band[:, kept.start * scale : kept.stop * scale] = output[
                kept_rows, (kept.start - left) * scale : (kept.stop - left) * scale
            ]
            done += 1
            if progress is not None:
                progress(done, len(grid))
            if done % len(columns) == 0:
                write(band)

        def tiles() -> Iterator[tuple[Sequence[Samples], Keep]]:
            for rows, kept_rows in grid.windows[0]:
                given = checks.check_rows(
                    read(rows.start, rows.stop),
                    (rows.stop - rows.start, width, channels),
                )
                kept = slice(
                    (kept_rows.start - rows.start) * scale,
                    (kept_rows.stop - rows.start) * scale,
                )
                band = np.empty(
                    (kept.stop - kept.start, width * scale, channels), np.uint8
                )
                for window, kept_columns in columns:
                    part = given[:, window.start : window.stop]
                    tile = Tile(rows, window, kept_rows, kept_columns)
                    yield [part.reshape(len(part), -1)], partial(keep, band, kept, tile)

        return Work(loaded, len(grid), tiles(), result)

    def frame(
        self,
        frame: Frame,
        progress: Progress | None = None,
        *,
        into: Frame | None = None,
    ) -> Frame:
        """Upscale a frame's luma by a network of one channel; chroma is enlarged.

        Chroma goes by Catmull-Rom's cubic and keeps its siting, or has that which the
        format names for the result; samples keep their range. The result is `into`,
        where there is one, a frame of that format and `scale` times the size. On a
        board that docs/mali.md models a large frame goes in bands, so that copies lie
        beside the device's work. Raises `UsageError` for a network of RGB and for what
        is no `Frame`, otherwise as calling.
        """
        with self._turn():
            return self._compute(self._frame_work(frame, progress, into, banded=True))

    def start_frame(
        self, frame: Frame, progress: Progress | None = None
    ) -> Pending[Frame]:
        """Hand a frame to the device, as `start` does a picture."""
        with self._turn():
            # Copies lie beside the work on the frame before.
            work = self._frame_work(frame, progress, None, banded=False)
            return self._queue.start(work, self._finish)

    def _frame_work(
        self,
        frame: Frame,
        progress: Progress | None,
        into: Frame | None,
        *,
        banded: bool,
    ) -> Work[Frame]:
        if self.graph.channels != 1:
            raise UsageError(
                f"{self.graph.name} takes RGB; frames of luma and chroma need a "
                "network of one channel"
            )
        checks.check_frame(frame)
        kind, scale = frame.format, self.graph.scale
        size = frame.height * scale, frame.width * scale
        enlarged = kind.enlarged
        result = into if into is not None else Frame.empty(enlarged, *size)
        checks.check_frame(result)
        if result.format != enlarged or (result.height, result.width) != size:
            raise UsageError(
                f"the result is a frame of {size[1]}×{size[0]} and {enlarged}, "
                f"found one of {result.width}×{result.height}, {result.format}"
            )
        if not all(plane.flags.writeable for plane in result.planes):
            raise UsageError("the result's planes are read-only; give some of your own")
        aligned = _align_frame(frame, self.tiling)
        seams = None if self.tiling == self._seamless else Seams(scale)
        self.seam = None
        loaded, grid = self._load(aligned.height, aligned.width, kind, banded)

        def keep(done: int, tile: Tile, outputs: Sequence[Samples]) -> None:
            if seams is not None:
                luma = outputs[0] >> (kind.shift + kind.bits - 8)
                seams.add(tile, luma.astype(np.uint8)[..., None])
                self.seam = seams.largest
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

        def tiles() -> Iterator[tuple[Sequence[Samples], Keep]]:
            for done, tile in enumerate(grid, 1):
                parts = [
                    plane[_part(tile.rows, y), _part(tile.columns, x)]
                    for plane, (y, x) in zip(aligned.planes, kind.ratios, strict=True)
                ]
                yield (
                    [part.reshape(len(part), -1) for part in parts],
                    partial(keep, done, tile),
                )

        return Work(loaded, len(grid), tiles(), result)

    def _compute(self, work: Work[T]) -> T:
        """The result of work, within a turn."""
        pending = self._queue.start(work, self._queue.finish)
        return pending.result()

    def _finish(self, pending: Pending[Any]) -> None:
        with self._turn():
            self._queue.finish(pending)

    def tiles(
        self,
        height: int,
        width: int,
        side: int | None = None,
        kind: Kind = None,
    ) -> TileGrid:
        """The tiles of a picture of that size and kind, their sides at most `side`.

        Without a side, those that the budget allows and that cost the least work.
        Raises `OutOfDeviceMemoryError` when not even the
        smallest tile fits.
        """
        program, chroma = self._program_of(kind), _chroma(kind)
        tiling = frame_tiling(program.tiling, chroma)
        if side is not None:
            grid = tile_grid(tiling, height, width, side)
        else:
            grid = choose_grid(program, height, width, self._budget, chroma)
        needed = footprint(program, grid.height, grid.width, chroma).bytes
        budget = self._budget.memory
        said = f"{needed / 2**20:.1f} MiB, the budget is {budget / 2**20:.1f} MiB"
        if tiling.needs_whole_picture and needed > budget:
            raise OutOfDeviceMemoryError(
                f"{self.graph.name} looks at the whole picture, so it works without "
                f"tiles: {width}×{height} pixels need {said}; allow more (--memory "
                f"{-(-needed // 1_000_000)}), or seams by tiles (upfrost upscale "
                "--halo 32)"
            )
        if side is None and needed > budget:
            reach = max(self.tiling.halo)
            fewer = ", or seams by a smaller halo (upfrost upscale --halo 32)"
            seams = fewer if reach > 32 else ""
            raise OutOfDeviceMemoryError(
                f"the smallest tile of {self.graph.name}, with a halo of {reach} "
                f"pixels, needs {said}; allow more (--memory "
                f"{-(-needed // 1_000_000)}){seams}"
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

    @property
    def overhead(self) -> float:
        """Pixels computed for each of the last picture's, 1 before the first one."""
        return 1.0 if self._grid is None else self._grid[1].overhead

    def close(self) -> None:
        """Give the device's memory back. Nothing can be upscaled after it.

        What was started and not finished has no result.
        """
        if self._closed:
            return
        with self._turn():
            self._closed = True
            self._queue.abandon(_closed())
            self._device.close()  # which asks the plans whether it was lost
            self._loaded.clear()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied, of which `copy` and `pickle` ask: a device is no value.

        Raises `UsageError`.
        """
        raise UsageError(
            "an Upscaler cannot be copied or handed to another process: make another "
            "one, there"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A block for one thread at a time. Raises `UsageError` after `close`."""
        mine = threading.get_ident()
        if self._holder == mine:
            raise RuntimeError(
                "an Upscaler was called by what it calls while it works (progress, "
                "read or write): call it afterwards, or make another one"
            )
        with self._lock:
            if self._closed:
                raise _closed()
            self._holder = mine
            try:
                yield
            except Exception:
                raise
            except BaseException as error:
                # Between which two steps a signal was handled cannot be told.
                self._queue.abandon(error)
                for loaded in self._loaded.values():
                    loaded.forget()
                raise
            finally:
                self._holder = None

    def _plan(self, height: int, width: int, kind: Kind) -> Plan:
        """The plan for tiles of that size, of a kind of pictures."""
        return make_plan(self._program_of(kind), height, width, _chroma(kind))

    def _program_of(self, kind: Kind) -> Program:
        """The program for a kind of pictures."""
        if kind is None:
            return self._program
        if kind == "RGB":
            return for_rgb(self._program)
        return replace(self._program, samples=kind.samples)

    def _grid_of(
        self, height: int, width: int, side: int | None, kind: Kind, banded: bool
    ) -> TileGrid:
        """`tiles`, of which a frame that fits is cut into bands where that is quicker.

        That is with `banded` and no `side`, on a board whose times are known.
        """
        grid = self.tiles(height, width, side, kind)
        board = board_of(self.device.name)
        has_seams = self.tiling != self._seamless
        if not banded or side or board is None or has_seams or len(grid) > 1:
            return grid
        program, chroma = self._program_of(kind), _chroma(kind)
        return choose_bands(program, height, width, chroma, board)

    def _load(
        self, height: int, width: int, kind: Kind = None, banded: bool = False
    ) -> tuple[LoadedPlan, TileGrid]:
        """A loaded plan and the tiles that it is for.

        Where the device's memory does not suffice, tiles of half the side are tried.
        """
        side = self._tile
        while True:
            asked = height, width, side, kind, banded
            if self._grid is None or self._grid[0] != asked:
                self._grid = asked, self._grid_of(*asked)
            grid = self._grid[1]
            try:
                return self._loaded_plan(grid, kind), grid
            except OutOfDeviceMemoryError as error:
                self._loaded.clear()
                longest = max(grid.height, grid.width)
                tiling = frame_tiling(self._program_of(kind).tiling, _chroma(kind))
                smallest = smallest_side(tiling)
                side = max(longest // 2, smallest)
                if side >= longest:
                    raise
                self._tile = side
                _log.warning("%s; going on with tiles of %d pixels", error, side)

    def _loaded_plan(self, grid: TileGrid, kind: Kind) -> LoadedPlan:
        """The plan for tiles of that size, kept from an earlier picture or new.

        Making pipelines takes a while, and pictures of a batch come in few sizes. Those
        used longest ago give their memory back, so that all keep to the budget.
        """
        size = grid.height, grid.width, kind
        loaded = self._loaded.pop(size, None)
        if loaded is None:
            plan = self._plan(grid.height, grid.width, kind)
            # Two plans with tiles in flight could take twice the budget.
            self._queue.drain()
            while self._loaded and (
                len(self._loaded) >= PLANS_KEPT
                # The weights are the same for all of them.
                or plan.bytes
                + sum(kept.plan.own_bytes for kept in self._loaded.values())
                > self._budget.memory
            ):
                del self._loaded[next(iter(self._loaded))]
            loaded = self._device.load(plan)
        self._loaded[size] = loaded
        return loaded


def _chroma(kind: Kind) -> ChromaFormat | None:
    """How chroma lies among luma in pictures of that kind, if they are frames."""
    return kind.chroma if isinstance(kind, FrameFormat) else None


def _closed() -> UsageError:
    return UsageError("this Upscaler is closed; make another one")


def _part(window: Window, ratio: int, scale: int = 1) -> slice:
    """The window of luma in a plane that has a sample for each `ratio` of it.

    The last one's luma need not all be there.
    """
    return slice(window.start * scale // ratio, -(-window.stop * scale // ratio))


def _align_frame(frame: Frame, tiling: Tiling) -> Frame:
    """`frame`, its last row and column repeated until strides fit."""
    step = tiling.alignment
    height, width = (-(-extent // step) * step for extent in frame.planes[0].shape)
    if (height, width) == frame.planes[0].shape:
        return frame
    planes = []
    shapes = frame.format.shapes(height, width)
    for plane, shape in zip(frame.planes, shapes, strict=True):
        more = [(0, new - old) for new, old in zip(shape, plane.shape, strict=True)]
        planes.append(np.pad(plane, more, mode="edge"))
    return Frame(frame.format, tuple(planes))
