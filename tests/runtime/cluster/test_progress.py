"""What a run on a cluster says of how far it is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.cluster.test_dispatch import FakeWorkers, Run
from tests.runtime.test_status import Terminal, shown
from upfrost.cluster.dispatch import Dispatcher, Piece, Worker
from upfrost.cluster.progress import Speeds
from upfrost.status import Status

FRAMES = 10  # of a piece (`Run`)


def lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, workers: FakeWorkers
) -> list[tuple[float, str]]:
    """All that a terminal of 80 columns shows, and when."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    made = Run(folder, count, workers)
    monkeypatch.setattr(time, "monotonic", made.loop.time)
    stream = Terminal()
    status = Status(stream, clock=made.loop.time)
    speeds = Speeds("frame", "frames/s", 1, count * FRAMES, status)
    accept = made.accept
    found: list[tuple[float, str]] = []

    async def counted(piece: Piece, result: Any, worker: Worker) -> None:
        await accept(piece, result, worker)
        speeds.done(FRAMES, FRAMES)

    def tick(dispatcher: Dispatcher) -> None:
        speeds.tick(dispatcher)
        found.append((made.loop.time(), shown(stream)))

    made.accept = counted  # type: ignore[method-assign]
    made.dispatcher._tick = tick
    status.begin("film.mkv")
    made.go()
    return [(when, line) for when, line in found if "frame " in line]


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


def test_the_time_left_is_shown_whatever_workers_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"a-board-with-a-long-name-{n}": 5.0 for n in range(8)}
    shows = lines(tmp_path, monkeypatch, 40, FakeWorkers(**names))
    assert all(" left" in line and len(line) < 80 for _, line in shows)
    assert any("(a-board-with" in line for _, line in shows)


def test_the_time_left_is_right_from_the_first_piece_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten workers of 1 frame/s, which all are at their first piece when one is done."""
    speeds = {f"w{n}": 10.0 + n / 10 for n in range(10)}
    shows = lines(tmp_path, monkeypatch, 100, FakeWorkers(**speeds))
    end = shows[-1][0]
    for when, line in shows:
        minutes, seconds = line.split(" left")[0].split(", ")[-1].split(":")
        left = int(minutes) * 60 + int(seconds)
        # A tenth, and at the end the last pieces, which all wait for.
        assert abs(left - (end - when)) < end / 10 + 2, line
