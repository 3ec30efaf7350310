"""Which worker does what: each piece of work where it is done soonest, and once more
elsewhere where it fails.

Dask carries bytes and calls; what is decided here is who gets them. A worker has two
pieces at a time, one that it works on and one that is there already. When nothing is
left to begin, workers that are idle take over pieces that others would finish later:
the first result counts. A worker whose piece fails, or that goes silent, gets more work
only when it answers again; one that fails twice gets none.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upfrost.cluster.connection import (
    INTRODUCE,
    About,
    ClusterError,
    Connection,
    PausedError,
    SchedulerEndedError,
    reason_of,
)
from upfrost.status import duration

IN_FLIGHT = 2  # pieces of one worker
POLL = 0.5  # seconds between two looks at who is there
PATIENCE = 60.0  # seconds without any worker, after which a run ends
MOST_FAILURES = 2  # of a worker
MOST_TRIES = 3  # workers on which a piece may fail
# How many times as long as a worker took before, or as the slowest one took where it
# has done nothing yet, a piece may take, and seconds on top.
KNOWN, UNKNOWN, SLACK = 5.0, 30.0, 30.0
# Pieces begun and not yet done with, for each that can be in flight.
_WINDOW = 8
_RECENT = 5  # pieces by which a worker's speed is judged


def _now() -> float:
    """Seconds by the event loop's clock."""
    return asyncio.get_running_loop().time()


@dataclass(eq=False)
class Piece:
    """A piece of work. `size` is what it costs: frames, pixels."""

    number: int
    size: int
    order: Any  # what the worker is told
    path: Path  # the bytes that it gets
    kept: bool = False  # the file stays when the piece is done
    tries: set[str] = field(default_factory=set)  # workers on which it failed


@dataclass(eq=False)
class Worker:
    """A worker, by its address; `name` is what people call it."""

    address: str
    name: str
    identity: str  # stays when Dask starts its process anew
    rate: float | None = None  # sizes a second
    done: int = 0  # pieces
    size: int = 0  # of these
    failures: int = 0
    silent: bool = False  # gets nothing until it answers
    gone: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    last: float = 0.0  # when it finished something

    @property
    def excluded(self) -> bool:
        return self.failures >= MOST_FAILURES

    @property
    def usable(self) -> bool:
        return not (self.gone or self.silent or self.excluded)


@dataclass(eq=False)
class Attempt:
    """A piece at a worker."""

    piece: Piece
    worker: Worker
    token: str
    began: float
    task: asyncio.Task[Any]


class BadResultError(Exception):
    """A result that is not what was asked for; the worker is to blame."""


# Takes a result in; raises `BadResultError` for one that cannot be used.
Accept = Callable[[Piece, Any, Worker], Awaitable[None]]


class Dispatcher:
    """Has pieces of work done by the workers of a cluster.

    `function` is what workers call, with a piece's order and bytes.
    """

    def __init__(
        self,
        connection: Connection,
        function: Callable[..., Any],
        say: Callable[[str], None],
        tick: Callable[[Dispatcher], None],
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self.sent = 0  # bytes
        self._connection = connection
        self._function = function
        self._say = say
        self._tick = tick
        self._failures: dict[str, tuple[int, str, str]] = {}  # by identity
        self._waiting: deque[Piece] = deque()  # to be begun
        self._again: set[int] = set()  # to be done once more
        self._running: dict[int, list[Attempt]] = {}
        self._open: dict[int, Piece] = {}  # begun, not yet done with
        self._greetings: dict[asyncio.Task[Any], str] = {}
        self._exhausted = False
        self._fetching: asyncio.Task[Piece | None] | None = None
        self._count = 0
        self._next_look = 0.0
        self._alone_since: float | None = None
        self._refused: set[str] = set()
        self._loose: set[asyncio.Task[Any]] = set()  # what nobody waits for

    @property
    def failed(self) -> list[str]:
        """Workers that get nothing more, each with the reason."""
        return [
            f"{name} ({reason})"
            for count, name, reason in self._failures.values()
            if count >= MOST_FAILURES
        ]

    def finish(self, number: int) -> None:
        """Say that nothing more will be asked of a piece."""
        self._tidy(self._open.pop(number))

    def again(self, number: int, worker: Worker, reason: str) -> None:
        """Have a piece done once more: what that worker made of it was wrong."""
        self._again.add(number)
        self._blame(worker, reason)
        self._note_try(self._open[number], worker, reason)

    def under_way(self) -> float:
        """How much is done of the pieces that are not finished, by workers' speeds."""
        now, size = _now(), 0.0
        for piece in self._open.values():
            if attempts := self._running.get(piece.number):
                size += piece.size * max(self._share(each, now) for each in attempts)
            elif piece not in self._waiting and piece.number not in self._again:
                size += piece.size  # it came back, before its turn
        return size

    async def run(self, pieces: Iterator[Piece], accept: Accept) -> None:
        """Have all pieces done. Raises what `pieces` and `accept` raise, `ClusterError`
        when no worker is left or a piece fails everywhere."""
        try:
            # All at once: otherwise the first one to answer has all of a short film.
            for about in self._connection.met:
                self._take_in(about)
            while not (self._exhausted and not self._open):
                await self._step(pieces, accept)
        finally:
            await self._abandon()

    async def _step(self, pieces: Iterator[Piece], accept: Accept) -> None:
        self._begin(pieces)
        tasks: set[asyncio.Task[Any]] = set(self._greetings)
        tasks |= {a.task for each in self._running.values() for a in each}
        if self._fetching is not None:
            tasks.add(self._fetching)
        wait = max(0.0, self._next_look - _now())
        done: set[asyncio.Task[Any]] = set()
        if tasks:
            done, _ = await asyncio.wait(
                tasks, timeout=wait, return_when=asyncio.FIRST_COMPLETED
            )
        else:
            await asyncio.sleep(wait)
        # Also where something is always done meanwhile.
        if _now() >= self._next_look:
            self._next_look = _now() + POLL
            await self._look()
        if self._fetching in done:
            self._take_fetched()
        for task in done & self._greetings.keys():
            self._welcome(task)
        finished = [
            attempt
            for each in list(self._running.values())
            for attempt in each
            if attempt.task in done
        ]
        for attempt in finished:
            await self._settle(attempt, accept)
        self._tick(self)

    def _take_fetched(self) -> None:
        assert self._fetching is not None
        fetched, self._fetching = self._fetching, None
        piece = fetched.result()
        if piece is None:
            self._exhausted = True
        else:
            self._open[piece.number] = piece
            self._waiting.append(piece)

    # Beginning

    def _begin(self, pieces: Iterator[Piece]) -> None:
        """Give workers what they have room for, the quickest first."""
        now = _now()
        room = [w for w in self.workers.values() if w.usable]
        slots = sum(IN_FLIGHT - len(w.attempts) for w in room)
        for number in self._again - self._running.keys():
            self._again.discard(number)
            self._waiting.appendleft(self._open[number])
        has_place = len(self._open) < _WINDOW * IN_FLIGHT * max(1, len(room))
        is_needed = not self._exhausted and len(self._waiting) < max(1, slots)
        if self._fetching is None and has_place and is_needed:
            # One is cut while the others are worked on.
            self._fetching = asyncio.ensure_future(
                asyncio.to_thread(next, pieces, None)
            )
        while self._waiting:
            piece = self._waiting[0]
            able = [w for w in room if len(w.attempts) < IN_FLIGHT]
            able = [w for w in able if w.identity not in piece.tries] or (
                # Nobody else is there: the same one once more.
                able if all(w.identity in piece.tries for w in room) else []
            )
            if not able:
                break
            # What failed goes to those who did not fail yet, and did something.
            proven = [w for w in able if w.done and not w.failures]
            worker = min(
                proven if piece.tries and proven else able,
                key=lambda w: self._finish_time(w, piece, now),
            )
            self._waiting.popleft()
            self._start(piece, worker)
        if self._waiting or self._fetching is not None:
            return
        for worker in room:
            if not worker.attempts:
                self._take_over(worker, now)

    def _take_over(self, worker: Worker, now: float) -> None:
        """Have an idle worker do what another would finish last, if it is sooner."""
        late: Attempt | None = None
        latest = self._seconds(worker, 1) or SLACK
        for attempts in self._running.values():
            if len(attempts) > 1 or attempts[0].worker is worker:
                continue
            (attempt,) = attempts
            if worker.identity in attempt.piece.tries:
                continue
            # One that is late may be as late again.
            left = abs(self._due(attempt) - now)
            gain = left - self._seconds(worker, attempt.piece.size)
            if gain > latest:
                late, latest = attempt, gain
        if late is not None:
            self._start(late.piece, worker)

    def _start(self, piece: Piece, worker: Worker) -> None:
        self._count += 1
        token = f"{self._connection.run}-{piece.number}-{self._count}"
        task = asyncio.ensure_future(self._do(piece, worker, token))
        # Its error is taken, also where nobody asks for it any more.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        attempt = Attempt(piece, worker, token, _now(), task)
        worker.attempts.append(attempt)
        self._running.setdefault(piece.number, []).append(attempt)

    async def _do(self, piece: Piece, worker: Worker, token: str) -> Any:
        self.sent += piece.path.stat().st_size
        return await self._connection.call(
            *(worker.address, self._function, token, token, piece.order),
            data=piece.path.read_bytes,
        )

    # Speeds

    def _seconds(self, worker: Worker, size: int) -> float:
        """How long that worker will take, or would if it were like the others."""
        rate = worker.rate or self._usual_rate()
        return size / rate if rate else 0.0

    def _usual_rate(self) -> float | None:
        rates = [w.rate for w in self.workers.values() if w.rate]
        return statistics.median(rates) if rates else None

    def _finish_time(self, worker: Worker, piece: Piece, now: float) -> float:
        ahead = max((self._due(a) for a in worker.attempts), default=now)
        # Where no speeds are known, who has less.
        return (
            max(ahead, now)
            + self._seconds(worker, piece.size)
            + 1e-6 * len(worker.attempts)
        )

    def _due(self, attempt: Attempt) -> float:
        """When an attempt should be done."""
        worker, size = attempt.worker, 0
        for other in worker.attempts:
            size += other.piece.size
            if other is attempt:
                break
        began = max(worker.last, worker.attempts[0].began)
        return began + self._seconds(worker, size)

    def _share(self, attempt: Attempt, now: float) -> float:
        """How much of its piece is done, from 0 to 1; 0 while no speed is known."""
        seconds = self._seconds(attempt.worker, attempt.piece.size)
        if not seconds:
            return 0.0
        return min(1.0, max(0.0, 1 - (self._due(attempt) - now) / seconds))

    def _limit(self, attempt: Attempt) -> float:
        """When an attempt is given up; infinite while no speed is known."""
        worker = attempt.worker
        place = worker.attempts.index(attempt)
        size = sum(other.piece.size for other in worker.attempts[: place + 1])
        began = max(worker.last, worker.attempts[0].began)
        if worker.rate:
            return began + KNOWN * size / worker.rate + SLACK
        slowest = min((w.rate for w in self.workers.values() if w.rate), default=None)
        if slowest is None:
            return float("inf")
        return began + UNKNOWN * size / slowest + SLACK

    # Ends

    async def _settle(self, attempt: Attempt, accept: Accept) -> None:
        """Take what became of an attempt, unless it was withdrawn meanwhile."""
        if attempt.task.cancelled() or attempt not in attempt.worker.attempts:
            return
        worker, piece = attempt.worker, attempt.piece
        error = attempt.task.exception()
        if isinstance(error, SchedulerEndedError):
            raise error
        if error is not None:
            # Who is gone has failed once, whatever it had.
            if worker.address not in await self._connection.workers():
                self._lose(worker)
            else:
                # So has who gets nothing for now.
                is_paused = isinstance(error, PausedError)
                lost = list(worker.attempts) if is_paused else [attempt]
                self._fail(worker, lost, reason_of(error))
            return
        now = _now()
        began = max(worker.last, attempt.began)
        self._leave(attempt)
        try:
            await accept(piece, attempt.task.result(), worker)
        except BadResultError as bad:
            self._blame(worker, str(bad))
            self._return(piece, worker, str(bad))
            return
        worker.times.append((now - began) / max(1, piece.size))
        worker.rate = 1 / max(statistics.fmean(worker.times), 1e-9)
        worker.last = now
        worker.done += 1
        worker.size += piece.size
        for loser in list(self._running.get(piece.number, [])):
            self._withdraw(loser)

    def _fail(self, worker: Worker, attempts: list[Attempt], reason: str) -> None:
        """A worker did not do what it should: its pieces go elsewhere."""
        for attempt in attempts:
            self._withdraw(attempt)
            self._return(attempt.piece, worker, reason)
        self._blame(worker, reason)

    def _lose(self, worker: Worker) -> None:
        """A worker is not there any more."""
        worker.gone = True
        if worker.attempts:
            self._fail(worker, list(worker.attempts), "its process ended")

    def _blame(self, worker: Worker, reason: str) -> None:
        count, _, _ = self._failures.get(worker.identity, (0, "", ""))
        self._failures[worker.identity] = count + 1, worker.name, reason
        worker.failures = count + 1
        if worker.excluded:
            self._say(f"{worker.name} failed twice and gets nothing more: {reason}")
            for attempt in list(worker.attempts):
                self._withdraw(attempt)
                self._return(attempt.piece, None, reason)
        elif not worker.gone:
            self._say(f"{worker.name}: {reason}; what it had goes elsewhere")
            if not worker.silent:
                worker.silent = True
                self._greet(worker.address)
        else:
            self._say(f"{worker.name} is gone; what it had goes elsewhere")

    def _return(self, piece: Piece, worker: Worker | None, reason: str) -> None:
        """Put a piece back, unless another worker has it, too."""
        if worker is not None:
            self._note_try(piece, worker, reason)
        if piece.number in self._open and piece.number not in self._running:
            self._waiting.appendleft(piece)

    def _note_try(self, piece: Piece, worker: Worker, reason: str) -> None:
        piece.tries.add(worker.identity)
        if len(piece.tries) >= MOST_TRIES:
            raise ClusterError(
                f"part {piece.number + 1} failed on {len(piece.tries)} workers, on the "
                f"last one: {reason}"
            )

    def _leave(self, attempt: Attempt) -> None:
        attempt.worker.attempts.remove(attempt)
        left = self._running[attempt.piece.number]
        left.remove(attempt)
        if not left:
            del self._running[attempt.piece.number]

    def _withdraw(self, attempt: Attempt) -> None:
        """Take a piece away from a worker, whatever it is at."""
        self._leave(attempt)
        if not attempt.task.done():
            attempt.task.cancel()
            if not attempt.worker.gone:
                self._ignore(
                    self._connection.cancel(attempt.worker.address, attempt.token)
                )

    # Who is there

    async def _look(self) -> None:
        present = set(await self._connection.workers())
        now = _now()
        known = {w.address for w in self.workers.values() if not w.gone}
        for address in present - known - set(self._greetings.values()):
            self._join(address)
        for worker in list(self.workers.values()):
            if worker.address not in present and not worker.gone:
                self._lose(worker)
            if worker.gone:
                continue
            overdue = [a for a in worker.attempts if now > self._limit(a)]
            if overdue:
                took = duration(now - overdue[0].began)
                self._fail(worker, list(worker.attempts), f"no answer for {took}")
        if any(w.usable for w in self.workers.values()):
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        patience = PATIENCE + (INTRODUCE if self._greetings else 0)
        if now - self._alone_since > patience or self._nobody_may():
            failed = "; ".join(self.failed)
            raise ClusterError(
                "no worker is left"
                + (f": {failed}" if failed else f" since {patience:.0f} s")
            )

    def _nobody_may(self) -> bool:
        """Whether all who are there failed too often, so that waiting is no use."""
        there = [w for w in self.workers.values() if not w.gone]
        return bool(there) and all(w.excluded for w in there) and not self._greetings

    def _join(self, address: str) -> None:
        if address not in self._refused:
            self._greet(address)

    def _greet(self, address: str) -> None:
        task = asyncio.ensure_future(self._connection.greet(address))
        self._greetings[task] = address

    def _welcome(self, task: asyncio.Task[Any]) -> None:
        """Take in a worker that said what it is, or leave it out."""
        address = self._greetings.pop(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SchedulerEndedError):
            raise error
        known = self.workers.get(address)
        if error is not None:
            self._refused.add(address)
            self._say(f"{address} is left out: {reason_of(error)}")
            if known is not None:
                known.failures = MOST_FAILURES
                self._failures[known.identity] = (
                    *(MOST_FAILURES, known.name),
                    reason_of(error),
                )
            return
        about = task.result()
        if about is None:  # it went meanwhile
            return
        if known is not None:
            known.silent = known.gone = False
            return
        self._take_in(about)

    def _take_in(self, about: About) -> None:
        worker = Worker(about.address, about.name, about.identity)
        worker.failures = self._failures.get(about.identity, (0,))[0]
        self.workers[about.address] = worker

    def _tidy(self, piece: Piece) -> None:
        if not piece.kept:
            piece.path.unlink(missing_ok=True)

    def _ignore(self, awaitable: Awaitable[Any]) -> None:
        """Have something done without waiting for it, whatever becomes of it."""

        async def quietly() -> None:
            with suppress(Exception):
                await awaitable

        task = asyncio.ensure_future(quietly())
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)

    async def _abandon(self) -> None:
        """Let go of all that is under way."""
        for attempts in list(self._running.values()):
            for attempt in list(attempts):
                self._withdraw(attempt)
        for task in self._greetings:
            task.cancel()
        self._greetings.clear()
        if self._fetching is not None:
            # A thread of its own, which must not use what is about to be closed.
            with suppress(BaseException):
                await self._fetching
        for piece in self._open.values():
            self._tidy(piece)
        if self._loose:
            await asyncio.wait(self._loose, timeout=0.5)
