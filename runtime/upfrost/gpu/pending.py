"""Results that a device works on, and the tiles of them that it has.

The device has few tiles at a time. They are kept in the order in which they were
started, by whoever needs room or a result, whichever result they belong to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from upfrost.gpu.execution import LoadedPlan
from upfrost.gpu.frame import Samples

T = TypeVar("T")
# What takes the planes of a tile's result, which hold until it returns.
Keep = Callable[[Sequence[Samples]], None]


@dataclass(frozen=True)
class Work(Generic[T]):
    """Tiles, each with its planes and what keeps its result, that fill `result`.

    There are `count` of them, of one plan.
    """

    loaded: LoadedPlan
    count: int
    tiles: Iterable[tuple[Sequence[Samples], Keep]]
    result: T


class Pending(Generic[T]):
    """A result that the device may still work on."""

    def __init__(self, result: T, tiles: int, wait: Callable[[Pending[T]], None]):
        self._result = result
        self._left = tiles
        self._wait = wait
        self._error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether `result` has nothing to wait for."""
        return self._error is not None or not self._left

    def result(self) -> T:
        """Wait for it. Raises what went wrong."""
        if not self.is_done:
            self._wait(self)
        if self._error is None:
            return self._result
        error = self._error
        # One that was raised keeps alive all that it went through, the plan and this.
        self._error = RuntimeError(f"was raised before: {error}")
        try:
            raise error
        finally:
            del error

    def fail(self, error: BaseException) -> None:
        """There will be no result."""
        if not self.is_done:
            self._error = error

    def cancel(self) -> None:
        """Nobody will ask for the result."""
        self._left = 0

    def advance(self) -> None:
        """One more of its tiles is kept."""
        self._left -= 1


@dataclass(frozen=True)
class _Tile:
    loaded: LoadedPlan
    keep: Keep
    pending: Pending[Any]


class TileQueue:
    """The tiles that the device has and that nobody has kept yet.

    Belongs to one thread at a time.
    """

    def __init__(self) -> None:
        self._tiles: deque[_Tile] = deque()

    def start(self, work: Work[T], wait: Callable[[Pending[T]], None]) -> Pending[T]:
        """Start all tiles, and keep those for which there is no room.

        `wait` is what the result calls while it is not done: by then, `finish`. What
        making or starting a tile raises is raised; what went wrong with one that was
        started, its own result says.
        """
        pending = Pending(work.result, work.count, wait)
        loaded = work.loaded
        try:
            for planes, keep in work.tiles:
                # Plans share the device's queue and keep no order among their results.
                while self._tiles and not (
                    self._tiles[0].loaded is loaded and loaded.can_start()
                ):
                    self._keep_first()
                if pending.is_done:
                    break
                loaded.start(planes)
                self._tiles.append(_Tile(loaded, keep, pending))
        except BaseException:
            pending.cancel()
            raise
        return pending

    def finish(self, pending: Pending[Any]) -> None:
        """Keep tiles until that result is done."""
        while not pending.is_done:
            self._keep_first()

    def drain(self) -> None:
        """Keep all tiles."""
        while self._tiles:
            self._keep_first()

    def abandon(self, error: BaseException) -> None:
        """Nobody wants what the device has any more."""
        for tile in self._tiles:
            tile.pending.fail(error)
            tile.loaded.forget()
        self._tiles.clear()

    def _keep_first(self) -> None:
        tile = self._tiles.popleft()
        try:
            planes = tile.loaded.finish()
            if not tile.pending.is_done:
                tile.keep(planes)
                tile.pending.advance()
        except BaseException as error:
            tile.pending.fail(error)
            if not isinstance(error, Exception):
                raise
