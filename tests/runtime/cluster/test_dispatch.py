"""Who gets which piece, and what becomes of it when something goes wrong.

Workers are coroutines here, and their time is a virtual one.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from upfrost.cluster import dispatch
from upfrost.cluster.connection import ClusterError, PausedError, SchedulerEndedError
from upfrost.cluster.dispatch import BadResultError, Dispatcher, Piece, Worker


class Jumping(selectors.DefaultSelector):
    """Waits for nothing: time is what passes instead."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.passed += timeout or 0
        return super().select(0)


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next thing that is to happen."""

    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed


class FakeWorkers:
    """A `Connection` to workers that take so many seconds for a piece."""

    run = "run"

    def __init__(self, **seconds: float) -> None:
        self.seconds = {f"tcp://{name}:1": value for name, value in seconds.items()}
        self.answers_at: dict[str, float] = {}
        self.calls: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.met = [_About(address) for address in sorted(self.seconds)]
        self._turns: dict[str, asyncio.Lock] = {}
        # What a worker does instead, by its address.
        self.odd: dict[str, Callable[[int], Any]] = {}
        self.ended = False

    async def workers(self) -> list[str]:
        if self.ended:
            raise SchedulerEndedError("the scheduler has ended")
        return sorted(self.seconds)

    async def greet(self, address: str) -> Any:
        while asyncio.get_running_loop().time() < self.silent_until(address):
            await asyncio.sleep(1)
        return _About(address)

    def silent_until(self, address: str) -> float:
        if self.seconds.get(address) == float("inf"):
            return float("inf")
        return self.answers_at.get(address, 0.0)

    async def call(
        self,
        address: str,
        function: Any,
        token: str,
        *arguments: Any,
        data: Callable[[], bytes],
    ) -> Any:
        del function, token
        order = arguments[-1]
        assert data() == b"%d" % order
        self.calls.append((address, order))
        if address in self.odd:
            answer = self.odd[address](order)
            if answer is not None:
                return answer
        seconds = self.seconds.get(address, float("inf"))
        while seconds == float("inf"):
            await asyncio.sleep(10)
        # One piece after the other.
        async with self._turns.setdefault(address, asyncio.Lock()):
            await asyncio.sleep(seconds)
        return order

    async def cancel(self, address: str, token: str) -> None:
        del token
        self.cancelled.append(address)


class _About:
    """A worker whose process, when it is started anew, has another port."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.name = address.split("/")[2].split(":")[0]
        self.identity = self.name


class Run:
    """A dispatcher with its workers, and what came of it."""

    def __init__(self, folder: Path, count: int, workers: FakeWorkers) -> None:
        self.workers = workers
        self.said: list[str] = []
        self.results: list[int] = []
        self.by: dict[int, str] = {}
        self.loop = Clock()
        self.reject: Callable[[int, str], str | None] = lambda _number, _name: None
        self._folder = folder
        self._count = count
        self.dispatcher = Dispatcher(
            workers,  # type: ignore[arg-type]
            print,
            self.said.append,
            lambda _: None,
        )

    def pieces(self) -> Iterator[Piece]:
        for number in range(self._count):
            path = self._folder / f"{number}"
            path.write_bytes(b"%d" % number)
            yield Piece(number, 10, number, path)

    async def accept(self, piece: Piece, result: int, worker: Worker) -> None:
        assert result == piece.number
        if reason := self.reject(piece.number, worker.name):
            raise BadResultError(reason)
        self.results.append(result)
        self.by[result] = worker.name
        self.dispatcher.finish(piece.number)

    def go(self) -> float:
        """Run to the end; how long it took."""
        try:
            self.loop.run_until_complete(
                self.dispatcher.run(self.pieces(), self.accept)
            )
        finally:
            self.loop.close()
        return self.loop.time()


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take another time than the loop's: what they do is done at once."""

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


def test_each_piece_is_done_once_and_files_go(tmp_path: Path) -> None:
    made = Run(tmp_path, 20, FakeWorkers(one=4, two=4))
    made.go()
    assert sorted(made.results) == list(range(20))
    assert not list(tmp_path.iterdir())
    assert not made.said


def test_work_goes_where_it_is_done_soonest(tmp_path: Path) -> None:
    """The last piece of a worker that is ten times slower is done by a fast one."""
    made = Run(tmp_path, 40, FakeWorkers(fast=1, quick=1, slow=10))
    seconds = made.go()
    # 2.1 pieces a second are 19 seconds; the slow one alone would end 20 later.
    assert seconds < 24
    assert sorted(made.results) == list(range(40))
    assert "tcp://slow:1" in made.workers.cancelled


def test_little_is_begun_at_a_time(tmp_path: Path) -> None:
    made = Run(tmp_path, 100, FakeWorkers(one=1, two=1))
    most = 0
    pieces = made.pieces

    def counted() -> Iterator[Piece]:
        nonlocal most
        for piece in pieces():
            most = max(most, len(list(tmp_path.iterdir())))
            yield piece

    made.pieces = counted  # type: ignore[method-assign]
    made.go()
    # Two for each worker, and one that is ready.
    assert most <= 2 * dispatch.IN_FLIGHT + 2


def test_a_worker_that_ends_costs_what_it_had(tmp_path: Path) -> None:
    workers = FakeWorkers(good=2, dying=2)
    made = Run(tmp_path, 12, workers)

    def die(number: int) -> None:
        if number >= 4:
            workers.seconds.pop("tcp://dying:1", None)
            raise ClusterError("what it had was lost")

    workers.odd["tcp://dying:1"] = die
    made.go()
    assert sorted(made.results) == list(range(12))
    assert any("dying" in line for line in made.said)


def test_the_end_of_a_process_is_one_failure_whatever_it_had(tmp_path: Path) -> None:
    """Both its pieces fail; started anew by Dask, it gets others."""
    workers = FakeWorkers(good=2, killed=2)
    made = Run(tmp_path, 30, workers)

    def kill(number: int) -> None:
        if number >= 4:
            workers.seconds.pop("tcp://killed:1", None)
            workers.seconds["tcp://killed:2"] = 2
            raise ClusterError("what it had was lost")

    workers.odd["tcp://killed:1"] = kill
    made.go()
    assert sorted(made.results) == list(range(30))
    assert made.said == ["killed is gone; what it had goes elsewhere"]
    assert not made.dispatcher.failed
    assert [address for address, _ in workers.calls].count("tcp://killed:2") > 5


def test_a_pause_is_one_failure_after_which_a_worker_gets_work_again(
    tmp_path: Path,
) -> None:
    workers = FakeWorkers(good=2, paused=2)
    made = Run(tmp_path, 30, workers)

    def pause(number: int) -> None:
        if made.loop.time() < 9:
            workers.answers_at["tcp://paused:1"] = 12
            if number >= 4:
                raise PausedError("Dask has paused it")

    workers.odd["tcp://paused:1"] = pause
    made.go()
    assert sorted(made.results) == list(range(30))
    assert made.said == ["paused: Dask has paused it; what it had goes elsewhere"]
    assert list(made.by.values()).count("paused") > 5


def test_a_short_film_is_shared_out(tmp_path: Path) -> None:
    """One piece for each worker, also for those that answer later."""
    workers = FakeWorkers(one=5, two=5, three=5)
    workers.answers_at["tcp://one:1"] = workers.answers_at["tcp://two:1"] = 1
    made = Run(tmp_path, 3, workers)
    made.go()
    assert sorted(made.by.values()) == ["one", "three", "two"]


def test_a_silent_worker_loses_its_pieces_and_gets_none(tmp_path: Path) -> None:
    workers = FakeWorkers(good=2, silent=2)
    made = Run(tmp_path, 60, workers)

    def stop(number: int) -> None:
        if number >= 4:
            workers.seconds["tcp://silent:1"] = float("inf")

    workers.odd["tcp://silent:1"] = stop
    made.go()
    assert sorted(made.results) == list(range(60))
    assert any("silent: no answer for" in line for line in made.said)
    last = max(number for address, number in workers.calls if "silent" in address)
    assert last < 30


def test_who_ends_is_noticed_while_others_are_busy(tmp_path: Path) -> None:
    """Something is done every twentieth of a second, and a call that hangs stays so."""
    workers = FakeWorkers(dying=2, **{f"w{n}": 0.1 for n in range(4)})
    made = Run(tmp_path, 200, workers)

    def die(number: int) -> None:
        if number > 30:
            workers.seconds.pop("tcp://dying:1", None)

    workers.odd["tcp://dying:1"] = die
    made.go()
    assert sorted(made.results) == list(range(200))
    gone = made.said.index("dying is gone; what it had goes elsewhere")
    assert gone == 0
    # Not at the end: what it had was among the next that were done.
    lost = max(number for address, number in workers.calls if "dying" in address)
    assert made.results.index(lost) < 150


def test_a_worker_that_fails_twice_is_left_out_and_named(tmp_path: Path) -> None:
    workers = FakeWorkers(good=2, bad=1)
    made = Run(tmp_path, 12, workers)
    made.reject = lambda _, name: "another checksum" if name == "bad" else None
    made.go()
    assert set(made.by.values()) == {"good"}
    assert made.dispatcher.failed == ["bad (another checksum)"]
    # Pieces that it had when it was left out may be some more.
    tried = [number for address, number in workers.calls if "bad" in address]
    assert len(tried) <= 2 * dispatch.IN_FLIGHT


def test_a_piece_that_fails_everywhere_ends_the_run(tmp_path: Path) -> None:
    made = Run(tmp_path, 9, FakeWorkers(one=1, two=1, three=1, four=1))
    made.reject = lambda number, _: "it is cursed" if number == 5 else None
    with pytest.raises(ClusterError, match=r"part 6 failed on 3 workers.*cursed"):
        made.go()
    assert not list(tmp_path.iterdir())


def test_without_a_worker_that_may_work_the_run_ends(tmp_path: Path) -> None:
    made = Run(tmp_path, 9, FakeWorkers(one=1))
    made.reject = lambda _number, _name: "wrong"
    with pytest.raises(ClusterError, match=r"no worker is left: one \(wrong\)"):
        made.go()


def test_workers_that_go_are_waited_for(tmp_path: Path) -> None:
    """Dask starts a process anew that ended; meanwhile nobody may be there."""
    workers = FakeWorkers(one=1)
    made = Run(tmp_path, 6, workers)

    def go(number: int) -> None:
        if number == 3:
            workers.seconds.clear()
            asyncio.get_running_loop().call_later(
                20, workers.seconds.update, {"tcp://again:1": 1.0}
            )
            raise ClusterError("what it had was lost")

    workers.odd["tcp://one:1"] = go
    made.go()
    assert sorted(made.results) == list(range(6))
    assert made.by[5] == "again"


def test_the_end_of_the_scheduler_ends_the_run(tmp_path: Path) -> None:
    workers = FakeWorkers(one=2)
    made = Run(tmp_path, 9, workers)

    def end(number: int) -> None:
        workers.ended = number > 3

    workers.odd["tcp://one:1"] = end
    with pytest.raises(SchedulerEndedError):
        made.go()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_all_pieces_are_done(tmp_path: Path, seed: int) -> None:
    """Of eight workers, two fail at random, a fourth of their pieces."""
    print(f"seed {seed}")
    state = itertools.accumulate(
        itertools.repeat(0), lambda x, _: (x * 1103515245 + 12345) % 2**31, initial=seed
    )
    speeds = {f"w{n}": 1.0 + n for n in range(8)}
    workers = FakeWorkers(**speeds)
    made = Run(tmp_path, 80, workers)

    def fail(number: int) -> None:
        del number
        if next(state) >> 16 & 3 == 0:
            raise RuntimeError("lost")

    for name in ("w1", "w4"):
        workers.odd[f"tcp://{name}:1"] = fail
    made.go()
    assert sorted(made.results) == list(range(80))
